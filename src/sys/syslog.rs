//! Lines for the system's log.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// Where the system's log listens.
pub const SOCKET: &str = "/dev/log";

/// RFC 3164: facility user (1), severity informational (6).
const PRIORITY: u8 = 8 + 6;
/// RFC 3164: the longest message.
const LIMIT: usize = 1024;

/// Sends one line to the log that listens at `socket`. It has name and process id of this program in
/// front, and no time: the log has its own, and takes that of a message from this machine.
///
/// # Errors
/// Nobody listens there, or whoever does has no room now: this never waits.
pub fn send(socket: &Path, line: &str) -> io::Result<()> {
    let (name, pid) = (env!("CARGO_PKG_NAME"), std::process::id());
    let mut message = format!("<{PRIORITY}>{name}[{pid}]: {line}").into_bytes();
    message.truncate(LIMIT);
    let log = UnixDatagram::unbound()?;
    log.set_nonblocking(true)?;
    log.send_to(&message, socket).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;

    fn log() -> (tempfile::TempDir, UnixDatagram) {
        let directory = tempfile::tempdir().expect("a directory");
        let log = UnixDatagram::bind(directory.path().join("log")).expect("a socket");
        (directory, log)
    }

    fn received(log: &UnixDatagram) -> String {
        let mut message = [0; 2 * LIMIT];
        let length = log.recv(&mut message).expect("a message");
        String::from_utf8_lossy(&message[..length]).into_owned()
    }

    #[test]
    fn a_line_comes_as_one_message_with_name_and_process() {
        let (directory, log) = log();
        let socket = directory.path().join("log");
        send(&socket, "session started: user=alice").expect("sent");
        let expected = format!(
            "<14>vscode-shell-proxy[{}]: session started: user=alice",
            std::process::id()
        );
        assert_eq!(received(&log), expected);
        send(&socket, &"x".repeat(5000)).expect("sent");
        assert_eq!(received(&log).len(), LIMIT);
    }

    #[test]
    fn a_log_that_is_not_there_or_does_not_read_is_an_error_at_once() {
        let (directory, log) = log();
        let socket = directory.path().join("log");
        let missing = send(&directory.path().join("none"), "line");
        assert_eq!(
            missing.map_err(|error| error.kind()),
            Err(ErrorKind::NotFound)
        );
        // The kernel takes a few for a reader that is slow (net.unix.max_dgram_qlen).
        let full = (0..100_000).find_map(|_| send(&socket, "line").err());
        assert_eq!(full.map(|error| error.kind()), Some(ErrorKind::WouldBlock));
        drop(log);
        let closed = send(&socket, "line");
        assert_eq!(
            closed.map_err(|error| error.kind()),
            Err(ErrorKind::ConnectionRefused)
        );
    }
}
