//! The client's end of the three pipes, and the second copy of the program behind them.
//!
//! What ssh and VS Code do for a user is done here by one poll(2): it takes what comes on stdout
//! and stderr at any time, and it learns by itself of a signal to the test and of the end of every
//! process below. For that the test makes itself a child subreaper: a process that the second copy
//! leaves behind becomes a child of the test, so nothing can stay without being seen.

use std::env;
use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bstr::ByteSlice;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};

use super::failure::Failure;
use crate::sys::signals::Signals;
use crate::sys::stdio::Stream;

/// How long an answer may take that waits for nothing but the shell.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// How long the last words of a second copy that has ended are waited for.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(2);
/// A line longer than this is none of ours.
const LINE_LIMIT: usize = 64 * 1024;
/// How much of stderr is kept for a failure's text.
const TAIL: usize = 8 * 1024;

/// Why [`Player::wait`] came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Woken {
    /// Something happened.
    Event,
    /// The deadline has passed.
    Late,
}

/// A running second copy and the test's ends of its pipes.
pub(super) struct Player {
    pid: i32,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    /// What stdout has brought and nobody has asked for yet.
    heard: Vec<u8>,
    /// The last of what stderr has brought.
    tail: Vec<u8>,
    reaper: UnixStream,
    status: Option<i32>,
    nothing_left: bool,
    signals: Signals,
}

impl Player {
    /// Starts the second copy with these arguments, in a process group of its own: as with ssh, a
    /// signal to the test's group is none to it.
    pub(super) fn start(args: &[OsString]) -> io::Result<Self> {
        nix::sys::prctl::set_child_subreaper(true)?;
        let mut child = Command::new("/proc/self/exe")
            // The site's file may lie beside the command as it was called.
            .arg0(env::args_os().next().unwrap_or_default())
            .args(args)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let signals = Signals::block(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP])?;
        let (reaper, report) = UnixStream::pair()?;
        reaper.set_nonblocking(true)?;
        thread::spawn(move || reap(report));
        let own = |pipe: Option<OwnedFd>| pipe.map(Stream::own).transpose();
        Ok(Self {
            pid: child.id().cast_signed(),
            stdin: own(child.stdin.take().map(Into::into))?,
            stdout: own(child.stdout.take().map(Into::into))?,
            stderr: own(child.stderr.take().map(Into::into))?,
            heard: Vec::new(),
            tail: Vec::new(),
            reaper,
            status: None,
            nothing_left: false,
            signals,
        })
    }

    /// The second copy's process id.
    pub(super) fn pid(&self) -> u32 {
        self.pid.cast_unsigned()
    }

    /// The last of what came on stderr.
    pub(super) fn stderr_tail(&self) -> &[u8] {
        &self.tail
    }

    /// The second copy's exit status once it has ended; 128 and the number for a signal.
    pub(super) fn status(&self) -> Option<i32> {
        self.status
    }

    /// Whether every process below the test has ended.
    pub(super) fn is_nothing_left(&self) -> bool {
        self.nothing_left
    }

    /// Writes one step or script, whole.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let deadline = Instant::now() + ANSWER_LIMIT;
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some(stdin) = &self.stdin else {
                return Err(self.ended("the session takes what the client writes"));
            };
            match stdin.write(rest) {
                Ok(n) => rest = &rest[n..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let expected = "the session takes what the client writes";
                    if self.wait_to_write(deadline)? == Woken::Late {
                        return Err(Failure::new(expected, "it does not read"));
                    }
                }
                Err(_) => self.stdin = None,
            }
        }
        Ok(())
    }

    /// The next line, without its end.
    pub(super) fn line(&mut self, expected: &str, limit: Duration) -> Result<String, Failure> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(end) = self.heard.find_byte(b'\n') {
                let line: Vec<u8> = self.heard.drain(..=end).collect();
                let line = line.trim_end_with(|char| matches!(char, '\r' | '\n'));
                return Ok(line.to_str_lossy().into_owned());
            }
            if self.heard.len() > LINE_LIMIT {
                return Err(Failure::new(expected, "a line that does not end"));
            }
            if self.stdout.is_none() {
                return Err(self.ended(expected));
            }
            if self.wait(&[], deadline)? == Woken::Late {
                let seconds = limit.as_secs();
                let got = match self.heard.as_slice() {
                    [] => format!("nothing within {seconds} s"),
                    heard => format!("{:?} and no more within {seconds} s", heard.as_bstr()),
                };
                return Err(Failure::new(expected, &got));
            }
        }
    }

    /// Sends one step and returns the line that answers it.
    pub(super) fn ask(
        &mut self,
        step: impl AsRef<[u8]>,
        expected: &str,
    ) -> Result<String, Failure> {
        self.send(step.as_ref())?;
        self.line(expected, ANSWER_LIMIT)
    }

    /// Waits for these bytes, whether or not a line ends behind them, with nothing before them.
    pub(super) fn bytes(&mut self, bytes: &[u8], expected: &str) -> Result<(), Failure> {
        let deadline = Instant::now() + ANSWER_LIMIT;
        while self.heard.len() < bytes.len() {
            if self.stdout.is_none() {
                return Err(self.ended(expected));
            }
            if self.wait(&[], deadline)? == Woken::Late {
                return Err(Failure::new(expected, "nothing"));
            }
        }
        let heard: Vec<u8> = self.heard.drain(..bytes.len()).collect();
        if heard != bytes {
            return Err(Failure::new(expected, &format!("{:?}", heard.as_bstr())));
        }
        Ok(())
    }

    /// Closes the three pipes, as sshd does when its client is gone. No signal is sent.
    pub(super) fn hang_up(&mut self) {
        self.stdin = None;
        self.stdout = None;
        self.stderr = None;
    }

    /// Waits until something happens, on `others` or on anything that the player watches. Which
    /// of them it was the caller finds out by trying.
    ///
    /// # Errors
    /// A signal to the test ends it, and so does a failing poll(2).
    pub(super) fn wait(
        &mut self,
        others: &[PollFd<'_>],
        deadline: Instant,
    ) -> Result<Woken, Failure> {
        self.wait_for(others, false, deadline)
    }

    fn wait_to_write(&mut self, deadline: Instant) -> Result<Woken, Failure> {
        self.wait_for(&[], true, deadline)
    }

    fn wait_for(
        &mut self,
        others: &[PollFd<'_>],
        write: bool,
        deadline: Instant,
    ) -> Result<Woken, Failure> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Woken::Late);
        }
        // One more than the rest, so that a wait that ends by time ends behind the deadline.
        let timeout = left + Duration::from_millis(1);
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        let readable = [
            self.stdout.as_ref().map(AsFd::as_fd),
            self.stderr.as_ref().map(AsFd::as_fd),
            Some(self.signals.as_fd()),
            (!self.nothing_left).then(|| self.reaper.as_fd()),
        ];
        let mut watched: Vec<PollFd<'_>> = others.to_vec();
        let watch = |fd, flags| PollFd::new(fd, flags);
        watched.extend(
            readable
                .into_iter()
                .flatten()
                .map(|fd| watch(fd, PollFlags::POLLIN)),
        );
        if write {
            watched.extend(
                self.stdin
                    .iter()
                    .map(|fd| watch(fd.as_fd(), PollFlags::POLLOUT)),
            );
        }
        match poll(&mut watched, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Failure::new("poll(2) works", errno.desc())),
        }
        self.take();
        match self.signals.read() {
            Ok(None) => Ok(Woken::Event),
            Ok(Some(signal)) => Err(Failure::interrupted(signal)),
            Err(error) => Err(Failure::new("signals can be read", &error.to_string())),
        }
    }

    /// Takes what has come.
    fn take(&mut self) {
        take_output(&mut self.stdout, &mut self.heard);
        take_output(&mut self.stderr, &mut self.tail);
        let excess = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..excess);
        // Each report is written whole, and so is read whole.
        let mut report = [0; 8];
        while !self.nothing_left {
            match self.reaper.read(&mut report) {
                Ok(8) => {
                    let [a, b, c, d, status @ ..] = report;
                    if i32::from_ne_bytes([a, b, c, d]) == self.pid {
                        self.status = Some(i32::from_ne_bytes(status));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => self.nothing_left = true,
            }
        }
    }

    /// The failure of a session that has ended too early, with its status if that comes soon.
    fn ended(&mut self, expected: &str) -> Failure {
        let deadline = Instant::now() + LAST_WORDS_LIMIT;
        while self.status.is_none() || self.stderr.is_some() {
            match self.wait(&[], deadline) {
                Ok(Woken::Event) => {}
                Ok(Woken::Late) => break,
                Err(interrupted) => return interrupted,
            }
        }
        match self.status {
            Some(status) => {
                Failure::new(expected, &format!("the session ended with status {status}"))
            }
            None => Failure::new(expected, "the session closed its output and lives on"),
        }
    }
}

/// Reads what is there, up to a block; a stream that has ended or failed is closed.
fn take_output(stream: &mut Option<Stream>, bytes: &mut Vec<u8>) {
    let Some(open) = stream else { return };
    let mut block = [0; 16 * 1024];
    match open.read(&mut block) {
        Ok(n) if n > 0 => bytes.extend_from_slice(&block[..n]),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        Ok(_) | Err(_) => *stream = None,
    }
}

/// Waits for the end of every process below the test and reports each as it comes: process id and
/// status. The report's end says that none is left.
fn reap(mut report: UnixStream) {
    loop {
        let (pid, status) = match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, code),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32),
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(_) => return,
        };
        let message = [pid.as_raw().to_ne_bytes(), status.to_ne_bytes()].concat();
        if report.write_all(&message).is_err() {
            return;
        }
    }
}
