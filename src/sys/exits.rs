//! Waiting for processes that are not our children: pidfds under one poller, with the signals that
//! interrupt the wait.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::sys::signal::Signal;
use polling::{Event, Events, Poller};

use super::signals::Signals;

/// Most events taken in one wait; more come with the next.
const BATCH: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// The poller's key of the signals. `usize::MAX` is the poller's own.
const SIGNALS: usize = usize::MAX - 1;

/// What ended a wait.
#[derive(Debug, Default)]
pub struct Woken {
    /// Keys of processes that have ended; they are not watched any more.
    pub exited: Vec<usize>,
    /// A signal to this process.
    pub signal: Option<Signal>,
}

/// Pidfds that are watched, each under a key of the caller's.
#[derive(Debug)]
pub struct Exits {
    poller: Poller,
    events: Events,
    watched: BTreeMap<usize, OwnedFd>,
    signals: Signals,
}

impl Exits {
    /// Watches nobody yet. A signal of `signals` ends a wait.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn new(signals: Signals) -> io::Result<Self> {
        let exits = Self {
            poller: Poller::new()?,
            events: Events::with_capacity(BATCH),
            watched: BTreeMap::new(),
            signals,
        };
        // SAFETY: both live in `exits`, and `Drop` deletes the source before either is closed.
        unsafe {
            exits
                .poller
                .add(exits.signals.as_fd().as_raw_fd(), Event::readable(SIGNALS))?
        };
        Ok(exits)
    }

    /// Watches a process under `key`, which has to be new and less than `usize::MAX - 1`.
    ///
    /// # Errors
    /// The kernel refuses, for want of memory. Then the process is not watched.
    pub fn watch(&mut self, key: usize, pidfd: OwnedFd) -> io::Result<()> {
        debug_assert!(key < SIGNALS && !self.watched.contains_key(&key));
        // SAFETY: the descriptor goes into `watched`, and `forget` and `Drop`, which alone take it
        // out from there, delete it from the poller before it is closed.
        unsafe { self.poller.add(pidfd.as_raw_fd(), Event::readable(key))? };
        self.watched.insert(key, pidfd);
        Ok(())
    }

    /// The pidfd under `key`, unless its process was seen to end.
    pub fn pidfd(&self, key: usize) -> Option<BorrowedFd<'_>> {
        self.watched.get(&key).map(AsFd::as_fd)
    }

    /// Stops watching.
    pub fn forget(&mut self, key: usize) {
        if let Some(pidfd) = self.watched.remove(&key) {
            // It was added and is still open: the only errors there are.
            let _ = self.poller.delete(&pidfd);
        }
    }

    /// Sleeps until a process ends, a signal comes, or `timeout` is over.
    ///
    /// # Errors
    /// The poller fails, which it does not while its descriptors are open.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<Woken> {
        self.events.clear();
        self.poller.wait(&mut self.events, Some(timeout))?;
        let mut woken = Woken::default();
        for key in self.events.iter().map(|event| event.key) {
            if key == SIGNALS {
                woken.signal = self.signals.read()?;
            } else {
                woken.exited.push(key);
            }
        }
        if woken.signal.is_some() {
            // Oneshot: asked for again once it was answered.
            self.poller
                .modify(&self.signals, Event::readable(SIGNALS))?;
        }
        for &key in &woken.exited {
            self.forget(key);
        }
        Ok(woken)
    }
}

impl Drop for Exits {
    fn drop(&mut self) {
        while let Some((&key, _)) = self.watched.first_key_value() {
            self.forget(key);
        }
        let _ = self.poller.delete(&self.signals);
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn sleeper() -> (Child, OwnedFd) {
        let child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        let child = child.expect("cat runs");
        let pid = Pid::from_child(&child);
        (
            child,
            pidfd_open(pid, PidfdFlags::empty()).expect("a pidfd"),
        )
    }

    #[test]
    fn an_exit_wakes_once_under_its_key() {
        let mut exits = Exits::new(Signals::block(&[]).expect("signals")).expect("a poller");
        let (mut first, pidfd) = sleeper();
        exits.watch(7, pidfd).expect("watched");
        let (mut second, pidfd) = sleeper();
        exits.watch(8, pidfd).expect("watched");
        assert!(
            exits
                .wait(Duration::ZERO)
                .expect("a wait")
                .exited
                .is_empty()
        );
        drop(first.stdin.take());
        assert_eq!(exits.wait(LONG).expect("a wait").exited, [7]);
        assert!(exits.pidfd(7).is_none() && exits.pidfd(8).is_some());
        exits.forget(8);
        drop(second.stdin.take());
        for child in [&mut first, &mut second] {
            child.wait().expect("a child of ours");
        }
        assert!(
            exits
                .wait(Duration::ZERO)
                .expect("a wait")
                .exited
                .is_empty()
        );
    }

    #[test]
    fn a_signal_wakes_each_time() {
        let signals = Signals::block(&[Signal::SIGUSR2]).expect("signals");
        let mut exits = Exits::new(signals).expect("a poller");
        for _ in 0..2 {
            // To this thread, which alone has it blocked.
            nix::sys::signal::raise(Signal::SIGUSR2).expect("a signal");
            assert_eq!(
                exits.wait(LONG).expect("a wait").signal,
                Some(Signal::SIGUSR2)
            );
        }
        assert_eq!(exits.wait(Duration::ZERO).expect("a wait").signal, None);
    }
}
