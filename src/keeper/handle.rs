//! The proxy's side of its keeper.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::Pid;

use super::MODE;
use super::control::{LIMIT, Order, Report};
use crate::ending::JobId;
use crate::launch::Launch;
use crate::revocation::HangUp;
use crate::sys::channel::{self, Received};
use crate::sys::spawn::{Inherited, Standing, Terms, notice_children, spawn};

/// A keeper that was started. Dropping this lets it end everything.
#[derive(Debug)]
pub struct Keeper {
    control: OwnedFd,
    pid: Pid,
    gone: bool,
}

/// Our ends of the launch command's standard streams, non-blocking.
#[derive(Debug)]
pub struct ShellEnds {
    /// Where its stdin is written.
    pub stdin: OwnedFd,
    /// Where its stdout is read.
    pub stdout: OwnedFd,
    /// Where its stderr is read.
    pub stderr: OwnedFd,
}

/// Starts a keeper, which starts `launch`.
///
/// To be called from the main thread: the keeper takes the end of the calling thread for ours.
/// Whether the launch command could be started is told by the first [`Report`].
pub fn start(launch: &Launch, inherited: &Inherited) -> io::Result<(Keeper, ShellEnds)> {
    start_as(Path::new("/proc/self/exe"), launch, inherited)
}

/// [`start`], with the path of the executable that has the keeper's mode.
pub fn start_as(
    executable: &Path,
    launch: &Launch,
    inherited: &Inherited,
) -> io::Result<(Keeper, ShellEnds)> {
    notice_children()?;
    let (control, kept) = channel::pair()?;
    let (shell_stdin, stdin) = io::pipe()?;
    let (stdout, shell_stdout) = io::pipe()?;
    let (stderr, shell_stderr) = io::pipe()?;
    let ends = ShellEnds {
        stdin: stdin.into(),
        stdout: stdout.into(),
        stderr: stderr.into(),
    };
    for end in [&ends.stdin, &ends.stdout, &ends.stderr] {
        fcntl_setfl(end, fcntl_getfl(end)? | OFlags::NONBLOCK)?;
    }

    // The variables travel in the environment, which others cannot read, not in the arguments.
    let mut command = Command::new(executable);
    command
        .arg0("vscode-shell-proxy: keeper")
        .arg(MODE)
        .arg(kept.as_raw_fd().to_string())
        .arg(&launch.program)
        .args(&launch.args)
        .stdin(Stdio::from(shell_stdin))
        .stdout(Stdio::from(shell_stdout))
        .stderr(Stdio::from(shell_stderr));
    launch.environment.apply(&mut command);
    let terms = Terms {
        inherited,
        standing: Standing::Session,
        death_signal: Some(Signal::SIGTERM),
        keep: Some(kept.as_fd()),
    };
    let pid = spawn(&mut command, terms)?;
    let keeper = Keeper {
        control,
        pid,
        gone: false,
    };
    Ok((keeper, ends))
}

impl Keeper {
    /// What to watch: readable when there is a [`Report`].
    pub fn control(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }

    /// The keeper's process id, which is also its session's.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The next report, or `None` when there is none now.
    pub fn report(&mut self) -> io::Result<Option<Report>> {
        if self.gone {
            return Ok(Some(Report::Gone));
        }
        let mut message = [0; LIMIT];
        match channel::receive(&self.control, &mut message)? {
            Received::Nothing => Ok(None),
            Received::Closed => {
                self.gone = true;
                Ok(Some(Report::Gone))
            }
            Received::Message(length) => Report::decode(&message[..length])
                .map(Some)
                .ok_or_else(|| io::ErrorKind::InvalidData.into()),
        }
    }

    /// Tells the keeper which job to cancel where signals are not enough.
    pub fn set_job(&mut self, job: JobId) {
        self.order(Order::Job(job));
    }

    /// Tells the keeper to hang up a salloc that stays behind its job.
    pub fn hang_up(&mut self, which: HangUp) {
        self.order(Order::HangUp(which));
    }

    /// Tells the keeper to end everything below it. [`Report::Done`] follows.
    pub fn end(&mut self) {
        self.order(Order::End);
    }

    fn order(&mut self, order: Order) {
        let mut message = Vec::new();
        order.encode(&mut message);
        // A keeper that is gone is reported as such, and the few orders that there are always fit.
        let _ = channel::transmit(&self.control, &message);
    }
}

/// The exit status for a launch command that could not be started, as shells have it: 127 for one
/// that was not found, 126 for one that cannot be executed.
pub fn refused_status(errno: i32) -> u8 {
    match rustix::io::Errno::from_raw_os_error(errno) {
        rustix::io::Errno::NOENT => 127,
        _ => 126,
    }
}
