//! Children that start as the program itself was started, and that do not outlive it unnoticed.
#![allow(
    unsafe_code,
    reason = "pre_exec, and descriptors that arrive by number"
)]

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, getppid, setsid};
use rustix::process::Pid;

/// What this process was started with and changes for itself: a child gets it back.
#[derive(Clone, Copy, Debug)]
pub struct Inherited {
    mask: SigSet,
    /// Soft and hard limit of open files.
    open_files: (rlim_t, rlim_t),
}

impl Inherited {
    /// Takes note of the calling thread's signal mask and the limit of open files, before either
    /// is changed.
    pub fn capture() -> io::Result<Self> {
        Ok(Self {
            mask: SigSet::thread_get_mask()?,
            open_files: getrlimit(Resource::RLIMIT_NOFILE)?,
        })
    }

    /// The soft limit of open files.
    pub fn open_files(&self) -> u64 {
        self.open_files.0
    }

    /// Raises the soft limit of open files to the hard one, and returns it.
    pub fn raise_open_files(&self) -> io::Result<u64> {
        let (soft, hard) = self.open_files;
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        }
        Ok(hard)
    }
}

/// Where a child stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Leader of a session of its own.
    Session,
    /// Leader of a process group of its own, in our session.
    Group,
}

/// How a child is started.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// What it gets back.
    pub inherited: &'a Inherited,
    /// Where it stands.
    pub standing: Standing,
    /// The signal that it gets when the thread that spawns it ends. A set-id program in between
    /// clears it.
    pub death_signal: Option<Signal>,
    /// A descriptor that stays open in it, under the same number.
    pub keep: Option<BorrowedFd<'a>>,
}

/// Starts `command` on these terms. Nobody but [`super::reap::reap`] waits for it.
///
/// The error is that of the failed `exec`, if it came so far. This blocks until then.
pub fn spawn(command: &mut Command, terms: Terms<'_>) -> io::Result<Pid> {
    let parent = nix::unistd::getpid();
    let Inherited { mask, open_files } = *terms.inherited;
    let Terms {
        standing,
        death_signal,
        ..
    } = terms;
    let keep = terms.keep.map(|fd| fd.as_raw_fd());
    let prepare = move || {
        if standing == Standing::Session {
            setsid()?;
        }
        setrlimit(Resource::RLIMIT_NOFILE, open_files.0, open_files.1)?;
        if let Some(fd) = keep {
            // SAFETY: `terms` borrows the descriptor until the child has got past this.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        if let Some(signal) = death_signal {
            prctl::set_pdeathsig(signal)?;
            if getppid() != parent {
                // The parent ended before that took effect.
                return Err(Errno::ESRCH.into());
            }
        }
        // Last, so that no signal interrupts what is above.
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
        Ok(())
    };
    if standing == Standing::Group {
        command.process_group(0);
    }
    // SAFETY: between fork and exec the closure makes system calls only, all of them
    // async-signal-safe; it neither allocates nor locks, and its captures are plain numbers.
    let child = unsafe { command.pre_exec(prepare) }.spawn()?;
    Ok(Pid::from_child(&child))
}

/// Gives SIGCHLD its default back: where somebody ignored it before he started us, children would
/// vanish without a status.
pub fn notice_children() -> io::Result<()> {
    // SAFETY: the default action runs no code of ours.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl)? };
    Ok(())
}

/// Takes over a descriptor that [`Terms::keep`] left open for us, and makes it close-on-exec.
///
/// The standard streams and numbers that are not open are refused.
pub fn take_kept(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(Errno::EBADF.into());
    }
    // SAFETY: the number is not negative. Whether it is open is what the call finds out.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // SAFETY: it is open, and it was handed to this process for taking it here.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Lets go of the streams that this process was started with, and of whatever else whoever started
/// it may have left open: a process that lives on would hide their end. What stays is `kept`, and
/// `/dev/null` as the standard streams.
///
/// Nothing else in this process may own a descriptor.
pub fn leave_streams(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    drop(null);
    close_others(kept)
}

/// Closes every descriptor but the standard streams and `kept`.
fn close_others(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut first = 3;
    loop {
        let kept = kept.iter().map(AsRawFd::as_raw_fd);
        let Some(next) = kept.filter(|number| *number >= first).min() else {
            return close_range(first, RawFd::MAX - 1);
        };
        if first < next {
            close_range(first, next - 1)?;
        }
        first = next.saturating_add(1);
    }
}

/// Closes `first` to `last`, both included.
fn close_range(first: RawFd, last: RawFd) -> io::Result<()> {
    let [from, to] = [first, last].map(nix::libc::c_long::from);
    // SAFETY: close_range(2), since Linux 5.9, takes three numbers. That nobody owns what the first
    // two stand for is what the caller of `close_others` vouches for.
    let closed = unsafe { nix::libc::syscall(nix::libc::SYS_close_range, from, to, 0) };
    match closed {
        0 => Ok(()),
        _ => close_listed(first, last),
    }
}

/// [`close_range`] where the kernel is older. The list takes a few pages of memory.
fn close_listed(first: RawFd, last: RawFd) -> io::Result<()> {
    let open: Vec<RawFd> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for number in open.into_iter().filter(|fd| (first..=last).contains(fd)) {
        // The directory's own is closed by now; that is the only error there can be.
        let _ = nix::unistd::close(number);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::process::Stdio;

    /// What a child on these terms sees of itself, in the words of /proc.
    fn seen(terms: Terms<'_>, script: &str) -> String {
        let (mut output, input) = std::io::pipe().expect("a pipe");
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(Stdio::from(input));
        spawn(&mut command, terms).expect("sh");
        drop(command);
        let mut text = String::new();
        output.read_to_string(&mut text).expect("text");
        text
    }

    #[test]
    fn mask_and_limit_are_given_back() {
        // A soft limit below the hard one, whatever this test was started with.
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit");
        setrlimit(Resource::RLIMIT_NOFILE, hard - 1, hard).expect("lowered");
        let inherited = Inherited::capture().expect("captured");
        let terms = Terms {
            inherited: &inherited,
            standing: Standing::Group,
            death_signal: None,
            keep: None,
        };
        let script = "grep SigBlk /proc/self/status; ulimit -n; ulimit -Hn";
        let before = seen(terms, script);
        assert_eq!(inherited.raise_open_files().expect("raised"), hard);
        [Signal::SIGTERM, Signal::SIGUSR1]
            .into_iter()
            .collect::<SigSet>()
            .thread_block()
            .expect("blocked");
        assert_eq!(seen(terms, script), before);
    }

    #[test]
    fn a_child_leads_its_session_or_its_group() {
        let inherited = Inherited::capture().expect("captured");
        for (standing, same_session) in [(Standing::Session, false), (Standing::Group, true)] {
            let terms = Terms {
                inherited: &inherited,
                standing,
                death_signal: Some(Signal::SIGTERM),
                keep: None,
            };
            let text = seen(terms, "echo $$; cut -d ' ' -f 5,6 < /proc/$$/stat");
            let words: Vec<i32> = text
                .split_whitespace()
                .map(|n| n.parse().unwrap())
                .collect();
            let session = nix::unistd::getsid(None).expect("our session").as_raw();
            assert_eq!(words[1], words[0], "group");
            assert_eq!(words[2], if same_session { session } else { words[0] });
        }
    }

    #[test]
    fn what_cannot_be_executed_is_an_error() {
        let inherited = Inherited::capture().expect("captured");
        let terms = Terms {
            inherited: &inherited,
            standing: Standing::Group,
            death_signal: None,
            keep: None,
        };
        let error = spawn(&mut Command::new("/dev/null/x"), terms).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::ENOTDIR as i32));
    }

    #[test]
    fn a_range_is_closed_with_and_without_the_kernels_help() {
        let null = File::open("/dev/null").expect("/dev/null");
        let is_open = |number: RawFd| fs::exists(format!("/proc/self/fd/{number}")).expect("/proc");
        for close in [close_range, close_listed] {
            // Numbers that no other test comes to.
            let numbers: Vec<RawFd> = (0..3)
                .map(|_| fcntl(&null, FcntlArg::F_DUPFD_CLOEXEC(500)).expect("a duplicate"))
                .collect();
            close(numbers[0], numbers[1]).expect("closed");
            assert_eq!(
                numbers.iter().map(|&n| is_open(n)).collect::<Vec<_>>(),
                [false, false, true]
            );
            close(numbers[2], numbers[2]).expect("closed");
            assert!(!is_open(numbers[2]));
        }
    }

    #[test]
    fn only_an_open_descriptor_is_taken() {
        for number in [-1, 0, 2, 1_000_000] {
            assert!(take_kept(number).is_err(), "{number}");
        }
    }
}
