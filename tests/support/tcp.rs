//! The two far ends of a relayed connection: the client's, and the server's in the job.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::BOUND;

/// Connects to the proxy's listener on 127.0.0.1; every read and write on it is bounded.
#[track_caller]
pub fn connect(port: u16) -> TcpStream {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let stream = TcpStream::connect_timeout(&address, BOUND).expect("connecting to the proxy");
    bounded(stream)
}

/// A server's listener on this host, on a port from the kernel.
pub struct Server {
    listener: TcpListener,
}

impl Server {
    /// Listens on `host`.
    pub fn on(host: &str) -> Self {
        Self::on_if_possible(host).expect("a listener of the test's own")
    }

    /// Listens on `host`, if that is an address of this machine.
    pub fn on_if_possible(host: &str) -> Option<Self> {
        Self::bound(host, 0).ok()
    }

    /// Listens on this port of `host`.
    pub fn at(host: &str, port: u16) -> Self {
        Self::bound(host, port).expect("a port that nobody else has")
    }

    fn bound(host: &str, port: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind((host, port))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.listener
            .local_addr()
            .expect("a bound socket has an address")
            .port()
    }

    /// The next connection, bounded in itself and in its reads and writes.
    #[track_caller]
    pub fn accept(&self) -> TcpStream {
        self.accept_within(BOUND)
            .expect("a connection at the server")
    }

    /// The next connection, or `None` when none has come in this time.
    pub fn accept_within(&self, bound: Duration) -> Option<TcpStream> {
        let deadline = Instant::now() + bound;
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).expect("F_SETFL on a socket");
                    return Some(bounded(stream));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("accept: {error}"),
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let timeout = PollTimeout::try_from(left).expect("a bound is less than 24 days");
            let mut watched = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut watched, timeout);
        }
    }
}

/// The proxy resets a connection that leads nowhere, as early as in connect(2) or under a read.
#[track_caller]
pub fn assert_sent_away(port: u16) {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let Ok(stream) = TcpStream::connect_timeout(&address, BOUND) else {
        return;
    };
    match bounded(stream).read(&mut [0]) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("expected a reset of the connection, got {other:?}"),
    }
}

/// A connection through `port` arrives at `server`, with what was sent before anybody was reached, and
/// both can speak and hang up.
#[track_caller]
pub fn exchange(port: u16, server: &Server) {
    let mut client = connect(port);
    client.write_all(b"from the client").expect("write");
    let mut peer = server.accept();
    assert_eq!(read_exactly(&peer, 15), b"from the client");
    peer.write_all(b"from the server").expect("write");
    half_close(&peer);
    assert_eq!(read_all(&client), b"from the server");
    half_close(&client);
    assert_eq!(read_all(&peer), b"");
}

fn bounded(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(BOUND)).expect("SO_RCVTIMEO");
    stream.set_write_timeout(Some(BOUND)).expect("SO_SNDTIMEO");
    stream
}

/// Everything up to the end of file.
#[track_caller]
pub fn read_all(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => bytes,
        Err(error) => panic!(
            "after {} bytes, before the end of file: {error}",
            bytes.len()
        ),
    }
}

/// The next `length` bytes.
#[track_caller]
pub fn read_exactly(mut stream: &TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    if let Err(error) = stream.read_exact(&mut bytes) {
        panic!("reading {length} bytes: {error}");
    }
    bytes
}

/// How many bytes of those that were written to `stream`, a connection over IPv4, its peer's machine
/// does not have yet.
pub fn outstanding(stream: &TcpStream) -> usize {
    let [local, peer] = [stream.local_addr(), stream.peer_addr()].map(|at| {
        let port = at.expect("an address").port();
        format!(":{port:04X}")
    });
    let queue = || {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
        table.lines().find_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let is_it = fields[1].ends_with(&local) && fields[2].ends_with(&peer);
            is_it.then(|| fields[4].split_once(':').map(|(sent, _)| sent.to_owned()))?
        })
    };
    // Rows move while the table is read.
    let sent = (0..100).find_map(|_| queue()).expect("the connection");
    usize::from_str_radix(&sent, 16).expect("a number")
}

/// Ends this direction; the other stays open.
pub fn half_close(stream: &TcpStream) {
    stream.shutdown(Shutdown::Write).expect("shutdown");
}

/// Closes the connection with a reset instead of an end of file.
pub fn reset(stream: TcpStream) {
    let linger = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &linger)
        .expect("SO_LINGER");
    drop(stream);
}

/// Bytes of all values without an obvious period, the same for the same `seed`.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let word = || {
        // Marsaglia's xorshift64.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_ne_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(word)
        .take(length / 8 + 1)
        .flatten()
        .collect();
    bytes.truncate(length);
    bytes
}
