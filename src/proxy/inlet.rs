//! From the client to the job's shell: our probe line first, then what Remote-SSH writes.

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
    /// Whether a command that starts a server was recognised.
    pub(super) server_start_seen: bool,
}

impl Inlet {
    /// `probe` is what the shell gets before the client's first byte.
    pub(super) fn new(
        source: (Stream, Token),
        mut sink: Sink,
        probe: &[u8],
        io: &mut Io<'_>,
    ) -> Self {
        sink.put(probe, io);
        Self {
            source: Some(source),
            inbound: Inbound::new(),
            sink,
            server_start_seen: false,
        }
    }

    /// One turn: a few reads, and the writes that they make possible.
    pub(super) fn turn(&mut self, io: &mut Io<'_>, scratch: &mut [u8]) {
        let mut reads = READS;
        loop {
            let readable = self
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
