//! Errands: short-lived commands beside the loop, whose answer is an event. A name service or a
//! scheduler's controller that takes its time stalls no stream.
//!
//! Each starts with the mask and the limits that the launch command gets, reads nothing, shows
//! nothing, and leads a process group. Of each kind at most one is under way. It has a limit of time
//! and one of bytes; at its end, whichever comes first, the whole group is killed. So it is when
//! the session ends, and when this process dies.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal as DeathSignal;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::reactor::{Deadlines, Reactor, Token};
use crate::sys::spawn::{Inherited, Standing, Terms, spawn};
use crate::sys::stdio::Stream;

use super::{Owner, Source};

/// More of an answer than this many bytes is not read.
const ANSWER_LIMIT: usize = 8 * 1024;

/// What an errand is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Errand {
    /// The addresses of a name.
    Lookup,
    /// What Slurm says of the node.
    Node,
    /// What Slurm says of the job.
    Job,
    /// Who ended the job.
    Account,
    /// The copy of this program in the home directory.
    Copy,
}

/// All errands that are under way.
pub(super) struct Errands {
    inherited: Inherited,
    running: Vec<(Errand, Running)>,
    /// None is started any more.
    is_over: bool,
}

struct Running {
    /// Until it was reaped.
    pid: Option<Pid>,
    output: Stream,
    token: Token,
    text: Vec<u8>,
}

/// What watches them.
pub(super) struct Watch<'a> {
    pub(super) reactor: &'a mut Reactor<Source>,
    pub(super) deadlines: &'a mut Deadlines<Owner>,
}

impl Errands {
    pub(super) fn new(inherited: Inherited) -> Self {
        Self {
            inherited,
            running: Vec::new(),
            is_over: false,
        }
    }

    /// Starts `command`; one of the same kind that is under way ends without an answer.
    ///
    /// # Errors
    /// It could not be started: there will be no answer.
    pub(super) fn start(
        &mut self,
        errand: Errand,
        mut command: Command,
        limit: Duration,
        watch: &mut Watch<'_>,
    ) -> io::Result<()> {
        self.end(errand, watch);
        if self.is_over {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let (output, input) = io::pipe()?;
        command
            .stdin(Stdio::null())
            .stdout(input)
            .stderr(Stdio::null());
        let output = Stream::own(OwnedFd::from(output))?;
        let token = watch
            .reactor
            .register(output.as_fd(), Source::Errand(errand))?;
        let terms = Terms {
            inherited: &self.inherited,
            standing: Standing::Group,
            death_signal: Some(DeathSignal::SIGKILL),
            keep: None,
        };
        let spawned = spawn(&mut command, terms);
        // With our copy of its end: or the answer would have none.
        drop(command);
        let running = Running {
            pid: spawned.as_ref().ok().copied(),
            output,
            token,
            text: Vec::new(),
        };
        self.running.push((errand, running));
        if let Err(error) = spawned {
            self.end(errand, watch);
            return Err(error);
        }
        let at = Instant::now() + limit;
        watch.deadlines.set(Owner::Errand(errand), Some(at));
        Ok(())
    }

    /// Whether one of this kind is under way.
    pub(super) fn is_under_way(&self, errand: Errand) -> bool {
        self.running.iter().any(|(other, _)| *other == errand)
    }

    /// Reads what there is; the whole answer, once there is one. That of a command which failed is
    /// as long as it came to be.
    pub(super) fn turn(&mut self, errand: Errand, watch: &mut Watch<'_>) -> Option<Vec<u8>> {
        let (_, running) = self.running.iter_mut().find(|(it, _)| *it == errand)?;
        match running.read(watch.reactor) {
            Ok(false) => None,
            Ok(true) => self.end(errand, watch),
            Err(error) => {
                log::error!("cannot read the answer of an errand: {error}");
                self.end(errand, watch)
            }
        }
    }

    /// A child was reaped: from now on its pid may be another's.
    pub(super) fn reaped(&mut self, pid: Pid) {
        for (_, running) in &mut self.running {
            running.pid.take_if(|errand| *errand == pid);
        }
    }

    /// Ends the one of this kind; what it has said so far.
    pub(super) fn end(&mut self, errand: Errand, watch: &mut Watch<'_>) -> Option<Vec<u8>> {
        let index = self.running.iter().position(|(it, _)| *it == errand)?;
        let (_, mut running) = self.running.swap_remove(index);
        let (output, token) = (running.output.as_fd(), running.token);
        watch.reactor.deregister(output, token);
        watch.deadlines.set(Owner::Errand(errand), None);
        Some(std::mem::take(&mut running.text))
    }

    /// Ends them all, and starts no more.
    pub(super) fn end_all(&mut self, watch: &mut Watch<'_>) {
        self.is_over = true;
        while let Some((errand, _)) = self.running.first() {
            self.end(*errand, watch);
        }
    }
}

impl Running {
    /// Whether the answer is complete.
    fn read(&mut self, reactor: &mut Reactor<Source>) -> io::Result<bool> {
        let mut buffer = [0; 1024];
        while self.text.len() < ANSWER_LIMIT {
            match self.output.read(&mut buffer) {
                Ok(0) => return Ok(true),
                Ok(bytes) => self.text.extend_from_slice(&buffer[..bytes]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    reactor.read_blocked(self.token);
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(pid) = self.pid {
            // One that has just ended is a zombie of ours and does not mind.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}
