//! TCP sockets as the relay wants them: non-blocking, closed on exec, without delay, kept alive.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt::{
    set_ipv6_v6only, set_socket_keepalive, set_socket_linger, set_socket_reuseaddr,
    set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl, set_tcp_nodelay, set_tcp_user_timeout,
    socket_error,
};
use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, acceptfrom_with, bind, connect, getpeername,
    getsockname, listen, recv, socket_with,
};

/// How long nothing comes before the kernel asks whether the peer is there.
const QUIET: Duration = Duration::from_secs(15);
/// How long it waits for each answer.
const ASK: Duration = Duration::from_secs(5);
/// How many times it asks.
const ASKS: u32 = 3;

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

fn open(ip: IpAddr) -> io::Result<OwnedFd> {
    let family = if ip.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    Ok(socket_with(family, SocketType::STREAM, FLAGS, None)?)
}

/// A listener on `at` (port 0: the kernel picks one), with the address that it got.
///
/// It takes a port whose last session has just ended (SO_REUSEADDR), never one that is in use: with
/// SO_REUSEPORT two proxies on one fixed port would share it silently. The kernel clamps `backlog`
/// to its SOMAXCONN.
///
/// # Errors
/// Of socket(2), bind(2) or listen(2).
pub fn listener(at: SocketAddr, backlog: u32) -> io::Result<(OwnedFd, SocketAddr)> {
    let socket = open(at.ip())?;
    set_socket_reuseaddr(&socket, true)?;
    if at.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        // All addresses are those of both families, whatever the system's default is (ipv6(7)).
        set_ipv6_v6only(&socket, false)?;
    }
    // What it accepts inherits this (tcp(7)), which saves two calls for each connection.
    tune(&socket);
    bind(&socket, &at)?;
    listen(&socket, backlog.try_into().unwrap_or(i32::MAX))?;
    let bound = getsockname(&socket)?.try_into()?;
    Ok((socket, bound))
}

/// The next connection of `listener`, with the address of its peer.
///
/// # Errors
/// `WouldBlock` where none waits, or what accept(2) says.
pub fn accept(listener: impl AsFd) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = acceptfrom_with(listener, FLAGS)?;
    // Only a connection that was reset before it was taken may have no peer any more.
    let peer = peer.ok_or(io::ErrorKind::ConnectionAborted)?.try_into()?;
    Ok((stream.into(), peer))
}

/// A socket that is not connected yet: the descriptor is there already.
#[derive(Debug)]
pub struct Unconnected {
    socket: OwnedFd,
    is_ipv4: bool,
}

/// A socket for a connection to an address of the family of `ip`.
///
/// # Errors
/// Of socket(2).
pub fn unconnected(ip: IpAddr) -> io::Result<Unconnected> {
    let (socket, is_ipv4) = (open(ip)?, ip.is_ipv4());
    Ok(Unconnected { socket, is_ipv4 })
}

/// Begins to connect to `to`, with `spare` where it is of the right family; writable means done, see
/// [`connected`].
///
/// # Errors
/// Those of socket(2), and of connect(2) where it fails at once.
pub fn connect_to(to: SocketAddr, spare: Option<Unconnected>) -> io::Result<TcpStream> {
    let socket = match spare.filter(|spare| spare.is_ipv4 == to.is_ipv4()) {
        Some(spare) => spare.socket,
        None => open(to.ip())?,
    };
    match connect(&socket, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(errno) => return Err(errno.into()),
    }
    let stream = TcpStream::from(socket);
    tune(&stream);
    Ok(stream)
}

/// Whether a connection that was begun stands: `None` while it is under way.
///
/// # Errors
/// Why the connection failed.
pub fn connected(stream: &TcpStream) -> io::Result<Option<()>> {
    if let Err(errno) = socket_error(stream)? {
        return Err(errno.into());
    }
    match getpeername(stream) {
        Ok(_) => Ok(Some(())),
        Err(rustix::io::Errno::NOTCONN) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Takes `bytes` that a peek has seen out of the receive queue, without copying them.
///
/// # Errors
/// Of recv(2).
pub fn discard(stream: &TcpStream, bytes: usize) -> io::Result<()> {
    // With MSG_TRUNC a TCP socket drops what it would have copied (tcp(7)); the length of the
    // buffer says how much, so it is taken in steps of a small one.
    let mut nowhere = [0u8; 4096];
    let mut rest = bytes;
    while rest > 0 {
        let step = rest.min(nowhere.len());
        let (_, dropped) = recv(stream, &mut nowhere[..step], RecvFlags::TRUNC)?;
        rest -= dropped.clamp(1, rest);
    }
    Ok(())
}

/// Makes the closing of `stream` a reset instead of an orderly end.
pub fn reset_on_close(stream: &TcpStream) {
    // A socket that refuses this is closed orderly, which is the best that is left.
    let _ = set_socket_linger(stream, Some(Duration::ZERO));
}

/// Has the kernel notice, within half a minute, that the peer of an idle connection is gone.
///
/// It asks after 15 s in which nothing came, then every 5 s, three times in all.
pub fn watch_peer(stream: &TcpStream) {
    // Where one of them is refused, the peer's loss is noticed later.
    let _ = set_tcp_keepidle(stream, QUIET);
    let _ = set_tcp_keepintvl(stream, ASK);
    let _ = set_tcp_keepcnt(stream, ASKS);
}

/// Has the kernel give the connection up where what was sent is not acknowledged for so long. Not for
/// a connection whose reader may rest: what a full receive window keeps from being sent counts too
/// (tcp(7)).
pub fn limit_silence(stream: &TcpStream, limit: Duration) {
    let milliseconds = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
    let _ = set_tcp_user_timeout(stream, milliseconds);
}

/// No Nagle delay (the editor's messages are small), and keepalive, so that a peer that vanished
/// without a word is noticed by the kernel one day.
fn tune(stream: impl AsFd) {
    // Neither is needed for a byte to arrive; a kernel that refuses is not worth a connection.
    let _ = set_tcp_nodelay(&stream, true);
    let _ = set_socket_keepalive(&stream, true);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn a_port_in_use_is_not_shared() {
        let (_first, at) = listener(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 8).unwrap();
        assert_eq!(
            listener(at, 8).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
    }

    #[test]
    fn bytes_seen_by_a_peek_can_be_dropped_exactly() {
        let (mut client, mut server) = pair();
        let sent: Vec<u8> = (0..20_000u32).map(|n| n as u8).collect();
        client.write_all(&sent).unwrap();
        drop(client);
        discard(&server, 10_001).unwrap();
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, sent[10_001..]);
    }

    #[test]
    fn a_refused_connection_says_so_and_a_good_one_stands() {
        let (socket, at) = listener(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 8).unwrap();
        let stream = connect_to(at, None).unwrap();
        assert_eq!(connected(&stream).unwrap(), Some(()));
        drop(socket);
        let refused = connect_to(at, None).and_then(|stream| connected(&stream));
        assert_eq!(
            refused.unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
    }

    #[test]
    fn a_reset_on_close_reaches_the_peer_as_one() {
        let (client, mut server) = pair();
        reset_on_close(&client);
        drop(client);
        let error = server.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
