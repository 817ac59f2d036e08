//! `vscode-cleanup` against real processes: trees of scripts in a `.vscode-server` directory,
//! adopted by this test, which is a child subreaper.
//!
//! As root each test has a user of its own, so that no test can see another's trees or touch what
//! else runs on the machine. Otherwise tests take turns, and each looks before it ends anything.
//!
//! All processes of a tree hold the writing end of one pipe. Its end of file says that the last of
//! them is gone, whoever its parent was.

mod support;

use std::fs::{self, File, Permissions};
use std::io::Read;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{SigSet, Signal, raise};
use nix::unistd::geteuid;
use support::BOUND;
use support::processes::{Mark, Process};
use tempfile::TempDir;
use vscode_shell_proxy::cleanup::end::{Identity, Order, Outcome, end};
use vscode_shell_proxy::cleanup::options::{self, Request};
use vscode_shell_proxy::cleanup::{pass, report::Listing, scan};
use vscode_shell_proxy::process_tree::Process as SnapshotProcess;

/// Has one test at a time where they cannot be told apart by user.
static TURN: Mutex<()> = Mutex::new(());

/// Users, by even number, that no system has: above what distributions and user namespaces hand out.
static USER: AtomicU32 = AtomicU32::new(3_000_000_000);

/// A private home with a server directory, and everything that was started from it.
struct Stage {
    directory: TempDir,
    user: Option<u32>,
    mark: Mark,
    /// What the trees write; at its end when they are all gone.
    output: File,
    input: Option<File>,
    _turn: Option<MutexGuard<'static, ()>>,
}

/// What the program did.
struct End {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Stage {
    /// `None`, and a line that says so, below an sshd: its session lives, so nothing is orphaned.
    fn new() -> Option<Self> {
        let mut process = Process::read(std::process::id().cast_signed());
        while let Some(ancestor) = process {
            let comm = fs::read_to_string(format!("/proc/{}/comm", ancestor.pid));
            if comm.unwrap_or_default().starts_with("sshd") {
                eprintln!("left out: below an sshd session no process is orphaned");
                return None;
            }
            process = Process::read(ancestor.parent);
        }
        set_child_subreaper(true).expect("a subreaper");
        let is_root = geteuid().is_root();
        let turn = (!is_root).then(|| TURN.lock().unwrap_or_else(PoisonError::into_inner));
        // The odd one behind it is for somebody else. The number of this process keeps two runs of the tests apart.
        let number = USER.fetch_add(2, Ordering::Relaxed) + std::process::id() * 64;
        let directory = tempfile::tempdir().expect("a directory");
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("chmod");
        let (output, input) = std::io::pipe().expect("a pipe");
        let stage = Self {
            user: is_root.then_some(number),
            mark: Mark::new(&number.to_string()),
            output: File::from(std::os::fd::OwnedFd::from(output)),
            input: Some(File::from(std::os::fd::OwnedFd::from(input))),
            directory,
            _turn: turn,
        };
        fs::create_dir_all(stage.server()).expect("a server directory");
        // A build directory may be closed to the test's user.
        fs::copy(
            env!("CARGO_BIN_EXE_vscode-cleanup"),
            stage.path("vscode-cleanup"),
        )
        .expect("a copy of the program");
        for path in [stage.path(""), stage.server()] {
            chown(path, stage.user, stage.user).expect("chown");
        }
        Some(stage)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn server(&self) -> PathBuf {
        self.path(".vscode-server/bin/x")
    }

    /// A script in the server directory.
    fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.server().join(name);
        fs::write(&path, text).expect("a script");
        path
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let (name, value) = self.mark.variable();
        command.env(name, value).env("SERVER", self.server());
        command.env("HOME", self.path("")).current_dir("/");
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    /// Runs shell text to its end, with the pipe as output; what it leaves behind is orphaned.
    fn launch(&self, text: &str) {
        let input = self.input.as_ref().expect("the pipe is open").try_clone();
        let mut command = self.command("sh");
        command.args(["-c", text]).stdin(Stdio::null());
        let status = command.stdout(input.expect("a descriptor")).status();
        assert!(status.expect("sh runs").success(), "{text}");
    }

    /// Awaits a line of the trees' output.
    fn line(&mut self) -> String {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            assert_eq!(self.read(&mut byte), 1, "no line: {line:?}");
            line.push(byte[0]);
        }
        String::from_utf8(line).expect("text").trim_end().to_owned()
    }

    /// Launches `text` and awaits `count` lines, which are pids.
    fn pids(&mut self, text: &str, count: usize) -> Vec<i32> {
        self.launch(text);
        let number = |_| self.line().parse().expect("a pid");
        (0..count).map(number).collect()
    }

    fn read(&mut self, buffer: &mut [u8]) -> usize {
        let mut fds = [PollFd::new(self.output.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(BOUND).expect("a short time");
        let ready = poll(&mut fds, timeout).expect("poll");
        assert_eq!(
            ready,
            1,
            "nothing within {BOUND:?}; alive: {:?}",
            self.mark
                .processes()
                .iter()
                .map(Process::to_string)
                .collect::<Vec<_>>()
        );
        self.output.read(buffer).expect("a pipe")
    }

    /// Awaits the end of the last process.
    fn all_gone(&mut self) {
        self.input = None;
        let mut rest = [0; 4096];
        while self.read(&mut rest) > 0 {}
        assert_eq!(self.mark.processes(), []);
    }

    fn is_alive(&self, pid: i32) -> bool {
        Process::read(pid).is_some()
    }

    fn cleanup_command(&self, line: &str) -> Command {
        let mut command = Command::new(self.path("vscode-cleanup"));
        command.args(line.split_whitespace()).env_remove("RUST_LOG");
        if let Some(user) = self.user {
            command.args(["--user", &user.to_string()]);
        }
        command
    }

    /// Runs the program.
    fn cleanup(&self, line: &str) -> End {
        if line.contains("-k") {
            self.look_first(line);
        }
        finish(self.cleanup_command(line))
    }

    /// Where the test has no user of its own: would anything else be ended?
    fn look_first(&self, line: &str) {
        if self.user.is_none() {
            let line = line.replace("-k", "");
            let list = finish(self.cleanup_command(&format!("{line} -o pids")));
            let ours: Vec<i32> = self.mark.processes().iter().map(|p| p.pid).collect();
            for pid in list.stdout.lines().map(|line| line.parse().expect("a pid")) {
                let is_ours = ours.contains(&pid) || !self.is_alive(pid);
                assert!(
                    is_ours,
                    "this machine has an orphaned server of yours: {pid}"
                );
            }
        }
    }

    /// The pids that are listed.
    fn listed(&self, line: &str) -> Vec<i32> {
        let end = self.cleanup(&format!("{line} -o pids"));
        assert_eq!((end.code, &*end.stderr), (Some(0), ""));
        end.stdout
            .lines()
            .map(|line| line.parse().expect("a pid"))
            .collect()
    }

    /// The program's work in this process, for what the command line cannot ask for.
    fn pass(&self, line: &str, identity: Identity) -> Listing {
        self.look_first(line);
        let mut args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        args.extend(self.user.map(|user| format!("--user={user}")));
        let Ok(Request::Run(options)) = options::parse(args.into_iter().map(Into::into)) else {
            panic!("{line}");
        };
        pass(&options, identity).expect("a pass")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.mark.kill_all();
    }
}

fn finish(mut command: Command) -> End {
    let output = command
        .stdin(Stdio::null())
        .output()
        .expect("the program runs");
    End {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("ASCII"),
        stderr: String::from_utf8(output.stderr).expect("ASCII"),
    }
}

/// Asks until the answer is yes. For what the kernel gives no event for.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + BOUND;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {BOUND:?}: {what}");
        std::thread::yield_now();
    }
}

fn state(pid: i32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let rest = &stat[stat.rfind(") ").expect("a name") + 2..];
    rest.chars().next().expect("a state")
}

/// The rows of a table that begin with a number, split into words.
fn rows(table: &str) -> Vec<Vec<String>> {
    let rows = table
        .lines()
        .map(|line| line.split_whitespace().map(str::to_owned).collect());
    let mut rows: Vec<Vec<String>> = rows.collect();
    rows.pop();
    rows.retain(|row| row.first().is_some_and(|word| word.parse::<i32>().is_ok()));
    rows
}

/// A server that waits for ever and has one child, `sleep`.
const SERVER: &str = "echo $$\nsleep 1000 &\necho $!\nwait\n";

#[test]
fn a_listing_shows_the_tree_and_touches_nothing() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.script("server.sh", SERVER);
    let pids = stage.pids("sh $SERVER/server.sh &", 2);
    let end = stage.cleanup("--age 0");
    assert_eq!((end.code, &*end.stderr), (Some(0), ""));
    let rows = rows(&end.stdout);
    let numbers: Vec<[&str; 2]> = rows.iter().map(|row| [&*row[0], &*row[1]]).collect();
    let [root, child] = [pids[0].to_string(), pids[1].to_string()];
    assert_eq!(
        numbers,
        [[&*root, &*root], [&*root, &*child]],
        "{}",
        end.stdout
    );
    assert!(rows[0][6..].join(" ").starts_with("sh /"), "{}", end.stdout);
    assert!(
        end.stdout
            .contains("\n1 tree, 2 processes: ending them frees "),
        "{}",
        end.stdout
    );
    let quiet = stage.cleanup("--age 0 -q").stdout;
    assert!(
        quiet.starts_with("1 tree, 2 processes") && quiet.lines().count() == 1,
        "{quiet}"
    );
    assert_eq!(stage.listed("-a0"), pids);
    assert!(
        stage
            .cleanup("-a0 -o json")
            .stdout
            .contains(&format!("{{\"root\":{root},"))
    );
    assert!(
        pids.iter()
            .all(|&pid| stage.is_alive(pid) && state(pid) == 'S')
    );
}

#[test]
fn a_tree_is_ended_whatever_its_processes_did() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    // A child that renames itself, one in a session of its own, a grandchild, one stopped, and
    // one more server that was left behind by a double fork.
    stage.script("stopped.sh", "echo $$\nkill -STOP $$\nwait\n");
    stage.script(
        "renamed.sh",
        "printf 'a) R 1 (b' > /proc/$$/comm\necho $$\nsleep 1000\n",
    );
    stage.script(
        "deep.sh",
        "echo $$\nsh -c 'echo $$; sleep 1000; :' &\nwait\n",
    );
    stage.script("second.sh", "echo $$\nsleep 1000\n");
    stage.script(
        "server.sh",
        "echo $$\nsh $SERVER/renamed.sh &\nsetsid sh -c 'echo $$; sleep 1000; :' &\n\
         sh $SERVER/deep.sh &\nsh $SERVER/stopped.sh &\n(setsid sh $SERVER/second.sh &)\nwait\n",
    );
    let pids = stage.pids("sh $SERVER/server.sh &", 7);
    until("one is stopped", || {
        pids.iter().any(|&pid| state(pid) == 'T')
    });
    let end = stage.cleanup("-k -a 0");
    assert_eq!((end.code, &*end.stderr), (Some(0), ""), "{}", end.stdout);
    let rows = rows(&end.stdout);
    assert!(rows.iter().all(|row| row[6] == "ended"), "{}", end.stdout);
    for pid in pids {
        let is_there = rows.iter().any(|row| row[1] == pid.to_string());
        assert!(is_there, "{pid} is not in\n{}", end.stdout);
    }
    assert!(
        end.stdout
            .lines()
            .last()
            .is_some_and(|line| line.starts_with("2 trees, "))
    );
    stage.all_gone();
}

#[test]
fn who_ignores_sigterm_is_killed_after_the_grace_time() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.script("server.sh", "trap '' TERM\necho $$\nsleep 1000\n");
    stage.pids("sh $SERVER/server.sh &", 1);
    let start = Instant::now();
    let end = stage.cleanup("-k -a 0 -g 1");
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(end.code, Some(0), "{}", end.stdout);
    assert!(
        rows(&end.stdout).iter().all(|row| row[6] == "killed"),
        "{}",
        end.stdout
    );
    stage.all_gone();
}

#[test]
fn without_grace_nobody_sees_sigterm() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.script(
        "server.sh",
        "trap 'echo asked' TERM\necho $$\nwhile :; do sleep 1000; done\n",
    );
    stage.pids("sh $SERVER/server.sh &", 1);
    let end = stage.cleanup("-k -a 0 -g 0");
    assert_eq!(end.code, Some(0), "{}", end.stdout);
    stage.input = None;
    let mut rest = String::new();
    stage.output.read_to_string(&mut rest).expect("a pipe");
    assert_eq!(rest, "");
}

#[test]
fn whoever_is_born_of_a_sigterm_is_ended_too() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    // The handler leaves children behind, one directly and one by a double fork, and exits: both
    // are orphans before anybody can see them below the tree.
    stage.script(
        "server.sh",
        "trap 'sleep 1000 & (sleep 1000 &) ; exit' TERM\necho $$\n\
         while :; do sleep 1000 & wait; done\n",
    );
    // A session whose leader is gone, as any login's that has ended.
    stage.pids("setsid sh -c 'sh $SERVER/server.sh &'", 1);
    let end = stage.cleanup("-k -a 0 -g 1");
    assert_eq!(end.code, Some(0), "{}", end.stdout);
    stage.all_gone();
}

#[test]
fn a_storm_of_forks_is_ended_to_the_last() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    // Bounded, in case the test fails; far more than are forked while it runs.
    let storm = "echo $$\nn=0\nwhile [ $n -lt 2000 ]; do sleep 1000 & n=$((n + 1)); done\nwait\n";
    stage.script("storm.sh", storm);
    stage.script(
        "server.sh",
        "echo $$\nsh $SERVER/storm.sh &\nsh $SERVER/storm.sh &\nwait\n",
    );
    for (grace, outcome) in [("30", "ended"), ("0", "killed")] {
        stage.pids("sh $SERVER/server.sh &", 3);
        let end = stage.cleanup(&format!("-k -a 0 -g {grace}"));
        let last = end.stdout.lines().last().unwrap_or_default();
        assert_eq!(end.code, Some(0), "{last}");
        let all = rows(&end.stdout);
        assert!(all.len() > 3, "{last}");
        // One that could not be seen in time is gone by itself.
        let odd = all.iter().find(|row| row[6] != outcome && row[6] != "gone");
        assert_eq!(odd, None, "{last}");
        until("nobody is left", || stage.mark.processes().is_empty());
    }
    stage.all_gone();
}

#[test]
fn a_file_argument_is_no_server() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.script("x.log", "line\n");
    stage.launch("tail -f $SERVER/x.log & sh -c 'echo ready; sleep 1000; :' $SERVER/x.sh &");
    stage.line();
    stage.line();
    assert_eq!(stage.listed("-a 0"), []);
    assert_eq!(stage.listed("-a 0 --include-attached"), []);
    // Unless that is what the caller calls a server.
    assert_eq!(stage.listed("-a 0 -p tail").len(), 1);
}

#[test]
fn a_young_tree_is_left_alone() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.script("server.sh", SERVER);
    let pids = stage.pids("sh $SERVER/server.sh &", 2);
    assert_eq!(stage.listed(""), []);
    assert_eq!(stage.listed("-a 1h"), []);
    assert_eq!(stage.listed("-a 18446744073709551615"), []);
    until("the tree is a second old", || stage.listed("-a 1s") == pids);
}

#[test]
fn a_tree_with_a_living_parent_is_no_orphan() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.script("server.sh", SERVER);
    // The shell stays, as a user's does.
    let pids = stage.pids("sh -c 'sh $SERVER/server.sh; echo ended' &", 2);
    assert_eq!(stage.listed("-a 0"), []);
    let json = stage.cleanup("-a 0 -o json").stdout;
    assert!(json.contains("\"why\":\"not orphaned\""), "{json}");
    assert_eq!(stage.listed("-a 0 --include-attached"), pids);
    let end = stage.cleanup("-k -a 0 --include-attached");
    assert_eq!(end.code, Some(0), "{}", end.stdout);
    // The shell was none of the tree's.
    assert_eq!(stage.line(), "ended");
    stage.all_gone();
}

/// A process that this test can tell what to be: [`role`] in a copy of the test's executable.
fn cast(stage: &Stage, path: &Path, role: &str) -> String {
    fs::copy(std::env::current_exe().expect("a path"), path).expect("a copy");
    let path = path.to_str().expect("a plain path");
    format!(
        "ROLE='{role}' {path} --exact role --ignored --nocapture --test-threads=1 2> {}",
        stage.path("role.log").display()
    )
}

/// Not a test: what a copy of this executable does when a test asks for it.
#[test]
#[ignore = "a part that other tests cast"]
fn role() {
    let role = std::env::var("ROLE").unwrap_or_default();
    let mut words = role.split(' ');
    match (words.next(), words.next()) {
        (Some("tcp"), Some(address)) => {
            let listener = std::net::TcpListener::bind(address).expect("a listener");
            println!("\n@{}", listener.local_addr().expect("it is bound").port());
            let _connection = listener.accept().expect("a connection");
            println!("\n@accepted");
            std::thread::park();
        }
        (Some("unix"), Some(path)) => {
            let listener = std::os::unix::net::UnixListener::bind(path).expect("a listener");
            println!("\n@listening");
            let (mut connection, _) = listener.accept().expect("a connection");
            connection.read_to_end(&mut Vec::new()).expect("an end");
            drop(connection);
            println!("\n@closed");
            std::thread::park();
        }
        (Some("subreaper"), Some(program)) => {
            set_child_subreaper(true).expect("a subreaper");
            let text = "setsid sh -c 'sh $SERVER/server.sh &'";
            let status = Command::new(program).args(["-c", text]).status();
            assert!(status.expect("sh runs").success());
            std::thread::park();
        }
        _ => {}
    }
}

impl Stage {
    /// Awaits what a cast process says, past what the test framework prints.
    fn said(&mut self) -> String {
        loop {
            if let Some(word) = self.line().strip_prefix('@') {
                return word.to_owned();
            }
        }
    }
}

#[test]
fn a_connection_over_tcp_attaches() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    // The server is known by its executable, here.
    let server = cast(&stage, &stage.server().join("node"), "tcp 127.0.0.1:0");
    stage.launch(&format!("{server} &"));
    let port: u16 = stage.said().parse().expect("a port");
    assert_eq!(stage.listed("-a 0").len(), 1);
    let client = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    assert_eq!(stage.said(), "accepted");
    assert_eq!(stage.listed("-a 0"), []);
    let end = stage.cleanup("-k -a 0 -o json");
    assert_eq!(end.code, Some(0));
    assert!(
        end.stdout.contains("\"why\":\"attached\""),
        "{}",
        end.stdout
    );
    assert_eq!(stage.listed("-a 0 --include-attached").len(), 1);
    drop(client);
    let end = stage.cleanup("-k -a 0");
    assert!(end.stdout.contains("1 tree, 1 process:"), "{}", end.stdout);
    stage.all_gone();
}

#[test]
fn a_connection_over_a_unix_socket_attaches() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    let path = stage.path("s.sock");
    let role = format!("unix {}", path.display());
    let server = cast(&stage, &stage.server().join("node"), &role);
    stage.launch(&format!("{server} &"));
    assert_eq!(stage.said(), "listening");
    assert_eq!(stage.listed("-a 0").len(), 1);
    let client = UnixStream::connect(&path).expect("a connection");
    assert_eq!(stage.listed("-a 0"), []);
    drop(client);
    assert_eq!(stage.said(), "closed");
    assert_eq!(stage.listed("-a 0").len(), 1);
}

#[test]
fn a_subreaper_elsewhere_adopts_unless_an_ssh_session_lives_above_it() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.script("server.sh", "printf '\\n@%s\\n' $$\nsleep 1000 &\nwait\n");
    // Nothing that this test could measure: the server's session was left behind.
    let reaper = cast(&stage, &stage.path("reaper"), "subreaper sh");
    stage.launch(&format!("{reaper} &"));
    let first: i32 = stage.said().parse().expect("a pid");
    until("it has its child", || stage.listed("-a 0").len() == 2);
    assert_eq!(stage.listed("-a 0")[0], first);
    // The same below a shell that is called sshd.
    let shell = fs::canonicalize("/bin/sh").expect("a shell");
    fs::copy(shell, stage.path("sshd")).expect("a copy");
    stage.launch(&format!(
        "{} -c '{}; :' &",
        stage.path("sshd").display(),
        reaper.replace('\'', "\"")
    ));
    let second: i32 = stage.said().parse().expect("a pid");
    until("it has its child", || {
        stage.listed("-a 0 --include-attached").len() == 4
    });
    let listed = stage.listed("-a 0");
    assert!(listed.len() == 2 && listed[0] == first, "{listed:?}");
    let json = stage.cleanup("-a 0 -o json").stdout;
    assert!(json.contains("\"why\":\"its ssh session lives\""), "{json}");
    let all = stage.listed("-a 0 --include-attached");
    assert!(all.contains(&first) && all.contains(&second), "{all:?}");
}

#[test]
fn an_ordinary_user_ends_what_is_theirs() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.script("server.sh", SERVER);
    let pids = stage.pids("sh $SERVER/server.sh &", 2);
    let as_user = |user: Option<u32>, line: &str| {
        stage.look_first(line);
        let mut command = Command::new(stage.path("vscode-cleanup"));
        command.args(line.split(' '));
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        finish(command)
    };
    if let Some(user) = stage.user {
        // Somebody else sees nothing, and root's power is not needed for that.
        let end = as_user(Some(user + 1), "-k -a 0 --include-attached");
        assert_eq!(end.code, Some(0), "{}", end.stdout);
        assert!(
            end.stdout.contains("0 trees, 0 processes"),
            "{}",
            end.stdout
        );
        assert!(pids.iter().all(|&pid| stage.is_alive(pid)));
    }
    let end = as_user(stage.user, "-k -a 0");
    assert_eq!((end.code, &*end.stderr), (Some(0), ""), "{}", end.stdout);
    assert_eq!(rows(&end.stdout).len(), 2, "{}", end.stdout);
    stage.all_gone();
}

#[test]
fn what_may_not_be_signalled_is_refused_and_reported() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    let Some(user) = stage.user else {
        eprintln!("left out: needs root, for a process of another user in the tree");
        return;
    };
    // As somebody's server has that runs `sudo`: a child of another user.
    let other = user + 1;
    let script = stage.script("server.sh", "echo $$\nwait\nsleep 1000\n");
    let text = format!(
        "setpriv --reuid {other} sleep 1000 & echo $!; exec setpriv --reuid {user} sh {}",
        script.display()
    );
    let input = stage.input.as_ref().expect("open").try_clone();
    let (name, value) = stage.mark.variable();
    let mut shell = Command::new("sh");
    shell.env(name, value).args(["-c", &format!("({text}) &")]);
    let status = shell.stdout(input.expect("a descriptor")).status();
    assert!(status.expect("sh runs").success());
    let pids: Vec<i32> = (0..2)
        .map(|_| stage.line().parse().expect("a pid"))
        .collect();
    until("the child has changed its user", || {
        let status = fs::read_to_string(format!("/proc/{}/status", pids[0]));
        status.is_ok_and(|text| text.contains(&format!("Uid:\t{other}\t")))
    });
    let end = stage.cleanup("-k -a 0");
    assert_eq!(end.code, Some(1), "{}", end.stdout);
    assert!(
        end.stdout.contains("refused: another user's"),
        "{}",
        end.stdout
    );
    assert!(stage.is_alive(pids[0]) && !stage.is_alive(pids[1]));
}

#[test]
fn an_interrupt_continues_what_was_frozen() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.script("server.sh", SERVER);
    let pids = stage.pids("sh $SERVER/server.sh &", 2);
    stage.look_first("-k -a 0");
    // The signal is there before the program is: blocked and pending across exec, it is read at
    // the first look, right after the tree was frozen.
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let mut command = stage.cleanup_command("-k -a 0");
        let block = move || {
            SigSet::from(signal).thread_block()?;
            raise(signal)?;
            Ok(())
        };
        // SAFETY: the closure only makes system calls that are async-signal-safe.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(block)
        };
        let end = finish(command);
        assert_eq!(end.code, Some(1), "{}", end.stdout);
        assert_eq!(
            end.stdout.matches("refused: interrupted").count(),
            2,
            "{}",
            end.stdout
        );
        for &pid in &pids {
            until("it goes on", || state(pid) == 'S');
        }
    }
    let end = stage.cleanup("-k -a 0");
    assert_eq!(end.code, Some(0), "{}", end.stdout);
    stage.all_gone();
}

#[test]
fn an_interrupt_in_the_grace_time_ends_the_wait() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.script(
        "server.sh",
        "trap 'echo asked' TERM\necho $$\nwhile :; do sleep 1000; done\n",
    );
    let pids = stage.pids("sh $SERVER/server.sh &", 1);
    stage.look_first("-k -a 0");
    let mut command = stage.cleanup_command("-k -a 0 -g 1h");
    let child: Child = command
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program runs");
    // The shell handles SIGTERM once its child, which got it too, is gone.
    assert_eq!(stage.line(), "asked");
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(pid, Signal::SIGINT).expect("a signal");
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("refused: interrupted"), "{text}");
    until("it goes on", || state(pids[0]) == 'S');
}

#[test]
fn without_pidfds_the_start_time_has_to_do() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.script("stubborn.sh", "trap '' TERM\necho $$\nsleep 1000\n");
    stage.script("server.sh", "echo $$\nsh $SERVER/stubborn.sh &\nwait\n");
    let pids = stage.pids("sh $SERVER/server.sh &", 2);
    let listing = stage.pass("-k -a 0 -g 1", Identity::StartTime);
    let outcome = |pid| {
        let mut rows = listing.rows.iter();
        rows.find(|row| row.process.stat.id.pid == pid)
            .and_then(|row| row.outcome.clone())
    };
    assert_eq!(outcome(pids[0]), Some(Outcome::Ended));
    assert_eq!(outcome(pids[1]), Some(Outcome::Killed));
    assert!(listing.is_done());
    stage.all_gone();
}

/// Process `pid` in a snapshot of its own.
fn snapshot_of(pid: i32) -> SnapshotProcess {
    let mut processes = scan::processes().expect("/proc").into_iter();
    let process = processes.find(|process| process.stat.id.pid == pid);
    process.expect("it lives")
}

fn end_one(process: SnapshotProcess, identity: Identity) -> Outcome {
    let order = Order {
        identity,
        grace: Duration::ZERO,
        include_attached: false,
        adopters: vec![1],
        permits: &|_| true,
    };
    let mut members = end(vec![vec![process]], &order).expect("/proc");
    assert_eq!(members.len(), 1, "{members:?}");
    members.remove(0).outcome.expect("an outcome")
}

#[test]
fn a_number_used_again_is_not_signalled() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.script("server.sh", "echo $$\nexec sleep 1000\n");
    let pid = stage.pids("sh $SERVER/server.sh &", 1)[0];
    for identity in [Identity::Pidfd, Identity::StartTime] {
        // What was found is a process that had this number before.
        let mut other = snapshot_of(pid);
        other.stat.id.start -= 1;
        assert_eq!(end_one(other, identity), Outcome::Gone);
        until("it sleeps on", || state(pid) == 'S');
    }
    assert_eq!(
        end_one(snapshot_of(pid), Identity::StartTime),
        Outcome::Killed
    );
    stage.all_gone();
}

#[test]
fn who_connects_between_the_look_and_the_end_is_seen() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    let server = cast(&stage, &stage.server().join("node"), "tcp 127.0.0.1:0");
    stage.launch(&format!("{server} &"));
    let port: u16 = stage.said().parse().expect("a port");
    let pid = stage.listed("-a 0")[0];
    let _client = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    let outcome = end_one(snapshot_of(pid), Identity::probe());
    assert_eq!(outcome, Outcome::Refused("attached".into()));
    // It goes on: this is what it says after the connection.
    assert_eq!(stage.said(), "accepted");
}

#[test]
fn pidfds_are_used_where_there_are_any() {
    use rustix::process::{PidfdFlags, getpid, pidfd_open};
    let has_pidfds = pidfd_open(getpid(), PidfdFlags::empty()).is_ok();
    assert_eq!(Identity::probe() == Identity::Pidfd, has_pidfds);
}

#[test]
fn hostile_command_lines_do_no_harm() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.script(
        "server.sh",
        "printf '\\033[2J\\n)' > /proc/$$/comm\necho $$\nsleep 1000; :\n",
    );
    let text = "a=$(printf '\\033[31m\\nx\\377\\\\'); b=$(head -c 100000 /dev/zero | tr '\\0' b)\n\
                sh $SERVER/server.sh \"$a\" '' \"$b\" &";
    stage.pids(text, 1);
    let end = stage.cleanup("-a 0");
    assert_eq!(end.code, Some(0));
    assert!(
        end.stdout.contains("\\x1b[31m\\x0ax\\xff\\\\"),
        "{}",
        end.stdout
    );
    for form in ["table", "json", "pids"] {
        let text = stage.cleanup(&format!("-a 0 -o {form}")).stdout;
        assert!(
            text.bytes()
                .all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)),
            "{text}"
        );
        assert!(text.len() < 10_000);
    }
    assert!(!rows(&end.stdout).is_empty(), "{}", end.stdout);
}

#[test]
fn wrong_use_is_one_line_and_code_2() {
    for line in [
        "--age 5x",
        "--age=",
        "-a 99999999999999999999",
        "-o xml",
        "-u no-such-user",
        "x",
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vscode-cleanup"));
        command.args(line.split(' '));
        let end = finish(command);
        assert_eq!((end.code, &*end.stdout), (Some(2), ""), "{line}");
        assert!(end.stderr.starts_with("vscode-cleanup: "), "{}", end.stderr);
        assert_eq!(end.stderr.lines().count(), 1, "{}", end.stderr);
    }
}

#[test]
fn help_and_version_are_printed_even_to_nobody() {
    for (option, part) in [
        ("--help", "--include-attached"),
        ("-V", env!("CARGO_PKG_VERSION")),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vscode-cleanup"));
        command.arg(option);
        let end = finish(command);
        assert_eq!((end.code, &*end.stderr), (Some(0), ""));
        assert!(end.stdout.contains(part));
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_vscode-cleanup"));
        let status = command
            .arg(option)
            .stdout(writer)
            .status()
            .expect("it runs");
        assert_eq!(status.code(), Some(0));
    }
}
