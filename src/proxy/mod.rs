//! One session: everything that it owns, and the loop that drives it.
//!
//! The loop waits in one place, gives each descriptor that can go on one turn, and then settles:
//! the session's wishes are carried out, the log's lines go to stderr, and the next deadline is
//! known. No rule of the relay, of the interceptor or of a session's life stands here; they are
//! asked.

mod account;
mod backend;
mod control;
mod dial_back;
mod door;
mod errand;
mod forward;
mod in_job;
mod inlet;
mod limit;
mod listeners;
mod outlet;
mod reach;
mod sink;
mod start;
mod startup;
mod watch;
mod workgroup;

use std::io;
use std::time::{Duration, Instant};

use bstr::ByteSlice;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use rustix::process::Pid;

use crate::ending::{JobId, Status};
use crate::intercept::{ProbeAnswer, STARTUP_ENDED};
use crate::job_watch::JobWatch;
use crate::keeper::{Below, Ender, Keeper, Launched, Report, refused_status};
use crate::logging;
use crate::opening::{Opening, Overdue};
use crate::options::Reach;
use crate::reactor::{Deadlines, Reactor};
use crate::relay::Pool;
use crate::session::{Event, Session, Wish};
use crate::sys::reap::{self, Left};
use crate::sys::signals::Signals;
use crate::sys::spawn::Inherited;
use crate::transfer::Pipes;

use account::{Account, Known};
use backend::Backend;
use door::Door;
use errand::{Errand, Errands, Watch};
use forward::{Forwards, Net};
use in_job::InJob;
use inlet::Inlet;
use listeners::Listeners;
use outlet::{Outlet, Said};
use reach::{REPORT_LIMIT, Starter};
use sink::Io;
use startup::Startup;
use watch::SlurmCommands;

pub use start::{StartError, start};

/// Whose descriptor became ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Signals,
    Keeper,
    /// Our stdin, or the shell's.
    Inlet,
    /// The shell's stdout, or ours.
    Stdout,
    /// The shell's stderr, or ours.
    Stderr,
    /// The listener with this index.
    Listener(usize),
    /// The client's socket of the connection with this index.
    Client(usize),
    /// The server's socket of the connection with this index.
    Server(usize),
    /// The listener for what the relay in the job dials.
    DialBack,
    /// The connection with this index of somebody who has not proved to be the relay.
    Visitor(usize),
    /// The control connection to the relay.
    Control,
    /// The data connection that no client has yet.
    Spare,
    /// A command beside the loop.
    Errand(Errand),
}

/// Whose deadline has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Session,
    /// A shell that has not answered the probe.
    Silence,
    /// The question of the opening that is under way.
    Opening,
    /// The end of what a lost keeper left to us.
    Orphans,
    /// The pause of accepting.
    Accept,
    /// The connection with this index, under way to the node.
    Connect(usize),
    /// The pause of accepting what the relay in the job dials.
    DialBack,
    /// The connection with this index of somebody who has not proved to be the relay.
    Visitor(usize),
    /// The control connection to the relay, which is lost.
    Control,
    /// The next line about the job, or the next question.
    JobWatch,
    Errand(Errand),
}

/// What the shell is asked behind the probe, before it gets the client's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    /// The startup commands; that they have ended is the answer.
    Startup,
    /// To start the relay; the relay's report is the answer.
    Relay,
    /// Not the shell: an errand, for the copy of this program that the shell is then asked to start.
    Copy,
}

/// Most bytes of log lines handed to stderr at one time; less than a block of its pool holds.
const LINES: usize = 16 * 1024;
/// After this time without an answer from a shell the log says what may be the matter. Waiting in a
/// queue is the likeliest, and may well take longer.
const SILENCE: Duration = Duration::from_secs(60);
/// How long the last lines for stderr may wait for its reader.
const LAST_LINES: Duration = Duration::from_secs(1);

/// A session that was started. [`Proxy::run`] is the rest of its life.
pub struct Proxy {
    reactor: Reactor<Source>,
    deadlines: Deadlines<Owner>,
    session: Session,
    signals: Signals,
    inherited: Inherited,
    keeper: Keeper,
    /// What is known of the launch command.
    launched: Launched,
    /// How the launch command is called in messages.
    launch: String,
    /// Whether the launch command is Slurm's own default, which may put its shell on this machine.
    is_salloc: bool,
    /// What the keeper left to us when it was lost.
    orphans: Option<Ender>,
    job: Option<JobId>,
    /// Slurm has said that the job is there.
    granted: bool,
    opening: Opening<Question>,
    startup: Startup,
    inlet: Inlet,
    stdout: Outlet,
    stderr: Outlet,
    said: Vec<Said>,
    listeners: Listeners,
    forwards: Forwards,
    backend: Backend,
    errands: Errands,
    slurm: SlurmCommands,
    watch: JobWatch,
    account: Account,
    door: Door,
    reach: Reach,
    /// The relay in the job, from before its start on; `None` where connections go directly.
    in_job: Option<InJob>,
    /// What starts that relay.
    starter: Option<Starter>,
    /// This machine's name, as `uname -n` prints it.
    here: Vec<u8>,
    unrecognised_told: bool,
    /// Lines of the log under way to stderr, and how many bytes of them have been handed over.
    lines: Vec<u8>,
    lines_done: usize,
    carried: u64,
    stdio_pool: Pool,
    pool: Pool,
    pipes: Pipes,
    /// The buffer that every read goes through.
    scratch: Vec<u8>,
    /// How much of it the standard streams use.
    stdio_read: usize,
    status: Option<u8>,
}

impl Proxy {
    /// Relays until the session is over; the exit status.
    pub fn run(mut self) -> u8 {
        logging::queue();
        let silence = Instant::now() + SILENCE;
        self.deadlines.set(Owner::Silence, Some(silence));
        loop {
            self.settle(Instant::now());
            if let Some(status) = self.status {
                return self.leave(status);
            }
            let next = self.deadlines.next();
            let timeout = next.map(|at| at.saturating_duration_since(Instant::now()));
            if let Err(error) = self.reactor.wait(timeout) {
                // Without it nothing can be relayed or awaited; the keeper ends the rest.
                log::error!("cannot wait for events: {error}");
                return self.leave(1);
            }
            let now = Instant::now();
            while let Some(owner) = self.deadlines.expired(now) {
                self.expire(owner, now);
            }
            for _ in 0..self.reactor.queued() {
                let Some((_, source)) = self.reactor.pop() else {
                    break;
                };
                self.turn(source, now);
            }
        }
    }

    fn turn(&mut self, source: Source, now: Instant) {
        match source {
            Source::Signals => self.read_signals(now),
            Source::Keeper => self.read_reports(now),
            Source::Inlet => {
                let (inlet, mut io, scratch) = self.inlet();
                inlet.turn(&mut io, scratch);
            }
            Source::Stdout => {
                if self.stdout.sink().is_orphaned(&self.reactor) {
                    self.session.tell(Event::ClientGone, now);
                }
                self.turn_outlet(Stream::Stdout, now);
            }
            Source::Stderr => self.turn_outlet(Stream::Stderr, now),
            Source::Listener(index) => {
                if !self.session.is_ending() {
                    let (forwards, mut net) = self.net();
                    forwards.accept(index, &mut net);
                }
            }
            Source::Client(index) | Source::Server(index) => {
                let (forwards, mut net) = self.net();
                forwards.turn(index, &mut net);
            }
            Source::Errand(errand) => {
                let (errands, mut watch) = self.errands();
                if let Some(answer) = errands.turn(errand, &mut watch) {
                    self.errand_ended(errand, Some(&answer), now);
                }
            }
            Source::DialBack | Source::Visitor(_) | Source::Control | Source::Spare => {
                self.turn_reach(source, now);
            }
        }
    }

    fn expire(&mut self, owner: Owner, now: Instant) {
        match owner {
            Owner::Session => {
                let undelivered = self.has_undelivered();
                self.session.timeout(now, undelivered);
            }
            Owner::Silence => log::warn!(
                "no shell has answered for {} s{}its shell may be one that reads a pipe to its end \
                 before it runs anything (fish): name another one in the launch command, as in \
                 vscode-shell-proxy -- salloc srun --pty bash",
                SILENCE.as_secs(),
                match self.granted {
                    true => " since the job was granted: ",
                    false => ": the job may still wait in the queue; where it has started, ",
                }
            ),
            Owner::Opening => {
                use Overdue::{Probe, Question as Asked};
                match self.opening.overdue(now) {
                    None => {}
                    Some(Probe) => self.go_directly(
                        "something in the job has written, but no shell has answered",
                        now,
                    ),
                    Some(Asked(Question::Startup)) => self.startup_overdue(now),
                    Some(Asked(Question::Relay)) => self.relay_overdue(now),
                    Some(Asked(Question::Copy)) => self.copy_made(None, now),
                }
            }
            Owner::Orphans => {
                if let Some(orphans) = &mut self.orphans {
                    orphans.timeout(now);
                }
            }
            Owner::Accept => {
                let (forwards, mut net) = self.net();
                forwards.resume(&mut net);
            }
            Owner::Connect(index) => {
                let (forwards, mut net) = self.net();
                forwards.connect_timeout(index, &mut net);
            }
            Owner::JobWatch => self.watch.timeout(now),
            Owner::Errand(errand) => {
                let (errands, mut watch) = self.errands();
                errands.end(errand, &mut watch);
                self.errand_ended(errand, None, now);
            }
            Owner::DialBack | Owner::Visitor(_) | Owner::Control => self.expire_reach(owner),
        }
    }

    /// Draws the conclusions of what the turns have brought, and sets the session's deadline.
    fn settle(&mut self, now: Instant) {
        if self.session.is_draining() {
            self.settle_output(now);
        }
        self.fulfil_wishes(now);
        if let Some(orphans) = &mut self.orphans {
            while let Some(note) = orphans.take_note() {
                log::log!(note.level(), "{note}");
            }
            self.deadlines.set(Owner::Orphans, orphans.deadline());
            if orphans.is_done() {
                self.session.tell(Event::OrphansEnded, now);
                self.fulfil_wishes(now);
            }
        }
        self.watch_job(now);
        self.insert_lines();
        let undelivered = self.has_undelivered();
        self.deadlines
            .set(Owner::Session, self.session.deadline(undelivered));
    }

    fn settle_output(&mut self, now: Instant) {
        let carried = self.stdout.sink().flow.carried() + self.stderr.sink().flow.carried();
        if std::mem::replace(&mut self.carried, carried) != carried {
            self.session.tell(Event::Progress, now);
        }
        // There is no server any more that an address could lead to.
        self.release_held(now);
        let awaited = self.session.awaits_holders() && {
            let (forwards, net) = self.net();
            forwards.owe_clients(&net)
        };
        if self.stdout.is_drained() && self.stderr.is_drained() && !awaited {
            self.session.tell(Event::OutputDrained, now);
        }
    }

    fn fulfil_wishes(&mut self, now: Instant) {
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

    fn read_signals(&mut self, now: Instant) {
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

    fn read_reports(&mut self, now: Instant) {
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

    fn turn_outlet(&mut self, stream: Stream, now: Instant) {
        let (outlet, mut io, scratch, said) = self.outlet(stream);
        outlet.turn(&mut io, scratch, said);
        self.hear(stream, now);
    }

    /// Acts on what `stream` has said, and answers the addresses that it holds.
    fn hear(&mut self, stream: Stream, now: Instant) {
        let mut said = std::mem::take(&mut self.said);
        for said in said.drain(..) {
            match said {
                Said::Answered(answer) => self.answered(answer, stream, now),
                Said::Allocation(allocation) => self.heed_allocation(allocation, now),
                Said::Word(word) if word == STARTUP_ENDED => self.startup_ended(now),
                Said::EndedAside(last) => self.startup_cut_short(stream, &last),
                Said::Word(word) => self.heed_word(&word, now),
                Said::Echo => self.heed_life(now + REPORT_LIMIT),
                Said::Spoken if stream == Stream::Stdout => self.heed_life(now + SILENCE),
                Said::Spoken => {}
                Said::AnnouncedSocket => {
                    log::warn!(
                        "the server listens on a Unix socket, which cannot be reached from here: \
                         switch off \"Remote.SSH: Remote Server Listen On Socket\" in VS Code"
                    );
                    self.announced();
                }
            }
        }
        self.said = said;
        while let Some(announcement) = self.outlet(stream).0.held() {
            self.announced();
            if self.backend.node().is_none() {
                self.session.tell(Event::AnnouncementHeld, now);
                return;
            }
            let port = self
                .listeners
                .stand_for(announcement.port, &mut self.reactor);
            let (outlet, mut io, _, said) = self.outlet(stream);
            outlet.release(port, &mut io, said);
            let (forwards, mut net) = self.net();
            forwards.unpark(&mut net);
            if !self.said.is_empty() {
                return self.hear(stream, now);
            }
        }
    }

    /// The shell has told where it runs.
    fn answered(&mut self, answer: ProbeAnswer, stream: Stream, now: Instant) {
        if self.backend.node().is_some() {
            return;
        }
        let is_here = answer.node == self.here;
        self.stderr.allocation_is_known();
        if let Some(job) = answer.job.as_deref().and_then(JobId::parse) {
            self.job_known(job);
        }
        if let Some(job) = self.job {
            log::info!("the shell runs on {} in job {job}", answer.node.as_bstr());
        } else {
            log::info!("the shell runs on {}", answer.node.as_bstr());
        }
        if is_here && (self.is_salloc || self.job.is_some()) {
            log::warn!(
                "the job's shell runs on this machine, {}, and not on a compute node: this \
                 cluster's salloc starts it here (its LaunchParameters lack \
                 use_interactive_step); put the launch command into the RemoteCommand: \
                 vscode-shell-proxy -- salloc srun --pty bash",
                answer.node.as_bstr()
            );
        }
        self.deadlines.set(Owner::Silence, None);
        self.watch.runs(answer.node.as_bstr(), now);
        self.backend.set_node(&answer, is_here);
        self.session.tell(Event::AnnouncementReleased, now);
        self.go_on(|opening| opening.begin(now));
        if self.in_job.is_none() {
            self.look_up();
        }
        // An address that the other stream holds has waited for this.
        self.hear(stream.other(), now);
    }

    /// Looks for the way to the node, before anybody needs it.
    fn look_up(&mut self) {
        let (forwards, mut net) = self.net();
        forwards.seek(&mut net);
    }

    /// Gives the shell what the opening's next `step` has for it, and then the client's bytes.
    fn go_on(&mut self, step: impl FnOnce(&mut Opening<Question>) -> Option<&[u8]>) {
        let mut io = Io {
            reactor: &mut self.reactor,
            pool: &mut self.stdio_pool,
        };
        if let Some(text) = step(&mut self.opening) {
            self.inlet.ask(text, &mut io);
        }
        if self.opening.is_over() {
            self.inlet.open(io.reactor);
        }
        if self.opening.awaits(Question::Startup) {
            self.startup_begins();
        }
        self.deadlines.set(Owner::Opening, self.opening.deadline());
    }

    /// An address was announced: nothing in the client's direction is ours any more.
    fn announced(&mut self) {
        let (inlet, mut io, _) = self.inlet();
        inlet.announced(&mut io);
        if self.backend.node().is_some() {
            self.stdout.stop_filtering();
            self.stderr.stop_filtering();
        }
        if !self.inlet.server_start_seen && !std::mem::replace(&mut self.unrecognised_told, true) {
            log::warn!(
                "an address was announced, but no command that starts a server was recognised in \
                 what the client sent: the server may listen on its node's loopback only, and \
                 connections to it be refused"
            );
        }
    }

    /// Answers every address that is held: unchanged.
    fn release_held(&mut self, now: Instant) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            while self.outlet(stream).0.held().is_some() {
                let (outlet, mut io, _, said) = self.outlet(stream);
                outlet.release(None, &mut io, said);
            }
            self.hear(stream, now);
        }
    }

    /// Hands the log's lines to stderr, whole, whenever nothing else waits for its reader.
    fn insert_lines(&mut self) {
        while self.stderr.is_delivered() {
            if self.lines_done == self.lines.len() {
                self.lines.clear();
                self.lines_done = 0;
                if !logging::queued() {
                    return;
                }
                logging::take(&mut self.lines);
            }
            let rest = &self.lines[self.lines_done..];
            let most = rest.len().min(LINES);
            let chunk = match rest[..most].rfind_byte(b'\n') {
                Some(end) => &rest[..=end],
                None => &rest[..most],
            };
            self.lines_done += chunk.len();
            let mut io = Io {
                reactor: &mut self.reactor,
                pool: &mut self.stdio_pool,
            };
            self.stderr.insert(chunk, &mut io);
        }
    }

    fn has_undelivered(&self) -> bool {
        !(self.stdout.is_delivered() && self.stderr.is_delivered())
    }

    /// Writes the last lines, as far as stderr has a reader who reads, and is done.
    fn leave(mut self, status: u8) -> u8 {
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

    fn inlet(&mut self) -> (&mut Inlet, Io<'_>, &mut [u8]) {
        let io = Io {
            reactor: &mut self.reactor,
            pool: &mut self.stdio_pool,
        };
        (&mut self.inlet, io, &mut self.scratch[..self.stdio_read])
    }

    fn outlet(&mut self, stream: Stream) -> (&mut Outlet, Io<'_>, &mut [u8], &mut Vec<Said>) {
        let outlet = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let io = Io {
            reactor: &mut self.reactor,
            pool: &mut self.stdio_pool,
        };
        (
            outlet,
            io,
            &mut self.scratch[..self.stdio_read],
            &mut self.said,
        )
    }

    fn errands(&mut self) -> (&mut Errands, Watch<'_>) {
        let watch = Watch {
            reactor: &mut self.reactor,
            deadlines: &mut self.deadlines,
        };
        (&mut self.errands, watch)
    }

    fn net(&mut self) -> (&mut Forwards, Net<'_>) {
        let net = Net {
            reactor: &mut self.reactor,
            pool: &mut self.pool,
            pipes: &mut self.pipes,
            scratch: &mut self.scratch,
            deadlines: &mut self.deadlines,
            listeners: &mut self.listeners,
            backend: &mut self.backend,
            errands: &mut self.errands,
            slurm: &self.slurm,
            door: &mut self.door,
            in_job: &mut self.in_job,
        };
        (&mut self.forwards, net)
    }
}

/// One of the two streams from the job to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn other(self) -> Self {
        match self {
            Self::Stdout => Self::Stderr,
            Self::Stderr => Self::Stdout,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}
