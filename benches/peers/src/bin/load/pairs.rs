//! Connections with both their far ends in hand.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use polling::{Event, PollMode, Poller};

/// How long a relay may let a connection, or a message, wait before that is a failure.
pub const BOUND: Duration = Duration::from_secs(20);

/// A connection through the relay: the end that connected, and the end that was connected to.
pub struct Pair {
    pub client: TcpStream,
    pub server: TcpStream,
}

impl Pair {
    /// One more connection, its ends blocking, bounded and without delay.
    pub fn connect(server: &TcpListener, to: u16) -> io::Result<Self> {
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, to))?;
        let (server, _) = server.accept()?;
        for end in [&client, &server] {
            end.set_nodelay(true)?;
            end.set_read_timeout(Some(BOUND))?;
            end.set_write_timeout(Some(BOUND))?;
        }
        Ok(Self { client, server })
    }

    /// `count` connections.
    pub fn several(server: &TcpListener, to: u16, count: usize) -> io::Result<Vec<Self>> {
        (0..count).map(|_| Self::connect(server, to)).collect()
    }

    /// The two ends: that with the even key of [`Watch`], and that with the odd one.
    pub fn ends(&self) -> [&TcpStream; 2] {
        [&self.client, &self.server]
    }
}

/// The ends of pairs in a poller: `2 * pair` is a client's key, `2 * pair + 1` a server's.
pub struct Watch<'a> {
    pub poller: Poller,
    pairs: &'a [Pair],
}

impl<'a> Watch<'a> {
    /// Watches every end for what `interest` says of it, level-triggered, and makes it non-blocking.
    pub fn new(pairs: &'a [Pair], interest: impl Fn(usize) -> Event) -> io::Result<Self> {
        let watch = Self {
            poller: Poller::new()?,
            pairs,
        };
        for (index, pair) in pairs.iter().enumerate() {
            for (end, stream) in pair.ends().into_iter().enumerate() {
                stream.set_nonblocking(true)?;
                let event = interest(2 * index + end);
                add(&watch.poller, stream, event)?;
            }
        }
        Ok(watch)
    }

    /// The end with `key`.
    pub fn end(&self, key: usize) -> &'a TcpStream {
        self.pairs[key / 2].ends()[key % 2]
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        for end in self.pairs.iter().flat_map(Pair::ends) {
            let _ = self.poller.delete(end);
        }
    }
}

#[allow(unsafe_code)]
fn add(poller: &Poller, end: &TcpStream, event: Event) -> io::Result<()> {
    // SAFETY: the pairs outlive the watch that borrows them, and it deletes them when it ends.
    unsafe { poller.add_with_mode(end, event, PollMode::Level) }
}

/// What a non-blocking call gave; nothing where it would block.
pub fn some(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
