//! A stranger to the program's user: a thread of the test with another filesystem uid, which is the
//! uid that the kernel gives to the sockets it makes. Only root can do that.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;

use nix::unistd::{Uid, geteuid, setfsuid};

use super::BOUND;

/// A uid that owns nothing here.
pub const STRANGER: u32 = 54321;

/// Whether this process can be a stranger; where it cannot, that is said past the test harness,
/// which shows what a test has printed only when it fails.
pub fn can_be_somebody_else() -> bool {
    let can = geteuid().is_root();
    if !can {
        let left_out = b"left out: only root can connect as another user\n";
        let _ = std::io::stderr().write_all(left_out);
    }
    can
}

/// Runs `work` in a thread whose sockets belong to `uid`.
pub fn as_user<T: Send>(uid: u32, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setfsuid(Uid::from_raw(uid));
            work()
        });
        thread.join().expect("no panic")
    })
}

/// Connects, talks, and tells whether the connection was reset without an answer.
pub fn is_reset(port: u16) -> bool {
    let answer = || -> std::io::Result<usize> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(BOUND))?;
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
        stream.read(&mut [0])
    };
    match answer() {
        Ok(_) => false,
        // The reset came before the connection was seen to stand, before the write or after it.
        Err(error) => {
            matches!(
                error.kind(),
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
            )
        }
    }
}
