//! The end of a session: what is below the keeper, the last bytes and the last lines.

use std::io;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use rustix::process::Pid;

use crate::ending::Status;
use crate::keeper::{Below, Ender, Launched, Report, refused_status};
use crate::session::{Event, Wish};
use crate::sys::reap::{self, Left};

use super::Proxy;
use super::account::Known;
use super::sink::Io;

/// How long the last lines for stderr may wait for its reader.
const LAST_LINES: Duration = Duration::from_secs(1);

impl Proxy {
    pub(super) fn read_signals(&mut self, now: Instant) {
        loop {
            match self.signals.read() {
                Ok(Some(Signal::SIGCHLD)) => self.reap(now),
                Ok(Some(signal)) => {
                    log::info!("{signal}: ending");
                    self.session.tell(Event::Signal(signal as u8), now);
                }
                Ok(None) => return,
                Err(error) => {
                    log::error!("cannot read signals: {error}");
                    return;
                }
            }
        }
    }

    fn reap(&mut self, now: Instant) {
        let mut ended: Vec<(Pid, Status)> = Vec::new();
        let left = reap::reap(|pid, status| ended.push((pid, status)));
        for (pid, status) in ended {
            self.errands.reaped(pid);
            if pid == self.keeper.pid() {
                self.read_reports(now);
                self.session.tell(Event::KeeperLost, now);
            } else if let Some(orphans) = &mut self.orphans {
                orphans.reaped(now, pid, status);
            }
        }
        self.settle_orphans(now, left);
    }

    fn settle_orphans(&mut self, now: Instant, left: Left) {
        if let Some(orphans) = &mut self.orphans {
            orphans.settle(now, left);
        }
    }

    pub(super) fn read_reports(&mut self, now: Instant) {
        loop {
            match self.keeper.report() {
                Ok(None) => return,
                Ok(Some(Report::Gone)) => {
                    self.session.tell(Event::KeeperLost, now);
                    return;
                }
                Ok(Some(report)) => self.heed(report, now),
                Err(error) => {
                    log::error!("cannot understand the keeper: {error}");
                    self.session.tell(Event::KeeperLost, now);
                    return;
                }
            }
        }
    }

    fn heed(&mut self, report: Report, now: Instant) {
        match report {
            Report::Started { pid } => {
                log::info!("started {}, process {pid}", self.launch);
                if let Some(pid) = Pid::from_raw(pid) {
                    self.launched = Launched::Running(pid);
                }
            }
            Report::NotStarted { errno } => {
                let reason = io::Error::from_raw_os_error(errno);
                log::error!("cannot start {}: {reason}", self.launch);
                self.session
                    .tell(Event::LaunchEnded(refused_status(errno)), now);
            }
            Report::Ended(status) => {
                log::info!("{} ended with {status}", self.launch);
                self.launched = Launched::Ended(status);
                self.look_at_salloc_no_more();
                self.dismiss_relay();
                self.session
                    .tell(Event::LaunchEnded(status.exit_status()), now);
                if self.watch.ended() {
                    self.session.tell(Event::ReasonAsked, now);
                }
            }
            Report::Done | Report::GaveUp => self.session.tell(Event::KeeperDone, now),
            Report::Log { level, text } => log::log!(level, "keeper: {text}"),
            Report::Gone => {}
        }
    }

    pub(super) fn settle_output(&mut self, now: Instant) {
        let carried = self.stdout.sink().flow.carried() + self.stderr.sink().flow.carried();
        if std::mem::replace(&mut self.carried, carried) != carried {
            self.session.tell(Event::Progress, now);
        }
        // There is no server any more that an address could lead to.
        self.release_held(now);
        let awaited = self.session.awaits_holders() && self.forwards.owe_clients(&self.reactor);
        if self.stdout.is_drained() && self.stderr.is_drained() && !awaited {
            self.session.tell(Event::OutputDrained, now);
        }
    }

    pub(super) fn fulfil_wishes(&mut self, now: Instant) {
        while let Some(wish) = self.session.wish() {
            self.fulfil(wish, now);
        }
    }

    fn fulfil(&mut self, wish: Wish, now: Instant) {
        match wish {
            Wish::ReleaseAnnouncements => {
                log::error!(
                    "an address was announced, but the shell has not told its node's name: the \
                     address is passed on unchanged, and connections to it will fail"
                );
                self.release_held(now);
            }
            Wish::CutOutput => {
                self.stdout.cut(&mut self.reactor);
                self.stderr.cut(&mut self.reactor);
            }
            Wish::EndJob => {
                self.watch.stop();
                self.listeners.close(&mut self.reactor);
                self.end_relay();
                self.keeper.end();
            }
            Wish::EndOrphans => {
                self.listeners.close(&mut self.reactor);
                self.end_relay();
                self.end_orphans(now);
            }
            Wish::Leave(status) => self.status = Some(status),
        }
    }

    /// The keeper is lost, and what was below it has been adopted by us.
    fn end_orphans(&mut self, now: Instant) {
        log::error!("the keeper is lost: ending what it left");
        // So that everything below us is what the keeper left.
        let (errands, mut watch) = self.errands();
        errands.end_all(&mut watch);
        self.session.tell(Event::ReasonKnown, now);
        let below = Below {
            top: None,
            launch: self.launched,
            session: Some(self.keeper.pid()),
            job: self.job,
            hung_up: true,
        };
        self.orphans = Some(Ender::begin(now, below, self.inherited));
        self.reap(now);
    }

    pub(super) fn has_undelivered(&self) -> bool {
        !(self.stdout.is_delivered() && self.stderr.is_delivered())
    }

    /// Writes the last lines, as far as stderr has a reader who reads, and is done.
    pub(super) fn leave(mut self, status: u8) -> u8 {
        self.door.sum_up();
        self.account.end(&Known {
            job: self.job,
            node: self.backend.node(),
            cause: self.session.cause(),
            status,
        });
        let until = Instant::now() + LAST_LINES;
        loop {
            self.insert_lines();
            let rest = until.saturating_duration_since(Instant::now());
            if self.stderr.is_delivered() || rest.is_zero() {
                break;
            }
            // Only stderr matters now: whatever else is ready is left alone.
            let Some(end) = self.stderr.sink().descriptor() else {
                break;
            };
            let mut end = [PollFd::new(end, PollFlags::POLLOUT)];
            let timeout = PollTimeout::try_from(rest).unwrap_or(PollTimeout::ZERO);
            if poll(&mut end, timeout).is_err() {
                break;
            }
            let mut io = Io {
                reactor: &mut self.reactor,
                pool: &mut self.stdio_pool,
            };
            self.stderr.flush(&mut io);
        }
        status
    }
}
