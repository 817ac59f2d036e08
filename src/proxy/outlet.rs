//! From the job's shell to the client: what belongs to the probe is taken out, announced addresses
//! are held until the proxy says which port stands for them, everything else passes at once.

use std::io;
use std::os::fd::AsFd;

use crate::intercept::{
    Allocation, AllocationWatch, Announcement, Outbound, OutboundPiece, ProbeAnswer, ProbeFilter,
    ProbePiece, STARTUP_ENDED, StartupOutput,
};
use crate::reactor::{Reactor, Token};
use crate::relay::{Block, Step};
use crate::sys::stdio::Stream;

use super::Source;
use super::sink::{Io, READS, Sink};

/// What was learnt from a stream, in the order in which it stood there.
pub(super) enum Said {
    /// The shell has answered the probe.
    Answered(ProbeAnswer),
    /// A further question of the opening was answered with this word.
    Word(Vec<u8>),
    /// A question has come back without an answer.
    Echo,
    /// The first bytes that are not ours.
    Spoken,
    /// The stream has ended while it was set aside, with this last line.
    EndedAside(String),
    /// Slurm has told of the job that is asked for.
    Allocation(Allocation),
    /// A Unix socket was announced; its line has passed untouched.
    AnnouncedSocket,
}

/// A stream from the shell's stdout or stderr to ours.
pub(super) struct Outlet {
    name: &'static str,
    source: Option<(Stream, Token)>,
    filter: ProbeFilter,
    /// What reads along.
    allocation: Option<AllocationWatch>,
    /// Something has come that is not ours.
    has_spoken: bool,
    /// How many bytes may still be read, once the output was cut.
    allowance: Option<u64>,
    /// While it is there: where the stream goes instead of to the client.
    aside: Option<StartupOutput>,
    exit: Exit,
}

/// The part behind the probe's filter.
struct Exit {
    outbound: Outbound,
    /// What was read behind an announced address that is not released yet.
    pending: Option<Block>,
    /// An announced address that waits for its answer.
    held: Option<Announcement>,
    sink: Sink,
}

impl Outlet {
    pub(super) fn new(
        name: &'static str,
        source: (Stream, Token),
        filter: ProbeFilter,
        sink: Sink,
    ) -> Self {
        let exit = Exit {
            outbound: Outbound::new(),
            pending: None,
            held: None,
            sink,
        };
        Self {
            name,
            source: Some(source),
            filter,
            allocation: None,
            has_spoken: false,
            allowance: None,
            aside: None,
            exit,
        }
    }

    /// One turn: a few reads, and the writes that they make possible.
    pub(super) fn turn(&mut self, io: &mut Io<'_>, scratch: &mut [u8], said: &mut Vec<Said>) {
        let mut reads = READS;
        loop {
            let readable = self.exit.has_room(scratch.len()) && self.may_be_read(io.reactor);
            let sink = &mut self.exit.sink;
            match sink.flow.step(readable, sink.is_ready(io.reactor)) {
                Step::Write => sink.write_left(io),
                Step::Read if reads > 0 => {
                    reads -= 1;
                    self.read(io, scratch, said);
                }
                Step::Read => {
                    self.wake(io.reactor);
                    return;
                }
                // The client's end stays open until we leave: it is how its death is noticed.
                Step::Shut | Step::Wait => return,
                Step::Done => {
                    self.close_source(io.reactor);
                    return;
                }
            }
        }
    }

    /// Answers the announcement that is held: with our port, or unchanged. What was read behind it
    /// goes on its way, up to the next announcement.
    pub(super) fn release(&mut self, port: Option<u16>, io: &mut Io<'_>, said: &mut Vec<Said>) {
        let exit = &mut self.exit;
        match port {
            Some(port) => exit.outbound.release(port),
            None => exit.outbound.release_unchanged(),
        }
        exit.held = None;
        let pending = exit.pending.take();
        exit.pass(pending.as_ref().map_or(&[], Block::bytes), io, said);
        if let Some(block) = pending {
            io.pool.give_back(block);
        }
        if self.source.is_none() {
            self.exit.finish(io, said);
        }
        self.wake(io.reactor);
    }

    /// From now on the client gets nothing, but the log does, until the stream says that the
    /// startup commands have ended.
    pub(super) fn set_aside(&mut self) {
        self.aside = Some(StartupOutput::default());
    }

    /// From now on the client gets what comes.
    pub(super) fn pass_on(&mut self) {
        if let Some(line) = self.aside.take().and_then(|mut output| output.end()) {
            tell(self.name, &line);
        }
    }

    /// The last line that was set aside, or nothing.
    pub(super) fn last_set_aside(&self) -> &str {
        self.aside.as_ref().map_or("", StartupOutput::last)
    }

    /// Reads along what Slurm says of the job.
    pub(super) fn watch_allocation(mut self) -> Self {
        self.allocation = Some(AllocationWatch::new());
        self
    }

    /// What comes is a shell's, and nothing of Slurm's any more but the job's end.
    pub(super) fn allocation_is_known(&mut self) {
        if let Some(allocation) = &mut self.allocation {
            allocation.granted();
        }
    }

    /// The shell is to be asked once more than was thought.
    pub(super) fn expect_another_answer(&mut self) {
        self.filter.expect_another();
    }

    /// Nothing of the probe will come any more.
    pub(super) fn stop_filtering(&mut self) {
        self.filter.stop();
    }

    /// From now on only what is in the pipe at this moment is read.
    pub(super) fn cut(&mut self, reactor: &mut Reactor<Source>) {
        if let Some((stream, _)) = &self.source {
            self.allowance = Some(stream.available());
            self.wake(reactor);
        }
    }

    /// Puts lines of our own log among what the job wrote. Only while [`Outlet::is_delivered`].
    pub(super) fn insert(&mut self, lines: &[u8], io: &mut Io<'_>) {
        self.exit.sink.put(lines, io);
    }

    /// Writes what is left over, as far as the client takes it.
    pub(super) fn flush(&mut self, io: &mut Io<'_>) {
        self.exit.sink.write_left(io);
    }

    /// Whether nothing is left over for the client.
    pub(super) fn is_delivered(&self) -> bool {
        self.exit.sink.flow.left() == 0
    }

    /// The announced address that waits for [`Outlet::release`].
    pub(super) fn held(&self) -> Option<Announcement> {
        self.exit.held
    }

    /// Whether everything up to the stream's end was delivered, or can never be.
    pub(super) fn is_drained(&self) -> bool {
        (self.source.is_none() && self.exit.held.is_none() && self.is_delivered())
            || self.exit.sink.flow.is_broken()
    }

    /// The client's end.
    pub(super) fn sink(&self) -> &Sink {
        &self.exit.sink
    }

    fn may_be_read(&self, reactor: &Reactor<Source>) -> bool {
        let ready = |token| reactor.ready(token).read || self.allowance.is_some();
        self.source.as_ref().is_some_and(|(_, token)| ready(*token))
    }

    fn read(&mut self, io: &mut Io<'_>, scratch: &mut [u8], said: &mut Vec<Said>) {
        let Some((stream, token)) = &self.source else {
            return;
        };
        let most = self.allowance.map_or(scratch.len(), |rest| {
            scratch
                .len()
                .min(usize::try_from(rest).unwrap_or(usize::MAX))
        });
        let room = &mut scratch[..most];
        let read = if most == 0 { Ok(0) } else { stream.read(room) };
        match read {
            Ok(0) => self.source_ended(io, said),
            Ok(bytes) => {
                if bytes < most && stream.short_read_is_last() {
                    io.reactor.read_short(*token);
                }
                if let Some(rest) = &mut self.allowance {
                    *rest -= bytes as u64;
                }
                self.filter_and_pass(&scratch[..bytes], io, said);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                io.reactor.read_blocked(*token);
                if self.allowance.is_some() {
                    self.source_ended(io, said);
                }
            }
            Err(error) => {
                log::warn!("cannot read the job's {} any more: {error}", self.name);
                self.source_ended(io, said);
            }
        }
    }

    fn source_ended(&mut self, io: &mut Io<'_>, said: &mut Vec<Said>) {
        self.close_source(io.reactor);
        self.filter.end();
        self.filter_and_pass(&[], io, said);
        if self.aside.is_some() {
            said.push(Said::EndedAside(self.last_set_aside().to_owned()));
            self.pass_on();
        }
        self.exit.finish(io, said);
    }

    fn filter_and_pass(&mut self, bytes: &[u8], io: &mut Io<'_>, said: &mut Vec<Said>) {
        let mut copy = bytes;
        while let Some(allocation) = self.allocation.as_mut().and_then(|it| it.next(&mut copy)) {
            said.push(Said::Allocation(allocation));
        }
        let mut input = bytes;
        while let Some(piece) = self.filter.next(&mut input) {
            match piece {
                ProbePiece::Bytes(mut bytes) => {
                    if !std::mem::replace(&mut self.has_spoken, true) {
                        said.push(Said::Spoken);
                    }
                    match &mut self.aside {
                        None => self.exit.pass(bytes, io, said),
                        Some(output) => {
                            while let Some(line) = output.next(&mut bytes) {
                                tell(self.name, &line);
                            }
                        }
                    }
                }
                ProbePiece::Echo => said.push(Said::Echo),
                ProbePiece::Answer(answer) => said.push(Said::Answered(answer)),
                ProbePiece::Word(word) => {
                    if word == STARTUP_ENDED {
                        self.pass_on();
                    }
                    said.push(Said::Word(word));
                }
            }
        }
    }

    fn wake(&self, reactor: &mut Reactor<Source>) {
        let source = self.source.as_ref().map(|(_, token)| *token);
        if let Some(token) = source.or(self.exit.sink.token()) {
            reactor.wake(token);
        }
    }

    fn close_source(&mut self, reactor: &mut Reactor<Source>) {
        if let Some((stream, token)) = self.source.take() {
            reactor.deregister(stream.as_fd(), token);
        }
    }
}

fn tell(name: &str, line: &str) {
    log::info!("startup, {name}: {line}");
}

impl Exit {
    /// Whether one more read has its place. Behind a held address reading goes on as long as there
    /// is: the probe's answer, which that address waits for, may be what comes next.
    fn has_room(&self, bytes: usize) -> bool {
        self.held.is_none()
            || self
                .pending
                .as_ref()
                .is_none_or(|block| block.room() >= bytes)
    }

    fn pass(&mut self, bytes: &[u8], io: &mut Io<'_>, said: &mut Vec<Said>) {
        let mut input = bytes;
        while self.held.is_none()
            && let Some(piece) = self.outbound.next(&mut input)
        {
            match piece {
                OutboundPiece::Bytes(bytes) => self.sink.put(bytes, io),
                OutboundPiece::Socket => said.push(Said::AnnouncedSocket),
                OutboundPiece::Announced(announcement) => self.held = Some(announcement),
            }
        }
        if !input.is_empty() {
            if self.pending.is_none() {
                self.pending = io.pool.borrow();
            }
            let kept = self
                .pending
                .as_mut()
                .is_some_and(|block| block.append(input));
            // What is read behind an announcement was found to have its place before.
            debug_assert!(
                kept,
                "no room for {} bytes behind an announcement",
                input.len()
            );
        }
    }

    /// The stream has ended: unless an answer is awaited first, what the interceptor holds comes
    /// out, and then the end.
    fn finish(&mut self, io: &mut Io<'_>, said: &mut Vec<Said>) {
        if self.held.is_none() {
            self.outbound.end();
            self.pass(&[], io, said);
        }
        if self.held.is_none() {
            self.sink.flow.source_ended();
        }
    }
}
