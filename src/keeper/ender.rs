//! The end of everything below this process, carried out: [`Ending`] decides, this sends the
//! signals and runs `scancel`.

use std::collections::VecDeque;
use std::fmt::{self, Display};
use std::io;
use std::process::{Command, Stdio};
use std::time::Instant;

use log::Level;
use rustix::process::{Pid, Signal, getpid, kill_process_group};

use crate::ending::{Attempt, Cancel, Ending, JobId, Outcome, Pass, Status, Steps};
use crate::sys::descendants::{self, Identity, Process, Scope};
use crate::sys::reap::{self, Left};
use crate::sys::spawn::{Inherited, Standing, Terms, spawn};

/// The program that takes a job back.
const SCANCEL: &str = "scancel";

/// What is to be ended: what is below this process, and what is named here.
#[derive(Clone, Debug)]
pub struct Below {
    /// A process that is none of our descendants, and is ended with all below it. Nobody tells us
    /// when they end, so the owner calls [`Ender::look`] now and then.
    pub top: Option<Identity>,
    /// The launch command: its pid where it lives (as far as this process can tell), how it ended
    /// where it has.
    pub launch: Launched,
    /// A session whose members are ended too, wherever their parents are.
    pub session: Option<Pid>,
    /// The job, where it is known.
    pub job: Option<JobId>,
    /// Whether the launch command has just got its death signal. A salloc that gets a second signal
    /// while it handles the first may leave without withdrawing its request (measured, Slurm 22.05:
    /// three of sixteen), so it is given time.
    pub hung_up: bool,
}

/// The launch command's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launched {
    /// It was never started.
    Never,
    /// It runs under this pid.
    Running(Pid),
    /// It ended like this, and was reaped.
    Ended(Status),
}

/// Something worth a line in the log.
#[derive(Debug)]
pub enum Note {
    /// `scancel` was started for the first time.
    Cancelling(JobId),
    /// `scancel` succeeded.
    Cancelled(JobId),
    /// `scancel` failed for the first time, and is tried again.
    NotYetCancelled(JobId, io::Error),
    /// `scancel` is not tried again.
    NotCancelled(JobId, io::Error),
    /// SIGTERM was not enough for so many processes.
    Killing(usize),
    /// A process could not be signalled.
    NoSignal(Pid, io::Error),
    /// The descendants could not be found.
    NoScan(io::Error),
    /// Something is left that cannot be killed.
    GaveUp,
}

/// Most notes that wait for being taken. A crowd of processes that we may not signal is told of by
/// its first few.
const NOTES: usize = 16;

/// What the log has been told, and is not told again.
#[derive(Debug, Default)]
struct Said {
    cancelling: bool,
    not_yet: bool,
    gave_up: bool,
}

/// An end that is going on.
///
/// Its owner is a child subreaper, reaps (see [`crate::sys::reap`]), and tells of each child that
/// was reaped; it calls [`Ender::settle`] after each such round, and [`Ender::timeout`] at
/// [`Ender::deadline`].
#[derive(Debug)]
pub struct Ender {
    ending: Ending,
    below: Below,
    inherited: Inherited,
    /// Who got SIGTERM: one more could mean "hurry, leave it undone" to a program.
    told: Vec<Identity>,
    cancel: Option<(Pid, JobId)>,
    /// `scancel` was killed.
    stopped: bool,
    said: Said,
    /// Whether SIGKILL was used.
    killing: bool,
    /// Whether a child was reaped since the last [`Ender::settle`].
    reaped: bool,
    notes: VecDeque<Note>,
}

impl Ender {
    /// Begins the end: sends SIGTERM. `inherited` is for `scancel`.
    pub fn begin(now: Instant, below: Below, inherited: Inherited) -> Self {
        let ended = match below.launch {
            Launched::Ended(status) => Some(status),
            Launched::Never | Launched::Running(_) => None,
        };
        let (ending, steps) = Ending::begin(now, below.job, ended);
        let mut ender = Self {
            ending,
            below,
            inherited,
            told: Vec::new(),
            cancel: None,
            stopped: false,
            said: Said::default(),
            killing: false,
            reaped: false,
            notes: VecDeque::new(),
        };
        ender.perform(now, steps);
        ender.settle(now, reap::left());
        ender
    }

    /// The job's id became known.
    pub fn job_known(&mut self, now: Instant, job: JobId) {
        self.below.job = Some(job);
        let steps = self.ending.job_known(now, job);
        self.perform(now, steps);
    }

    /// A child of ours, or an adopted one, was reaped.
    pub fn reaped(&mut self, now: Instant, pid: Pid, status: Status) {
        self.reaped = true;
        let steps = if let Some((_, job)) = self.cancel.take_if(|(cancel, _)| *cancel == pid) {
            let attempt = match status {
                Status::Code(0) => Ok(()),
                _ if self.stopped => Err(io::Error::other(format!("{SCANCEL} does not end"))),
                failed => Err(io::Error::other(failed.to_string())),
            };
            self.cancel_ended(now, job, attempt)
        } else if self.below.launch == Launched::Running(pid) {
            self.below.launch = Launched::Ended(status);
            self.ending.launch_ended(now, status)
        } else {
            return;
        };
        self.perform(now, steps);
    }

    /// A round of reaping is over, and this is what it left.
    pub fn settle(&mut self, now: Instant, left: Left) {
        if left == Left::None && self.below.top.is_none() {
            self.ending.emptied();
        } else if std::mem::take(&mut self.reaped) {
            let steps = self.ending.reaped();
            self.perform(now, steps);
        }
    }

    /// Looks which processes are left, and signals those that were born meanwhile.
    pub fn look(&mut self, now: Instant) {
        let steps = self.ending.reaped();
        self.perform(now, steps);
    }

    /// Acts on the deadlines that `now` has reached.
    pub fn timeout(&mut self, now: Instant) {
        let steps = self.ending.timeout(now);
        self.perform(now, steps);
    }

    /// When [`Ender::timeout`] is to be called next.
    pub fn deadline(&self) -> Option<Instant> {
        self.ending.deadline()
    }

    /// Whether it is over, either way.
    pub fn is_done(&self) -> bool {
        self.outcome().is_some()
    }

    /// How it came out, once it has.
    pub fn outcome(&self) -> Option<Outcome> {
        self.ending.outcome()
    }

    /// The next line for the log.
    pub fn take_note(&mut self) -> Option<Note> {
        self.notes.pop_front()
    }

    fn perform(&mut self, now: Instant, steps: Steps) {
        let mut pass = steps.pass;
        match steps.cancel {
            Some(Cancel::Start(job)) => match self.start_cancel() {
                Ok(pid) => {
                    self.cancel = Some((pid, job));
                    if !std::mem::replace(&mut self.said.cancelling, true) {
                        self.note(Note::Cancelling(job));
                    }
                }
                Err(error) => {
                    let error = io::Error::new(error.kind(), format!("{SCANCEL}: {error}"));
                    pass = self.cancel_ended(now, job, Err(error)).pass.or(pass);
                }
            },
            Some(Cancel::Stop) => {
                if let Some((pid, _)) = self.cancel {
                    // Not reaped yet, so the pid is still its own, and its group's. An error means
                    // that it is already dead.
                    let _ = kill_process_group(pid, Signal::KILL);
                    self.stopped = true;
                }
            }
            None => {}
        }
        if let Some(pass) = pass {
            self.signal(pass);
        }
        if self.outcome() == Some(Outcome::GaveUp)
            && !std::mem::replace(&mut self.said.gave_up, true)
        {
            self.note(Note::GaveUp);
        }
    }

    /// An attempt at the cancellation is over.
    fn cancel_ended(&mut self, now: Instant, job: JobId, attempt: io::Result<()>) -> Steps {
        let steps = self.ending.cancel_ended(
            now,
            match &attempt {
                Ok(()) => Attempt::Done,
                Err(error) if error.kind() == io::ErrorKind::NotFound => Attempt::Impossible,
                Err(_) => Attempt::Failed,
            },
        );
        match attempt {
            Ok(()) => self.note(Note::Cancelled(job)),
            Err(error) if !self.ending.is_cancelling() => {
                self.note(Note::NotCancelled(job, error));
            }
            Err(error) => {
                if !std::mem::replace(&mut self.said.not_yet, true) {
                    self.note(Note::NotYetCancelled(job, error));
                }
            }
        }
        steps
    }

    fn start_cancel(&self) -> io::Result<Pid> {
        let Some(job) = self.below.job else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut command = Command::new(SCANCEL);
        command
            .arg(job.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let terms = Terms {
            inherited: &self.inherited,
            standing: Standing::Group,
            // It is to outlive us, if it comes to that.
            death_signal: None,
            keep: None,
        };
        spawn(&mut command, terms)
    }

    fn signal(&mut self, pass: Pass) {
        let own = getpid();
        let except = Vec::from_iter(self.cancel.map(|(pid, _)| pid));
        // What was below `top` is so no more when its parent has ended.
        let with: Vec<Identity> = match self.below.top {
            Some(top) => [top].into_iter().chain(self.told.clone()).collect(),
            None => Vec::new(),
        };
        let scope = Scope {
            root: own,
            session: self.below.session,
            with: &with,
            except: &except,
        };
        let mut processes = match descendants::descendants(scope) {
            Ok(processes) => processes,
            Err(error) => {
                self.note(Note::NoScan(error));
                return self.signal_launch(pass);
            }
        };
        if self.below.top.is_some() {
            // Whoever reaps them, it is not us.
            processes.retain(|process| !process.has_ended);
        }
        if processes.is_empty() && self.below.top.is_some() {
            // They are not ours: no wait(2) will say this.
            self.ending.emptied();
        }
        // Later passes of the same kind meet the same ones again.
        let first = match pass {
            Pass::Terminate | Pass::TerminateRest => true,
            Pass::TerminateOrphans => false,
            Pass::Kill => !std::mem::replace(&mut self.killing, true),
        };
        if first && pass == Pass::Kill && !processes.is_empty() {
            self.note(Note::Killing(processes.len()));
        }
        let has_command = |salloc: &Process| {
            let pid = salloc.pid().as_raw_pid();
            processes.iter().any(|process| process.parent == pid)
        };
        let top = self.below.top;
        let is_orphan = |orphan: &Process| match top {
            None => orphan.parent == own.as_raw_pid(),
            Some(_) => {
                let is_parent = |process: &Process| process.pid().as_raw_pid() == orphan.parent;
                !processes.iter().any(is_parent)
            }
        };
        for process in &processes {
            let signals: &[Signal] = match pass {
                Pass::Kill => &[Signal::KILL],
                _ if self.told.contains(&process.identity) => continue,
                Pass::Terminate | Pass::TerminateOrphans
                    if process.is_salloc() && (self.below.hung_up || has_command(process)) =>
                {
                    continue;
                }
                Pass::TerminateOrphans if !is_orphan(process) => continue,
                Pass::TerminateRest if !process.is_salloc() => continue,
                // An interactive shell ignores SIGTERM, but not the hang-up. salloc releases its
                // job on SIGTERM, and with SIGHUP some versions leave before they have.
                _ if self.below.launch == Launched::Running(process.pid()) => &[Signal::TERM],
                _ => &[Signal::TERM, Signal::HUP],
            };
            if pass != Pass::Kill {
                self.told.push(process.identity);
            }
            if let Err(error) = descendants::send(process.identity, signals)
                && first
            {
                self.note(Note::NoSignal(process.pid(), error));
            }
        }
    }

    /// What can be done without /proc: the launch command's group.
    fn signal_launch(&mut self, pass: Pass) {
        let Launched::Running(pid) = self.below.launch else {
            return;
        };
        let signal = match pass {
            Pass::Terminate | Pass::TerminateRest => Signal::TERM,
            Pass::TerminateOrphans => return,
            Pass::Kill => Signal::KILL,
        };
        if let Err(errno) = kill_process_group(pid, signal) {
            self.note(Note::NoSignal(pid, errno.into()));
        }
    }

    fn note(&mut self, note: Note) {
        if self.notes.len() < NOTES {
            self.notes.push_back(note);
        }
    }
}

impl Note {
    /// How much it matters.
    pub fn level(&self) -> Level {
        match self {
            Self::Cancelling(_) | Self::Cancelled(_) => Level::Info,
            Self::Killing(_) => Level::Info,
            Self::GaveUp => Level::Error,
            _ => Level::Warn,
        }
    }
}

impl Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelling(job) => write!(f, "cancelling job {job}"),
            Self::Cancelled(job) => write!(f, "job {job} cancelled"),
            Self::NotYetCancelled(job, error) => {
                write!(f, "cannot cancel job {job} yet: {error}; it is tried again")
            }
            Self::NotCancelled(job, error) => write!(f, "cannot cancel job {job}: {error}"),
            Self::Killing(count) => write!(f, "killing {count} processes that did not end in time"),
            Self::NoSignal(pid, error) => {
                write!(f, "cannot signal process {}: {error}", pid.as_raw_pid())
            }
            Self::NoScan(error) => write!(f, "cannot look for processes: {error}"),
            Self::GaveUp => f.write_str("processes of the launch command cannot be killed"),
        }
    }
}
