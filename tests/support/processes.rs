//! What a program under test has started and what it listens on, from `/proc`.
//!
//! Processes are found by a variable in their environment, which they all inherit: it stays
//! whatever group, session or parent they choose, and whatever they execute.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::Path;

use bstr::ByteSlice;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const VARIABLE: &str = "VSCODE_SHELL_PROXY_TEST_MARK";

/// One process that is alive. A zombie is not: nothing can be done about it but reaping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its parent's id.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// Its session.
    pub session: i32,
    /// Its arguments.
    pub args: Vec<Vec<u8>>,
}

impl Process {
    /// Reads process `pid`; `None` if it is gone, a zombie, or not ours to look into.
    pub fn read(pid: i32) -> Option<Self> {
        let directory = Path::new("/proc").join(pid.to_string());
        let stat = fs::read(directory.join("stat")).ok()?;
        // The command's name stands in brackets and may hold any byte, brackets too.
        let fields = &stat[stat.rfind(b")")? + 1..];
        let mut fields = fields.to_str().ok()?.split_ascii_whitespace();
        if matches!(fields.next()?, "Z" | "X") {
            return None;
        }
        let mut number = || fields.next()?.parse().ok();
        let (parent, group, session) = (number()?, number()?, number()?);
        let args = fs::read(directory.join("cmdline")).ok()?;
        let args = args.strip_suffix(b"\0").unwrap_or(&args).split_str("\0");
        let args = args.map(<[u8]>::to_vec).collect();
        Some(Self {
            pid,
            parent,
            group,
            session,
            args,
        })
    }

    /// Whether an argument contains `text`.
    pub fn mentions(&self, text: &str) -> bool {
        self.args.iter().any(|arg| arg.contains_str(text))
    }

    /// A number of `/proc/PID/status`; one with a unit, such as `VmHWM`, is in KiB.
    pub fn status_kib(&self, field: &str) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    }

    /// Memory that it has written to and shares with nobody, in KiB; `None` if it is gone.
    ///
    /// Exact, unlike `VmRSS` (proc_pid_status(5): "This value is inaccurate").
    pub fn private_kib(&self) -> Option<u64> {
        // There since Linux 4.14.
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid)).ok()?;
        let line = rollup
            .lines()
            .find_map(|line| line.strip_prefix("Private_Dirty:"))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    }

    /// How many descriptors it has open.
    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid)).map_or(0, Iterator::count)
    }

    /// How many threads it has.
    pub fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.pid)).map_or(0, Iterator::count)
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pid,
            parent,
            group,
            session,
            ..
        } = self;
        write!(
            f,
            "{pid} (parent {parent}, group {group}, session {session})"
        )?;
        self.args
            .iter()
            .try_for_each(|arg| write!(f, " {}", arg.escape_ascii()))
    }
}

/// Has a program that was just built written to the disk: until then its pages would count as dirty,
/// and, mapped by nobody else, as a process's own.
pub fn write_back(program: &Path) {
    let file = fs::File::open(program).expect("it was built");
    file.sync_all().expect("fsync");
}

/// The variable that tells one session's processes from all others.
pub struct Mark {
    value: String,
}

impl Mark {
    /// A mark; `value` is the session's alone.
    pub fn new(value: &str) -> Self {
        Self {
            value: value.to_owned(),
        }
    }

    /// Name and value, for the environment of the program.
    pub fn variable(&self) -> (&'static str, &str) {
        (VARIABLE, &self.value)
    }

    /// Every live process that carries the mark, by ascending id.
    pub fn processes(&self) -> Vec<Process> {
        let entry = format!("{VARIABLE}={}", self.value);
        let mut found: Vec<Process> = process_ids()
            .filter(|pid| {
                let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                environment
                    .split_str("\0")
                    .any(|variable| variable == entry.as_bytes())
            })
            .filter_map(Process::read)
            .collect();
        found.sort_by_key(|process| process.pid);
        found
    }

    /// Sends SIGKILL until none is left; one that forks meanwhile is met in the next round.
    pub fn kill_all(&self) {
        for _ in 0..100 {
            let processes = self.processes();
            if processes.is_empty() {
                return;
            }
            for process in processes {
                let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
            }
        }
    }
}

fn process_ids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The TCP ports on which process `pid` listens, over IPv4 and IPv6, in the order of their
/// descriptors. What is opened while `/proc` is read may be seen without what was opened before.
pub fn listening_ports(pid: u32) -> Vec<u16> {
    const LISTEN: &str = "0A";
    let entries = fs::read_dir(format!("/proc/{pid}/fd"));
    let descriptors = entries.into_iter().flatten().flatten();
    let mut sockets: Vec<(i32, String)> = descriptors
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            let target = fs::read_link(entry.path()).ok()?;
            Some((number, target.into_os_string().into_string().ok()?))
        })
        .collect();
    sockets.sort();
    let mut ports = HashMap::new();
    for table in ["tcp", "tcp6"] {
        let table = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let (Some(local), Some(&LISTEN), Some(inode)) =
                (fields.get(1), fields.get(3), fields.get(9))
            else {
                continue;
            };
            let port = local
                .rsplit_once(':')
                .and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
            ports.extend(port.map(|port| (format!("socket:[{inode}]"), port)));
        }
    }
    let ports = sockets.iter().filter_map(|(_, socket)| ports.get(socket));
    ports.copied().collect()
}
