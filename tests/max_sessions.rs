//! `--max-sessions`: how many sessions a user may run on one machine.
//!
//! Every session of the user counts, so each test has process ids of its own: a namespace in which
//! nobody else's sessions are to be seen.

mod support;

use support::{End, Program, Session, skipped};

/// Process ids, and a /proc, that only this test sees.
struct Namespace {
    /// Its first process: all others end with it.
    _init: Session,
    target: String,
    user: bool,
}

impl Namespace {
    /// A new one; `None`, said aloud, where there can be none.
    fn new() -> Option<Self> {
        let user = !nix::unistd::geteuid().is_root();
        let own = ["--pid", "--fork", "--mount-proc", "--kill-child"];
        let mapped: &[&str] = if user {
            &["--user", "--map-root-user"]
        } else {
            &[]
        };
        let program = Program::new("unshare").args(mapped).args(own);
        let mut init = program.args(["sh", "-c", "echo up; read end"]).start();
        let is_up = init.until("the first process", |init| match init.has_ended() {
            true => Some(false),
            false => init.unread_stdout().ends_with(b"up\n").then_some(true),
        });
        if !is_up {
            skipped("no process ids of one's own can be had here");
            return None;
        }
        let processes = init.processes();
        let first = processes.iter().find(|process| process.args[0] == b"sh");
        let target = first.expect("it is up").pid.to_string();
        Some(Self {
            _init: init,
            target,
            user,
        })
    }

    /// The proxy in there.
    fn proxy(&self, args: &[&str]) -> Program {
        let mut enter = vec!["nsenter", "--target", &self.target, "--pid", "--mount"];
        if self.user {
            enter.extend(["--user", "--preserve-credentials"]);
        }
        Program::proxy().direct().logged().args(args).under(enter)
    }

    /// A session that runs.
    #[track_caller]
    fn session(&self, args: &[&str]) -> Session {
        let args = [args, &["--", "bash"]].concat();
        let mut session = self.proxy(&args).start();
        assert_eq!(session.ask("echo up"), "up");
        session
    }

    #[track_caller]
    fn is_refused(&self, args: &[&str]) -> End {
        let args = [args, &["--", "sh", "-c", "touch $HOME/launched"]].concat();
        let mut session = self.proxy(&args).start();
        let end = session.wait_for_code(1);
        assert_eq!(
            end.stderr_text().lines().count(),
            1,
            "{}",
            end.stderr_text()
        );
        assert_eq!(end.stdout_text(), "");
        assert!(!session.path("home/launched").exists());
        end
    }
}

#[test]
fn one_session_more_than_the_limit_is_refused_until_one_ends() {
    let Some(place) = Namespace::new() else {
        return;
    };
    let limit = ["--max-sessions", "1"];
    let mut first = place.session(&limit);
    let pid = first.ask("ps -C vscode-session -o pid=");
    let end = place.is_refused(&limit);
    let words = format!(
        "1 session of yours runs on this machine already (process {}), and no more than 1 may \
         (max-sessions)",
        pid.trim()
    );
    assert!(end.stderr_text().contains(&words), "{}", end.stderr_text());
    assert!(end.log.contains(&words), "{}", end.log);
    first.hang_up();
    first.wait();
    place.session(&limit);
}

#[test]
fn sessions_count_whatever_their_own_limit_and_nothing_else_does() {
    let Some(place) = Namespace::new() else {
        return;
    };
    // Each with a keeper, and one with a relay in the job: the same program.
    let _first = place.session(&[]);
    let _second = place.session(&["--reach", "in-job"]);
    for other in ["--help", "--show-config", "--version"] {
        let end = place.proxy(&["--max-sessions=1", other]).run("");
        assert_eq!(end.code(), 0, "{other}");
    }
    let end = place.is_refused(&["--max-sessions=2"]);
    assert!(end.stderr_text().contains("2 sessions of yours"));
    let _third = place.session(&["--max-sessions=3"]);
    let _fourth = place.session(&["--max-sessions=0"]);
}

#[test]
fn of_sessions_that_start_at_once_as_many_run_as_may() {
    let Some(place) = Namespace::new() else {
        return;
    };
    for _ in 0..5 {
        let program = || place.proxy(&["--max-sessions=2", "--", "bash"]);
        let mut sessions: Vec<Session> = (0..6).map(|_| program().start()).collect();
        let mut running = Vec::new();
        for mut session in sessions.drain(..) {
            session.send_as_far_as_taken(b"echo up\n");
            let runs = session.until("a shell or a refusal", |session| {
                let runs = session.unread_stdout() == b"up\n";
                (runs || session.has_ended()).then_some(runs)
            });
            match runs {
                true => running.push(session),
                false => drop(session.wait_for_code(1)),
            }
        }
        assert_eq!(running.len(), 2);
        for session in &mut running {
            session.hang_up();
            session.wait();
        }
    }
}
