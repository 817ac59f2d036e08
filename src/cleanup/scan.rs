//! `/proc` as a list of processes.
//!
//! A process may end while it is read: it is then left out, which is no error. All files of one
//! process are opened below one descriptor of its directory, which refers to that process and not
//! to its number, so that what is read never mixes two of them. What a process can make long
//! (its command line) is read up to a bound.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat, readlinkat};
use rustix::time::{ClockId, clock_gettime};

use crate::process_tree::{Id, Pid, Process, Stat, Ticks};

/// Most bytes read of one file of a process: a path at its longest, and what is worth showing of a
/// command line.
const BOUND: u64 = 4096;

/// `PF_KTHREAD`, include/linux/sched.h.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// The boot clock: the one that start times in `/proc` are counted on. It goes on in suspend, and
/// nobody sets it.
pub fn now() -> Ticks {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or_default();
    let rate = ticks_per_second();
    seconds * rate + nanoseconds * rate / 1_000_000_000
}

/// How many [`Ticks`] a second has.
pub fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second().max(1)
}

/// Everything that `/proc` shows of every process.
///
/// # Errors
/// `/proc` itself cannot be read.
pub fn processes() -> io::Result<Vec<Process>> {
    let mut files = Files::default();
    Ok(pids()?.filter_map(|pid| files.process(pid)).collect())
}

/// Identity and relations of every process: what is enough for a second look.
///
/// # Errors
/// `/proc` itself cannot be read.
pub fn stats() -> io::Result<Vec<Stat>> {
    let mut files = Files::default();
    Ok(pids()?.filter_map(|pid| files.stat(pid)).collect())
}

/// Process `id` without what it says about itself in memory of its own, its command line: reading
/// that can last for as long as a page of it takes to come. `None` if the process is gone, whoever
/// has its number now.
pub fn outline(id: Id) -> Option<Process> {
    let (_, process) = Files::default().outline(id.pid)?;
    (process.stat.id == id).then_some(process)
}

/// Identity and relations of process `id`; `None` if it is gone, whoever has its number now.
pub fn stat(id: Id) -> Option<Stat> {
    let stat = Files::default().stat(id.pid)?;
    (stat.id == id).then_some(stat)
}

fn pids() -> io::Result<impl Iterator<Item = Pid>> {
    let entries = std::fs::read_dir("/proc")?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()))
}

/// Reads files of processes into one buffer.
#[derive(Default)]
struct Files {
    buffer: Vec<u8>,
}

impl Files {
    fn stat(&mut self, pid: Pid) -> Option<Stat> {
        self.read(CWD, &format!("/proc/{pid}/stat"))?;
        Some(parse_stat(&self.buffer)?.0)
    }

    fn outline(&mut self, pid: Pid) -> Option<(OwnedFd, Process)> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, format!("/proc/{pid}"), flags, Mode::empty()).ok()?;
        self.read(&directory, "stat")?;
        let (stat, comm) = parse_stat(&self.buffer)?;
        let comm = comm.to_vec();
        self.read(&directory, "status")?;
        let process = parse_status(&self.buffer)?.process(stat, comm);
        Some((directory, process))
    }

    fn process(&mut self, pid: Pid) -> Option<Process> {
        let (directory, outline) = self.outline(pid)?;
        if outline.stat.is_kernel {
            return Some(outline);
        }
        let exe = readlinkat(&directory, "exe", Vec::new()).ok();
        let cmdline = self.read(&directory, "cmdline").map(|()| self.words());
        let cgroup = self
            .read(&directory, "cgroup")
            .map(|()| self.buffer.clone());
        Some(Process {
            exe: exe.map(std::ffi::CString::into_bytes),
            cmdline: cmdline.unwrap_or_default(),
            cgroup: cgroup.unwrap_or_default(),
            ..outline
        })
    }

    /// The buffer as words, each ended by NUL.
    fn words(&self) -> Vec<u8> {
        let mut words = self.buffer.clone();
        if words.len() as u64 == BOUND {
            // A word that is cut would be taken for another one.
            words.truncate(
                words
                    .iter()
                    .rposition(|&byte| byte == 0)
                    .map_or(0, |nul| nul + 1),
            );
        } else if !words.is_empty() && !words.ends_with(b"\0") {
            words.push(0); // a process that has written a title there
        }
        words
    }

    /// Fills the buffer with the file's first [`BOUND`] bytes.
    fn read(&mut self, directory: impl AsFd, path: &str) -> Option<()> {
        self.buffer.clear();
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file: OwnedFd = openat(directory, path, flags, Mode::empty()).ok()?;
        let mut file = std::fs::File::from(file).take(BOUND);
        file.read_to_end(&mut self.buffer).ok().map(|_| ())
    }
}

/// Reads `/proc/PID/stat`: numbers and relations, and the command's name. The name stands in
/// brackets and may hold any byte, brackets too; nothing behind it does.
pub fn parse_stat(text: &[u8]) -> Option<(Stat, &[u8])> {
    let open = text.iter().position(|&byte| byte == b'(')?;
    let close = text.iter().rposition(|&byte| byte == b')')?;
    let comm = text.get(open + 1..close)?;
    let pid = number(text[..open].trim_ascii())?;
    // Numbered as in proc(5), where the state is field 3.
    let mut fields = text[close + 1..]
        .split(u8::is_ascii_whitespace)
        .filter(|field| !field.is_empty());
    let &[state] = fields.next()? else {
        return None;
    };
    let fields: Vec<&[u8]> = fields.take(19).collect();
    let field = |n: usize| fields.get(n - 4).copied();
    let stat = Stat {
        id: Id {
            pid,
            start: number(field(22)?)?,
        },
        parent: number(field(4)?)?,
        group: number(field(5)?)?,
        session: number(field(6)?)?,
        state,
        threads: number(field(20)?)?,
        is_kernel: number::<u64>(field(9)?)? & KERNEL_THREAD != 0,
        cpu: number::<u64>(field(14)?)?.checked_add(number(field(15)?)?)?,
    };
    Some((stat, comm))
}

/// What is needed of `/proc/PID/status`.
#[derive(Debug, PartialEq, Eq)]
struct Status {
    uid: u32,
    resident: u64,
    private: u64,
}

impl Status {
    fn process(self, stat: Stat, comm: Vec<u8>) -> Process {
        Process {
            stat,
            comm,
            uid: self.uid,
            resident: self.resident,
            private: self.private,
            exe: None,
            cmdline: Vec::new(),
            cgroup: Vec::new(),
        }
    }
}

/// Reads `/proc/PID/status`; the kernel escapes a newline in the command's name there.
fn parse_status(text: &[u8]) -> Option<Status> {
    let value = |name: &[u8]| {
        let mut lines = text.split(|&byte| byte == b'\n');
        let line = lines.find_map(|line| line.strip_prefix(name))?;
        let mut words = line.split(u8::is_ascii_whitespace);
        number::<u64>(words.find(|word| !word.is_empty())?)
    };
    let bytes = |name| value(name).map(|kib| kib.saturating_mul(1024));
    let resident = bytes(b"VmRSS:").unwrap_or(0);
    Some(Status {
        uid: u32::try_from(value(b"Uid:")?).ok()?,
        resident,
        // Older than Linux 4.5: all of it is the best guess.
        private: bytes(b"RssAnon:").unwrap_or(resident),
    })
}

fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(pid: &str, comm: &str, state: &str) -> Vec<u8> {
        let rest =
            "1 20 30 0 -1 4194304 1 2 3 4 7 8 0 0 20 0 5 0 4242 3133440 362 18446744073709551615";
        format!("{pid} ({comm}) {state} {rest}\n").into_bytes()
    }

    #[test]
    fn a_line_is_read_whatever_the_name() {
        for comm in ["cat", "", ")", "a) R 1 1 (b", " ", "x\n7 (y) Z 9", "((("] {
            let line = line("77", comm, "S");
            let (stat, name) = parse_stat(&line).expect("a complete line");
            assert_eq!(name, comm.as_bytes());
            assert_eq!(
                stat,
                Stat {
                    id: Id {
                        pid: 77,
                        start: 4242
                    },
                    parent: 1,
                    group: 20,
                    session: 30,
                    state: b'S',
                    threads: 5,
                    is_kernel: false,
                    cpu: 15,
                },
                "{comm:?}"
            );
        }
    }

    #[test]
    fn what_is_no_line_is_left_out() {
        let whole = line("77", "cat", "S");
        // Any cut before the start time's field.
        let start = whole.len() - " 4242 3133440 362 18446744073709551615\n".len();
        for length in 0..=start {
            assert_eq!(parse_stat(&whole[..length]), None, "{length}");
        }
        for (pid, state) in [("x", "S"), ("", "S"), ("77", "SS"), ("99999999999", "S")] {
            assert_eq!(parse_stat(&line(pid, "cat", state)), None);
        }
        assert_eq!(parse_stat(b")77( S 1"), None);
    }

    #[test]
    fn status_gives_user_and_memory() {
        let text = b"Name:\tx\\nUid:\t7\nUid:\t1000\t0\t0\t0\nVmRSS:\t    12 kB\nRssAnon:\t 5 kB\n";
        let status = parse_status(text).expect("a complete text");
        assert_eq!(
            (status.uid, status.resident, status.private),
            (1000, 12288, 5120)
        );
        // A kernel thread has no memory.
        let status = parse_status(b"Uid:\t0\t0\t0\t0\n").expect("a complete text");
        assert_eq!((status.resident, status.private), (0, 0));
        assert_eq!(parse_status(b"VmRSS:\t12 kB\n"), None);
    }

    #[test]
    fn this_process_is_in_the_list() {
        let own = i32::try_from(std::process::id()).expect("a pid is positive");
        let processes = processes().expect("/proc is mounted");
        let process = processes
            .iter()
            .find(|p| p.stat.id.pid == own)
            .expect("it runs");
        let executable = std::env::current_exe().expect("it has one");
        assert_eq!(
            process.exe.as_deref(),
            Some(executable.as_os_str().as_encoded_bytes())
        );
        assert!(process.stat.id.start <= now());
        assert!(process.resident >= process.private && process.private > 0);
        assert_eq!(
            super::stat(process.stat.id).map(|stat| stat.id),
            Some(process.stat.id)
        );
        let other = Id {
            pid: own,
            start: process.stat.id.start + 1,
        };
        assert_eq!(super::stat(other), None);
        assert_eq!(super::outline(other), None);
    }

    proptest::proptest! {
        #[test]
        fn any_line_is_checked(data: Vec<u8>) {
            crate::testing::stat::check(&data);
        }

        #[test]
        fn any_change_of_a_line_is_checked(at in 0_usize..80, byte: u8) {
            let mut line = line("77", "ca)t", "S");
            let at = at % line.len();
            line[at] = byte;
            crate::testing::stat::check(&line);
        }
    }
}
