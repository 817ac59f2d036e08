//! Which trees of processes are VS Code servers that nobody needs any more.
//!
//! Pure: it is given a snapshot of all processes and the [`Limits`], and answers with every server
//! tree and, for each, whether to end it or why to leave it alone. A wrong answer destroys
//! somebody's work, so whatever the snapshot leaves open (a parent that cannot be seen, a session
//! that may live) is answered with *leave*.
//!
//! # Orphans
//! The kernel does not tell which process adopts orphans (a *child subreaper*), so a parent counts
//! as an adopter only where it is known to be one:
//! - it is pid 1;
//! - the caller has measured it ([`Limits::adopters`]: what an orphan of its own was given to);
//! - it is a user's `systemd`, which makes itself a subreaper;
//! - or it has this very process without having started it: a process is born into its parent's
//!   session and can leave it only by leading one of its own. One that is in another session than
//!   its parent, and does not lead it, was started by somebody else. That somebody is gone when
//!   the session's leader is.
//!
//! This errs on the side of leaving alone: a server that leads its own session under an unknown
//! living parent (a supervisor, tmux) is no orphan. Under an adopter it is still none as long as
//! an sshd session is among its ancestors, or while it belongs to a service unit of systemd, which
//! was started to be there, and would be started again.

mod cgroup;
mod following;
mod server;

use std::collections::{HashMap, HashSet};
use std::fmt;

pub use following::Following;
pub use server::DIRECTORIES;

/// A process's number. Numbers are used again; [`Id`] is what identifies a process.
pub type Pid = i32;

/// Clock ticks since boot, the unit of start times in `/proc/PID/stat`.
pub type Ticks = u64;

/// A process, for as long as the machine runs: the same number with another start is another
/// process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    /// Its number.
    pub pid: Pid,
    /// When it was started.
    pub start: Ticks,
}

/// What `/proc/PID/stat` says, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Which process this is.
    pub id: Id,
    /// Its parent; 0 is none, or one outside of the pid namespace.
    pub parent: Pid,
    /// Its process group.
    pub group: Pid,
    /// Its session.
    pub session: Pid,
    /// `R`, `S`, `D`, `T`, `Z`, …: see proc(5).
    pub state: u8,
    /// How many threads it has.
    pub threads: u64,
    /// Is it a kernel thread?
    pub is_kernel: bool,
    /// User and system time that it has used.
    pub cpu: Ticks,
}

impl Stat {
    /// Has it ended? A zombie has, unless only its first thread is gone and others live on.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, b'X' | b'x') || (self.state == b'Z' && self.threads <= 1)
    }

    /// Is it stopped by a signal or a tracer, so that it cannot fork?
    pub fn is_stopped(&self) -> bool {
        matches!(self.state, b'T' | b't')
    }
}

/// A process as the snapshot shows it. Text of other people's making: any bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Identity and relations.
    pub stat: Stat,
    /// The command's name, at most 15 bytes.
    pub comm: Vec<u8>,
    /// The real uid: who started it, whatever set-uid program it runs.
    pub uid: u32,
    /// Resident memory, in bytes.
    pub resident: u64,
    /// The part of it that nobody shares and no file backs, in bytes: what ending it gives back.
    pub private: u64,
    /// The executable; `None` where the kernel does not show it.
    pub exe: Option<Vec<u8>>,
    /// The arguments, each ended by NUL. A cut one is left out.
    pub cmdline: Vec<u8>,
    /// The content of `/proc/PID/cgroup`; empty where there are no control groups.
    pub cgroup: Vec<u8>,
}

impl Process {
    /// The name of its executable, or what it calls itself where that cannot be seen.
    fn program(&self) -> &[u8] {
        self.exe
            .as_deref()
            .map_or(&self.comm[..], server::file_name)
    }

    /// Is it a daemon of ssh that serves a session? The listening one has no server below it.
    fn is_sshd(&self) -> bool {
        matches!(
            self.program(),
            b"sshd" | b"sshd-session" | b"sshd-auth" | b"dropbear"
        )
    }

    /// Does it run a scheduler's job below it? For sites that track jobs without control groups.
    fn is_job_starter(&self) -> bool {
        matches!(
            self.program(),
            b"slurmstepd" | b"pbs_mom" | b"sge_shepherd" | b"condor_starter"
        )
    }

    fn is_user_manager(&self) -> bool {
        self.stat.id.pid != 1 && self.program() == b"systemd"
    }
}

/// What may be ended, and what is known from outside the snapshot.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// This process: it and its ancestors are never touched.
    pub own: Pid,
    /// Only this user's processes; `None` is root, who may end everybody's.
    pub caller: Option<u32>,
    /// Only these users' processes; empty is everybody's.
    pub users: Vec<u32>,
    /// The snapshot's time.
    pub now: Ticks,
    /// The least age of a tree's root.
    pub age: Ticks,
    /// Further names that mark a server: a path's components in sequence.
    pub patterns: Vec<Vec<u8>>,
    /// Also trees that may be in use: not orphaned, or attached.
    pub include_attached: bool,
    /// Also trees inside a scheduler's job.
    pub include_jobs: bool,
    /// Processes that have been seen to adopt orphans.
    pub adopters: Vec<Pid>,
}

impl Limits {
    /// May a process of user `uid` be ended?
    pub fn permits(&self, uid: u32) -> bool {
        self.caller.is_none_or(|caller| caller == uid)
            && (self.users.is_empty() || self.users.contains(&uid))
    }

    fn is_young(&self, start: Ticks) -> bool {
        self.now.saturating_sub(start) < self.age
    }
}

/// A server and everything below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Indices into the snapshot: the root first, each parent before its children. Dead ones are
    /// left out.
    pub members: Vec<usize>,
    /// The root's parent, where the root is an orphan.
    pub adopter: Option<Pid>,
    /// Why it has to be left alone; `None`: it may be ended.
    pub spared: Option<Spared>,
}

impl Tree {
    /// The root's index in the snapshot.
    pub fn root(&self) -> usize {
        self.members[0] // a tree begins with its root
    }
}

/// Why a tree is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spared {
    /// The program itself runs below it.
    Own,
    /// It is another user's, or not one of the named users'.
    User,
    /// A scheduler's job holds it, and will end it.
    Job,
    /// It has a living parent, or its parent cannot be seen.
    Parent,
    /// An sshd session lives above it.
    Session,
    /// systemd runs it as a service.
    Service,
    /// It is younger than the least age.
    Young,
    /// Somebody is connected to it.
    Attached,
    /// Its sockets cannot be seen, so that somebody may be connected.
    Unseen,
}

impl fmt::Display for Spared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "this program runs in it",
            Self::User => "another user's",
            Self::Job => "in a job",
            Self::Parent => "not orphaned",
            Self::Session => "its ssh session lives",
            Self::Service => "a service",
            Self::Young => "too young",
            Self::Attached => "attached",
            Self::Unseen => "its sockets cannot be seen",
        })
    }
}

/// Finds every server tree in `processes`, in one pass, by the sequence of the snapshot's roots.
///
/// Connections are no part of a snapshot: the caller looks for them in the trees that are not
/// spared for another reason.
pub fn trees(processes: &[Process], limits: &Limits) -> Vec<Tree> {
    let forest = Forest::new(processes);
    let own = forest.own_line(limits.own);
    let mut trees: Vec<Tree> = Vec::new();
    let mut pending: Vec<(usize, Option<usize>)> = Vec::new();
    for top in (0..processes.len()).filter(|&i| forest.parents[i].is_none()) {
        pending.push((top, None));
        while let Some((i, mut tree)) = pending.pop() {
            let process = &processes[i];
            let is_dead = process.stat.is_dead();
            if tree.is_none() && !is_dead && is_server(process, limits) {
                tree = Some(trees.len());
                trees.push(Tree {
                    members: Vec::new(),
                    adopter: None,
                    spared: None,
                });
            }
            if let Some(tree) = tree.filter(|_| !is_dead) {
                trees[tree].members.push(i);
            }
            pending.extend(forest.children(i).iter().rev().map(|&child| (child, tree)));
        }
    }
    for tree in &mut trees {
        let orphaned = forest.adopter(tree.root(), limits);
        tree.adopter = orphaned.ok();
        tree.spared = forest.spared(tree, orphaned.err(), &own, limits);
    }
    trees
}

fn is_server(process: &Process, limits: &Limits) -> bool {
    let stat = &process.stat;
    let exe = process.exe.as_deref();
    stat.id.pid != 1
        && !stat.is_kernel
        && exe.is_some_and(|exe| server::is_server(exe, &process.cmdline, &limits.patterns))
}

/// A snapshot with its relations.
struct Forest<'a> {
    processes: &'a [Process],
    by_pid: HashMap<Pid, usize>,
    /// Each process's parent, where the snapshot has it.
    parents: Vec<Option<usize>>,
    /// All children, those of one parent side by side.
    children: Vec<usize>,
    /// Children of `i`: `children[first[i] .. first[i + 1]]`.
    first: Vec<usize>,
}

impl<'a> Forest<'a> {
    fn new(processes: &'a [Process]) -> Self {
        let by_pid: HashMap<Pid, usize> = processes
            .iter()
            .enumerate()
            .map(|(i, process)| (process.stat.id.pid, i))
            .collect();
        let mut first = vec![0; processes.len() + 1];
        let parents: Vec<Option<usize>> = processes
            .iter()
            .map(|process| {
                let parent = *by_pid.get(&process.stat.parent)?;
                // A parent is never younger: this number was used again while /proc was read.
                let is_parent = processes[parent].stat.id.start <= process.stat.id.start;
                is_parent.then_some(parent)
            })
            .collect();
        for &parent in parents.iter().flatten() {
            first[parent + 1] += 1;
        }
        for i in 0..processes.len() {
            first[i + 1] += first[i];
        }
        let mut next = first.clone();
        let mut children = vec![0; parents.iter().flatten().count()];
        for (i, parent) in parents.iter().enumerate() {
            if let Some(parent) = *parent {
                children[next[parent]] = i;
                next[parent] += 1;
            }
        }
        Self {
            processes,
            by_pid,
            parents,
            children,
            first,
        }
    }

    fn children(&self, i: usize) -> &[usize] {
        &self.children[self.first[i]..self.first[i + 1]]
    }

    /// The ancestors of `i`, nearest first. A snapshot with a circle in it cannot hold us up.
    fn ancestors(&self, i: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(self.parents[i], |&i| self.parents[i]).take(self.processes.len())
    }

    fn own_line(&self, own: Pid) -> HashSet<usize> {
        let own = self.by_pid.get(&own).copied();
        let ancestors = own.into_iter().flat_map(|own| self.ancestors(own));
        own.into_iter().chain(ancestors).collect()
    }

    /// The parent of `root` if that has adopted it, or why it is no orphan.
    fn adopter(&self, root: usize, limits: &Limits) -> Result<Pid, Spared> {
        let process = &self.processes[root];
        let stat = &process.stat;
        let pid = stat.parent;
        let parent = self.parents[root].map(|parent| &self.processes[parent]);
        if pid == 0 || (parent.is_none() && pid != 1) {
            return Err(Spared::Parent);
        }
        let is_manager = pid == 1 || parent.is_some_and(Process::is_user_manager);
        if is_manager && cgroup::is_service(&process.cgroup) {
            return Err(Spared::Service);
        }
        let left_behind = |parent: &Process| {
            // Where /proc hides others, a leader that is not shown may live.
            let all_shown = self.by_pid.contains_key(&1);
            let leader = self.by_pid.get(&stat.session);
            // A session that was led into this pid namespace from outside has number 0.
            all_shown && stat.session > 0 && leader.is_none() && stat.session != parent.stat.session
        };
        if !is_manager && !limits.adopters.contains(&pid) && !parent.is_some_and(left_behind) {
            return Err(Spared::Parent);
        }
        if self
            .ancestors(root)
            .any(|ancestor| self.processes[ancestor].is_sshd())
        {
            return Err(Spared::Session);
        }
        // The line has to be seen to its end, or there may be an sshd behind the gap.
        let last = self.ancestors(root).last().unwrap_or(root);
        match self.processes[last].stat.parent {
            0 | 1 => Ok(pid),
            _ => Err(Spared::Parent),
        }
    }

    fn spared(
        &self,
        tree: &Tree,
        attached: Option<Spared>,
        own: &HashSet<usize>,
        limits: &Limits,
    ) -> Option<Spared> {
        let root = tree.root();
        let process = &self.processes[root];
        let in_job = || {
            let mut members = tree.members.iter();
            members.any(|&i| cgroup::is_job(&self.processes[i].cgroup))
                || self
                    .ancestors(root)
                    .any(|ancestor| self.processes[ancestor].is_job_starter())
        };
        if own.contains(&root) {
            Some(Spared::Own)
        } else if !limits.permits(process.uid) {
            Some(Spared::User)
        } else if !limits.include_jobs && in_job() {
            Some(Spared::Job)
        } else if !limits.include_attached && attached.is_some() {
            attached
        } else if limits.is_young(process.stat.id.start) {
            Some(Spared::Young)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests;
