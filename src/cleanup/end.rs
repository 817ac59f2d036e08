//! Ending whole trees, without a race.
//!
//! 1. **Freeze**: SIGSTOP to every member, then look again, until one look finds everybody
//!    stopped and the next one finds nobody new. From then on no member can fork: the tree is
//!    closed.
//! 2. SIGTERM to all, and only then SIGCONT, so that no parent replaces a child that has ended
//!    before it. Wait through the pidfds, looking again after each exit; who was born meanwhile
//!    gets SIGTERM too.
//! 3. After the grace time: freeze who is left, SIGKILL, and look again until nobody is left.
//!
//! A number is not a process: a pidfd identifies it, checked against the start time once it is
//! open. Where the kernel has none, the start time is compared right before each signal.
//!
//! Whatever was frozen here is continued, also on an error and when a signal asks this program to
//! leave. Who was stopped before is left so, unless it has to end.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal as Interrupt};
use rustix::io::Errno;
use rustix::process::{
    Pid as RawPid, PidfdFlags, Signal, getpid, kill_process, pidfd_open, pidfd_send_signal,
};

use super::scan;
use super::sockets::{self, Use};
use crate::process_tree::{Following, Id, Pid, Process, Stat};
use crate::sys::exits::Exits;
use crate::sys::signals::Signals;

/// Signals that ask this program to leave. SIGTSTP is among them: a suspended program could
/// continue nobody.
const INTERRUPTS: [Interrupt; 5] = [
    Interrupt::SIGINT,
    Interrupt::SIGTERM,
    Interrupt::SIGHUP,
    Interrupt::SIGQUIT,
    Interrupt::SIGTSTP,
];

/// The longest that trees are frozen before the next step, closed or not: a process in an
/// uninterruptible wait stops only after it.
const FREEZE_BOUND: Duration = Duration::from_secs(2);

/// Pause between two looks while somebody has not stopped yet. The kernel reports a stop to
/// nobody but the parent, so there is no event to wait for; exits and signals end the pause.
const STOP_PAUSE: Duration = Duration::from_millis(5);

/// The longest wait after SIGKILL: only an uninterruptible wait can outlast it.
const KILL_BOUND: Duration = Duration::from_secs(5);

/// Interval of the looks at processes that have no pidfd to wait for.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// What became of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It ended after SIGTERM.
    Ended,
    /// It took SIGKILL.
    Killed,
    /// It ended by itself before any signal, or another process has its number.
    Gone,
    /// It lives on, and why.
    Refused(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => f.write_str("ended"),
            Self::Killed => f.write_str("killed"),
            Self::Gone => f.write_str("gone"),
            Self::Refused(why) => write!(f, "refused: {why}"),
        }
    }
}

/// How a process is held between looking and signalling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// By a pidfd.
    Pidfd,
    /// By its number and start time.
    StartTime,
}

impl Identity {
    /// What this kernel offers. `pidfd_open` and `pidfd_send_signal` are tried both: vendors'
    /// kernels have one without the other, and filters of containers answer EPERM.
    pub fn probe() -> Self {
        // SIGCONT to a process that runs does nothing.
        let works = pidfd_open(getpid(), PidfdFlags::empty())
            .and_then(|pidfd| pidfd_send_signal(pidfd, Signal::CONT));
        match works {
            Ok(()) => Self::Pidfd,
            Err(_) => Self::StartTime,
        }
    }
}

/// How trees shall be ended.
pub struct Order<'a> {
    /// How processes are held.
    pub identity: Identity,
    /// Time between SIGTERM and SIGKILL; zero leaves SIGTERM out.
    pub grace: Duration,
    /// Shall a tree be ended even if somebody is connected?
    pub include_attached: bool,
    /// Who adopts the trees' orphans.
    pub adopters: Vec<Pid>,
    /// May a process of this user be signalled?
    pub permits: &'a dyn Fn(u32) -> bool,
}

/// A process that was found in a tree, and what became of it.
#[derive(Debug)]
pub struct Member {
    /// The process, as it was when it was found.
    pub process: Process,
    /// The number of its tree.
    pub tree: usize,
    /// `None` only while it is being ended.
    pub outcome: Option<Outcome>,
    /// It has our SIGSTOP, and no SIGCONT since.
    frozen: bool,
    /// It was stopped before we came.
    was_stopped: bool,
    sent: Sent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Sent {
    Nothing,
    Term,
    Kill,
}

/// Ends `trees`, each given by its processes with the root first, and says what became of all of
/// them and of those that were born meanwhile.
///
/// SIGINT, SIGTERM, SIGHUP, SIGQUIT and SIGTSTP to the calling thread end the work, which is then
/// reported as refused.
///
/// # Errors
/// `/proc` cannot be read or there are no descriptors left; nobody is left frozen.
pub fn end(trees: Vec<Vec<Process>>, order: &Order<'_>) -> io::Result<Vec<Member>> {
    let signals = Signals::block(&INTERRUPTS)?;
    let mask = signals.original();
    let exits = Exits::new(signals)?;
    let since = scan::now();
    let mut ending = Ending {
        order,
        following: Following::new(since.saturating_sub(1), order.adopters.iter().copied()),
        owners: trees
            .iter()
            .map(|tree| tree.first().map_or(0, |root| root.uid))
            .collect(),
        spared: vec![false; trees.len()],
        members: Vec::new(),
        exits,
        mask,
    };
    for (tree, processes) in trees.into_iter().enumerate() {
        for process in processes {
            ending.following.add(&process.stat, tree);
            ending.hold(process, tree);
        }
    }
    if !ending.run()? {
        ending.refuse_rest("interrupted");
    }
    ending.thaw();
    Ok(std::mem::take(&mut ending.members))
}

struct Ending<'a> {
    order: &'a Order<'a>,
    following: Following,
    /// The user of each tree's root.
    owners: Vec<u32>,
    /// Trees that turned out to be in use.
    spared: Vec<bool>,
    /// A member's index is its key in `exits`.
    members: Vec<Member>,
    exits: Exits,
    /// The signal mask of before.
    mask: SigSet,
}

impl Ending<'_> {
    /// The steps, one after the other; `false` if a signal asks us to leave.
    fn run(&mut self) -> io::Result<bool> {
        if !self.freeze()? {
            return Ok(false);
        }
        if !self.order.include_attached {
            self.spare_attached();
        }
        if !self.order.grace.is_zero() {
            self.send_all(Sent::Term);
            self.thaw();
            if !self.wait(Sent::Term, self.order.grace)? || !self.freeze()? {
                return Ok(false);
            }
        }
        self.send_all(Sent::Kill);
        if !self.wait(Sent::Kill, KILL_BOUND)? {
            return Ok(false);
        }
        self.refuse_rest("still there after SIGKILL");
        Ok(true)
    }

    /// Makes a process a member that can be signalled.
    fn hold(&mut self, process: Process, tree: usize) {
        let id = process.stat.id;
        let may = (self.order.permits)(process.uid);
        let key = self.members.len();
        self.members.push(Member {
            process,
            tree,
            outcome: (!may).then(|| Outcome::Refused("another user's".to_owned())),
            frozen: false,
            was_stopped: false,
            sent: Sent::Nothing,
        });
        if !may {
            return;
        }
        if self.order.identity == Identity::Pidfd {
            // Without a descriptor (none left, or the process is gone) the start time has to do.
            let pidfd = raw(id.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
            if let Some(pidfd) = pidfd {
                let _ = self.exits.watch(key, pidfd);
            }
        }
        // Only now, so that the pidfd is known to be this process's.
        match scan::stat(id) {
            Some(stat) if !stat.is_dead() => {
                self.members[key].was_stopped = stat.is_stopped();
            }
            _ => self.settle(key),
        }
    }

    /// Stops all members until the trees are closed; `false` if a signal asks us to leave.
    fn freeze(&mut self) -> io::Result<bool> {
        let deadline = Instant::now() + FREEZE_BOUND;
        let mut all_stopped = false;
        loop {
            for key in self.left() {
                if !self.members[key].frozen {
                    self.members[key].frozen = self.signal(key, Signal::STOP);
                }
            }
            let now = scan::stats()?;
            let found = self.look_again(&now);
            if all_stopped && !found {
                return Ok(true);
            }
            all_stopped = !found && self.are_all_stopped(&now);
            let pause = if all_stopped || found {
                Duration::ZERO
            } else {
                STOP_PAUSE
            };
            if !self.take_events(pause)? {
                return Ok(false);
            }
            if Instant::now() >= deadline {
                return Ok(true);
            }
        }
    }

    /// Waits until nobody is left or `limit` is over, sending `sent` to whoever joins; `false` if
    /// a signal asks us to leave.
    fn wait(&mut self, sent: Sent, limit: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + limit;
        loop {
            let left = self.left();
            let rest = deadline.saturating_duration_since(Instant::now());
            if !left.is_empty() && rest.is_zero() {
                return Ok(true);
            }
            if !left.is_empty() {
                let all_watched = left.iter().all(|&key| self.exits.pidfd(key).is_some());
                let pause = if all_watched {
                    rest
                } else {
                    rest.min(LOOK_PAUSE)
                };
                if !self.take_events(pause)? {
                    return Ok(false);
                }
            }
            let now = scan::stats()?;
            let found = self.look_again(&now);
            for key in self.left() {
                if self.members[key].sent < sent {
                    self.send(key, sent);
                }
            }
            if !found && self.left().is_empty() {
                return Ok(true);
            }
        }
    }

    /// Takes exits and signals, for at most `pause`; `false` if one asks us to leave.
    fn take_events(&mut self, pause: Duration) -> io::Result<bool> {
        let woken = self.exits.wait(pause)?;
        for key in woken.exited {
            self.settle(key);
        }
        Ok(woken.signal.is_none())
    }

    /// Adds those who have joined and settles those who are gone; were there any new ones?
    fn look_again(&mut self, now: &[Stat]) -> bool {
        let owners = &self.owners;
        let new = self.following.look(now, |stat, tree| {
            scan::outline(stat.id).is_some_and(|process| process.uid == owners[tree])
        });
        let mut found = false;
        for (i, tree) in new {
            if let Some(process) = scan::outline(now[i].id).filter(|_| !self.spared[tree]) {
                self.hold(process, tree);
                found = true;
            }
        }
        let alive: std::collections::HashSet<Id> = now
            .iter()
            .filter(|stat| !stat.is_dead())
            .map(|stat| stat.id)
            .collect();
        for key in self.left() {
            let id = self.members[key].process.stat.id;
            // Who joined just now may be younger than the snapshot's line of it.
            if !alive.contains(&id) && scan::stat(id).is_none_or(|stat| stat.is_dead()) {
                self.settle(key);
            }
        }
        found
    }

    fn are_all_stopped(&self, now: &[Stat]) -> bool {
        let moving: std::collections::HashSet<Id> = now
            .iter()
            .filter(|stat| !stat.is_stopped() && !stat.is_dead())
            .map(|stat| stat.id)
            .collect();
        let mut left = self.left().into_iter();
        left.all(|key| !moving.contains(&self.members[key].process.stat.id))
    }

    /// Continues the trees that somebody has connected to, now that they hold still.
    fn spare_attached(&mut self) {
        let mut pids: Vec<Vec<Pid>> = vec![Vec::new(); self.spared.len()];
        for key in self.left() {
            let member = &self.members[key];
            pids[member.tree].push(member.process.stat.id.pid);
        }
        for (tree, use_) in sockets::uses(&pids).into_iter().enumerate() {
            let why = match use_ {
                Use::Free => continue,
                Use::Attached => "attached",
                Use::Unseen => "its sockets cannot be seen",
            };
            self.spared[tree] = true;
            for key in self.left() {
                if self.members[key].tree == tree {
                    self.refuse(key, why.to_owned());
                }
            }
        }
    }

    fn send_all(&mut self, sent: Sent) {
        for key in self.left() {
            self.send(key, sent);
        }
    }

    fn send(&mut self, key: usize, sent: Sent) {
        let signal = match sent {
            Sent::Nothing => return,
            Sent::Term => Signal::TERM,
            Sent::Kill => Signal::KILL,
        };
        if self.signal(key, signal) {
            self.members[key].sent = sent;
            if sent == Sent::Term && self.members[key].was_stopped {
                // A stopped process cannot end; it is continued together with the others.
                self.members[key].frozen = true;
                self.members[key].was_stopped = false;
            }
        }
    }

    /// Sends a signal to a member; if it cannot be sent, that is the member's outcome.
    fn signal(&mut self, key: usize, signal: Signal) -> bool {
        let id = self.members[key].process.stat.id;
        let sent = match (self.exits.pidfd(key), raw(id.pid)) {
            (Some(pidfd), _) => pidfd_send_signal(pidfd, signal),
            (None, Some(pid)) if scan::stat(id).is_some() => kill_process(pid, signal),
            (None, _) => Err(Errno::SRCH),
        };
        match sent {
            Ok(()) => return true,
            Err(Errno::SRCH) => self.settle(key),
            Err(errno) => self.refuse(key, io::Error::from(errno).to_string()),
        }
        false
    }

    /// Continues everybody whom we have stopped.
    fn thaw(&mut self) {
        for key in 0..self.members.len() {
            self.thaw_one(key);
        }
    }

    fn thaw_one(&mut self, key: usize) {
        if std::mem::take(&mut self.members[key].frozen) && !self.members[key].was_stopped {
            // One that is gone needs none, and one that could be stopped can be continued.
            self.signal(key, Signal::CONT);
        }
    }

    /// Notes that a member is no more.
    fn settle(&mut self, key: usize) {
        self.exits.forget(key);
        let member = &mut self.members[key];
        member.frozen = false;
        member.outcome.get_or_insert(match member.sent {
            Sent::Nothing => Outcome::Gone,
            Sent::Term => Outcome::Ended,
            Sent::Kill => Outcome::Killed,
        });
    }

    fn refuse(&mut self, key: usize, why: String) {
        self.members[key]
            .outcome
            .get_or_insert(Outcome::Refused(why));
        self.thaw_one(key);
    }

    fn refuse_rest(&mut self, why: &str) {
        for key in self.left() {
            self.refuse(key, why.to_owned());
        }
    }

    /// Keys of the members whose end is still awaited.
    fn left(&self) -> Vec<usize> {
        let members = self.members.iter().enumerate();
        members
            .filter(|(_, member)| member.outcome.is_none())
            .map(|(key, _)| key)
            .collect()
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.thaw();
        // A mask that was in force is a valid one.
        let _ = self.mask.thread_set_mask();
    }
}

fn raw(pid: Pid) -> Option<RawPid> {
    RawPid::from_raw(pid)
}
