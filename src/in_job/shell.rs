//! The job's shell, whose child the relay was when it started: with it the relay ends.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, getppid, pidfd_open};

use crate::sys::descendants::{self, Identity};

/// How often it is looked for where the kernel cannot tell of its end (before Linux 5.3).
pub(super) const CHECK: Duration = Duration::from_secs(30);

/// A process that is not our child, but our starter.
#[derive(Debug)]
pub(super) struct Shell {
    identity: Identity,
    /// Readable once it has ended.
    pidfd: Option<OwnedFd>,
    session: Option<Pid>,
}

impl Shell {
    /// Our parent.
    ///
    /// # Errors
    /// It is gone already, or cannot be seen.
    pub(super) fn parent() -> io::Result<Self> {
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let pid = getppid().ok_or_else(gone)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok();
        let identity = descendants::identity(pid).ok_or_else(gone)?;
        // 0 where the session was begun outside our process namespace, which rustix cannot express.
        let session = nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(pid.as_raw_pid())))?;
        // While it is our parent its id is nobody else's.
        if getppid() != Some(pid) {
            return Err(gone());
        }
        Ok(Self {
            identity,
            pidfd,
            session: (session.as_raw() == pid.as_raw_pid()).then_some(pid),
        })
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// The session that it leads, if it leads one.
    pub(super) fn session(&self) -> Option<Pid> {
        self.session
    }

    pub(super) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(|pidfd| pidfd.as_fd())
    }

    /// Whether it has not ended.
    pub(super) fn is_alive(&self) -> bool {
        match &self.pidfd {
            Some(pidfd) => {
                let mut ended = [PollFd::new(pidfd, PollFlags::IN)];
                poll(&mut ended, Some(&Timespec::default())) == Ok(0)
            }
            None => descendants::identity(self.identity.pid) == Some(self.identity),
        }
    }
}
