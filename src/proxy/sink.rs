//! The writing end of one standard stream: what waits for its reader, and the tee.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use crate::reactor::{Reactor, Token};
use crate::relay::{Block, Flow, Pool};
use crate::sys::stdio::Stream;

use super::Source;

/// Reads in one turn of a standard stream: together a pipe's content, and then the others' turn.
/// More than one saves most of the empty waits between them.
pub(super) const READS: u8 = 4;

/// What every turn of a standard stream needs.
pub(super) struct Io<'a> {
    pub(super) reactor: &'a mut Reactor<Source>,
    pub(super) pool: &'a mut Pool,
}

/// A copy of what a stream's reader gets. Its failure ends the copy, never the stream.
pub(super) struct Tee {
    path: PathBuf,
    file: Option<File>,
}

impl Tee {
    pub(super) fn new(path: PathBuf, file: File) -> Self {
        Self {
            path,
            file: Some(file),
        }
    }

    fn copy(&mut self, bytes: &[u8]) {
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(bytes)
        {
            log::warn!(
                "cannot write to {}, the copy ends here: {error}",
                self.path.display()
            );
            self.file = None;
        }
    }
}

/// What becomes of the stream when its reader is gone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Orphan {
    /// Its writer learns it: the flow ends.
    Ends,
    /// Its writer goes on, into nothing: a launch command must not die of a closed stderr.
    IsDiscarded,
}

/// The writing end of a stream, with the bookkeeping of its direction.
pub(super) struct Sink {
    name: &'static str,
    end: Option<(Stream, Token)>,
    pub(super) flow: Flow,
    left: Option<Block>,
    tee: Option<Tee>,
    orphan: Orphan,
    discards: bool,
}

impl Sink {
    pub(super) fn new(
        name: &'static str,
        stream: Stream,
        token: Token,
        tee: Option<Tee>,
        orphan: Orphan,
    ) -> Self {
        let end = Some((stream, token));
        Self {
            name,
            end,
            flow: Flow::new(),
            left: None,
            tee,
            orphan,
            discards: false,
        }
    }

    /// Whether a write may take bytes, or would be discarded.
    pub(super) fn is_ready(&self, reactor: &Reactor<Source>) -> bool {
        self.discards
            || self
                .end
                .as_ref()
                .is_some_and(|(_, token)| reactor.ready(*token).write)
    }

    /// Whether the reader is known to be gone.
    pub(super) fn is_orphaned(&self, reactor: &Reactor<Source>) -> bool {
        self.flow.is_broken()
            || self
                .end
                .as_ref()
                .is_some_and(|(_, token)| reactor.ready(*token).write_closed)
    }

    /// Sends `bytes`, behind what is left over; what the reader does not take now is left over.
    ///
    /// The caller puts in no more than the flow's contract lets it read, and a block holds that.
    pub(super) fn put(&mut self, bytes: &[u8], io: &mut Io<'_>) {
        self.flow.read(bytes.len());
        let mut rest = bytes;
        if self.left.is_none() && self.is_ready(io.reactor) {
            rest = &bytes[self.write(bytes, io.reactor)..];
        }
        if rest.is_empty() || self.flow.is_broken() || self.discards {
            return;
        }
        if self.left.is_none() {
            self.left = io.pool.borrow();
        }
        let kept = self.left.as_mut().is_some_and(|block| block.append(rest));
        // Each stream has its own blocks in the pool, of a size for the most that one turn makes.
        debug_assert!(kept, "{}: no room for {} bytes", self.name, rest.len());
    }

    /// Writes what is left over, as far as the reader takes it.
    pub(super) fn write_left(&mut self, io: &mut Io<'_>) {
        if let Some(mut block) = self.left.take() {
            let taken = self.write(block.bytes(), io.reactor);
            block.consume(taken);
            if block.is_empty() || self.flow.is_broken() || self.discards {
                io.pool.give_back(block);
            } else {
                self.left = Some(block);
            }
        }
    }

    /// Passes the end on: the reader sees the end of the stream.
    pub(super) fn shut(&mut self, reactor: &mut Reactor<Source>) {
        self.close(reactor);
        self.flow.sink_shut();
    }

    /// The end's descriptor, as long as there is one.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.end.as_ref().map(|(stream, _)| stream.as_fd())
    }

    /// The token of the end, as long as there is one.
    pub(super) fn token(&self) -> Option<Token> {
        self.end.as_ref().map(|(_, token)| *token)
    }

    /// One write; the number of bytes that need no further care.
    fn write(&mut self, bytes: &[u8], reactor: &mut Reactor<Source>) -> usize {
        let Some((stream, token)) = &self.end else {
            self.flow.wrote(bytes.len());
            return bytes.len();
        };
        match stream.write(bytes) {
            Ok(taken) => {
                if taken < bytes.len() {
                    reactor.write_blocked(*token);
                }
                self.flow.wrote(taken);
                if let Some(tee) = &mut self.tee {
                    tee.copy(&bytes[..taken]);
                }
                taken
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                reactor.write_blocked(*token);
                0
            }
            Err(error) => {
                log::debug!("nobody reads {} any more: {error}", self.name);
                self.close(reactor);
                match self.orphan {
                    Orphan::Ends => self.flow.sink_broken(),
                    Orphan::IsDiscarded => {
                        self.discards = true;
                        self.flow.wrote(self.flow.left());
                    }
                }
                bytes.len()
            }
        }
    }

    fn close(&mut self, reactor: &mut Reactor<Source>) {
        if let Some((stream, token)) = self.end.take() {
            reactor.deregister(stream.as_fd(), token);
        }
    }
}
