//! The keeper's process, driven through its handle as the proxy does it, over real processes.

mod support;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::BOUND;
use support::processes::{Mark, Process, write_back};
use support::slurm::Slurm;
use support::wrapper;
use vscode_shell_proxy::ending::{self, CANCEL_LIMIT, GRACE, JobId, KILL_LIMIT, Status};
use vscode_shell_proxy::keeper::{self, Keeper, Report};
use vscode_shell_proxy::launch::{Environment, Launch};
use vscode_shell_proxy::revocation::HangUp;
use vscode_shell_proxy::sys::channel;
use vscode_shell_proxy::sys::spawn::{Inherited, Standing, Terms, spawn};

const PROXY: &str = env!("CARGO_BIN_EXE_vscode-shell-proxy");

/// Waits until `fd` is readable or at its end.
#[track_caller]
fn await_readable(fd: BorrowedFd<'_>, expectation: &str) {
    let mut watched = [PollFd::new(fd, PollFlags::POLLIN)];
    let bound = PollTimeout::try_from(BOUND).expect("a timeout");
    match poll(&mut watched, bound) {
        Ok(1) => {}
        other => panic!("waited {} s for {expectation}: {other:?}", BOUND.as_secs()),
    }
}

/// Waits for the end of a process that need not be a child.
#[track_caller]
fn await_exit(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a process id is not 0");
    if let Ok(fd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
        await_readable(fd.as_fd(), "the end of a process");
    }
}

/// Waits for what announces itself by no event.
#[track_caller]
fn until(expectation: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + BOUND;
    while !condition() {
        assert!(
            Instant::now() < deadline,
            "waited {} s until {expectation}",
            BOUND.as_secs()
        );
        std::thread::yield_now();
    }
}

/// The next line of a pipe, without its newline; `None` at its end.
#[track_caller]
fn read_line(pipe: &mut File) -> Option<String> {
    let mut line = Vec::new();
    loop {
        let mut byte = [0];
        match pipe.read(&mut byte) {
            Ok(0) => return None,
            Ok(_) if byte == *b"\n" => return Some(String::from_utf8(line).expect("text")),
            Ok(_) => line.extend(byte),
            Err(_) => await_readable(pipe.as_fd(), "a line"),
        }
    }
}

/// A keeper and the ends of its launch command's streams. Dropping it kills what is left.
struct Kept {
    keeper: Option<Keeper>,
    pid: i32,
    stdin: Option<File>,
    stdout: File,
    stderr: File,
    mark: Mark,
    /// What the keeper had to say meanwhile.
    log: Vec<String>,
}

impl Kept {
    fn shell(script: &str) -> Self {
        Self::start("bash", &["-c", script], &[])
    }

    /// A bash whose script has begun, and has said so.
    #[track_caller]
    fn ready(script: &str) -> Self {
        let mut kept = Self::shell(script);
        kept.expect_started();
        assert_eq!(kept.line(), "ready");
        kept
    }

    fn salloc(cluster: &Slurm, args: &[&str]) -> Self {
        Self::in_cluster(cluster, "salloc", args)
    }

    fn in_cluster(cluster: &Slurm, program: &str, args: &[&str]) -> Self {
        let [path, directory] = cluster.variables();
        let shell = ("SHELL", OsString::from("/bin/bash"));
        Self::start(program, args, &[path, directory, shell])
    }

    fn start(
        program: impl AsRef<OsStr>,
        args: &[impl AsRef<OsStr>],
        env: &[(&str, OsString)],
    ) -> Self {
        Self::start_as(Path::new(PROXY), program, args, env)
    }

    fn start_as(
        executable: &Path,
        program: impl AsRef<OsStr>,
        args: &[impl AsRef<OsStr>],
        env: &[(&str, OsString)],
    ) -> Self {
        let mark = new_mark();
        let (name, value) = mark.variable();
        let marked = [(name.into(), value.into())];
        let env = env.iter().map(|(name, value)| (name.into(), value.clone()));
        let launch = Launch {
            program: program.as_ref().to_owned(),
            args: args.iter().map(|arg| arg.as_ref().to_owned()).collect(),
            environment: Environment {
                set: marked.into_iter().chain(env).collect(),
                ..Environment::default()
            },
            ..Launch::default()
        };
        let inherited = Inherited::capture().expect("captured");
        let (keeper, ends) = keeper::start_as(executable, &launch, &inherited).expect("a keeper");
        Self {
            pid: keeper.pid().as_raw_nonzero().get(),
            keeper: Some(keeper),
            stdin: Some(ends.stdin.into()),
            stdout: ends.stdout.into(),
            stderr: ends.stderr.into(),
            mark,
            log: Vec::new(),
        }
    }

    fn keeper(&mut self) -> &mut Keeper {
        self.keeper.as_mut().expect("the handle was not dropped")
    }

    fn set_job(&mut self, job: u32) {
        self.keeper().set_job(JobId::new(job).expect("a job"));
    }

    /// The next report but log lines, which are put aside.
    #[track_caller]
    fn report(&mut self) -> Report {
        loop {
            match self.keeper().report().expect("a report") {
                Some(Report::Log { text, .. }) => self.log.push(text),
                Some(report) => return report,
                None => await_readable(self.keeper().control(), "a report"),
            }
        }
    }

    /// Waits until this line of the log has come, before any other report.
    #[track_caller]
    fn expect_log(&mut self, line: &str) {
        while self.log.last().is_none_or(|last| last != line) {
            match self.keeper().report().expect("a report") {
                Some(Report::Log { text, .. }) => self.log.push(text),
                Some(other) => panic!("{other:?}, log: {:?}", self.log),
                None => await_readable(self.keeper().control(), line),
            }
        }
    }

    #[track_caller]
    fn expect(&mut self, expected: Report) {
        let report = self.report();
        assert_eq!(report, expected, "log: {:?}", self.log);
    }

    /// Waits for the launch command's start; its process id.
    #[track_caller]
    fn expect_started(&mut self) -> i32 {
        match self.report() {
            Report::Started { pid } => pid,
            other => panic!("{other:?} instead of the start"),
        }
    }

    /// Waits for the end of everything, and requires that nothing is left indeed.
    #[track_caller]
    fn expect_done(&mut self) {
        self.expect(Report::Done);
        self.expect(Report::Gone);
        await_exit(self.pid);
        self.expect_nothing_left();
    }

    /// Has everything ended, the launch command with `status`; how long it took.
    #[track_caller]
    fn end_with(&mut self, status: Status) -> Duration {
        let began = Instant::now();
        self.keeper().end();
        self.expect(Report::Ended(status));
        self.expect_done();
        began.elapsed()
    }

    #[track_caller]
    fn expect_nothing_left(&mut self) {
        let left = self.mark.processes();
        let left: Vec<String> = left.iter().map(Process::to_string).collect();
        assert!(left.is_empty(), "left: {left:#?}, log: {:?}", self.log);
    }

    /// Writes to the launch command's stdin.
    fn say(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        stdin.write_all(text.as_bytes()).expect("it takes it");
    }

    #[track_caller]
    fn line(&mut self) -> String {
        read_line(&mut self.stdout).expect("stdout goes on")
    }

    #[track_caller]
    fn number(&mut self) -> i32 {
        self.line().trim().parse().expect("a number")
    }

    #[track_caller]
    fn expect_end_of_stdout(&mut self) {
        assert_eq!(read_line(&mut self.stdout), None);
    }

    #[track_caller]
    fn await_stderr(&mut self, text: &str) {
        while !read_line(&mut self.stderr)
            .expect("stderr goes on")
            .contains(text)
        {}
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.mark.kill_all();
    }
}

fn new_mark() -> Mark {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Mark::new(&format!("keeper.{}.{number}", std::process::id()))
}

fn write_script(path: &Path, text: &str) {
    fs::write(path, text).expect("a script");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("chmod");
}

/// A field of `/proc/PID/status`.
fn status_field(pid: i32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the status");
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.expect("the field").trim().to_owned()
}

/// Where the descriptors of a process lead.
fn descriptors(pid: i32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors");
    let mut descriptors: Vec<(u32, String)> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter_map(|path| {
            let number = path.file_name()?.to_str()?.parse().ok()?;
            let target = fs::read_link(&path).ok()?;
            Some((number, target.to_string_lossy().into_owned()))
        })
        .collect();
    descriptors.sort();
    descriptors.into_iter().map(|(_, target)| target).collect()
}

#[test]
fn a_command_runs_over_its_pipes_and_its_status_is_reported() {
    let mut kept = Kept::shell("read -r line; echo \"got $line\"; echo else >&2; exit 7");
    kept.expect_started();
    kept.say("a line\n");
    assert_eq!(kept.line(), "got a line");
    kept.await_stderr("else");
    kept.expect(Report::Ended(Status::Code(7)));
    kept.expect_end_of_stdout();
    kept.keeper().end();
    kept.expect_done();
}

#[test]
fn the_end_of_stdin_is_passed_on() {
    let mut kept = Kept::shell("cat; echo ended");
    kept.stdin = None;
    assert_eq!(kept.line(), "ended");
    kept.expect_started();
    kept.expect(Report::Ended(Status::Code(0)));
}

#[test]
fn any_byte_may_stand_in_an_argument() {
    let odd = OsString::from_vec((1..=255).collect());
    let mut kept = Kept::start("printf", &[OsString::from("%s\n"), odd.clone()], &[]);
    kept.expect_started();
    kept.expect(Report::Ended(Status::Code(0)));
    let mut output = Vec::new();
    kept.stdout.read_to_end(&mut output).expect("its output");
    let mut expected = odd.into_vec();
    expected.push(b'\n');
    assert_eq!(output, expected);
}

#[test]
fn what_cannot_be_started_is_reported_with_its_error() {
    for (program, errno, status) in [
        ("no-such-program", Errno::ENOENT, 127),
        ("/no/such/program", Errno::ENOENT, 127),
        ("", Errno::ENOENT, 127),
        ("/dev/null", Errno::EACCES, 126),
        ("/", Errno::EACCES, 126),
    ] {
        let mut kept = Kept::start(program, &[""; 0], &[]);
        let errno = errno as i32;
        kept.expect(Report::NotStarted { errno });
        assert_eq!(keeper::refused_status(errno), status, "{program:?}");
        kept.expect_end_of_stdout();
        kept.keeper().end();
        kept.expect_done();
    }
}

#[test]
fn the_launch_command_starts_as_we_were_started() {
    // Behind the first two lines, what `ls` tells of its descriptors; behind the 31 ordinary
    // signals, those of the C library, which it sets for itself.
    let script = "ulimit -n; ulimit -Hn; for set in SigBlk SigIgn; do
        read -r _ mask < <(grep $set /proc/self/status); echo $((0x${mask:8} & 0x7fffffff))
        done; ls /proc/self/fd";
    let plain = Command::new("bash")
        .args(["-c", script])
        .output()
        .expect("bash");
    let mut kept = Kept::shell(script);
    let lines: Vec<String> = std::iter::from_fn(|| read_line(&mut kept.stdout)).collect();
    let plain = String::from_utf8(plain.stdout).expect("text");
    assert_eq!(lines, plain.lines().collect::<Vec<_>>());
}

#[test]
fn it_holds_nothing_but_its_channel_and_has_a_name() {
    let mut kept = Kept::shell("echo $PPID; read -r");
    kept.expect_started();
    let pid = kept.number();
    assert_eq!(pid, kept.pid);

    // It has settled when it reports the next thing, at the latest.
    kept.stdin = None;
    kept.expect(Report::Ended(Status::Code(1)));
    let held = descriptors(pid);
    assert_eq!(held[..3], ["/dev/null"; 3], "{held:?}");
    let others: Vec<&str> = held[3..]
        .iter()
        .map(|target| target.split('[').next().unwrap())
        .collect();
    assert_eq!(others.len(), 2, "the signals and the channel: {held:?}");
    assert!(
        others.contains(&"socket:") && others.contains(&"anon_inode:"),
        "{held:?}"
    );

    let process = Process::read(pid).expect("it lives");
    assert_eq!((process.session, process.group), (pid, pid));
    assert!(process.args[0].starts_with(b"vscode-shell-proxy: keeper"));
    assert_eq!(status_field(pid, "Name"), "vscode-keeper");
    assert_eq!(process.threads(), 1);
}

#[test]
fn a_careless_parent_does_not_disturb_it() {
    // Who ignores SIGCHLD loses the status of his children, and a stray descriptor would keep its
    // other end from seeing the end.
    let directory = tempfile::tempdir().expect("a temporary directory");
    let careless = directory.path().join("careless");
    let script = format!("#!/bin/bash\ntrap '' CHLD\nexec {PROXY} \"$@\" 17>&1 18</dev/null\n");
    write_script(&careless, &script);
    let mut kept = Kept::start_as(&careless, "bash", &["-c", "read -r; exit 7"], &[]);
    kept.expect_started();
    kept.stdin = None;
    kept.expect(Report::Ended(Status::Code(7)));
    // The launch command, which had them too, is gone.
    kept.expect_end_of_stdout();
    assert_eq!(descriptors(kept.pid).len(), 5);
    kept.keeper().end();
    kept.expect_done();
}

#[test]
fn idle_it_does_nothing_at_all() {
    let kept = Kept::ready("echo ready; read -r");
    let sleeps = || status_field(kept.pid, "State").starts_with('S');
    until("the keeper sleeps", sleeps);
    let switches = || {
        ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"]
            .map(|field| status_field(kept.pid, field))
    };
    let before = switches();
    // Time is what this is about.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(switches(), before);
}

#[test]
fn its_private_memory_is_small() {
    write_back(Path::new(PROXY));
    // The environment is a part of it that is not its own.
    let directory = tempfile::tempdir().expect("a temporary directory");
    let bare = directory.path().join("bare");
    let script = format!("#!/bin/sh\nexec env -i PATH=\"$PATH\" {PROXY} \"$@\"\n");
    write_script(&bare, &script);
    let mut kept = Kept::start_as(&bare, "sh", &["-c", "read -r line"], &[]);
    kept.expect_started();
    kept.stdin = None;
    kept.expect(Report::Ended(Status::Code(1)));
    let kib = Process::read(kept.pid).and_then(|keeper| keeper.private_kib());
    let kib = kib.expect("it runs");
    println!("keeper: {kib} KiB private dirty");
    if !cfg!(debug_assertions) {
        assert!(kib <= 150, "{kib} KiB private dirty");
    }
}

#[test]
fn told_to_end_it_ends_everything_below_it() {
    let mut kept = Kept::ready("sleep 600 & setsid sleep 600 & echo ready; wait");
    kept.end_with(Status::Signal(15));
}

#[test]
fn whatever_ignores_sigterm_and_hides_is_killed() {
    // Ignores what can be ignored; changes group and session; is orphaned by a double fork; forks
    // faster than anybody can look.
    let script = "
        trap '' TERM HUP INT
        (set -m; sleep 600 &)
        setsid sleep 600 &
        setsid bash -c '(sleep 600 &) & exit' &
        bash -c 'while :; do (sleep 600 & sleep 600) & sleep 0.01; done' &
        echo ready
        while :; do sleep 600; done";
    let mut kept = Kept::ready(script);
    let took = kept.end_with(Status::Signal(9));
    assert!(
        took >= GRACE && took < ending::BOUND,
        "{took:?}: {:?}",
        kept.log
    );
    assert!(
        kept.log.iter().any(|line| line.starts_with("killing ")),
        "{:?}",
        kept.log
    );
}

#[test]
fn shells_that_ignore_sigterm_but_not_a_hang_up_end_at_once() {
    let mut kept = Kept::ready("echo ready; bash --norc -i; exit");
    // Its answer says that it is interactive by now.
    kept.say("echo $-\n");
    assert!(kept.line().contains('i'));
    assert!(kept.end_with(Status::Signal(15)) < GRACE);
}

#[test]
fn a_stopped_process_ends_at_once() {
    let mut kept = Kept::shell("sleep 600 & kill -STOP $!; echo ready; kill -STOP $$; wait");
    let launch = kept.expect_started();
    kept.line();
    let stopped = || status_field(launch, "State").starts_with('T');
    until("the launch command is stopped", stopped);
    assert!(kept.end_with(Status::Signal(15)) < GRACE);
}

#[test]
fn a_launch_command_that_runs_gets_sigterm_and_nothing_behind_it() {
    // Grid Engine's qrsh remembers the last signal only: SIGCONT would take SIGTERM's place.
    let script = "
        trap 'echo TERM' TERM; trap 'echo CONT' CONT
        echo ready
        read -r line; echo \"$line\"
        exit 5";
    let mut kept = Kept::ready(script);
    kept.keeper().end();
    assert_eq!(kept.line(), "TERM");
    kept.say("asked\n");
    assert_eq!(kept.line(), "asked");
    kept.expect(Report::Ended(Status::Code(5)));
    kept.expect_done();
}

#[test]
fn a_command_that_cleans_up_is_left_alone() {
    // Its trap needs commands of its own, which must not get SIGTERM, however long they take, and
    // it gets it only once, though its children go one by one.
    let script = "
        terms=0
        trap 'terms=$((terms + 1)); sleep 0.3; (exit 0); sleep 1.5; echo \"cleaned $terms $?\"' TERM
        for n in 1 2 3; do (trap 'sleep 0.$n; exit' TERM; sleep 600 & wait) & done
        echo ready
        wait; wait; wait; wait
        exit 5";
    let mut kept = Kept::ready(script);
    kept.keeper().end();
    assert_eq!(kept.line(), "cleaned 1 0");
    kept.expect(Report::Ended(Status::Code(5)));
    kept.expect_done();
}

#[test]
fn one_that_outlives_its_parent_is_told_once() {
    let script = "
        bash -c 'trap \"\" HUP; trap \"echo told\" TERM; echo ready
            for n in {1..10}; do sleep 0.1; done; echo end' &
        wait";
    let mut kept = Kept::ready(script);
    kept.keeper().end();
    kept.expect(Report::Ended(Status::Signal(15)));
    assert_eq!(
        (kept.line().as_str(), kept.line().as_str()),
        ("told", "end")
    );
    kept.expect_done();
}

#[test]
fn a_process_born_during_the_end_ends_too() {
    // The launch command dies of SIGTERM; what its child starts afterwards is an orphan.
    let script = "
        bash -c 'trap \"sleep 0.2; setsid sleep 600 & exit\" TERM; echo ready; sleep 600 & wait' &
        wait";
    let mut kept = Kept::ready(script);
    assert!(kept.end_with(Status::Signal(15)) < GRACE);
}

#[test]
fn the_end_of_its_channel_ends_everything() {
    let mut kept = Kept::ready("setsid sleep 600 & echo ready; wait");
    kept.keeper = None;
    kept.expect_end_of_stdout();
    await_exit(kept.pid);
    kept.expect_nothing_left();
}

#[test]
fn its_channel_may_end_at_any_moment() {
    // From before its first instruction to behind the start of the launch command.
    for step in 0..40 {
        let moment = Instant::now() + Duration::from_micros(250) * step;
        let mut kept = Kept::shell("setsid sleep 600 & sleep 600");
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        kept.keeper = None;
        await_exit(kept.pid);
        kept.expect_nothing_left();
    }
}

#[test]
fn the_end_of_its_channel_during_the_end_changes_nothing() {
    let mut kept = Kept::ready(&trapping("TERM", "sleep 0.3; echo cleaned; exit"));
    kept.keeper().end();
    kept.keeper = None;
    assert_eq!(kept.line(), "cleaned");
    await_exit(kept.pid);
    kept.expect_nothing_left();
}

#[test]
fn signals_that_ask_for_its_end_end_everything() {
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ] {
        let mut kept = Kept::shell("setsid sleep 600 & echo ready; wait");
        kept.expect_started();
        kept.line();
        kill(Pid::from_raw(kept.pid), signal).expect("kill");
        kept.expect(Report::Ended(Status::Signal(15)));
        kept.expect_done();
    }
}

#[test]
fn other_signals_do_not_disturb_it() {
    let mut kept = Kept::shell("read -r; exit 3");
    kept.expect_started();
    for signal in [
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGPIPE,
        Signal::SIGALRM,
        Signal::SIGTSTP,
        Signal::SIGCHLD,
    ] {
        kill(Pid::from_raw(kept.pid), signal).expect("kill");
    }
    kept.stdin = None;
    kept.expect(Report::Ended(Status::Code(3)));
    kept.keeper().end();
    kept.expect_done();
}

/// A script that says `ready`, and at `signal` runs `commands`. It looks for the signal again and
/// again: bash loses one that comes when it is about to `wait`.
fn trapping(signal: &str, commands: &str) -> String {
    format!("trap '{commands}' {signal}; echo ready; while :; do sleep 0.1; done")
}

#[test]
fn when_it_is_killed_the_launch_command_is_told() {
    let mut kept = Kept::ready(&trapping("HUP", "echo told; exit"));
    kill(Pid::from_raw(kept.pid), Signal::SIGKILL).expect("kill");
    kept.expect(Report::Gone);
    assert_eq!(kept.line(), "told");
}

#[test]
fn orphans_of_the_launch_command_are_kept_until_the_end() {
    let mut kept = Kept::shell("(sleep 600 & echo $!); (exit 0 &) ; exit 3");
    kept.expect_started();
    let orphan = kept.number();
    kept.expect(Report::Ended(Status::Code(3)));
    assert_eq!(Process::read(orphan).expect("it lives").parent, kept.pid);
    kept.keeper().end();
    kept.expect_done();
}

#[test]
fn orphans_that_end_are_reaped() {
    let mut kept = Kept::shell("for n in 1 2 3 4 5; do (echo $BASHPID & ); done; wait; read -r");
    kept.expect_started();
    let orphans: Vec<i32> = (0..5).map(|_| kept.number()).collect();
    for orphan in orphans {
        await_exit(orphan);
        // A zombie still has its place in /proc.
        let gone = || !Path::new(&format!("/proc/{orphan}")).exists();
        until("the orphan is reaped", gone);
    }
}

#[test]
fn an_unusual_signal_is_reported_too() {
    let mut kept = Kept::shell("kill -40 $$");
    kept.expect_started();
    kept.expect(Report::Ended(Status::Signal(40)));
    kept.keeper().end();
    kept.expect_done();
}

#[test]
fn a_set_gid_wrapper_in_between_hides_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let Some(wrapper) = wrapper::set_gid(directory.path()) else {
        return;
    };
    // The parent-death signal is gone, as is the wrapper's own dumpability: the chain of parents
    // and the session have to do.
    let script = "trap '' HUP; setsid sleep 600 & echo $PPID; sleep 600 & wait";
    let mut kept = Kept::start(&wrapper, &["bash", "-c", script], &[]);
    kept.expect_started();
    assert_eq!(kept.number(), kept.pid);
    kept.end_with(Status::Signal(15));
}

/// Starts the hidden mode by hand, on a channel that already holds `orders`, or is closed.
fn start_by_hand(orders: Option<&[u8]>, command: &[&OsStr]) -> (Option<OwnedFd>, i32) {
    let (control, kept) = channel::pair().expect("a channel");
    if let Some(orders) = orders {
        channel::transmit(&control, orders).expect("sent");
    }
    let inherited = Inherited::capture().expect("captured");
    let terms = Terms {
        inherited: &inherited,
        standing: Standing::Session,
        death_signal: None,
        keep: Some(kept.as_fd()),
    };
    let control = orders.is_some().then_some(control);
    let pid = spawn(
        Command::new(PROXY)
            .arg(keeper::MODE)
            .arg(kept.as_raw_fd().to_string())
            .args(command),
        terms,
    );
    (control, pid.expect("a keeper").as_raw_nonzero().get())
}

#[test]
fn told_to_end_before_it_began_it_starts_nothing() {
    for orders in [Some(&b"X"[..]), None] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let trace = directory.path().join("trace");
        let (control, pid) = start_by_hand(orders, &[OsStr::new("touch"), trace.as_os_str()]);
        await_exit(pid);
        assert!(!trace.exists());
        let mut message = [0; 8];
        if let Some(control) = control {
            let received = channel::receive(&control, &mut message).expect("open");
            assert_eq!(received, channel::Received::Message(1));
            assert_eq!(message[0], b'D');
        }
    }
}

#[test]
fn orders_that_make_no_sense_do_not_disturb_it() {
    let (control, pid) = start_by_hand(Some(b"?"), &[OsStr::new("sleep"), OsStr::new("600")]);
    let control = control.expect("our end");
    for order in [&b"J"[..], b"J\0\0\0\0", b"Jxyzxyz", b"XX", &[0; 2000]] {
        channel::transmit(&control, order).expect("sent");
    }
    let mut message = [0; 8];
    await_readable(control.as_fd(), "the start");
    channel::receive(&control, &mut message).expect("open");
    assert_eq!(message[0], b'S');
    drop(control);
    await_exit(pid);
}

#[test]
fn started_by_hand_without_a_channel_it_refuses() {
    for args in [
        &[][..],
        &["x"],
        &["0", "true"],
        &["-1", "true"],
        &["99", "true"],
        &["2"],
    ] {
        let output = Command::new(PROXY)
            .arg(keeper::MODE)
            .args(args)
            .output()
            .expect("started");
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
    }
}

#[test]
fn a_job_is_released_by_salloc_itself() {
    let cluster = Slurm::new();
    let mut kept = Kept::salloc(&cluster, &[]);
    kept.expect_started();
    kept.say("echo $SLURM_JOB_ID\n");
    let job = kept.number();
    assert_eq!(cluster.state(), "RUNNING");
    kept.set_job(job.cast_unsigned());
    let began = Instant::now();
    kept.keeper().end();
    assert!(matches!(kept.report(), Report::Ended(_)));
    kept.expect_done();
    assert_eq!(cluster.state(), "COMPLETED");
    assert!(began.elapsed() < GRACE);
    assert_eq!(kept.log, [""; 0]);
}

#[test]
fn a_local_command_of_salloc_does_not_live_on() {
    let cluster = Slurm::new();
    let local = ["bash", "-c", "setsid sleep 600 & echo ready; sleep 600"];
    let mut kept = Kept::salloc(&cluster, &local);
    kept.expect_started();
    kept.line();
    kept.keeper().end();
    assert!(matches!(kept.report(), Report::Ended(_)));
    kept.expect_done();
    assert_eq!(cluster.state(), "COMPLETED");
}

#[test]
fn a_pending_job_is_withdrawn() {
    let cluster = Slurm::new();
    cluster.fill_queue();
    let mut kept = Kept::salloc(&cluster, &[]);
    kept.expect_started();
    kept.await_stderr("queued and waiting for resources");
    kept.end_with(Status::Code(1));
    assert_eq!(cluster.state(), "CANCELLED");
}

#[test]
fn a_salloc_is_hung_up_with_its_command_only_where_that_is_ordered() {
    let cluster = Slurm::new();
    let local = ["bash", "-c", "trap '' TERM HUP; echo ready; sleep 600"];
    let mut kept = Kept::salloc(&cluster, &local);
    let salloc = kept.expect_started();
    kept.line();
    kept.keeper().hang_up(HangUp::Bereaved);
    kept.keeper().hang_up(HangUp::Any);
    kept.expect(Report::Ended(Status::Code(1)));
    let told = format!("salloc (process {salloc}) stays though its job is gone: hanging it up");
    assert_eq!(kept.log, [told]);
    kept.keeper().end();
    kept.expect_done();
}

#[test]
fn a_salloc_without_a_command_is_hung_up_wherever_it_is() {
    let launches: [(&str, &[&str], i32); 2] =
        [("salloc", &[], 1), ("bash", &["-c", "salloc; exit 3"], 3)];
    for (program, args, status) in launches {
        let cluster = Slurm::new();
        let mut kept = Kept::in_cluster(&cluster, program, args);
        kept.expect_started();
        kept.say("echo ready\n");
        kept.line();
        cluster.overlook();
        cluster.cancel();
        kept.keeper().hang_up(HangUp::Bereaved);
        kept.expect(Report::Ended(Status::Code(status)));
        kept.keeper().end();
        kept.expect_done();
    }
}

/// A salloc that was killed, and its job.
fn killed_salloc(cluster: &Slurm) -> (Kept, i32) {
    let mut kept = Kept::salloc(cluster, &[]);
    let salloc = kept.expect_started();
    kept.say("echo $SLURM_JOB_ID\n");
    let job = kept.number();
    kept.set_job(job.cast_unsigned());
    kill(Pid::from_raw(salloc), Signal::SIGKILL).expect("kill");
    kept.expect(Report::Ended(Status::Signal(9)));
    (kept, job)
}

#[test]
fn the_job_of_a_killed_salloc_is_cancelled_at_once() {
    let cluster = Slurm::new();
    let (mut kept, job) = killed_salloc(&cluster);
    assert_eq!(cluster.state(), "RUNNING", "leaked, as by the real one");
    let began = Instant::now();
    kept.keeper().end();
    kept.expect_done();
    assert!(began.elapsed() < GRACE);
    assert_eq!(cluster.state(), "CANCELLED");
    assert_eq!(
        kept.log,
        [
            format!("cancelling job {job}"),
            format!("job {job} cancelled")
        ]
    );
}

/// A salloc that cannot release its job in time, as if its controller did not answer.
const DEAF_SALLOC: &str = "trap '' TERM HUP; exec salloc";

fn deaf_salloc(cluster: &Slurm) -> (Kept, i32) {
    let mut kept = Kept::start("bash", &["-c", DEAF_SALLOC], &cluster.variables());
    kept.expect_started();
    kept.say("echo $SLURM_JOB_ID\n");
    let job = kept.number();
    kept.set_job(job.cast_unsigned());
    (kept, job)
}

#[test]
fn a_job_that_is_not_released_in_time_is_cancelled() {
    let cluster = Slurm::new();
    let (mut kept, job) = deaf_salloc(&cluster);
    let began = Instant::now();
    kept.keeper().end();
    assert!(matches!(kept.report(), Report::Ended(_)));
    kept.expect_done();
    let took = began.elapsed();
    assert!(
        took >= GRACE && took < ending::BOUND,
        "{took:?}: {:?}",
        kept.log
    );
    assert_eq!(cluster.state(), "CANCELLED");
    assert!(
        kept.log.contains(&format!("job {job} cancelled")),
        "{:?}",
        kept.log
    );
}

#[test]
fn a_cancellation_that_hangs_delays_the_kill_by_three_seconds_and_goes_on() {
    let cluster = Slurm::new();
    cluster.hang_scancel();
    let (mut kept, job) = deaf_salloc(&cluster);
    let began = Instant::now();
    kept.keeper().end();
    kept.expect(Report::Ended(Status::Signal(9)));
    let took = began.elapsed();
    assert!(
        took >= GRACE + CANCEL_LIMIT && took < ending::BOUND,
        "{took:?}"
    );
    kept.expect_done();
    let took = began.elapsed();
    assert!(took >= ending::BOUND - KILL_LIMIT, "{took:?}");
    let stuck = format!("cannot cancel job {job}: scancel does not end");
    assert!(kept.log.contains(&stuck), "{:?}", kept.log);
}

/// A keeper whose launch command was killed, and that knows a job.
fn killed(job: u32, env: &[(&str, OsString)]) -> Kept {
    let mut kept = Kept::start("/bin/sleep", &["600"], env);
    let launch = kept.expect_started();
    kept.set_job(job);
    kill(Pid::from_raw(launch), Signal::SIGKILL).expect("kill");
    kept.expect(Report::Ended(Status::Signal(9)));
    kept
}

#[test]
fn a_controller_that_is_away_for_a_moment_keeps_no_job() {
    let cluster = Slurm::new();
    cluster.go_away();
    let (mut kept, job) = killed_salloc(&cluster);
    kept.keeper().end();
    let away = format!("cannot cancel job {job} yet: exit status 8; it is tried again");
    kept.expect_log(&away);
    assert_eq!(cluster.state(), "RUNNING");
    cluster.come_back();
    kept.expect_done();
    assert_eq!(cluster.state(), "CANCELLED");
    let cancelled = format!("job {job} cancelled");
    assert_eq!(
        kept.log,
        [format!("cancelling job {job}"), away, cancelled],
        "each is said once"
    );
}

#[test]
fn a_cancellation_that_fails_to_the_end_is_logged() {
    let cluster = Slurm::new();
    cluster.go_away();
    let mut kept = killed(999, &cluster.variables());
    let began = Instant::now();
    kept.keeper().end();
    kept.expect_done();
    let took = began.elapsed();
    assert!(took > GRACE && took <= ending::BOUND, "{took:?}");
    let last = "cannot cancel job 999: exit status 8";
    assert_eq!(kept.log.last().map(String::as_str), Some(last));
    assert_eq!(kept.log.len(), 3, "{:?}", kept.log);
}

#[test]
fn without_scancel_nothing_is_tried_again() {
    let mut kept = killed(999, &[("PATH", OsString::from("/nowhere"))]);
    let began = Instant::now();
    kept.keeper().end();
    kept.expect_done();
    assert!(began.elapsed() < GRACE);
    let line = "cannot cancel job 999: scancel: No such file or directory (os error 2)";
    assert_eq!(kept.log, [line]);
}

/// Two programs for tests with a user who may not signal what he starts.
struct Strangers {
    /// Starts the keeper as that user; with `hidepid`, so that he sees no process of others.
    keeper: PathBuf,
    /// A copy of `setpriv` that is root's, set-user-id: with `--reuid=0` its command is root's.
    root: PathBuf,
}

impl Strangers {
    /// `None`, said past the capture of test output, where these cannot be made.
    fn new(directory: &Path, hidepid: bool) -> Option<Self> {
        let keeper = directory.join("keeper");
        let root = directory.join("setpriv");
        let proc = match hidepid {
            true => "mount -t proc -o hidepid=2 proc /proc &&",
            false => "",
        };
        let script = format!(
            "#!/bin/sh\nexec unshare --mount sh -c '{proc}
             exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$@\"' sh {PROXY} \"$@\"\n"
        );
        let made = nix::unistd::geteuid().is_root() && {
            write_script(&keeper, &script);
            fs::copy("/usr/bin/setpriv", &root).expect("a copy of setpriv");
            for (path, mode) in [(directory, 0o755), (&root, 0o4755)] {
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
            }
            // Both the build and the copy have to be within that user's reach.
            let started = Command::new(&keeper).arg(keeper::MODE).output();
            let became_root = Command::new("setpriv")
                .args(["--reuid=65534", "--clear-groups"])
                .arg(&root)
                .args(["--reuid=0", "id", "-ru"])
                .output();
            started.is_ok_and(|output| output.status.code() == Some(2))
                && became_root.is_ok_and(|output| output.stdout == b"0\n")
        };
        if !made {
            let skipped = "SKIPPED: no process can be made that is not ours";
            let _ = writeln!(std::io::stderr(), "{skipped}");
        }
        made.then_some(Self { keeper, root })
    }

    /// A keeper whose launch command is `script`, run by root.
    fn start(&self, script: &str) -> Kept {
        let args = ["--reuid=0", "sh", "-c", script];
        Kept::start_as(&self.keeper, &self.root, &args, &[])
    }
}

#[test]
fn a_wrapper_that_cannot_be_seen_hides_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let Some(strangers) = Strangers::new(directory.path(), true) else {
        return;
    };
    // As the wrapper of a cluster that is set-user-id and waits for its command.
    let mut kept =
        strangers.start("setpriv --reuid=65534 sh -c 'echo ready; exec sleep 600'; exit 5");
    kept.expect_started();
    kept.line();
    assert!(kept.end_with(Status::Code(5)) < GRACE);
}

#[test]
fn what_cannot_be_killed_is_given_up() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let Some(strangers) = Strangers::new(directory.path(), false) else {
        return;
    };
    let mut kept = strangers.start("echo ready; exec sleep 600");
    kept.expect_started();
    kept.line();
    let began = Instant::now();
    kept.keeper().end();
    kept.expect(Report::GaveUp);
    kept.expect(Report::Gone);
    let took = began.elapsed();
    assert!(took >= GRACE && took < ending::BOUND, "{took:?}");
    let given_up = "processes of the launch command cannot be killed";
    assert!(
        kept.log.iter().any(|line| line == given_up),
        "{:?}",
        kept.log
    );
    let refused = |line: &&String| line.starts_with("cannot signal process ");
    assert!(kept.log.iter().any(|line| refused(&line)), "{:?}", kept.log);
}
