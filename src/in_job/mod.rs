//! The relay inside the job: this program in a hidden mode, started by a line in the job's shell.
//!
//! It gets its instructions on stdin (see [`crate::reach`]), and splits. The half in the foreground,
//! for which the shell waits, does nothing but answer when the other half is up. The half in the
//! background leaves the shell's streams and session, dials back to the proxy, and relays.
//!
//! # Its end
//! It ends with the shell, of which it learns at once; when the proxy says so; on SIGTERM. What the
//! targets have sent until then is passed on before, as long as the proxy waits for it
//! ([`HOLDER_LIMIT`]). Where the control connection is lost and does not come back within the grace,
//! the login side is gone without a word: then it has the job cancelled, ends the shell and
//! everything below that ([`Ender`]), and leaves.
//! Streams that are relayed already are not touched while the control connection is away.
//!
//! # What it costs
//! One thread, which sleeps while nothing happens; what readers of its streams do not take waits in
//! at most 512 KiB. It holds the session's secret in memory, and nowhere else.

mod dial;
mod lifeline;
mod link;
mod shell;
mod streams;

use std::ffi::OsString;
use std::io::{self, PipeWriter, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use log::Level;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{chdir, setsid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, kill_process};

use crate::ending::{JobId, Status};
use crate::keeper::{Below, Ender, Launched};
use crate::reach::{IN_JOB, Instructions, LINE, Order, Report, Role, UNREACHED};
use crate::reactor::{Deadlines, Reactor, Rounds};
use crate::relay::{Close, Pool};
use crate::session::HOLDER_LIMIT;
use crate::sys::background::{self, Half};
use crate::sys::reap;
use crate::sys::signals::{Signals, shield};
use crate::sys::spawn::{Inherited, leave_streams, notice_children};
use crate::transfer::{self, Pipes};

pub use crate::reach::MODE;

use dial::Dial;
use lifeline::{Lifeline, Wish};
use link::{Link, Lost};
use shell::Shell;
use streams::{Net, Streams};

/// Exit status where the relay cannot run here, or was lost.
const FAILED: u8 = 1;
/// Exit status where stdin holds no instructions of this version.
const MISUSED: u8 = 2;

/// How long the foreground may take: the proxy waits for 3 s.
const LIMIT: Duration = Duration::from_millis(2500);
/// What the background says when it is up.
const UP: u8 = b'u';

/// The buffer that every read goes through, and the size of the pool's blocks: so large that they are
/// memory only as far as they are used, and given back.
const BLOCK: usize = 128 * 1024;
/// Most blocks with bytes for slow readers; beyond them nothing is read that cannot be written. With
/// all of them full the relay has less than 2 MiB resident.
const POOL_BLOCKS: usize = 4;
/// How long at the end a reader may take for the last bytes: as long as the proxy waits for them.
const LAST_BYTES: Duration = HOLDER_LIMIT;
/// How often it is looked who is left of those that are being ended.
const LOOK: Duration = Duration::from_secs(1);

/// Whose descriptor became ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Signals,
    Shell,
    Control,
    /// The data connection of the stream with this index.
    Data(usize),
    /// The target's end of the stream with this index.
    Target(usize),
}

/// Whose deadline has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Lifeline,
    Shell,
    Spare,
    /// The stream with this index, which is being set up.
    Stream(usize),
    End,
    Look,
    LastBytes,
}

/// The mode: the status for the shell, 0 where it was answered.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let until = Instant::now() + LIMIT;
    if args.into_iter().next().is_some() {
        return MISUSED.into();
    }
    let Some(instructions) = read_instructions(until) else {
        return MISUSED.into();
    };
    match start(&instructions, until) {
        Ok(status) => status.into(),
        Err(_) => FAILED.into(),
    }
}

/// The line on stdin. Whatever follows it is not read.
fn read_instructions(until: Instant) -> Option<Instructions> {
    let stdin = io::stdin();
    let mut line = Vec::with_capacity(LINE);
    let mut byte = [0];
    // One by one: it is a short line, and what follows is not ours.
    while line.len() <= LINE + 1 && line.last() != Some(&b'\n') {
        if !await_readable(stdin.as_fd(), until) {
            return None;
        }
        match rustix::io::read(&stdin, &mut byte) {
            Ok(0) => break,
            Ok(_) => line.extend(byte),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    Instructions::parse(&line).ok()
}

/// Waits until `fd` can be read, or has ended; whether that was in time.
fn await_readable(fd: BorrowedFd<'_>, until: Instant) -> bool {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: left.as_secs().cast_signed(),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => return ready > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// Splits; the status of whichever half this is.
fn start(instructions: &Instructions, until: Instant) -> io::Result<u8> {
    let shell = Shell::parent()?;
    let (mut up, is_up) = io::pipe()?;
    match background::split()? {
        Half::Background => {
            drop(up);
            let inherited = Inherited::capture()?;
            Ok(Relay::new(instructions, shell, is_up, inherited)?.run())
        }
        Half::Foreground(relay) => {
            drop(is_up);
            let mut said = [0];
            let in_time = await_readable(up.as_fd(), until);
            if !in_time {
                // Our child, which we have not reaped.
                let _ = kill_process(relay, rustix::process::Signal::KILL);
            }
            let is_up = in_time && up.read(&mut said)? > 0;
            let word = if is_up { IN_JOB } else { UNREACHED };
            let mut stdout = io::stdout();
            stdout.write_all(instructions.answer(word).as_bytes())?;
            stdout.flush()?;
            Ok(0)
        }
    }
}

/// The background's half.
struct Relay {
    reactor: Reactor<Source>,
    deadlines: Deadlines<Owner>,
    signals: Signals,
    inherited: Inherited,
    instructions: Instructions,
    shell: Shell,
    /// Who waits for the first contact.
    starter: Option<PipeWriter>,
    lifeline: Lifeline,
    /// The control connection that is under way.
    dial: Option<Dial>,
    /// The one that stands.
    link: Option<Link>,
    orders: Vec<Order>,
    reports: Vec<Report>,
    streams: Streams,
    pool: Pool,
    pipes: Pipes,
    scratch: Vec<u8>,
    /// The end of the shell and the job, where the login side is gone.
    ender: Option<Ender>,
    /// Nothing begins any more, and with the last stream the relay leaves.
    is_finishing: bool,
    status: Option<u8>,
}

impl Relay {
    fn new(
        instructions: &Instructions,
        shell: Shell,
        starter: PipeWriter,
        inherited: Inherited,
    ) -> io::Result<Self> {
        prctl::set_name(c"vscode-in-job")?;
        shield()?;
        notice_children()?;
        setsid()?;
        chdir("/")?;
        let pidfd = shell.pidfd().into_iter();
        leave_streams(&pidfd.chain([starter.as_fd()]).collect::<Vec<_>>())?;
        let signals = Signals::block(&[Signal::SIGTERM, Signal::SIGCHLD])?;
        let descriptors = inherited
            .raise_open_files()
            .unwrap_or(inherited.open_files());
        let mut reactor = Reactor::with_room(0)?;
        reactor.register(signals.as_fd(), Source::Signals)?;
        let mut deadlines = Deadlines::default();
        match shell.pidfd() {
            Some(pidfd) => drop(reactor.register(pidfd, Source::Shell)?),
            None => deadlines.set(Owner::Shell, Some(Instant::now() + shell::CHECK)),
        }
        let lifeline = Lifeline::start(
            Instant::now(),
            instructions.addresses.len(),
            instructions.grace,
        );
        Ok(Self {
            reactor,
            deadlines,
            signals,
            inherited,
            instructions: instructions.clone(),
            shell,
            starter: Some(starter),
            lifeline,
            dial: None,
            link: None,
            orders: Vec::new(),
            reports: Vec::new(),
            streams: Streams::new(descriptors),
            pool: Pool::new(BLOCK, POOL_BLOCKS, 0),
            pipes: Pipes::default(),
            scratch: vec![0; BLOCK],
            ender: None,
            is_finishing: false,
            status: None,
        })
    }

    /// Relays until the end; the status.
    fn run(mut self) -> u8 {
        loop {
            self.settle(Instant::now());
            if let Some(status) = self.status {
                return status;
            }
            if self.round().is_err() {
                return FAILED;
            }
        }
    }

    /// Draws the conclusions of what the turns have brought.
    fn settle(&mut self, now: Instant) {
        while let Some(wish) = self.lifeline.wish() {
            match wish {
                Wish::Dial(address) => self.dial(address, now),
                Wish::Leave => self.status = Some(FAILED),
                Wish::EndJob => self.end_job(now),
            }
        }
        if let Some(link) = &mut self.link {
            self.reports.drain(..).for_each(|report| link.tell(&report));
            if let Err(Lost) = link.flush(&mut self.reactor) {
                self.lose_link(now);
                return self.settle(now);
            }
        }
        self.reports.clear();
        if self.is_finishing && self.streams.is_empty() {
            self.status = Some(0);
        }
        self.deadlines
            .set(Owner::Lifeline, self.lifeline.deadline());
        if let Some(ender) = &self.ender {
            self.deadlines.set(Owner::End, ender.deadline());
            if ender.is_done() {
                self.status = Some(0);
            }
        }
    }

    /// Dials the control connection.
    fn dial(&mut self, address: usize, now: Instant) {
        self.drop_dial();
        let Some(proxy) = self.instructions.addresses.get(address) else {
            return self.lifeline.lost(now);
        };
        match Dial::begin(*proxy, Role::Control, Source::Control, &mut self.reactor) {
            Ok(dial) => self.dial = Some(dial),
            Err(_) => self.lifeline.lost(now),
        }
    }

    fn drop_dial(&mut self) {
        if let Some(dial) = self.dial.take() {
            transfer::close(dial.into_end(), Close::Reset, &mut self.reactor);
        }
    }

    fn lose_link(&mut self, now: Instant) {
        if let Some(link) = self.link.take() {
            // An orderly end would say that we have left.
            transfer::close(link.into_end(), Close::Reset, &mut self.reactor);
        }
        self.lifeline.lost(now);
    }

    fn turn_control(&mut self, now: Instant) {
        if let Some(dial) = &mut self.dial {
            match dial.turn(&self.instructions.secret, &mut self.reactor) {
                Ok(false) => return,
                Ok(true) => self.contact(),
                Err(_) => {
                    self.drop_dial();
                    return self.lifeline.lost(now);
                }
            }
        }
        let Some(link) = &mut self.link else {
            return;
        };
        let read = link.read(&mut self.orders, &mut self.scratch, &mut self.reactor);
        let mut orders = std::mem::take(&mut self.orders);
        for order in orders.drain(..) {
            match order {
                Order::Open { number, target } => {
                    let (streams, mut net) = self.net();
                    streams.open(number, &target, &mut net);
                }
                Order::End => self.finish(now),
            }
        }
        self.orders = orders;
        if let Err(Lost) = read {
            self.lose_link(now);
        }
    }

    /// The control connection that was under way stands.
    fn contact(&mut self) {
        let Some(dial) = self.dial.take() else {
            return;
        };
        self.link = Some(Link::new(dial.into_end()));
        self.lifeline.up();
        self.reports.push(Report::Greeting {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: rustix::system::uname().nodename().to_bytes().to_vec(),
            job: job_text(),
        });
        if let Some(mut starter) = self.starter.take()
            && starter.write_all(&[UP]).is_err()
        {
            // It has given us up, and the shell goes on without us.
            self.status = Some(FAILED);
        }
        self.see_to_spare();
    }

    /// Spares are dialled for a proxy that is there.
    fn see_to_spare(&mut self) {
        if !self.lifeline.is_up() {
            return;
        }
        let (streams, mut net) = self.net();
        streams.see_to_spare(&mut net);
    }

    fn read_signals(&mut self, now: Instant) {
        while let Ok(Some(signal)) = self.signals.read() {
            if signal == Signal::SIGCHLD {
                self.reap(now);
            } else if self.ender.is_none() {
                self.note(Level::Warn, "SIGTERM: leaving");
                self.finish(now);
            }
        }
    }

    /// `scancel` has ended; there is no other child.
    fn reap(&mut self, now: Instant) {
        let mut ended: Vec<(Pid, Status)> = Vec::new();
        let _ = reap::reap(|pid, status| ended.push((pid, status)));
        if let Some(ender) = &mut self.ender {
            for (pid, status) in ended {
                ender.reaped(now, pid, status);
            }
            self.look(now);
        }
    }

    fn shell_ended(&mut self, now: Instant) {
        if self.ender.is_some() {
            self.look(now);
        } else if !self.shell.is_alive() {
            self.note(Level::Info, "the job's shell has ended");
            self.finish(now);
        }
    }

    /// Begins nothing any more, and leaves once the last bytes are passed on.
    fn finish(&mut self, now: Instant) {
        if std::mem::replace(&mut self.is_finishing, true) {
            return;
        }
        self.deadlines.set(Owner::LastBytes, Some(now + LAST_BYTES));
        let (streams, mut net) = self.net();
        streams.finish(&mut net);
    }

    /// The login side is gone for good.
    fn end_job(&mut self, now: Instant) {
        let below = Below {
            top: Some(self.shell.identity()),
            // Whoever would release the job is gone with the login side, as if it had been killed:
            // so it is cancelled at once, beside the signals.
            launch: Launched::Ended(Status::Signal(Signal::SIGKILL as i32)),
            session: self.shell.session(),
            job: JobId::parse(&job_text()),
            hung_up: false,
        };
        self.ender = Some(Ender::begin(now, below, self.inherited));
        self.deadlines.set(Owner::Look, Some(now + LOOK));
    }

    fn look(&mut self, now: Instant) {
        if let Some(ender) = &mut self.ender {
            ender.look(now);
            self.deadlines.set(Owner::Look, Some(now + LOOK));
        }
    }

    fn note(&mut self, level: Level, text: &str) {
        let text = text.to_owned();
        self.reports.push(Report::Note { level, text });
    }

    fn net(&mut self) -> (&mut Streams, Net<'_>) {
        let address = self.instructions.addresses.get(self.lifeline.address());
        let net = Net {
            reactor: &mut self.reactor,
            deadlines: &mut self.deadlines,
            pool: &mut self.pool,
            pipes: &mut self.pipes,
            scratch: &mut self.scratch,
            secret: &self.instructions.secret,
            proxy: address.copied().unwrap_or(SocketAddr::from(([0; 4], 0))),
            reports: &mut self.reports,
        };
        (&mut self.streams, net)
    }
}

impl Rounds for Relay {
    type Source = Source;
    type Owner = Owner;

    fn awaited(&mut self) -> (&mut Reactor<Source>, &mut Deadlines<Owner>) {
        (&mut self.reactor, &mut self.deadlines)
    }

    fn expire(&mut self, owner: Owner, now: Instant) {
        match owner {
            Owner::Lifeline => {
                self.drop_dial();
                self.lifeline.timeout(now);
            }
            Owner::Shell if self.shell.is_alive() => {
                self.deadlines.set(Owner::Shell, Some(now + shell::CHECK));
            }
            Owner::Shell => self.shell_ended(now),
            Owner::Spare => self.see_to_spare(),
            Owner::Stream(index) => {
                let (streams, mut net) = self.net();
                streams.timeout(index, &mut net);
            }
            Owner::End => {
                if let Some(ender) = &mut self.ender {
                    ender.timeout(now);
                }
            }
            Owner::Look => self.look(now),
            Owner::LastBytes => self.status = Some(0),
        }
    }

    fn turn(&mut self, source: Source, now: Instant) {
        match source {
            Source::Signals => self.read_signals(now),
            Source::Shell => self.shell_ended(now),
            Source::Control => self.turn_control(now),
            Source::Data(index) | Source::Target(index) => {
                let (streams, mut net) = self.net();
                streams.turn(index, &mut net);
            }
        }
    }
}

/// What `SLURM_JOB_ID` holds.
fn job_text() -> Vec<u8> {
    std::env::var_os("SLURM_JOB_ID")
        .map(OsString::into_vec)
        .unwrap_or_default()
}
