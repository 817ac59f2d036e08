//! How the server in the job is reached: through a relay there, or directly. What decides it, and
//! what follows from the relay's life and death.

use std::net::{IpAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bstr::ByteSlice;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::home_copy;
use crate::intercept::Probe;
use crate::opening::Step;
use crate::options::{Options, Reach};
use crate::reach::{
    FAILED, FOREIGN, GRACE, Instructions, MISSING, Report, Secret, UNREACHED, launch_line,
};
use crate::reactor::Reactor;
use crate::session::Event;

use super::control::Line;
use super::dial_back::DialBack;
use super::errand::Errand;
use super::in_job::{Dialled, InJob, State};
use super::{Owner, Proxy, Question, Source};

/// How long the relay may take from the moment in which the shell is asked to start it; and the shell for
/// its first answer, once something was seen to read what it is asked.
pub(super) const REPORT_LIMIT: Duration = Duration::from_secs(3);
/// How much longer where somebody is about to prove to be the relay: one that was sent away then
/// would take the session for lost.
const PROOF_LIMIT: Duration = Duration::from_secs(5);
/// How long the copy of this program may take to be made: the client waits, and home directories may be
/// slow.
const COPY_LIMIT: Duration = Duration::from_secs(10);
/// How long the end of the relay waits for the launch command's, which explains it.
const END_LIMIT: Duration = Duration::from_secs(3);

/// What a session has for a relay in its job, from the beginning on.
pub(super) struct Means {
    pub(super) in_job: InJob,
    pub(super) starter: Starter,
    /// What asks the shell for the relay.
    pub(super) step: Step<Question>,
}

/// What starts the relay: this program on the node or, where that is missing, a copy of it.
pub(super) struct Starter {
    instructions: Instructions,
    /// This machine's kind, as `uname -m` prints it.
    machine: String,
    /// Where the copy is that the node is asked for, once it was made.
    copy: Option<PathBuf>,
    /// The relay got its time to prove itself.
    waited_for_proof: bool,
}

impl Starter {
    /// The question for the shell by which `program` starts.
    ///
    /// # Errors
    /// Its path cannot be told to every shell.
    fn ask(&mut self, program: &Path) -> Result<Step<Question>, String> {
        self.waited_for_proof = false;
        let text = program
            .to_str()
            .and_then(|program| launch_line(&self.instructions, program, &self.machine));
        let unnamed = || format!("the path {program:?} cannot be named in every shell");
        Ok(Step {
            name: Question::Relay,
            text: text.ok_or_else(unnamed)?,
            limit: REPORT_LIMIT,
        })
    }
}

/// Prepares for a relay in the job, where the options want one: `Ok(None)` where they do not.
///
/// # Errors
/// Why there can be none.
pub(super) fn prepare(
    options: &Options,
    probe: &Probe,
    reactor: &mut Reactor<Source>,
) -> Result<Option<Means>, String> {
    if options.reach == Reach::Direct {
        return Ok(None);
    }
    let program = std::env::current_exe()
        .map_err(|error| format!("cannot tell where this program stands: {error}"))?;
    let host = match &options.reach_host {
        Some(host) => Some(address(host)?),
        None => None,
    };
    let mut bits = [0; 32];
    getrandom(&mut bits, GetRandomFlags::empty())
        .map_err(|error| format!("cannot make a secret: {error}"))?;
    let secret = Secret::new(bits);
    let ports = options.reach_ports.as_ref().map(|ports| ports.0.clone());
    let (door, addresses) = DialBack::open(secret.clone(), host, ports, reactor)
        .map_err(|error| format!("cannot listen for a relay in the job: {error}"))?;
    log::info!("a relay in the job is to dial {addresses:?}");
    let mut starter = Starter {
        instructions: Instructions {
            secret,
            marker: probe.marker().to_owned(),
            grace: GRACE,
            addresses,
        },
        machine: rustix::system::uname().machine().to_string_lossy().into(),
        copy: None,
        waited_for_proof: false,
    };
    let step = starter.ask(&program)?;
    Ok(Some(Means {
        in_job: InJob::new(door),
        starter,
        step,
    }))
}

fn address(host: &str) -> Result<IpAddr, String> {
    let found = (host, 0)
        .to_socket_addrs()
        .map_err(|error| format!("--reach-host {host}: {error}"))?;
    let first = found.map(|at| at.ip()).min_by_key(IpAddr::is_ipv6);
    first.ok_or_else(|| format!("--reach-host {host}: it has no address"))
}

impl Proxy {
    /// A turn of what the relay dials.
    pub(super) fn turn_reach(&mut self, source: Source, now: Instant) {
        let Some(in_job) = &mut self.in_job else {
            return;
        };
        match source {
            Source::DialBack => in_job.door().accept(&mut self.reactor, &mut self.deadlines),
            Source::Visitor(index) => {
                let door = in_job.door();
                let proved = door.turn(index, &mut self.reactor, &mut self.deadlines);
                let Some((role, end)) = proved else { return };
                match in_job.dialled(role, end, &mut self.reactor) {
                    Dialled::Control => self.turn_reach(Source::Control, now),
                    Dialled::ServerFor(client, end) => {
                        let (forwards, mut net) = self.net();
                        forwards.serve(client, end, &mut net);
                    }
                    Dialled::Nothing => {}
                }
            }
            Source::Control => {
                let line = in_job.turn(&mut self.reactor, &mut self.scratch);
                while let Some(report) = self.in_job.as_mut().and_then(InJob::report) {
                    self.heed_relay(report, now);
                }
                match line {
                    None | Some(Line::Up) => {}
                    Some(Line::Ended) => self.miss_relay(now, END_LIMIT, "it has ended"),
                    Some(Line::Broken(error)) => self.miss_relay(now, GRACE, &error.to_string()),
                }
            }
            Source::Spare => in_job.turn_spare(&mut self.reactor),
            _ => {}
        }
    }

    /// A deadline of what the relay dials.
    pub(super) fn expire_reach(&mut self, owner: Owner) {
        let Some(in_job) = &mut self.in_job else {
            return;
        };
        match owner {
            Owner::DialBack => in_job.door().resume(&mut self.reactor),
            Owner::Visitor(index) => {
                in_job
                    .door()
                    .expire(index, &mut self.reactor, &mut self.deadlines);
            }
            Owner::Control => self.lose_relay(),
            _ => {}
        }
    }

    /// Something in the job shows that it is there: a shell would have answered by `at`.
    ///
    /// Nobody has to wait for it who does without a relay, or will not do without: start-up files
    /// and other schedulers' launch commands write, too, before there is a shell.
    pub(super) fn heed_life(&mut self, at: Instant) {
        if self.reach == Reach::Auto && self.in_job.is_some() {
            self.opening.alive(at);
            self.deadlines.set(Owner::Opening, self.opening.deadline());
        }
    }

    /// The job's shell, or what runs there, has answered a question with `word`.
    pub(super) fn heed_word(&mut self, word: &[u8], now: Instant) {
        if !self.opening.awaits(Question::Relay) {
            return;
        }
        let Some(starter) = &self.starter else { return };
        let why = match (word.to_str(), &starter.copy) {
            (Ok(MISSING), None) => return self.make_copy(now),
            (Ok(MISSING), Some(copy)) => format!(
                "neither this program nor its copy {} is on the node, or may be executed there",
                copy.display()
            ),
            (Ok(FOREIGN), _) => format!("the node is no {} machine", starter.machine),
            (Ok(FAILED), _) => "the node cannot execute this program".to_owned(),
            (Ok(UNREACHED), _) => "it cannot connect to this machine at any of the addresses that \
                 it was given (--reach-host and --reach-ports tell which)"
                .to_owned(),
            _ => return,
        };
        self.go_directly(&why, now);
    }

    /// The program is not on the node: a copy of it may be, by way of the home directory.
    fn make_copy(&mut self, now: Instant) {
        log::debug!("this program is not on the node: a copy is looked for in the home directory");
        let wait = Step {
            name: Question::Copy,
            text: Vec::new(),
            limit: COPY_LIMIT,
        };
        self.go_on(|opening| opening.follow_up(Question::Relay, wait, now));
        let mut command = Command::new("/proc/self/exe");
        command.arg(home_copy::MODE);
        let (errands, mut watch) = self.errands();
        if let Err(error) = errands.start(Errand::Copy, command, COPY_LIMIT, &mut watch) {
            self.copy_made(Some(Err(error.to_string())), now);
        }
    }

    /// The copy was made, or not in time.
    pub(super) fn copy_made(&mut self, copy: Option<Result<PathBuf, String>>, now: Instant) {
        let (Some(starter), true) = (&mut self.starter, self.opening.awaits(Question::Copy)) else {
            return;
        };
        let late = || Err(format!("it took more than {} s", COPY_LIMIT.as_secs()));
        let step = copy.unwrap_or_else(late).and_then(|copy| {
            let step = starter.ask(&copy);
            starter.copy = Some(copy);
            step
        });
        match step {
            Ok(step) => {
                self.stdout.expect_another_answer();
                self.stderr.expect_another_answer();
                self.go_on(|opening| opening.follow_up(Question::Copy, step, now));
            }
            Err(why) => {
                let why = format!(
                    "this program is not on the node, or may not be executed there, and no copy of \
                     it can be made: {why}"
                );
                self.go_directly(&why, now);
            }
        }
    }

    /// The relay has not reported in time.
    pub(super) fn relay_overdue(&mut self, now: Instant) {
        let is_close = self.in_job.as_mut().is_some_and(InJob::may_have_come);
        let waited = (self.starter.as_mut())
            .is_none_or(|starter| std::mem::replace(&mut starter.waited_for_proof, true));
        if is_close && !waited {
            self.opening.extend(now + PROOF_LIMIT);
            self.deadlines.set(Owner::Opening, self.opening.deadline());
            return;
        }
        let seconds = REPORT_LIMIT.as_secs();
        self.go_directly(&format!("it has not reported within {seconds} s"), now);
    }

    /// There is no relay, and will be none: connections go directly, or the session ends.
    pub(super) fn go_directly(&mut self, why: &str, now: Instant) {
        if let Some(in_job) = self.in_job.take() {
            in_job.close(&mut self.reactor, &mut self.deadlines);
        }
        if self.reach == Reach::InJob {
            log::error!("there is no relay in the job, which --reach in-job demands: {why}");
            return self.session.tell(Event::OpeningFailed, now);
        }
        log::warn!(
            "there is no relay in the job: {why}; connections go directly to the node, where the \
             server listens for other machines too (with --reach direct this is not tried)"
        );
        self.starter = None;
        for question in [Question::Relay, Question::Copy] {
            self.go_on(|opening| opening.give_up(question, now));
        }
        self.look_up();
        let (forwards, mut net) = self.net();
        forwards.unpark(&mut net);
    }

    /// The launch command has ended: the relay shall pass on the last bytes, and leave.
    pub(super) fn dismiss_relay(&mut self) {
        if let Some(in_job) = &mut self.in_job {
            in_job.dismiss(&mut self.reactor);
        }
    }

    /// The session ends: so does the relay.
    pub(super) fn end_relay(&mut self) {
        if let Some(in_job) = self.in_job.take() {
            in_job.close(&mut self.reactor, &mut self.deadlines);
        }
    }

    fn heed_relay(&mut self, report: Report, now: Instant) {
        let Some(in_job) = &mut self.in_job else {
            return;
        };
        match report {
            Report::Greeting { version, node, .. } => {
                let before = in_job.state();
                if version != env!("CARGO_PKG_VERSION") {
                    let why = format!("it is of version {version}");
                    return match before {
                        State::Awaited => self.go_directly(&why, now),
                        _ => self.miss_relay(now, Duration::ZERO, &why),
                    };
                }
                in_job.set_state(State::Up);
                self.deadlines.set(Owner::Control, None);
                if before == State::Awaited {
                    log::info!(
                        "a relay runs in the job on {}: the server stays on that node's loopback",
                        node.as_bstr()
                    );
                    self.inlet.pass_all();
                    self.go_on(|opening| opening.settle(Question::Relay, now));
                    let (forwards, mut net) = self.net();
                    forwards.unpark(&mut net);
                } else {
                    log::info!("the relay in the job is back");
                    let (forwards, mut net) = self.net();
                    forwards.order_again(&mut net);
                }
            }
            Report::Opened { number } => in_job.opened(number),
            Report::Failed { number, errno } => {
                let (forwards, mut net) = self.net();
                forwards.refused(number, errno, &mut net);
            }
            Report::Note { level, text } => log::log!(level, "relay in the job: {text}"),
        }
    }

    /// The control connection is gone, and may come back within `limit`.
    fn miss_relay(&mut self, now: Instant, limit: Duration, why: &str) {
        let Some(in_job) = &mut self.in_job else {
            return;
        };
        match in_job.state() {
            State::Awaited => self.go_directly(why, now),
            State::Up => {
                log::info!("the connection to the relay in the job is lost: {why}");
                in_job.set_state(State::Lost);
                self.deadlines.set(Owner::Control, Some(now + limit));
            }
            State::Lost | State::Gone => {}
        }
    }

    /// The relay is gone for good; the shell goes on.
    fn lose_relay(&mut self) {
        let Some(in_job) = &mut self.in_job else {
            return;
        };
        in_job.set_state(State::Gone);
        if !self.session.is_ending() && !self.session.is_draining() {
            log::error!(
                "the relay in the job is gone: its connections are closed, and new ones are \
                 refused; connect again for another job"
            );
        }
        let (forwards, mut net) = self.net();
        forwards.lose_relay(&mut net);
    }
}
