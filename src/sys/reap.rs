//! Children that have ended.

use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, wait, waitid};

use crate::ending::Status;

/// What is left after the children that had ended were reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Children that are alive.
    Some,
    /// No child at all, and so, in a child subreaper, no descendant.
    None,
}

/// Reaps every child that has ended, adopted ones too, and calls `ended` for each.
///
/// From then on a pid may belong to somebody else: it must never be signalled again.
pub fn reap(mut ended: impl FnMut(Pid, Status)) -> Left {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => ended(pid, Status::Code(code)),
                (None, Some(signal)) => ended(pid, Status::Signal(signal)),
                // Stopped or continued children are not asked for.
                (None, None) => {}
            },
            Ok(None) => return Left::Some,
            Err(Errno::INTR) => {}
            Err(_) => return Left::None,
        }
    }
}

/// Whether there is any child, without reaping one.
pub fn left() -> Left {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match waitid(WaitId::All, options) {
        Err(Errno::CHILD) => Left::None,
        _ => Left::Some,
    }
}
