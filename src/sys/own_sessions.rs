//! The sessions of this user on this machine, as /proc shows them.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use rustix::process::{Pid, PidfdFlags, getpid, getuid, pidfd_open};

use crate::process_tree::Id;
use crate::session_limit::{Peer, Standing};

use super::descendants::{self, Identity, Name, Process};

/// From now on this process calls itself as a session of this standing does.
pub fn say(standing: Standing) -> io::Result<()> {
    Ok(prctl::set_name(standing.name())?)
}

/// What this process is known by.
pub fn own() -> io::Result<Id> {
    let own = descendants::identity(getpid());
    own.map(Id::from)
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Every process of this user that calls itself as a session does, and lives.
pub fn peers() -> io::Result<Vec<Peer>> {
    let named = [Standing::Asks, Standing::Runs]
        .map(|standing| (Name::from(standing.name().to_bytes()), standing));
    let own = getuid().as_raw();
    let peer = |process: Process| {
        let (_, standing) = named.iter().find(|(name, _)| *name == process.name)?;
        let is_one = !process.has_ended && user(process.pid()) == Some(own);
        is_one.then_some(Peer {
            id: process.identity.into(),
            parent: process.parent,
            standing: *standing,
        })
    };
    let peers = descendants::processes()?.map(|process| process.map(peer));
    peers.filter_map(Result::transpose).collect()
}

/// Waits until all of these have ended, at most for `limit`; not at all for one that the kernel
/// cannot tell the end of (before Linux 5.3).
pub fn await_end(processes: &[Id], limit: Duration) {
    let until = Instant::now() + limit;
    let pidfd = |id: &Id| pidfd_open(Pid::from_raw(id.pid)?, PidfdFlags::empty()).ok();
    let pidfds: Vec<OwnedFd> = processes.iter().filter_map(pidfd).collect();
    for pidfd in &pidfds {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        // Whatever came of it, time is what bounds this.
        let _ = poll(
            &mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)],
            timeout,
        );
    }
}

/// Whose process it is: the real uid, which does not change with what may be read of it.
fn user(pid: Pid) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    uids.split_ascii_whitespace().next()?.parse().ok()
}

impl From<Identity> for Id {
    fn from(identity: Identity) -> Self {
        Self {
            pid: identity.pid.as_raw_pid(),
            start: identity.started,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn this_process_is_its_users() {
        assert_eq!(user(getpid()), Some(getuid().as_raw()));
        let own = own().expect("/proc");
        assert_eq!(own.pid, getpid().as_raw_pid());
    }

    #[test]
    fn an_end_is_awaited_and_a_life_only_up_to_the_limit() {
        let mut child = Command::new("sleep").arg("1000").spawn().expect("sleep");
        let pid = child.id().cast_signed();
        let id = descendants::identity(Pid::from_raw(pid).expect("a pid")).expect("it lives");
        await_end(&[id.into()], Duration::from_millis(1));
        child.kill().expect("it still lived");
        await_end(&[id.into()], Duration::from_secs(1000));
        child.wait().expect("it is ours");
    }
}
