//! One `mio::Poll`, a table of tokens, and the queue of those that can go on.
//!
//! epoll is edge-triggered: an event is said once. So each descriptor is registered once, for both
//! directions, and what was said is remembered in [`Ready`] until the owner clears it, having seen
//! that there is nothing more (`WouldBlock`, or a transfer shorter than asked for, which for a
//! stream says the same: epoll(7), question 9). A token that was deregistered never comes back: its
//! number carries a generation.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll};

/// Events taken from the kernel at one time; more of them come with the next call.
const BATCH: usize = 128;

/// What a descriptor can do without blocking, as far as is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// A read may give bytes, or the end.
    pub read: bool,
    /// A write may take bytes.
    pub write: bool,
    /// The peer has shut down its sending side: a short read is not the last one.
    pub read_closed: bool,
    /// The peer is gone: nothing written will be read.
    pub write_closed: bool,
}

/// The name of a registered descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(usize);

const INDEX_BITS: u32 = usize::BITS / 2;

impl Token {
    fn new(index: usize, generation: usize) -> Self {
        Self(generation << INDEX_BITS | index)
    }

    fn index(self) -> usize {
        self.0 & ((1 << INDEX_BITS) - 1)
    }

    fn generation(self) -> usize {
        self.0 >> INDEX_BITS
    }
}

#[derive(Debug)]
struct Slot<T> {
    generation: usize,
    tag: Option<T>,
    ready: Ready,
    queued: bool,
    /// Registered with the poller, as opposed to refused by it and always ready.
    polled: bool,
}

/// The poller, with a tag of the owner's for each descriptor.
#[derive(Debug)]
pub struct Reactor<T> {
    poll: Poll,
    events: Events,
    slots: Vec<Slot<T>>,
    vacant: Vec<usize>,
    queue: VecDeque<Token>,
}

impl<T: Copy> Reactor<T> {
    /// A reactor without descriptors, with a table that has room for `descriptors` of them and
    /// grows beyond. Room that is not used is address space and no memory.
    pub fn with_room(descriptors: usize) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(BATCH),
            slots: Vec::with_capacity(descriptors),
            vacant: Vec::new(),
            queue: VecDeque::new(),
        })
    }

    /// Registers `fd` for both directions. A descriptor that epoll refuses (a regular file,
    /// `/dev/null`) is taken as ready for ever, which is what poll(2) says of it.
    pub fn register(&mut self, fd: BorrowedFd<'_>, tag: T) -> io::Result<Token> {
        let index = self.vacant.last().copied().unwrap_or(self.slots.len());
        let generation = self.slots.get(index).map_or(0, |slot| slot.generation);
        let token = Token::new(index, generation);
        let both = Interest::READABLE | Interest::WRITABLE;
        let registered = self.poll.registry().register(
            &mut SourceFd(&fd.as_raw_fd()),
            mio::Token(token.0),
            both,
        );
        let polled = match registered {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => false,
            Err(error) => return Err(error),
        };
        let ready = Ready {
            read: !polled,
            write: !polled,
            ..Ready::default()
        };
        let slot = Slot {
            generation,
            tag: Some(tag),
            ready,
            queued: false,
            polled,
        };
        match self.slots.get_mut(index) {
            Some(place) => {
                self.vacant.pop();
                *place = slot;
            }
            None => self.slots.push(slot),
        }
        if !polled {
            self.wake(token);
        }
        Ok(token)
    }

    /// Forgets `fd`, before it is closed: a duplicate elsewhere would keep it registered.
    pub fn deregister(&mut self, fd: BorrowedFd<'_>, token: Token) {
        if self.slot(token).is_some_and(|slot| slot.polled) {
            // An open descriptor that was registered can be deregistered.
            let _ = self
                .poll
                .registry()
                .deregister(&mut SourceFd(&fd.as_raw_fd()));
        }
        self.forget(token);
    }

    /// Forgets `token`, whose descriptor the caller closes now and has no duplicate of: epoll
    /// forgets it by itself then (epoll(7), question 6), for one system call less.
    ///
    /// A child between fork and exec may have a copy for a moment. An event from there names a
    /// generation that is over, and is passed over.
    pub fn forget(&mut self, token: Token) {
        let Some(slot) = self.slot(token) else { return };
        slot.tag = None;
        // Generations are as wide as the token lets them be and wrap there.
        slot.generation = Token::new(0, slot.generation + 1).generation();
        self.vacant.push(token.index());
    }

    /// Waits until a descriptor is ready or `timeout` has passed; returns at once while the queue
    /// is not empty.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = if self.queue.is_empty() {
            timeout
        } else {
            Some(Duration::ZERO)
        };
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        for event in &self.events {
            let token = Token(event.token().0);
            let Some(slot) = self.slots.get_mut(token.index()) else {
                continue;
            };
            if slot.generation != token.generation() || slot.tag.is_none() {
                continue;
            }
            let (hung, failed) = (event.is_write_closed(), event.is_error());
            slot.ready.read |= event.is_readable() || event.is_read_closed() || failed;
            slot.ready.write |= event.is_writable() || hung || failed;
            slot.ready.read_closed |= event.is_read_closed() || failed;
            slot.ready.write_closed |= hung || failed;
            if !std::mem::replace(&mut slot.queued, true) {
                self.queue.push_back(token);
            }
        }
        Ok(())
    }

    /// How many tokens are queued: the length of a round.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Takes the next token that can go on, with its tag.
    pub fn pop(&mut self) -> Option<(Token, T)> {
        while let Some(token) = self.queue.pop_front() {
            if let Some(slot) = self.slot(token) {
                slot.queued = false;
                if let Some(tag) = slot.tag {
                    return Some((token, tag));
                }
            }
        }
        None
    }

    /// Queues `token` for another turn.
    pub fn wake(&mut self, token: Token) {
        if let Some(slot) = self.slot(token)
            && !std::mem::replace(&mut slot.queued, true)
        {
            self.queue.push_back(token);
        }
    }

    /// From now on `token` is another owner's, by the name of `tag`, which gets a turn: what the
    /// descriptor was found ready for before is not said again.
    pub fn hand_over(&mut self, token: Token, tag: T) {
        if let Some(slot) = self.slot(token) {
            slot.tag = Some(tag);
            self.wake(token);
        }
    }

    /// What `token` can do without blocking.
    pub fn ready(&self, token: Token) -> Ready {
        let slot = self.slots.get(token.index());
        slot.filter(|slot| slot.generation == token.generation())
            .map_or(Ready::default(), |slot| slot.ready)
    }

    /// A read of `token` would block. A descriptor that epoll refused stays ready.
    pub fn read_blocked(&mut self, token: Token) {
        if let Some(slot) = self.slot(token) {
            slot.ready.read = !slot.polled;
        }
    }

    /// A read of `token` gave less than was asked for: it would block now, unless the peer's end
    /// of data is still to be read.
    pub fn read_short(&mut self, token: Token) {
        if let Some(slot) = self.slot(token) {
            slot.ready.read = !slot.polled || slot.ready.read_closed;
        }
    }

    /// A write to `token` would block.
    pub fn write_blocked(&mut self, token: Token) {
        if let Some(slot) = self.slot(token) {
            slot.ready.write = !slot.polled;
        }
    }

    fn slot(&mut self, token: Token) -> Option<&mut Slot<T>> {
        let slot = self.slots.get_mut(token.index())?;
        (slot.generation == token.generation()).then_some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn readiness_is_said_once_and_remembered_until_cleared() {
        let mut reactor = Reactor::with_room(1).unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let token = reactor.register(ours.as_fd(), 'a').unwrap();
        theirs.write_all(b"x").unwrap();
        reactor.wait(None).unwrap();
        assert_eq!(reactor.pop(), Some((token, 'a')));
        assert!(reactor.ready(token).read && reactor.ready(token).write);
        assert_eq!(reactor.pop(), None);
        reactor.wait(Some(Duration::ZERO)).unwrap();
        assert!(reactor.pop().is_none() && reactor.ready(token).read);
        reactor.read_blocked(token);
        assert!(!reactor.ready(token).read);
    }

    #[test]
    fn a_short_read_is_not_the_last_when_the_peer_has_shut_down() {
        let mut reactor = Reactor::with_room(1).unwrap();
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let token = reactor.register(ours.as_fd(), ()).unwrap();
        theirs.write_all(b"x").unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        reactor.wait(None).unwrap();
        assert_eq!(ours.read(&mut [0; 8]).unwrap(), 1);
        reactor.read_short(token);
        assert!(reactor.ready(token).read);
    }

    #[test]
    fn a_closed_token_gets_no_old_event() {
        let mut reactor = Reactor::with_room(1).unwrap();
        let (first, _theirs) = UnixStream::pair().unwrap();
        let old = reactor.register(first.as_fd(), 1).unwrap();
        reactor.wait(None).unwrap();
        reactor.deregister(first.as_fd(), old);
        let (second, _theirs) = UnixStream::pair().unwrap();
        let new = reactor.register(second.as_fd(), 2).unwrap();
        assert_ne!(old, new);
        reactor.wake(old);
        assert_eq!(reactor.ready(old), Ready::default());
        assert!(
            reactor
                .pop()
                .is_none_or(|(token, tag)| token == new && tag == 2)
        );
    }

    #[test]
    fn a_new_owner_learns_what_the_old_one_was_told() {
        let mut reactor = Reactor::with_room(1).unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let token = reactor.register(ours.as_fd(), 'a').unwrap();
        theirs.write_all(b"x").unwrap();
        reactor.wait(None).unwrap();
        assert_eq!(reactor.pop(), Some((token, 'a')));
        reactor.hand_over(token, 'b');
        assert_eq!(reactor.pop(), Some((token, 'b')));
        assert!(reactor.ready(token).read);
    }

    #[test]
    fn a_descriptor_that_epoll_refuses_is_always_ready() {
        let mut reactor = Reactor::with_room(1).unwrap();
        let file = tempfile::tempfile().unwrap();
        let token = reactor.register(file.as_fd(), ()).unwrap();
        assert_eq!(reactor.pop(), Some((token, ())));
        reactor.read_blocked(token);
        reactor.write_blocked(token);
        assert!(reactor.ready(token).read && reactor.ready(token).write);
    }

    #[test]
    fn the_death_of_a_readers_end_is_seen_without_writing() {
        let mut reactor = Reactor::with_room(1).unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let token = reactor.register(writer.as_fd(), ()).unwrap();
        drop(reader);
        while !reactor.ready(token).write_closed {
            reactor.wait(Some(Duration::from_secs(10))).unwrap();
            assert!(reactor.pop().is_some(), "no event within ten seconds");
        }
    }
}
