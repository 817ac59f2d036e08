//! Harness of the integration tests: the real program, real pipes, real processes.
//!
//! A test describes a program ([`Program`]), starts it, and converses with the [`Session`] as a
//! client does: a step, its answer, the next step. Every wait is for an event (a byte, an end of
//! file, an exit) and ends after [`BOUND`] with a panic that shows everything one needs: the
//! command, both streams, the log file, and the processes that are alive.
//!
//! Each session has a private directory with `home/` (its `$HOME`) and `bin/` (first on its
//! `$PATH`), and an environment variable of its own by which [`processes`] finds whatever it
//! started, wherever that was re-parented to.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of the harness"
)]

pub mod processes;
pub mod reach;
pub mod slurm;
pub mod stranger;
pub mod tcp;
pub mod wrapper;

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bstr::ByteSlice;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use processes::{Mark, Process};
use tempfile::TempDir;

/// The longest that a test waits for one event. Far beyond what a loaded machine needs, so that
/// only a fault reaches it.
pub const BOUND: Duration = Duration::from_secs(60);

/// Most bytes of one stream that a failure shows.
const SHOWN: usize = 8 * 1024;

/// What one of the program's standard streams is connected to.
pub enum Stream {
    /// A pipe, whose other end the [`Session`] holds.
    Pipe,
    /// `/dev/null`.
    Null,
    /// A file of the test's.
    File(File),
}

impl Stream {
    fn into_stdio(self) -> Stdio {
        match self {
            Self::Pipe => Stdio::piped(),
            Self::Null => Stdio::null(),
            Self::File(file) => file.into(),
        }
    }
}

/// A program that is about to be started: by default the proxy, without arguments, on three pipes.
pub struct Program {
    directory: TempDir,
    program: OsString,
    args: Vec<OsString>,
    variables: Vec<(OsString, Option<OsString>)>,
    log: Option<PathBuf>,
    streams: [Stream; 3],
}

impl Program {
    /// The proxy, from this build.
    pub fn proxy() -> Self {
        Self::new(env!("CARGO_BIN_EXE_vscode-shell-proxy"))
    }

    /// Any other program.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for name in ["bin", "home"] {
            fs::create_dir(directory.path().join(name)).expect("a directory of the test's own");
        }
        Self {
            directory,
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            variables: Vec::new(),
            log: None,
            streams: [Stream::Pipe, Stream::Pipe, Stream::Pipe],
        }
    }

    /// The proxy goes directly to the node: no relay in the job is asked for.
    pub fn direct(self) -> Self {
        self.args(["--reach", "direct"])
    }

    /// One more argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// More arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Logs at level `trace` into a file, which failures then show and [`End::log`] returns.
    pub fn logged(mut self) -> Self {
        let path = self.path("log");
        self = self.arg("-vvv").arg("--log-file").arg(&path);
        self.log = Some(path);
        self
    }

    /// A variable of the program's environment.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        let value = value.as_ref().to_owned();
        self.variables.push((name.as_ref().to_owned(), Some(value)));
        self
    }

    /// A variable that the program shall not have.
    pub fn without_env(mut self, name: impl AsRef<OsStr>) -> Self {
        self.variables.push((name.as_ref().to_owned(), None));
        self
    }

    /// An executable script, first on the program's `PATH`.
    pub fn stand_in(self, name: &str, script: &str) -> Self {
        let path = self.path("bin").join(name);
        fs::write(&path, script).expect("writing a stand-in");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
        self
    }

    /// A file in the private directory, with the directories above it.
    pub fn file(self, name: impl AsRef<Path>, content: &str) -> Self {
        let path = self.path(name);
        let directory = path.parent().expect("it is in the private directory");
        fs::create_dir_all(directory).expect("a directory of the test's own");
        fs::write(path, content).expect("writing a file");
        self
    }

    /// The same program, called by another name.
    pub fn called(mut self, program: impl AsRef<OsStr>) -> Self {
        self.program = program.as_ref().to_owned();
        self
    }

    /// Runs the program under a command that executes its arguments, `["nice"]` for example.
    pub fn under<A: AsRef<OsStr>>(mut self, wrapper: impl IntoIterator<Item = A>) -> Self {
        let mut words: Vec<OsString> = wrapper
            .into_iter()
            .map(|word| word.as_ref().to_owned())
            .collect();
        let wrapper = words.remove(0);
        words.push(std::mem::replace(&mut self.program, wrapper));
        words.append(&mut self.args);
        self.args = words;
        self
    }

    /// Limits the program's open files, soft and hard.
    pub fn open_files(self, limit: u32) -> Self {
        let script = format!("ulimit -n {limit} && exec \"$0\" \"$@\"");
        self.under(["sh", "-c", &script])
    }

    /// Connects standard stream 0, 1 or 2.
    pub fn stream(mut self, number: usize, stream: Stream) -> Self {
        self.streams[number] = stream;
        self
    }

    /// A path in the private directory.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts it.
    #[track_caller]
    pub fn start(self) -> Session {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mark = Mark::new(&format!("{}.{number}", std::process::id()));

        let mut path = self.path("bin").into_os_string();
        if let Some(rest) = std::env::var_os("PATH") {
            path.push(":");
            path.push(rest);
        }
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .env("HOME", self.path("home"))
            .env("PATH", path);
        command.env("SHELL", "/bin/bash");
        for name in ["RUST_LOG", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"] {
            command.env_remove(name);
        }
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"SLURM") {
                command.env_remove(name);
            }
        }
        for (name, value) in &self.variables {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let (name, value) = mark.variable();
        command.env(name, value);

        let [stdin, stdout, stderr] = self.streams.map(Stream::into_stdio);
        let mut child = match command.stdin(stdin).stdout(stdout).stderr(stderr).spawn() {
            Ok(child) => child,
            Err(error) => panic!("cannot start {:?}: {error}", self.program),
        };
        let stdin = child.stdin.take();
        stdin.iter().for_each(|pipe| set_nonblocking(pipe.as_fd()));
        Session {
            exit: process_descriptor(child.id()),
            description: format!("{command:?}"),
            stdin,
            stdout: Output::new(child.stdout.take()),
            stderr: Output::new(child.stderr.take()),
            child,
            status: None,
            mark,
            log: self.log,
            directory: self.directory,
        }
    }

    /// Starts it, ends its stdin after `input`, and waits for its end and for nothing to be left.
    #[track_caller]
    pub fn run(self, input: impl AsRef<[u8]>) -> End {
        let mut session = self.start();
        if session.stdin.is_some() {
            session.send_as_far_as_taken(input.as_ref());
            session.end_stdin();
        }
        let end = session.wait();
        session.assert_nothing_left();
        end
    }
}

/// What a program has left when it ended.
#[derive(Debug)]
pub struct End {
    /// Its status.
    pub status: ExitStatus,
    /// All of its stdout.
    pub stdout: Vec<u8>,
    /// All of its stderr.
    pub stderr: Vec<u8>,
    /// Its log file, if [`Program::logged`].
    pub log: String,
}

impl End {
    /// The exit code; 128 and the signal's number for one that a signal ended, as a shell has it.
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| 128 + self.status.signal().unwrap_or_default())
    }

    /// Stderr as text.
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Stdout as text.
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// One of the program's output streams: everything it wrote, and how far the test has read.
struct Output<P> {
    pipe: Option<P>,
    bytes: Vec<u8>,
    /// `read <= bytes.len()`
    read: usize,
    paused: bool,
}

impl<P: AsFd + Read> Output<P> {
    fn new(pipe: Option<P>) -> Self {
        pipe.iter().for_each(|pipe| set_nonblocking(pipe.as_fd()));
        Self {
            pipe,
            bytes: Vec::new(),
            read: 0,
            paused: false,
        }
    }

    fn wanted(&self) -> Option<BorrowedFd<'_>> {
        self.pipe
            .as_ref()
            .filter(|_| !self.paused)
            .map(|pipe| pipe.as_fd())
    }

    /// Takes what is there, a part of it at a time, so that no stream starves the others.
    fn take(&mut self) {
        let Some(pipe) = self.pipe.as_mut().filter(|_| !self.paused) else {
            return;
        };
        let mut block = [0; 64 * 1024];
        match pipe.read(&mut block) {
            Ok(0) => self.pipe = None,
            Ok(n) => self.bytes.extend_from_slice(&block[..n]),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => panic!("reading the program's output: {error}"),
        }
    }

    fn unread(&self) -> &[u8] {
        &self.bytes[self.read..]
    }

    /// The unread bytes up to and with `pattern`, which then are read.
    fn through(&mut self, pattern: &[u8]) -> Option<Vec<u8>> {
        let end = self.unread().find(pattern)? + pattern.len();
        Some(self.exactly(end).expect("`end` is within what is unread"))
    }

    /// The next `length` bytes, which then are read.
    fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        let bytes = self.unread().get(..length)?.to_vec();
        self.read += length;
        Some(bytes)
    }

    fn is_ended(&self) -> bool {
        self.pipe.is_none()
    }
}

/// A running program and the test's ends of its pipes. Dropping it kills whatever it has left.
pub struct Session {
    child: Child,
    exit: OwnedFd,
    status: Option<ExitStatus>,
    stdin: Option<ChildStdin>,
    stdout: Output<ChildStdout>,
    stderr: Output<ChildStderr>,
    mark: Mark,
    log: Option<PathBuf>,
    directory: TempDir,
    description: String,
}

/// Conversation.
impl Session {
    /// Writes all of `bytes` to the program's stdin, taking its output meanwhile.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        let taken = self.send_as_far_as_taken(bytes);
        if taken < bytes.len() {
            self.fail(&format!(
                "its stdin was closed after {taken} of {} bytes",
                bytes.len()
            ));
        }
    }

    /// As [`Self::send`], but a program that closes its stdin ends it; the count that was taken.
    #[track_caller]
    pub fn send_as_far_as_taken(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        let mut broken = false;
        self.until("stdin takes all bytes", |session| {
            let pipe = session.stdin.as_mut().expect("stdin is open");
            while taken < bytes.len() && !broken {
                match pipe.write(&bytes[taken..]) {
                    Ok(n) => taken += n,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => broken = true,
                    Err(error) => panic!("writing to the program: {error}"),
                }
            }
            Some(())
        });
        taken
    }

    /// Closes the program's stdin.
    pub fn end_stdin(&mut self) {
        self.stdin = None;
    }

    /// Closes the test's end of stdout, as a client does that goes away.
    pub fn close_stdout(&mut self) {
        self.stdout.pipe = None;
    }

    /// Closes the test's end of stderr.
    pub fn close_stderr(&mut self) {
        self.stderr.pipe = None;
    }

    /// Closes all three, as sshd does when the connection is gone: no signal is sent.
    pub fn hang_up(&mut self) {
        self.end_stdin();
        self.close_stdout();
        self.close_stderr();
    }

    /// Reads stdout no more until [`Self::resume_stdout`]: a reader that stalls.
    pub fn pause_stdout(&mut self) {
        self.stdout.paused = true;
    }

    /// Reads stdout again.
    pub fn resume_stdout(&mut self) {
        self.stdout.paused = false;
    }

    /// The next whole line of stdout, without its newline.
    #[track_caller]
    pub fn line(&mut self) -> String {
        let line = self.await_stdout("\n");
        String::from_utf8_lossy(&line[..line.len() - 1]).into_owned()
    }

    /// Sends one step and returns the line that answers it.
    #[track_caller]
    pub fn ask(&mut self, step: &str) -> String {
        self.send(format!("{step}\n"));
        self.line()
    }

    /// Requires that the next line of stdout is `line`.
    #[track_caller]
    pub fn expect_line(&mut self, line: &str) {
        let got = self.line();
        if got != line {
            self.fail(&format!("expected the line {line:?}, got {got:?}"));
        }
    }

    /// Reads stdout up to and with the next `pattern`; returns all of that.
    #[track_caller]
    pub fn await_stdout(&mut self, pattern: &str) -> Vec<u8> {
        self.until(&format!("{pattern:?} on stdout"), |session| {
            let found = session.stdout.through(pattern.as_bytes());
            if found.is_none() && session.stdout.is_ended() {
                session.fail(&format!("stdout ended without {pattern:?}"));
            }
            found
        })
    }

    /// Reads stderr up to and with the next `pattern`; returns all of that.
    #[track_caller]
    pub fn await_stderr(&mut self, pattern: &str) -> Vec<u8> {
        self.until(&format!("{pattern:?} on stderr"), |session| {
            let found = session.stderr.through(pattern.as_bytes());
            if found.is_none() && session.stderr.is_ended() {
                session.fail(&format!("stderr ended without {pattern:?}"));
            }
            found
        })
    }

    /// The next `length` bytes of stdout.
    #[track_caller]
    pub fn read_stdout(&mut self, length: usize) -> Vec<u8> {
        self.until(&format!("{length} bytes on stdout"), |session| {
            let found = session.stdout.exactly(length);
            if found.is_none() && session.stdout.is_ended() {
                session.fail(&format!("stdout ended before {length} bytes"));
            }
            found
        })
    }

    /// Makes the shell print an address of port `backend`, and returns the port that the client is
    /// told instead.
    #[track_caller]
    pub fn announce(&mut self, backend: u16) -> u16 {
        let line = self.ask(&format!("echo listeningOn==127.0.0.1:{backend}=="));
        let port = line
            .strip_prefix("listeningOn==127.0.0.1:")
            .and_then(|l| l.strip_suffix("=="));
        match port.and_then(|port| port.parse().ok()) {
            Some(port) if port != backend => port,
            _ => self.fail(&format!("{line:?} is not an address of the proxy's")),
        }
    }

    /// Waits for stdout's end of file; what had not been read before it.
    #[track_caller]
    pub fn rest_of_stdout(&mut self) -> Vec<u8> {
        self.until("the end of stdout", |session| {
            session
                .stdout
                .is_ended()
                .then(|| session.stdout.unread().to_vec())
        })
    }

    /// What has come on stdout and was not read by the test yet.
    pub fn unread_stdout(&self) -> &[u8] {
        self.stdout.unread()
    }

    /// What has come on stderr so far.
    pub fn stderr_so_far(&self) -> String {
        String::from_utf8_lossy(&self.stderr.bytes).into_owned()
    }

    /// The log file as it is now; empty without [`Program::logged`].
    pub fn log(&self) -> String {
        let bytes = self
            .log
            .as_ref()
            .and_then(|path| fs::read(path).ok())
            .unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Goes on taking output until `condition` answers. It is asked again after every event on the
    /// program's streams, and at least every 20 ms for what announces itself by no event.
    #[track_caller]
    pub fn until<T>(
        &mut self,
        expectation: &str,
        mut condition: impl FnMut(&mut Self) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + BOUND;
        loop {
            if let Some(answer) = condition(self) {
                return answer;
            }
            if Instant::now() > deadline {
                self.fail(&format!("waited {} s for: {expectation}", BOUND.as_secs()));
            }
            self.turn();
        }
    }

    fn turn(&mut self) {
        let outputs = [self.stdout.wanted(), self.stderr.wanted()];
        let mut watched: Vec<PollFd<'_>> = outputs
            .into_iter()
            .flatten()
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        if self.status.is_none() {
            watched.push(PollFd::new(self.exit.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut watched, PollTimeout::from(20_u8)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
        self.stdout.take();
        self.stderr.take();
        if self.status.is_none() {
            self.status = self
                .child
                .try_wait()
                .expect("the program is this process's child");
        }
    }
}

/// Processes and the end.
impl Session {
    /// The program's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The private directory's path `name`.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Sends a signal to the program itself, and to nothing else.
    pub fn signal(&self, signal: Signal) {
        assert!(
            self.status.is_none(),
            "the program has ended and its id may be another's"
        );
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("kill");
    }

    /// Everything that the program started and that is alive, itself included.
    pub fn processes(&self) -> Vec<Process> {
        self.mark.processes()
    }

    /// The TCP ports on which the program itself listens.
    pub fn listening_ports(&self) -> Vec<u16> {
        processes::listening_ports(self.pid())
    }

    /// Waits until the program listens, and returns the port of its first listener.
    #[track_caller]
    pub fn await_listening(&mut self) -> u16 {
        let listens = |session: &mut Self| session.listening_ports().first().copied();
        self.until("a listener", listens);
        // The first one has been there since before this look.
        self.until("the first listener", listens)
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.turn();
        self.status.is_some()
    }

    /// Waits for the program's exit and the end of its streams, unless they are paused.
    #[track_caller]
    pub fn wait(&mut self) -> End {
        let status = self.until("its exit and the end of its output", |session| {
            let done = |ended: bool, paused: bool| ended || paused;
            let streams = done(session.stdout.is_ended(), session.stdout.paused)
                && done(session.stderr.is_ended(), session.stderr.paused);
            session.status.filter(|_| streams)
        });
        End {
            status,
            stdout: self.stdout.bytes.clone(),
            stderr: self.stderr.bytes.clone(),
            log: self.log(),
        }
    }

    /// Waits for the exit and requires this code (128 and its number for a signal).
    #[track_caller]
    pub fn wait_for_code(&mut self, code: i32) -> End {
        let end = self.wait();
        if end.code() != code {
            self.fail(&format!("expected exit code {code}, got {}", end.code()));
        }
        end
    }

    /// Requires that, within [`BOUND`], nothing the program started is alive, itself included.
    #[track_caller]
    pub fn assert_nothing_left(&mut self) {
        self.until("nothing is left running", |session| {
            session.processes().is_empty().then_some(())
        });
    }

    /// Panics with everything that is known about the session.
    #[track_caller]
    pub fn fail(&self, reason: &str) -> ! {
        let mut text = format!("{reason}\n--- command: {}\n", self.description);
        let state = match self.status {
            Some(status) => status.to_string(),
            None => format!("running, process {}", self.pid()),
        };
        let _ = writeln!(text, "--- state: {state}");
        show(
            &mut text,
            "stdout",
            &self.stdout.bytes,
            self.stdout.is_ended(),
        );
        let _ = writeln!(
            text,
            "    (the test has read {} bytes of it)",
            self.stdout.read
        );
        show(
            &mut text,
            "stderr",
            &self.stderr.bytes,
            self.stderr.is_ended(),
        );
        show(&mut text, "log", self.log().as_bytes(), false);
        let _ = writeln!(text, "--- alive:");
        for process in self.processes() {
            let _ = writeln!(text, "    {process}");
        }
        panic!("{text}");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.mark.kill_all();
        // Reaps it, so that no zombie stays for the rest of the test program's life.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Appends the tail of a stream to a failure's text.
fn show(text: &mut String, name: &str, bytes: &[u8], ended: bool) {
    let ended = if ended { ", ended" } else { "" };
    let _ = writeln!(text, "--- {name} ({} bytes{ended})", bytes.len());
    let tail = &bytes[bytes.len().saturating_sub(SHOWN)..];
    for line in tail.lines() {
        let _ = writeln!(text, "    {}", line.escape_ascii());
    }
}

fn set_nonblocking(fd: BorrowedFd<'_>) {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("F_SETFL on a pipe");
}

/// A descriptor that is readable once the process has ended.
fn process_descriptor(pid: u32) -> OwnedFd {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a process id is not 0");
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("pidfd_open")
}

/// The path of a shell; `None`, said aloud, where it is missing. `tests/run` installs them all.
pub fn shell(name: &str) -> Option<PathBuf> {
    let found = ["/bin", "/usr/bin"]
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.exists());
    if found.is_none() {
        skipped(&format!("{name} is not installed"));
    }
    found
}

/// Says that a part of a test is left out, and why, past the capture of test output.
pub fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}
