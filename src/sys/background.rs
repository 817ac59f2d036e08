//! A process that goes on behind the one that a shell waits for.
#![allow(unsafe_code, reason = "fork")]

use std::io;

use nix::unistd::{ForkResult, fork};
use rustix::process::Pid;

/// Which of the two processes goes on here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// The one that was there, and the other one's id.
    Foreground(Pid),
    /// The copy.
    Background,
}

/// Makes a copy of this process, which has to have a single thread.
///
/// # Errors
/// No more processes are to be had, or there are more threads than this one.
pub fn split() -> io::Result<Half> {
    if std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() > 1) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    // SAFETY: no other thread runs, which could hold a lock that the copy needs.
    match unsafe { fork()? } {
        ForkResult::Child => Ok(Half::Background),
        ForkResult::Parent { child } => match Pid::from_raw(child.as_raw()) {
            Some(child) => Ok(Half::Foreground(child)),
            // fork(2) gives a child's id.
            None => Err(io::ErrorKind::InvalidData.into()),
        },
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_process_with_threads_is_not_copied() {
        let (done, waits) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || waits.recv());
        let error = super::split().expect_err("there are two threads");
        assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
        drop(done);
        assert!(other.join().expect("it waited").is_err());
    }
}
