//! One turn of a connection: the bytes between two stream sockets.
//!
//! A direction reads into the buffer that the whole process shares and writes from there; what the
//! sink did not take goes into a block of the pool. A direction that reads much twice in a row is
//! bulk: it splices, through a pipe that it borrows until the source has no more for the moment, and
//! stays bulk as long as it finds much there each time. While all blocks are
//! lent, a direction peeks, writes, and takes out of the receive queue only what was taken:
//! slower, but no connection waits for another one's reader.
//!
//! Where there are no pipes, a turn copies less while others read much too. Every connection gets as
//! many turns, and one whose window never grew has little to read in each: by as much as the others
//! read more, it would fall behind for good.
//!
//! Wherever bytes are on their way, in a block or in a pipe, the flow counts them as left over; so
//! half-close, reset and the end know of them.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use crate::reactor::{Reactor, Token};
use crate::relay::{Block, Close, Duplex, Pool, Side, Step};
use crate::sys::splice::Pipe;
use crate::sys::tcp;

/// Reads of much in a row after which a direction counts as bulk.
const BULK: u8 = 2;
/// What much is, or a full buffer where that is less. To copy it costs 8 µs; to splice it, the one
/// or two calls more that see a pipe or a source empty, of up to 4 µs each.
const MUCH: usize = 32 * 1024;
/// The most that a turn copies while others read much and there are no pipes (measured, of 8 busy
/// connections: the slowest had 46 KB a turn, and with 256 KiB for the others a fifth of their share).
/// Before pipes, and through them, less would keep windows small (the slowest had a tenth), or cost
/// two fifths more CPU time.
const SHARE: usize = 32 * 1024;
/// Most pipes lent at a time: each is two descriptors, and 1 MiB of the user's allowance for pipes.
/// A bulk direction without one falls far behind those that have one (measured, with 16 directions
/// and 8 pipes: a twentieth), so there are enough for eight connections that are busy both ways.
const PIPES: usize = 16;
/// Idle pipes that are kept.
const SPARE_PIPES: usize = 4;

/// A connected stream socket with its name in the reactor. (What is used of a `TcpStream` here works
/// for a Unix socket too.)
pub type End = (TcpStream, Token);

/// Closes one end.
pub fn close<T: Copy>((stream, token): End, how: Close, reactor: &mut Reactor<T>) {
    if how == Close::Reset {
        tcp::reset_on_close(&stream);
    }
    reactor.forget(token);
}

/// A connected pair of sockets and what is between them.
#[derive(Debug)]
pub struct Transfer {
    client: End,
    server: End,
    duplex: Duplex,
    up: Way,
    down: Way,
    /// [`Pipes::much_read`] after the last turn.
    much_read: u64,
}

/// How one direction's bytes travel, and those that are under way.
#[derive(Debug, Default)]
struct Way {
    left: Left,
    /// Reads of much in a row, counted up to [`BULK`].
    much: u8,
}

/// Where the bytes are that the sink has not taken yet.
#[derive(Debug, Default)]
enum Left {
    #[default]
    Nowhere,
    Block(Block),
    /// In a pipe, which stays with the direction until its source has no more, empty or not.
    Pipe(Pipe),
}

/// The pipes of the process.
#[derive(Debug, Default)]
pub struct Pipes {
    lent: usize,
    idle: Vec<Pipe>,
    /// The kernel has refused once; it is not asked again.
    refused: bool,
    /// Reads of much that all connections have made.
    much_read: u64,
}

impl Pipes {
    fn borrow(&mut self) -> Option<Pipe> {
        if self.refused || self.lent == PIPES {
            return None;
        }
        let pipe = match self.idle.pop() {
            Some(pipe) => pipe,
            None => Pipe::open().inspect_err(|_| self.refused = true).ok()?,
        };
        self.lent += 1;
        Some(pipe)
    }

    /// A pipe with bytes in it is closed: they belong to nobody else.
    fn give_back(&mut self, pipe: Pipe) {
        self.lent -= 1;
        if pipe.is_empty() && self.idle.len() < SPARE_PIPES {
            self.idle.push(pipe);
        }
    }
}

/// What a turn needs of the process.
#[derive(Debug)]
pub struct Means<'a, T> {
    /// Knows the two sockets.
    pub reactor: &'a mut Reactor<T>,
    /// Blocks of the size of `scratch`.
    pub pool: &'a mut Pool,
    /// For bulk.
    pub pipes: &'a mut Pipes,
    /// The buffer that every read goes through.
    pub scratch: &'a mut [u8],
}

impl Transfer {
    /// A connection whose both ends stand, with nothing under way.
    pub fn new(client: End, server: End) -> Self {
        let (up, down) = (Way::default(), Way::default());
        Self {
            client,
            server,
            duplex: Duplex::default(),
            up,
            down,
            much_read: 0,
        }
    }

    /// Moves at most one buffer, or one pipe, each way; at most 32 KiB where there are no pipes and
    /// another connection has read much since the last turn. `Some` when the connection is over.
    pub fn turn<T: Copy>(&mut self, means: &mut Means<'_, T>) -> Option<Close> {
        let is_shared = means.pipes.refused && means.pipes.much_read != self.much_read;
        let share = if is_shared { SHARE } else { usize::MAX };
        let copied = share.min(means.scratch.len());
        let more_up = self.carry(Side::Client, copied, means);
        let more_down = self.carry(Side::Server, copied, means);
        self.much_read = means.pipes.much_read;
        let close = self.duplex.finished();
        if close.is_none() && (more_up || more_down) {
            means.reactor.wake(self.client.1);
        }
        close
    }

    /// Bytes carried: client to server, server to client.
    pub fn carried(&self) -> (u64, u64) {
        (self.duplex.up.carried(), self.duplex.down.carried())
    }

    /// Whether bytes for `side` are under way, or wait to be read at its other side.
    pub fn owes<T: Copy>(&self, side: Side, reactor: &Reactor<T>) -> bool {
        let source = match side {
            Side::Client => self.server.1,
            Side::Server => self.client.1,
        };
        let flow = self.duplex.to(side);
        flow.left() > 0 || (!flow.is_done() && reactor.ready(source).read)
    }

    /// Whether everything for `side` has arrived there, to its end.
    pub fn is_done(&self, side: Side) -> bool {
        self.duplex.to(side).is_done()
    }

    /// The sockets with their tokens; what was borrowed goes back.
    pub fn into_ends(mut self, pool: &mut Pool, pipes: &mut Pipes) -> [End; 2] {
        self.up.give_back(pool, pipes);
        self.down.give_back(pool, pipes);
        [self.client, self.server]
    }

    /// The direction that reads from `side`; whether it could go on after this turn.
    fn carry<T: Copy>(&mut self, side: Side, copied: usize, means: &mut Means<'_, T>) -> bool {
        let (source, sink, way) = match side {
            Side::Client => (&self.client, &self.server, &mut self.up),
            Side::Server => (&self.server, &self.client, &mut self.down),
        };
        let mut may_read = true;
        loop {
            let readable = means.reactor.ready(source.1).read;
            let writable = means.reactor.ready(sink.1).write;
            match self.duplex.from(side).step(readable, writable) {
                Step::Read if !may_read => return true,
                Step::Read => {
                    may_read = false;
                    way.read(side, source, sink, copied, &mut self.duplex, means);
                }
                Step::Write => way.write(side, sink, &mut self.duplex, means),
                Step::Shut => {
                    // Where the other direction is over, the sink is closed now, which says the same.
                    if !self.duplex.from(side.other()).is_done() {
                        // A peer that is already gone cannot be told, and need not be.
                        let _ = sink.0.shutdown(Shutdown::Write);
                    }
                    self.duplex.from(side).sink_shut();
                }
                Step::Wait => return false,
                Step::Done => {
                    way.give_back(means.pool, means.pipes);
                    return false;
                }
            }
        }
    }
}

impl Way {
    /// Takes from `source` what it has, up to one pipe or `copied` bytes of the buffer.
    fn read<T: Copy>(
        &mut self,
        side: Side,
        source: &End,
        sink: &End,
        copied: usize,
        duplex: &mut Duplex,
        means: &mut Means<'_, T>,
    ) {
        if self.much >= BULK
            && matches!(self.left, Left::Nowhere)
            && let Some(pipe) = means.pipes.borrow()
        {
            self.left = Left::Pipe(pipe);
        }
        if let Left::Pipe(pipe) = &mut self.left {
            match pipe.fill(&source.0) {
                Ok(0) => duplex.from(side).source_ended(),
                Ok(bytes) => {
                    duplex.from(side).read(bytes);
                    self.note(bytes >= MUCH.min(means.scratch.len()), means.pipes);
                }
                Err(error) => {
                    let refused = error.kind() == ErrorKind::InvalidInput;
                    if error.kind() == ErrorKind::WouldBlock {
                        means.reactor.read_blocked(source.1);
                    } else if refused {
                        means.pipes.refused = true;
                    } else {
                        duplex.read_failed(side);
                    }
                    self.give_back(means.pool, means.pipes);
                }
            }
        } else {
            self.read_buffer(side, source, sink, copied, duplex, means);
        }
    }

    /// Takes down whether a read has found much.
    fn note(&mut self, is_much: bool, pipes: &mut Pipes) {
        self.much = if is_much {
            (self.much + 1).min(BULK)
        } else {
            0
        };
        pipes.much_read = pipes.much_read.wrapping_add(is_much.into());
    }

    fn read_buffer<T: Copy>(
        &mut self,
        side: Side,
        source: &End,
        sink: &End,
        copied: usize,
        duplex: &mut Duplex,
        means: &mut Means<'_, T>,
    ) {
        let buffer = &mut means.scratch[..copied];
        let peeks = !means.pool.can_lend();
        let read = retry(|| match peeks {
            true => source.0.peek(buffer),
            false => (&source.0).read(buffer),
        });
        let bytes = match read {
            Ok(0) => return duplex.from(side).source_ended(),
            Ok(bytes) => &buffer[..bytes],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return means.reactor.read_blocked(source.1);
            }
            Err(_) => return duplex.read_failed(side),
        };
        self.note(bytes.len() >= MUCH.min(copied), means.pipes);
        let taken = match write(sink, bytes, means.reactor) {
            Ok(taken) => taken,
            Err(error) => return duplex.write_failed(side.other(), is_reset(&error)),
        };
        let read = if peeks { taken } else { bytes.len() };
        duplex.from(side).read(read);
        duplex.from(side).wrote(taken);
        if read == bytes.len() && read < copied {
            means.reactor.read_short(source.1);
        }
        if peeks {
            if tcp::discard(&source.0, taken).is_err() {
                duplex.read_failed(side);
            }
        } else if taken < bytes.len()
            && let Some(mut block) = means.pool.borrow()
        {
            let kept = block.append(&bytes[taken..]);
            // A block is as large as the buffer, and the pool said that it could lend one.
            debug_assert!(kept, "no room for what the sink did not take");
            self.left = Left::Block(block);
        }
    }

    /// Gives `sink` what is left over, as far as it takes it.
    fn write<T: Copy>(
        &mut self,
        side: Side,
        sink: &End,
        duplex: &mut Duplex,
        means: &mut Means<'_, T>,
    ) {
        let written = match &mut self.left {
            Left::Block(block) => {
                let written = write(sink, block.bytes(), means.reactor);
                block.consume(written.as_ref().copied().unwrap_or(0));
                written
            }
            Left::Pipe(pipe) => match pipe.drain(&sink.0) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    means.reactor.write_blocked(sink.1);
                    Ok(0)
                }
                other => other,
            },
            // Nothing is left over anywhere but in these two.
            Left::Nowhere => Ok(duplex.from(side).left()),
        };
        match written {
            Ok(taken) => duplex.from(side).wrote(taken),
            Err(error) => duplex.write_failed(side.other(), is_reset(&error)),
        }
        if matches!(&self.left, Left::Block(block) if block.is_empty()) {
            self.give_back(means.pool, means.pipes);
        }
    }

    fn give_back(&mut self, pool: &mut Pool, pipes: &mut Pipes) {
        match std::mem::take(&mut self.left) {
            Left::Nowhere => {}
            Left::Block(block) => pool.give_back(block),
            Left::Pipe(pipe) => pipes.give_back(pipe),
        }
    }
}

/// Writes once; a sink that takes less than all is not ready any more.
fn write<T: Copy>(sink: &End, bytes: &[u8], reactor: &mut Reactor<T>) -> io::Result<usize> {
    match retry(|| (&sink.0).write(bytes)) {
        Ok(taken) => {
            if taken < bytes.len() {
                reactor.write_blocked(sink.1);
            }
            Ok(taken)
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            reactor.write_blocked(sink.1);
            Ok(0)
        }
        Err(error) => Err(error),
    }
}

fn is_reset(error: &io::Error) -> bool {
    error.kind() != ErrorKind::BrokenPipe
}

fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::sockopt::set_socket_send_buffer_size;
    use std::net::TcpListener;
    use std::os::fd::AsFd;

    /// A transfer whose client has sent two shares, and the far ends.
    fn busy(reactor: &mut Reactor<()>) -> (Transfer, [TcpStream; 2]) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut pair = || {
            let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (near, _) = listener.accept().unwrap();
            near.set_nonblocking(true).unwrap();
            // All that is read is taken.
            set_socket_send_buffer_size(&near, 4 * SHARE).unwrap();
            let token = reactor.register(near.as_fd(), ()).unwrap();
            (far, (near, token))
        };
        let ((mut client, near), (server, other)) = (pair(), pair());
        // What has been peeked at as a whole has arrived.
        let all = [7; 2 * SHARE];
        client.write_all(&all[..SHARE]).unwrap();
        client.write_all(&all[SHARE..]).unwrap();
        near.0.set_nonblocking(false).unwrap();
        while near.0.peek(&mut [0; 2 * SHARE]).unwrap() < all.len() {}
        near.0.set_nonblocking(true).unwrap();
        (Transfer::new(near, other), [client, server])
    }

    #[test]
    fn a_turn_without_pipes_is_short_while_others_read_much() {
        let mut reactor = Reactor::with_room(4).unwrap();
        let (mut first, _ends) = busy(&mut reactor);
        let (mut second, _other_ends) = busy(&mut reactor);
        let mut scratch = vec![0; 4 * SHARE];
        let mut pool = Pool::new(scratch.len(), 2, 0);
        let mut pipes = Pipes {
            refused: true,
            ..Pipes::default()
        };
        let ready = |transfer: &Transfer, reactor: &Reactor<()>| {
            reactor.ready(transfer.client.1).read && reactor.ready(transfer.server.1).write
        };
        while !ready(&first, &reactor) || !ready(&second, &reactor) {
            reactor.wait(None).unwrap();
        }
        let mut turn = |transfer: &mut Transfer| {
            let mut means = Means {
                reactor: &mut reactor,
                pool: &mut pool,
                pipes: &mut pipes,
                scratch: &mut scratch,
            };
            assert_eq!(transfer.turn(&mut means), None);
            transfer.carried().0 as usize
        };
        // Nobody else has read yet: all that is there goes at once.
        assert_eq!(turn(&mut first), 2 * SHARE);
        assert_eq!(turn(&mut second), SHARE);
        // Nobody else has read since.
        assert_eq!(turn(&mut second), 2 * SHARE);
    }
}
