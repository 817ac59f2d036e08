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
mod end;
mod errand;
mod forward;
mod hearing;
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

use std::time::{Duration, Instant};

use bstr::ByteSlice;

use crate::ending::JobId;
use crate::job_watch::JobWatch;
use crate::keeper::{Ender, Keeper, Launched};
use crate::logging;
use crate::opening::{Opening, Overdue};
use crate::options::Reach;
use crate::reactor::{Deadlines, Reactor, Rounds};
use crate::relay::Pool;
use crate::revocation::Revocation;
use crate::session::{Event, Session};
use crate::sys::signals::Signals;
use crate::sys::spawn::Inherited;
use crate::transfer::Pipes;

use account::Account;
use backend::Backend;
use door::Door;
use errand::{Errand, Errands, Watch};
use forward::{Forwards, Net};
use in_job::InJob;
use inlet::Inlet;
use listeners::Listeners;
use outlet::{Outlet, Said};
use reach::Starter;
use sink::Io;
use startup::Startup;
use watch::SlurmCommands;

pub use start::{StartError, start};

/// Whose descriptor became ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
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
pub(crate) enum Owner {
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
    /// The next look at a salloc whose job is gone.
    Revocation,
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
    revocation: Revocation,
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
            if let Err(error) = self.round() {
                // Without it nothing can be relayed or awaited; the keeper ends the rest.
                log::error!("cannot wait for events: {error}");
                return self.leave(1);
            }
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

impl Rounds for Proxy {
    type Source = Source;
    type Owner = Owner;

    fn awaited(&mut self) -> (&mut Reactor<Source>, &mut Deadlines<Owner>) {
        (&mut self.reactor, &mut self.deadlines)
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
            Owner::Revocation => self.look_at_salloc(now),
            Owner::Errand(errand) => {
                let (errands, mut watch) = self.errands();
                errands.end(errand, &mut watch);
                self.errand_ended(errand, None, now);
            }
            Owner::DialBack | Owner::Visitor(_) | Owner::Control => self.expire_reach(owner),
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
