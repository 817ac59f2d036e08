//! From the client to the job's shell: our own questions first, then what Remote-SSH writes.
//!
//! While the gate is shut the client is not read, its end neither: both wait in the pipe, in order.

use std::io;
use std::os::fd::AsFd;

use crate::intercept::{Inbound, InboundPiece, Notice};
use crate::reactor::{Reactor, Token};
use crate::relay::Step;
use crate::sys::stdio::Stream;

use super::Source;
use super::sink::{Io, READS, Sink};

/// The stream from our stdin to the shell's.
pub(super) struct Inlet {
    source: Option<(Stream, Token)>,
    inbound: Inbound,
    sink: Sink,
    gate: Gate,
    /// Whether a command that starts a server was recognised.
    pub(super) server_start_seen: bool,
}

/// Whether the client's bytes may go to the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    Open,
    Shut,
}

impl Inlet {
    pub(super) fn new(source: (Stream, Token), sink: Sink, gate: Gate) -> Self {
        Self {
            source: Some(source),
            inbound: Inbound::new(),
            sink,
            gate,
            server_start_seen: false,
        }
    }

    /// Gives the shell `text` of our own: before anything of the client's, or while the gate is
    /// shut. Only when it has taken what it was given before, or little of that is left.
    pub(super) fn ask(&mut self, text: &[u8], io: &mut Io<'_>) {
        self.sink.put(text, io);
    }

    /// From now on the client is read.
    pub(super) fn open(&mut self, reactor: &mut Reactor<Source>) {
        self.gate = Gate::Open;
        if let Some((_, token)) = &self.source {
            reactor.wake(*token);
        }
    }

    /// One turn: a few reads, and the writes that they make possible.
    pub(super) fn turn(&mut self, io: &mut Io<'_>, scratch: &mut [u8]) {
        let mut reads = READS;
        loop {
            let readable = self.gate == Gate::Open
                && self
                    .source
                    .as_ref()
                    .is_some_and(|(_, token)| io.reactor.ready(*token).read);
            match self
                .sink
                .flow
                .step(readable, self.sink.is_ready(io.reactor))
            {
                Step::Write => self.sink.write_left(io),
                Step::Shut => self.sink.shut(io.reactor),
                Step::Read if reads > 0 => {
                    reads -= 1;
                    self.read(io, scratch);
                }
                Step::Read => {
                    if let Some((_, token)) = &self.source {
                        io.reactor.wake(*token);
                    }
                    return;
                }
                Step::Wait => return,
                Step::Done => {
                    self.close_source(io.reactor);
                    return;
                }
            }
        }
    }

    /// Nothing in this direction is to be changed, from the client's first byte on.
    pub(super) fn pass_all(&mut self) {
        self.inbound.pass_all();
        self.server_start_seen = true;
    }

    /// The session has been announced: from now on nothing in this direction is ours.
    pub(super) fn announced(&mut self, io: &mut Io<'_>) {
        self.inbound.pass_all();
        self.forward(&[], io);
    }

    fn read(&mut self, io: &mut Io<'_>, scratch: &mut [u8]) {
        let Some((stream, token)) = &self.source else {
            return;
        };
        match stream.read(scratch) {
            Ok(0) => self.source_ended(io),
            Ok(bytes) => {
                if bytes < scratch.len() && stream.short_read_is_last() {
                    io.reactor.read_short(*token);
                }
                self.forward(&scratch[..bytes], io);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                io.reactor.read_blocked(*token);
            }
            Err(error) => {
                log::debug!("cannot read stdin any more: {error}");
                self.source_ended(io);
            }
        }
    }

    fn source_ended(&mut self, io: &mut Io<'_>) {
        log::debug!("the client has ended stdin");
        self.inbound.end();
        self.forward(&[], io);
        self.sink.flow.source_ended();
        self.close_source(io.reactor);
    }

    fn forward(&mut self, bytes: &[u8], io: &mut Io<'_>) {
        let mut input = bytes;
        while let Some(piece) = self.inbound.next(&mut input) {
            match piece {
                InboundPiece::Bytes(bytes) => self.sink.put(bytes, io),
                InboundPiece::Notice(notice) => {
                    self.server_start_seen |= notice.is_server_start();
                    log::log!(level(&notice), "{notice}");
                }
            }
        }
    }

    fn close_source(&mut self, reactor: &mut Reactor<Source>) {
        if let Some((stream, token)) = self.source.take() {
            reactor.deregister(stream.as_fd(), token);
        }
    }
}

/// A server that was recognised is as it should be; everything else may explain a failure.
fn level(notice: &Notice) -> log::Level {
    if notice.is_server_start() {
        log::Level::Info
    } else {
        log::Level::Warn
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::sink::Orphan;
    use crate::relay::Pool;
    use std::io::{Read, Write};
    use std::time::Duration;

    fn stream(
        fd: impl Into<std::os::fd::OwnedFd>,
        reactor: &mut Reactor<Source>,
    ) -> (Stream, Token) {
        let stream = Stream::own(fd.into()).unwrap();
        let token = reactor.register(stream.as_fd(), Source::Inlet).unwrap();
        (stream, token)
    }

    #[test]
    fn while_the_gate_is_shut_our_questions_pass_and_the_client_waits_with_its_end() {
        let mut reactor = Reactor::with_room(2).unwrap();
        let mut pool = Pool::new(1024, 1, 0);
        let (client, mut typed) = std::io::pipe().unwrap();
        let (mut shell, stdin) = std::io::pipe().unwrap();
        let source = stream(client, &mut reactor);
        let (stdin, token) = stream(stdin, &mut reactor);
        let sink = Sink::new("the shell's stdin", stdin, token, None, Orphan::Ends);
        let mut inlet = Inlet::new(source, sink, Gate::Shut);
        let mut scratch = [0; 64];

        typed.write_all(b"client\n").unwrap();
        drop(typed);
        // Both ends are ready, the client's with its end.
        reactor.wait(Some(Duration::from_secs(10))).unwrap();
        let mut io = Io {
            reactor: &mut reactor,
            pool: &mut pool,
        };
        inlet.turn(&mut io, &mut scratch);
        inlet.ask(b"question\n", &mut io);
        inlet.turn(&mut io, &mut scratch);
        let mut read = [0; 64];
        let length = shell.read(&mut read).unwrap();
        assert_eq!(&read[..length], b"question\n");

        inlet.open(io.reactor);
        assert!(io.reactor.pop().is_some(), "it gets a turn");
        inlet.turn(&mut io, &mut scratch);
        let mut rest = Vec::new();
        shell.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"client\n");
    }
}
