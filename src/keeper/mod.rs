//! The keeper: a second, tiny process of ours, between the proxy and the launch command.
//!
//! It sees to it that nothing of a session stays behind, also when the proxy is killed. The proxy
//! starts it (see [`start`]) in a session of its own; it is a child subreaper, so whatever the
//! launch command leaves behind becomes its child; it gets SIGTERM when the proxy ends, and its
//! control channel ends with the proxy too. It ends everything below it ([`Ender`]) when told so,
//! when the channel ends, or on SIGTERM, SIGINT, SIGHUP, SIGQUIT, and then leaves; before that it
//! stays, also behind a launch command that has ended. A salloc that stays behind its job it
//! hangs up when told so (see [`crate::revocation`]).
//!
//! It holds none of the proxy's descriptors but its end of the channel: a copy of the launch
//! command's pipes would hide their end from the proxy. Idle it waits in one `poll` without a
//! timeout, and it never allocates while idle.
//!
//! What it cannot do: see the end of the proxy while the kernel has not executed the launch command
//! yet (a file server that hangs), and survive SIGKILL itself. In that case the launch command gets
//! SIGHUP as its parent-death signal, and the proxy, a subreaper like the keeper, ends the rest
//! with the same [`Ender`].

mod control;
mod ender;
mod handle;
mod hang_up;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, ExitCode};
use std::time::Instant;

use log::Level;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, getpid};

pub use control::Report;
pub use ender::{Below, Ender, Launched, Note};
pub use handle::{Keeper, ShellEnds, refused_status, start, start_as};

use control::{LIMIT, Order};

use crate::ending::{JobId, Outcome, Status};
use crate::revocation::HangUp;
use crate::sys::channel::{self, Received};
use crate::sys::reap;
use crate::sys::signals::{Signals, shield};
use crate::sys::spawn::{
    Inherited, Standing, Terms, leave_streams, notice_children, spawn, take_kept,
};

/// The hidden mode's name: the first argument of the executable. Behind it come the number of the
/// control channel's descriptor and the launch command.
pub const MODE: &str = "--internal-keeper";

/// Exit status when something could not be killed, or the keeper itself failed.
const FAILED: u8 = 1;
/// Exit status when it is started by somebody who is not the proxy.
const MISUSED: u8 = 2;

/// The keeper's process: `args` are those behind [`MODE`].
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let control = args
        .next()
        .and_then(|number| number.to_str()?.parse().ok())
        .and_then(|number| take_kept(number).ok());
    let (Some(control), Some(program)) = (control, args.next()) else {
        return ExitCode::from(MISUSED);
    };
    let mut command = Command::new(program);
    command.args(args);
    let kept = Process::new(control).and_then(|mut process| {
        process.launch(command)?;
        process.keep()
    });
    match kept {
        Ok(Outcome::Clean) => ExitCode::SUCCESS,
        // An error of the wait or the signals: the launch command gets its death signal, and the
        // proxy the end of the channel.
        Ok(Outcome::GaveUp) | Err(_) => ExitCode::from(FAILED),
    }
}

/// What the keeper's process knows.
struct Process {
    /// Gone when the proxy is.
    control: Option<OwnedFd>,
    signals: Signals,
    inherited: Inherited,
    launched: Launched,
    job: Option<JobId>,
    ender: Option<Ender>,
    message: Vec<u8>,
}

impl Process {
    fn new(control: OwnedFd) -> io::Result<Self> {
        prctl::set_name(c"vscode-keeper")?;
        let inherited = Inherited::capture()?;
        // No signal but SIGKILL ends the keeper: not those for which it has a use, and not others
        // that somebody might send to a whole session. Faults of its own still do.
        shield()?;
        let signals = Signals::block(&[
            Signal::SIGCHLD,
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
            Signal::SIGQUIT,
        ])?;
        notice_children()?;
        prctl::set_child_subreaper(true)?;
        Ok(Self {
            control: Some(control),
            signals,
            inherited,
            launched: Launched::Never,
            job: None,
            ender: None,
            message: Vec::with_capacity(LIMIT),
        })
    }

    /// Starts the launch command, unless the end was ordered already, and lets go of its streams.
    fn launch(&mut self, mut command: Command) -> io::Result<()> {
        self.hear();
        if self.ender.is_none() {
            let terms = Terms {
                inherited: &self.inherited,
                standing: Standing::Group,
                // On SIGTERM a salloc whose command dies in that moment may spin for ever
                // (measured, Slurm 22.05: one in six); on SIGHUP it releases its job and leaves.
                death_signal: Some(Signal::SIGHUP),
                keep: None,
            };
            match spawn(&mut command, terms) {
                Ok(pid) => {
                    self.launched = Launched::Running(pid);
                    let pid = pid.as_raw_pid();
                    self.tell(&Report::Started { pid });
                }
                Err(error) => {
                    let errno = error.raw_os_error().unwrap_or(Errno::INVAL.raw_os_error());
                    self.tell(&Report::NotStarted { errno });
                }
            }
        }
        let channel = self.control.as_ref().map(AsFd::as_fd);
        let kept: Vec<_> = channel.into_iter().chain([self.signals.as_fd()]).collect();
        leave_streams(&kept)
    }

    /// Waits for what happens, and returns after the end.
    fn keep(&mut self) -> io::Result<Outcome> {
        loop {
            self.reap();
            self.hand_over_notes();
            if let Some(outcome) = self.ender.as_ref().and_then(Ender::outcome) {
                self.tell(match outcome {
                    Outcome::Clean => &Report::Done,
                    Outcome::GaveUp => &Report::GaveUp,
                });
                return Ok(outcome);
            }
            self.wait()?;
            self.hear();
            let now = Instant::now();
            if let Some(ender) = &mut self.ender
                && ender.deadline().is_some_and(|at| at <= now)
            {
                ender.timeout(now);
            }
        }
    }

    /// Blocks until a signal, an order, the end of the channel, or the next deadline.
    fn wait(&self) -> io::Result<()> {
        let deadline = self.ender.as_ref().and_then(Ender::deadline);
        let timeout = deadline
            .map(|at| at.saturating_duration_since(Instant::now()))
            .map(|left| Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: left.subsec_nanos().into(),
            });
        let signals = PollFd::new(&self.signals, PollFlags::IN);
        let polled = match &self.control {
            Some(control) => {
                let control = PollFd::new(control, PollFlags::IN);
                poll(&mut [signals, control], timeout.as_ref())
            }
            None => poll(&mut [signals], timeout.as_ref()),
        };
        match polled {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Takes in signals and orders.
    fn hear(&mut self) {
        while let Ok(Some(signal)) = self.signals.read() {
            // Which children ended is asked for after every wait.
            if signal != Signal::SIGCHLD {
                self.end();
            }
        }
        let mut message = [0; LIMIT];
        while let Some(control) = &self.control {
            match channel::receive(control, &mut message) {
                Ok(Received::Nothing) => return,
                Ok(Received::Message(length)) => match Order::decode(&message[..length]) {
                    Some(Order::Job(job)) => {
                        self.job = Some(job);
                        if let Some(ender) = &mut self.ender {
                            ender.job_known(Instant::now(), job);
                        }
                    }
                    Some(Order::HangUp(which)) => self.hang_up(which),
                    Some(Order::End) => self.end(),
                    // No proxy says this; whoever does is no reason to give up.
                    None => {}
                },
                Ok(Received::Closed) | Err(_) => {
                    self.control = None;
                    self.end();
                }
            }
        }
    }

    fn hang_up(&mut self, which: HangUp) {
        let Launched::Running(launch) = self.launched else {
            return;
        };
        let text = match hang_up::hang_up(launch, which) {
            Ok(None) => return,
            Ok(Some(salloc)) => format!(
                "salloc (process {}) stays though its job is gone{}: hanging it up",
                salloc.as_raw_pid(),
                match which {
                    HangUp::Bereaved => ", and its command too",
                    HangUp::Any => "",
                }
            ),
            Err(error) => format!("cannot hang up salloc, whose job is gone: {error}"),
        };
        self.tell(&Report::Log {
            level: Level::Warn,
            text,
        });
    }

    fn end(&mut self) {
        if self.ender.is_none() {
            let below = Below {
                top: None,
                launch: self.launched,
                session: Some(getpid()),
                job: self.job,
                hung_up: false,
            };
            self.ender = Some(Ender::begin(Instant::now(), below, self.inherited));
        }
    }

    fn reap(&mut self) {
        let mut ended = None;
        let launch = match self.launched {
            Launched::Running(pid) => Some(pid),
            Launched::Never | Launched::Ended(_) => None,
        };
        let now = Instant::now();
        let left = reap::reap(|pid: Pid, status: Status| {
            if launch == Some(pid) {
                ended = Some(status);
            }
            if let Some(ender) = &mut self.ender {
                ender.reaped(now, pid, status);
            }
        });
        if let Some(status) = ended {
            self.launched = Launched::Ended(status);
            self.tell(&Report::Ended(status));
        }
        if let Some(ender) = &mut self.ender {
            ender.settle(now, left);
        }
    }

    fn hand_over_notes(&mut self) {
        while let Some(note) = self.ender.as_mut().and_then(Ender::take_note) {
            self.tell(&Report::Log {
                level: note.level(),
                text: note.to_string(),
            });
        }
    }

    /// Reports to the proxy. Where it is gone there is nobody to tell; where it does not listen,
    /// the few reports that there are wait in the channel.
    fn tell(&mut self, report: &Report) {
        if let Some(control) = &self.control {
            report.encode(&mut self.message);
            let _ = channel::transmit(control.as_fd(), &self.message);
        }
    }
}
