//! A channel of small messages between two processes of ours, which also tells each of them when
//! the other is gone, in whatever way it went.
//!
//! SOCK_SEQPACKET keeps the boundaries of messages, so that neither side ever sees a part of one.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};

/// What [`receive`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A message of this length. What did not fit into the buffer is lost.
    Message(usize),
    /// Nothing now.
    Nothing,
    /// Nothing any more: the other side is gone.
    Closed,
}

/// Both ends of a new channel, non-blocking and close-on-exec.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Sends one message, which must not be empty: that would look like the end.
pub fn transmit(channel: impl AsFd, message: &[u8]) -> io::Result<()> {
    debug_assert!(!message.is_empty());
    loop {
        match send(&channel, message, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Takes the next message.
pub fn receive(channel: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    loop {
        match recv(&channel, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return Ok(Received::Closed),
            Ok((length, _)) => return Ok(Received::Message(length)),
            Err(Errno::AGAIN) => return Ok(Received::Nothing),
            // A peer that went away with messages of ours unread leaves a reset, once, in front of
            // its own last messages.
            Err(Errno::INTR | Errno::CONNRESET) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_their_boundaries_and_the_end_is_seen() {
        let (ours, theirs) = pair().expect("a channel");
        let mut buffer = [0; 8];
        assert_eq!(
            receive(&ours, &mut buffer).expect("open"),
            Received::Nothing
        );
        transmit(&theirs, b"ab").expect("sent");
        transmit(&theirs, b"c").expect("sent");
        drop(theirs);
        assert_eq!(
            receive(&ours, &mut buffer).expect("open"),
            Received::Message(2)
        );
        assert_eq!(
            receive(&ours, &mut buffer).expect("open"),
            Received::Message(1)
        );
        assert_eq!(receive(&ours, &mut buffer).expect("open"), Received::Closed);
        assert_eq!(receive(&ours, &mut buffer).expect("open"), Received::Closed);
        assert!(transmit(&ours, b"x").is_err());
    }

    #[test]
    fn a_reset_hides_no_message() {
        let (ours, theirs) = pair().expect("a channel");
        let mut buffer = [0; 8];
        transmit(&ours, b"unread").expect("sent");
        transmit(&theirs, b"last").expect("sent");
        drop(theirs);
        assert_eq!(
            receive(&ours, &mut buffer).expect("open"),
            Received::Message(4)
        );
        assert_eq!(receive(&ours, &mut buffer).expect("open"), Received::Closed);
    }
}
