//! The processes below one of ours, and signals to them.
//!
//! One process group is not enough: salloc puts its command into a group of its own, and anybody
//! may start a session. What cannot be left behind is the chain of parents, as long as its top is a
//! child subreaper; where a link of it cannot be seen (`hidepid` hides the processes of others, and
//! set-id ones), the session still tells.

use std::fs::{self, File};
use std::io::{self, Read};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

/// What a process is known by, from its start to its end. Its id alone may be another's later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its id.
    pub pid: Pid,
    /// When it started, in clock ticks since boot.
    pub started: u64,
}

/// What a process calls itself: the first 15 bytes of a command's name, which is all that the kernel
/// keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name([u8; 15]);

impl From<&[u8]> for Name {
    fn from(name: &[u8]) -> Self {
        let mut bytes = [0; 15];
        let length = name.len().min(bytes.len());
        bytes[..length].copy_from_slice(&name[..length]);
        Self(bytes)
    }
}

/// A process as /proc shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Which one it is.
    pub identity: Identity,
    /// Its parent's id, 0 for none.
    pub parent: i32,
    /// Its session's id.
    pub session: i32,
    /// What it calls itself.
    pub name: Name,
    /// Whether it has ended, and its parent does not know yet.
    pub has_ended: bool,
    /// Whether it is stopped, by a signal or by a tracer.
    pub is_stopped: bool,
}

impl Process {
    /// Its id.
    pub fn pid(&self) -> Pid {
        self.identity.pid
    }

    /// Whether it is called `salloc`.
    pub fn is_salloc(&self) -> bool {
        self.name == Name::from(&b"salloc"[..])
    }
}

/// Where to look for descendants.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The process whose descendants are meant; it is not one itself.
    pub root: Pid,
    /// A session whose members are descendants by definition.
    pub session: Option<Pid>,
    /// Processes that are descendants by definition, while they live.
    pub with: &'a [Identity],
    /// Processes that are left out, with everything below them.
    pub except: &'a [Pid],
}

/// All descendants at this moment, parents before their children. Those that end or fork meanwhile
/// may be missing.
pub fn descendants(scope: Scope<'_>) -> io::Result<Vec<Process>> {
    Ok(select(scan()?, scope))
}

/// What the process with this pid is known by, if there is one.
pub fn identity(pid: Pid) -> Option<Identity> {
    read(pid).map(|process| process.identity)
}

/// Sends `signals`, in this order, to this process, unless the pid belongs to another one by now; and
/// continues it where it is stopped, as it takes none of them before.
///
/// One that runs gets no SIGCONT: Grid Engine's qrsh remembers the last signal only, and that would be
/// it. A process that is gone is no error.
pub fn send(process: Identity, signals: &[Signal]) -> io::Result<()> {
    // The pidfd first: if the identity is right after it was opened, it holds on to that identity.
    // Without pidfds (before Linux 5.3, or where a filter forbids them) a moment remains between
    // the look and the signal in which all pids would have to be used up.
    let pidfd = pidfd_open(process.pid, PidfdFlags::empty());
    let now = || read(process.pid).filter(|now| now.identity == process);
    if now().is_none() {
        return Ok(());
    }
    let send = |signal| {
        if let Ok(pidfd) = &pidfd
            && pidfd_send_signal(pidfd, signal).is_ok()
        {
            return Ok(());
        }
        match kill_process(process.pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(errno) => Err(io::Error::from(errno)),
        }
    };
    for &signal in signals {
        send(signal)?;
    }
    // Looked at behind the signals: one that is not stopped by now takes them before it stops.
    if now().is_some_and(|now| now.is_stopped) {
        send(Signal::CONT)?;
    }
    Ok(())
}

fn scan() -> io::Result<Vec<Process>> {
    processes()?.collect()
}

/// Every process that can be seen; an error where it cannot be known whether that is all.
pub(super) fn processes() -> io::Result<impl Iterator<Item = io::Result<Process>>> {
    let process = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        read(Pid::from_raw(pid)?)
    };
    let entries = fs::read_dir("/proc")?;
    Ok(entries.filter_map(move |entry| entry.map(process).transpose()))
}

/// The process with this pid, if there is one.
fn read(pid: Pid) -> Option<Process> {
    // A stat line: 51 numbers of at most 20 digits, and a name of at most 64 bytes. What is needed
    // of it stands in front.
    let mut line = [0; 512];
    let mut file = File::open(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    let length = file.read(&mut line).ok()?;
    parse(pid, &line[..length])
}

/// proc(5): `pid (comm) state ppid pgrp session … starttime`. The name may hold blanks and
/// parentheses; none follows its last one.
fn parse(pid: Pid, line: &[u8]) -> Option<Process> {
    let name = line.iter().position(|&byte| byte == b'(')? + 1;
    let name_end = line.iter().rposition(|&byte| byte == b')')?;
    let text = std::str::from_utf8(&line[name_end + 1..]).ok()?;
    let mut fields = text.split_ascii_whitespace();
    let state = fields.next()?;
    // The state is field 3 of the line.
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(6 - 5)?.parse().ok()?;
    let started = fields.nth(22 - 7)?.parse().ok()?;
    Some(Process {
        identity: Identity { pid, started },
        parent,
        session,
        name: Name::from(line.get(name..name_end)?),
        has_ended: matches!(state, "Z" | "X"),
        is_stopped: matches!(state, "T" | "t"),
    })
}

/// The descendants among `all`.
fn select(mut all: Vec<Process>, scope: Scope<'_>) -> Vec<Process> {
    all.sort_unstable_by_key(|process| (process.parent, process.pid().as_raw_pid()));
    let mut tree = Tree {
        seen: vec![false; all.len()],
        all: &all,
    };
    let raw = |pid: Pid| pid.as_raw_pid();
    let mut left_out = Vec::new();
    for &pid in scope.except {
        tree.take_one(raw(pid), &mut left_out);
    }
    let mut found = Vec::new();
    // Before the root itself is found by way of its session, or of a loop of stale parents.
    tree.take_below(raw(scope.root), &mut found);
    for with in scope.with {
        // Another process may have the id by now.
        if all.iter().any(|process| process.identity == *with) {
            tree.take_one(raw(with.pid), &mut found);
        }
    }
    for process in &all {
        if scope
            .session
            .is_some_and(|session| raw(session) == process.session)
            && process.pid() != scope.root
        {
            tree.take_one(raw(process.pid()), &mut found);
        }
    }
    found.retain(|process| process.pid() != scope.root);
    found
}

/// Processes in the order of their parents, each taken at most once.
struct Tree<'a> {
    all: &'a [Process],
    seen: Vec<bool>,
}

impl Tree<'_> {
    /// Takes this process, and then everything below it.
    fn take_one(&mut self, pid: i32, taken: &mut Vec<Process>) {
        let index = self
            .all
            .iter()
            .position(|process| process.pid().as_raw_pid() == pid);
        if let Some(index) = index
            && !std::mem::replace(&mut self.seen[index], true)
        {
            taken.push(self.all[index]);
            self.take_below(pid, taken);
        }
    }

    /// Takes everything below this process, level by level.
    fn take_below(&mut self, pid: i32, taken: &mut Vec<Process>) {
        let mut parent = pid;
        let mut next = taken.len();
        loop {
            let first = self.all.partition_point(|process| process.parent < parent);
            for index in first..self.all.len() {
                if self.all[index].parent != parent {
                    break;
                }
                if !std::mem::replace(&mut self.seen[index], true) {
                    taken.push(self.all[index]);
                }
            }
            let Some(process) = taken.get(next) else {
                return;
            };
            parent = process.pid().as_raw_pid();
            next += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pid(number: i32) -> Pid {
        Pid::from_raw(number).expect("a pid")
    }

    fn processes(table: &[(i32, i32, i32)]) -> Vec<Process> {
        let process = |&(number, parent, session)| Process {
            identity: Identity {
                pid: pid(number),
                started: 0,
            },
            parent,
            session,
            name: Name::from(&b""[..]),
            has_ended: false,
            is_stopped: false,
        };
        table.iter().map(process).collect()
    }

    fn selected(table: &[(i32, i32, i32)], session: Option<i32>, except: &[i32]) -> Vec<i32> {
        let except: Vec<Pid> = except.iter().map(|&number| pid(number)).collect();
        let scope = Scope {
            root: pid(10),
            session: session.map(pid),
            with: &[],
            except: &except,
        };
        let found = select(processes(table), scope);
        found
            .iter()
            .map(|process| process.pid().as_raw_pid())
            .collect()
    }

    #[test]
    fn descendants_come_parents_first_whatever_their_numbers() {
        let table = [
            (1, 0, 1),
            (10, 1, 10),
            (3, 20, 3),
            (20, 10, 10),
            (5, 3, 3),
            (30, 10, 30),
            (40, 1, 40),
        ];
        assert_eq!(selected(&table, None, &[]), [20, 30, 3, 5]);
    }

    #[test]
    fn a_session_bridges_a_link_that_is_hidden() {
        // 20, a set-id wrapper, is not to be seen.
        let table = [(1, 0, 1), (10, 1, 10), (21, 20, 10), (22, 21, 22)];
        assert_eq!(selected(&table, None, &[]), []);
        assert_eq!(selected(&table, Some(10), &[]), [21, 22]);
    }

    #[test]
    fn an_exception_covers_what_is_below_it() {
        let table = [(10, 1, 10), (20, 10, 10), (21, 20, 10), (30, 10, 10)];
        assert_eq!(selected(&table, Some(10), &[20, 99]), [30]);
    }

    #[test]
    fn a_process_that_is_meant_is_found_with_what_is_below_it_unless_it_is_another_one() {
        let table = [(10, 1, 10), (20, 1, 20), (21, 20, 20), (30, 1, 30)];
        let found = |started| -> Vec<i32> {
            let with = [Identity {
                pid: pid(20),
                started,
            }];
            let scope = Scope {
                root: pid(10),
                session: None,
                with: &with,
                except: &[],
            };
            let found = select(processes(&table), scope);
            found.iter().map(|found| found.pid().as_raw_pid()).collect()
        };
        assert_eq!(found(0), [20, 21]);
        assert_eq!(found(1), []);
    }

    #[test]
    fn a_loop_of_stale_parents_ends() {
        let table = [(10, 21, 10), (20, 10, 10), (21, 20, 10)];
        assert_eq!(selected(&table, Some(10), &[]), [20, 21]);
    }

    /// Whether `number` is a descendant: by looking at all that is above it.
    fn is_below(
        table: &[(i32, i32, i32)],
        number: i32,
        session: Option<i32>,
        except: &[i32],
    ) -> bool {
        let entry = |number| table.iter().find(|entry| entry.0 == number);
        let mut above = Vec::new();
        let mut next = Some(number);
        let mut below_root = false;
        while let Some(&(number, parent, _)) = next.and_then(entry)
            && !above.contains(&number)
        {
            above.push(number);
            below_root |= parent == 10;
            next = Some(parent);
        }
        let is_member = |&number: &i32| {
            number != 10 && session.is_some() && entry(number).map(|entry| entry.2) == session
        };
        let is_left_out = above.iter().any(|number| except.contains(number));
        number != 10 && !is_left_out && (below_root || above.iter().any(is_member))
    }

    proptest! {
        /// Whoever is whose parent: exactly the descendants are found, each once, and, where their
        /// numbers tell the truth, behind its parent.
        #[test]
        fn the_selection_is_that_of_a_look_upwards(
            table in proptest::collection::btree_map(1..16, (0..16, 9..13), 0..16),
            session in proptest::option::of(9..13),
            except in proptest::collection::vec(1..16, 0..3),
        ) {
            let table: Vec<_> = table.into_iter().map(|(n, (parent, session))| (n, parent, session)).collect();
            let found = selected(&table, session, &except);
            let expected = table.iter().map(|entry| entry.0).filter(|&n| is_below(&table, n, session, &except));
            let mut sorted = found.clone();
            sorted.sort();
            prop_assert_eq!(sorted, expected.collect::<Vec<_>>());
            if session.is_none() {
                for (index, number) in found.iter().enumerate() {
                    let parent = table.iter().find(|entry| entry.0 == *number).expect("in the table").1;
                    prop_assert!(parent == 10 || found[..index].contains(&parent));
                }
            }
        }
    }

    #[test]
    fn a_name_may_look_like_the_fields_behind_it() {
        let line = b"42 (a) Z 1 (b) R) S 7 8 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 1234567 1";
        let process = parse(pid(42), line).expect("a stat line");
        assert_eq!((process.parent, process.session), (7, 9));
        assert!(!process.has_ended && !process.is_stopped);
        assert_eq!(process.name, Name::from(&b"a) Z 1 (b) R"[..]));
        assert_eq!(process.identity.started, 1_234_567);
    }

    #[test]
    fn what_is_no_stat_line_is_no_process() {
        for line in [
            "",
            "42",
            "42 (a)",
            "42 )a( S 1 1 1",
            "42 (a) S",
            "42 (a) S x 1 1",
            "42 (a) S 1 2 3 4 5",
        ] {
            assert_eq!(parse(pid(42), line.as_bytes()), None, "{line:?}");
        }
    }

    #[test]
    fn this_process_is_found_and_another_with_its_pid_is_spared() {
        let own = read(rustix::process::getpid()).expect("ourselves");
        let parent = rustix::process::getppid().expect("a parent");
        assert_eq!(own.parent, parent.as_raw_pid());
        let earlier = Identity {
            started: own.identity.started - 1,
            ..own.identity
        };
        send(earlier, &[Signal::KILL]).expect("spared");
    }
}
