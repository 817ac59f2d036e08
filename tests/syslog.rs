//! `--syslog`: what the system's log gets of a session.
//!
//! Its place, `/dev/log`, is the machine's, so the program runs in a `/dev` of the test's own.

mod support;

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;

use support::slurm::Slurm;
use support::{Program, skipped};
use tempfile::TempDir;

/// Gives a command a `/dev` with everything that is in the machine's, and with `$0/log` as its log.
const COVER: &str = r#"
set -e
mkdir "$0/old.$$"
mount --rbind /dev "$0/old.$$"
mount -t tmpfs -o mode=755 dev /dev
ln -s "$0/old.$$"/* /dev/
ln -sfn "$0/log" /dev/log
exec "$@"
"#;

/// A place for the system's log that only this test's programs see.
struct SystemLog {
    directory: TempDir,
    /// Who reads it; `None` where nobody does.
    socket: Option<UnixDatagram>,
}

impl SystemLog {
    /// One that is read. `None`, said aloud, where there can be none.
    fn new() -> Option<Self> {
        let mut log = Self::unread()?;
        let socket = UnixDatagram::bind(log.path()).expect("a socket");
        socket.set_nonblocking(true).expect("a socket");
        log.socket = Some(socket);
        Some(log)
    }

    fn unread() -> Option<Self> {
        let log = Self {
            directory: tempfile::tempdir().expect("a directory"),
            socket: None,
        };
        let words = log.wrapper();
        let tried = Command::new(&words[0])
            .args(&words[1..])
            .arg("true")
            .output();
        if !tried.is_ok_and(|tried| tried.status.success()) {
            skipped("no /dev of one's own can be had here");
            return None;
        }
        Some(log)
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// What a program that is to see it runs under.
    fn wrapper(&self) -> Vec<String> {
        let user = !nix::unistd::geteuid().is_root();
        let mapped: &[&str] = if user {
            &["--user", "--map-root-user"]
        } else {
            &[]
        };
        let directory = self.directory.path().to_str().expect("a plain path");
        let words = [
            &["unshare", "--mount"],
            mapped,
            &["bash", "-c", COVER, directory],
        ];
        words.concat().into_iter().map(str::to_owned).collect()
    }

    /// The lines that have come, without what stands in front of the colon.
    #[track_caller]
    fn lines(&self) -> Vec<String> {
        let socket = self.socket.as_ref().expect("it is read");
        let next = || {
            let mut line = [0; 2048];
            match socket.recv(&mut line) {
                Ok(length) => Some(String::from_utf8_lossy(&line[..length]).into_owned()),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    None
                }
            }
        };
        let text = |line: String| {
            let text = line
                .strip_prefix("<14>vscode-shell-proxy[")
                .and_then(|rest| rest.split_once("]: "));
            text.expect(&line).1.to_owned()
        };
        std::iter::from_fn(next).map(text).collect()
    }
}

/// The proxy, with this log.
fn proxy(log: &SystemLog, args: &[&str]) -> Program {
    let program = Program::proxy().direct().logged().args(args);
    program.env("USER", "alice").under(log.wrapper())
}

#[test]
fn a_session_has_a_line_at_its_start_and_one_at_its_end() {
    let Some(log) = SystemLog::new() else { return };
    let mut session = proxy(&log, &["--syslog", "--", "sh"]).start();
    let node = session.ask("uname -n");
    let uid = session.ask("id -u");
    let who = format!("user=alice uid={uid}");
    assert_eq!(log.lines(), [format!("session started: {who} command=sh")]);
    session.hang_up();
    let end = session.wait();
    let [line] = &log.lines()[..] else {
        panic!("{}", end.log)
    };
    // The shell's stdin has ended with the client, and it may have been faster.
    let (expected, why) = match end.code() {
        129 => (129, "the client is gone"),
        _ => (0, "the launch command ended with status 0"),
    };
    let beginning = format!("session ended: {who} job=- node={node} seconds=");
    let ending = format!(" status={expected} reason=\"{why}\"");
    assert!(
        line.starts_with(&beginning) && line.ends_with(&ending),
        "{line}"
    );
    assert!(end.log.contains(line), "{}", end.log);
}

#[test]
fn without_the_option_the_systems_log_gets_nothing() {
    let Some(log) = SystemLog::new() else { return };
    let end = proxy(&log, &["--", "sh"]).run("exit 3\n");
    assert_eq!((end.code(), log.lines()), (3, vec![]));
    assert!(
        end.log
            .contains("reason=\"the launch command ended with status 3\"")
    );
}

#[test]
fn the_reason_is_the_one_that_the_user_was_told() {
    let Some(log) = SystemLog::new() else { return };
    let cluster = Slurm::new();
    let mut session = cluster.serve(proxy(&log, &["--syslog"])).start();
    assert_eq!(session.ask("echo ready"), "ready");
    cluster.end_job("PREEMPTED");
    let stderr = session.wait().stderr_text();
    let told = "job 4711 was preempted: another job has taken its place";
    assert!(stderr.contains(told), "{stderr}");
    let lines = log.lines();
    let [_, line] = &lines[..] else {
        panic!("{lines:?}")
    };
    assert!(line.contains(" job=4711 node="), "{line}");
    assert!(line.ends_with(&format!(" reason=\"{told}\"")), "{line}");
}

#[test]
fn a_log_that_nobody_reads_holds_nothing_up_and_is_told_of_once() {
    let Some(unread) = SystemLog::unread() else {
        return;
    };
    let full = SystemLog::new().expect("there was one before");
    let filler = UnixDatagram::unbound().expect("a socket");
    filler.set_nonblocking(true).expect("a socket");
    while filler.send_to(b"x", full.path()).is_ok() {}
    for (log, why) in [(unread, "No such file"), (full, "temporarily unavailable")] {
        let end = proxy(&log, &["--syslog", "--", "sh"]).run("exit 3\n");
        assert_eq!(end.code(), 3);
        let told: Vec<&str> = end
            .log
            .lines()
            .filter(|line| line.contains("the system's log"))
            .collect();
        assert_eq!(told.len(), 1, "{}", end.log);
        assert!(
            told[0].contains("debug: cannot write to the system's log, /dev/log")
                && told[0].contains(why),
            "{told:?}"
        );
    }
}
