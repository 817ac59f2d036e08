//! SIGHUP for the salloc that was launched, where it stays behind its job.

use std::io;

use rustix::process::{Pid, Signal, getpid};

use crate::revocation::HangUp;
use crate::sys::descendants::{Process, Scope, descendants, send};

/// Hangs up the salloc that is, or is below, the launch command, as `which` says; its pid where there
/// is such a one.
pub(super) fn hang_up(launch: Pid, which: HangUp) -> io::Result<Option<Pid>> {
    let processes = descendants(Scope {
        root: getpid(),
        session: Some(getpid()),
        with: &[],
        except: &[],
    })?;
    // A session may have sallocs of its own, further below.
    let is_launched = |process: &&Process| process.pid() == launch;
    let mut sallocs = processes.iter().filter(|process| process.is_salloc());
    let Some(salloc) = sallocs.clone().find(is_launched).or_else(|| sallocs.next()) else {
        return Ok(None);
    };
    let is_command =
        |process: &Process| process.parent == salloc.pid().as_raw_pid() && !process.has_ended;
    if which == HangUp::Bereaved && processes.iter().any(is_command) {
        return Ok(None);
    }
    send(salloc.identity, &[Signal::HUP])?;
    Ok(Some(salloc.pid()))
}
