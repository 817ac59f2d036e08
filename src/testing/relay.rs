//! A connection driven by any sequence of operations against a simple model of two sockets.
//!
//! The model knows only what went in and what came out: no byte may be lost, doubled or change its
//! place; an end is passed on once, after the last byte; what is left over is at most one read; and
//! when nothing comes any more, the connection comes to its end.

use std::collections::VecDeque;

use crate::relay::{Close, Duplex, Side, Step};

/// Most bytes of one read.
const READ: usize = 7;

/// One socket, as seen by its owner at the other end.
#[derive(Default)]
struct Socket {
    /// Sent by the peer and not read yet.
    incoming: VecDeque<u8>,
    sent: u8,
    ended: bool,
    reset: bool,
    /// Whether the reset was told to somebody: the kernel says it once.
    told: bool,
    /// How much the peer's side of the network takes now.
    room: usize,
    received: u8,
    shut: u32,
}

impl Socket {
    fn readable(&self) -> bool {
        !self.incoming.is_empty() || self.ended || self.reset
    }

    fn writable(&self) -> bool {
        self.room > 0 || self.reset
    }
}

struct World {
    client: Socket,
    server: Socket,
    /// Left over on the way up, and on the way down.
    left: [VecDeque<u8>; 2],
    duplex: Duplex,
}

impl World {
    fn sockets(&mut self, from: Side) -> (&mut Socket, &mut Socket, &mut VecDeque<u8>) {
        match from {
            Side::Client => (&mut self.client, &mut self.server, &mut self.left[0]),
            Side::Server => (&mut self.server, &mut self.client, &mut self.left[1]),
        }
    }

    /// One step of the direction that reads from `from`; whether it did anything.
    fn step(&mut self, from: Side) -> bool {
        let (source, sink, _) = self.sockets(from);
        let ready = (source.readable(), sink.writable());
        match self.duplex.from(from).step(ready.0, ready.1) {
            Step::Wait | Step::Done => return false,
            Step::Read => {
                let (source, _, left) = self.sockets(from);
                assert!(left.is_empty(), "read with bytes left over");
                if source.incoming.is_empty() {
                    if source.reset && !source.told {
                        source.told = true;
                        self.duplex.read_failed(from);
                    } else {
                        self.duplex.from(from).source_ended();
                    }
                } else {
                    let bytes = source.incoming.len().min(READ);
                    left.extend(source.incoming.drain(..bytes));
                    self.duplex.from(from).read(bytes);
                }
            }
            Step::Write => {
                let (_, sink, left) = self.sockets(from);
                assert!(!left.is_empty(), "nothing to write");
                if sink.reset {
                    let first = !std::mem::replace(&mut sink.told, true);
                    left.clear();
                    self.duplex.write_failed(from.other(), first);
                } else {
                    let bytes = sink.room.min(left.len());
                    sink.room -= bytes;
                    for byte in left.drain(..bytes) {
                        assert_eq!(byte, sink.received, "lost, doubled or out of order");
                        sink.received = sink.received.wrapping_add(1);
                    }
                    assert_eq!(sink.shut, 0, "bytes after the end");
                    self.duplex.from(from).wrote(bytes);
                }
            }
            Step::Shut => {
                let (source, sink, left) = self.sockets(from);
                assert!(source.ended, "an end that the source did not have");
                assert!(
                    left.is_empty() && source.incoming.is_empty(),
                    "an end before the last byte"
                );
                assert_eq!(source.sent, sink.received, "an end before the last byte");
                sink.shut += 1;
                assert_eq!(sink.shut, 1, "the end passed on twice");
                self.duplex.from(from).sink_shut();
            }
        }
        let (_, _, left) = self.sockets(from);
        let count = left.len();
        assert!(count <= READ, "more left over than one read");
        assert_eq!(count, self.duplex.from(from).left(), "the flow lost count");
        true
    }
}

/// Runs the operations that `data` stands for. Panics where the model is contradicted.
pub fn check(data: &[u8]) {
    let mut world = World {
        client: Socket::default(),
        server: Socket::default(),
        left: Default::default(),
        duplex: Duplex::default(),
    };
    for pair in data.chunks(2) {
        let (operation, amount) = (pair[0], pair.get(1).copied().unwrap_or(1));
        let side = if operation & 1 == 0 {
            Side::Client
        } else {
            Side::Server
        };
        let (socket, _, _) = world.sockets(side);
        match operation >> 1 & 7 {
            0 | 1 if !socket.ended && !socket.reset => {
                for _ in 0..amount % 16 {
                    socket.incoming.push_back(socket.sent);
                    socket.sent = socket.sent.wrapping_add(1);
                }
            }
            2 | 3 => socket.room = (socket.room + usize::from(amount % 16)).min(64),
            4 => socket.ended = true,
            5 if amount > 200 => socket.reset = true,
            _ => {
                for _ in 0..amount % 8 {
                    world.step(side);
                }
            }
        }
    }
    finish(world);
}

/// Nothing is sent any more and everything is taken: the connection has to end, and rightly so.
fn finish(mut world: World) {
    for socket in [&mut world.client, &mut world.server] {
        socket.ended |= !socket.reset;
        socket.room = usize::MAX / 2;
    }
    let mut steps = 0;
    while world.step(Side::Client) | world.step(Side::Server) {
        steps += 1;
        assert!(steps < 10_000, "it does not end");
    }
    let close = world
        .duplex
        .finished()
        .expect("both sides have ended, the connection has not");
    let reset = world.client.reset || world.server.reset;
    if !reset {
        assert_eq!(close, Close::Orderly);
        for (source, sink) in [
            (&world.client, &world.server),
            (&world.server, &world.client),
        ] {
            assert_eq!(source.sent, sink.received, "bytes were lost");
            assert_eq!(sink.shut, 1, "an end was lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn no_sequence_of_operations_contradicts_the_model(
            data in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            super::check(&data);
        }
    }
}
