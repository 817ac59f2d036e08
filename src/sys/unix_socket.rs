//! Connections to Unix sockets.

use std::io;
use std::net::TcpStream;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// A non-blocking connection to the socket with this path. It stands at once, or not at all.
///
/// The type is the one that a [`crate::transfer::Transfer`] takes; what that does with a stream
/// works for a Unix socket too. What is about TCP alone fails with an error.
///
/// # Errors
/// Of socket(2) and connect(2); `WouldBlock` where the backlog is full.
pub fn connect_to(path: &[u8]) -> io::Result<TcpStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::Shutdown;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::UnixListener;

    #[test]
    fn what_a_transfer_does_works_here_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let mut ours = connect_to(path.as_os_str().as_bytes()).unwrap();
        let (mut theirs, _) = listener.accept().unwrap();
        let mut buffer = [0; 8];
        let error = ours.read(&mut buffer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        theirs.write_all(b"abc").unwrap();
        assert_eq!(ours.peek(&mut buffer).unwrap(), 3);
        crate::sys::tcp::discard(&ours, 1).unwrap();
        assert_eq!(ours.read(&mut buffer).unwrap(), 2);
        ours.write_all(b"d").unwrap();
        ours.shutdown(Shutdown::Write).unwrap();
        let mut rest = String::new();
        theirs.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "d");
    }

    #[test]
    fn nobody_there_is_an_error_at_once() {
        let error = connect_to(b"/dev/null/socket").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::ENOTDIR));
    }
}
