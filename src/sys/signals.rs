//! Signals as readable bytes: blocked for the process, read from a signalfd in the loop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// A set of signals that arrive here instead of interrupting.
///
/// Block them before anything is spawned or any deadline runs; a child inherits the blocked mask
/// and needs [`Signals::original`] put back before its exec.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    original: SigSet,
}

impl Signals {
    /// Blocks `signals` in the calling thread and opens a non-blocking signalfd for them.
    pub fn block(signals: &[Signal]) -> io::Result<Self> {
        let set: SigSet = signals.iter().copied().collect();
        let original = SigSet::thread_get_mask()?;
        set.thread_block()?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { fd, original })
    }

    /// The next signal that has arrived, or `None` when there is none.
    pub fn read(&mut self) -> io::Result<Option<Signal>> {
        loop {
            match self.fd.read_signal() {
                Ok(Some(info)) => {
                    let number = i32::try_from(info.ssi_signo).unwrap_or_default();
                    return Ok(Signal::try_from(number).ok());
                }
                Ok(None) | Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// The mask that was in force before.
    pub fn original(&self) -> SigSet {
        self.original
    }
}

/// Blocks every signal in the calling thread but those of its own faults: only SIGKILL ends it then,
/// and what it does with [`Signals`].
pub fn shield() -> io::Result<()> {
    let mut blocked = SigSet::all();
    for fault in [
        Signal::SIGABRT,
        Signal::SIGBUS,
        Signal::SIGFPE,
        Signal::SIGILL,
        Signal::SIGSEGV,
        Signal::SIGSYS,
        Signal::SIGTRAP,
    ] {
        blocked.remove(fault);
    }
    Ok(blocked.thread_block()?)
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
