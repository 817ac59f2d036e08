//! A connection to the proxy that is under way: first TCP's handshake, then ours.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};

use crate::reach::{CHALLENGE, Dialler, NONCE, Role, Secret};
use crate::reactor::Reactor;
use crate::sys::tcp;
use crate::transfer::End;

use super::Source;

/// How long what the proxy was told, or asked by the kernel, may stay unanswered before a control
/// connection counts as lost.
const SILENCE: Duration = Duration::from_secs(20);

/// One attempt.
#[derive(Debug)]
pub(super) struct Dial {
    end: End,
    dialler: Dialler,
    connected: bool,
    proven: bool,
}

impl Dial {
    /// Begins to connect to `proxy` for `role`.
    pub(super) fn begin(
        proxy: SocketAddr,
        role: Role,
        source: Source,
        reactor: &mut Reactor<Source>,
    ) -> io::Result<Self> {
        let mut nonce = [0; NONCE];
        getrandom(&mut nonce, GetRandomFlags::empty())?;
        let stream = tcp::connect_to(proxy, None)?;
        if role == Role::Control {
            // It is the one by which a network that is cut is noticed. What is under way on a data
            // connection is given the kernel's own time.
            tcp::watch_peer(&stream);
            tcp::limit_silence(&stream, SILENCE);
        }
        let token = reactor.register(stream.as_fd(), source)?;
        Ok(Self {
            end: (stream, token),
            dialler: Dialler::new(role, nonce),
            connected: false,
            proven: false,
        })
    }

    /// Goes on as far as possible; whether the proxy has proved itself, and we to it.
    ///
    /// # Errors
    /// It cannot be reached, it is somebody else, or it is gone.
    pub(super) fn turn(
        &mut self,
        secret: &Secret,
        reactor: &mut Reactor<Source>,
    ) -> io::Result<bool> {
        let (stream, token) = &self.end;
        if !self.connected {
            if tcp::connected(stream)?.is_none() {
                return Ok(false);
            }
            self.connected = true;
            send_whole(stream, self.dialler.hello())?;
        }
        let mut buffer = [0; CHALLENGE];
        while !self.proven {
            let wanted = self.dialler.wanted();
            let got = match (&*stream).read(&mut buffer[..wanted]) {
                Ok(0) => return Err(ErrorKind::ConnectionAborted.into()),
                Ok(got) => &buffer[..got],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    reactor.read_blocked(*token);
                    return Ok(false);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let proof = self.dialler.feed(secret, &mut &*got);
            if let Some(proof) = proof.map_err(|_| ErrorKind::PermissionDenied)? {
                send_whole(stream, &proof)?;
                self.proven = true;
            }
        }
        if reactor.ready(*token).write_closed {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        Ok(true)
    }

    /// The socket.
    pub(super) fn into_end(self) -> End {
        self.end
    }
}

/// Sends what fits into the buffer of a socket that has sent next to nothing yet.
fn send_whole(mut stream: &std::net::TcpStream, bytes: &[u8]) -> io::Result<()> {
    match stream.write(bytes)? {
        sent if sent == bytes.len() => Ok(()),
        _ => Err(ErrorKind::WriteZero.into()),
    }
}
