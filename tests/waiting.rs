//! What the user is told of the job, on stderr: while it waits, before its time is up, and why it
//! ended. And how rarely Slurm is asked for that.

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::slurm::Slurm;
use support::{Program, Session};

const QUESTION: &str = "squeue --noheader --states=all --jobs=4711 --format=%T|%L|%S|%r";

/// A session whose job waits in the queue, with a first line after a second.
fn waiting(cluster: &Slurm, program: Program) -> Session {
    cluster.fill_queue();
    let mut session = cluster.serve(program.arg("--status-interval=1")).start();
    session.await_stderr("queued and waiting");
    session
}

/// A session in a job that runs.
fn running(cluster: &Slurm) -> Session {
    let mut session = cluster.serve(Program::proxy()).start();
    assert_eq!(session.ask("echo ready"), "ready");
    session
}

/// The next line of ours on stderr that begins like this.
#[track_caller]
fn line(session: &mut Session, beginning: &str) -> String {
    session.await_stderr(&format!("vscode-shell-proxy: {beginning}"));
    let rest = session.await_stderr("\n");
    format!("{beginning}{}", String::from_utf8_lossy(&rest).trim_end())
}

/// Waits until Slurm was asked so often.
#[track_caller]
fn asked(session: &mut Session, cluster: &Slurm, times: usize) {
    session.until("Slurm is asked", |_| {
        (cluster.questions().len() == times).then_some(())
    });
}

fn is_process(name: &'static str) -> impl Fn(&&support::processes::Process) -> bool {
    move |process| {
        process
            .args
            .iter()
            .any(|arg| arg.ends_with(name.as_bytes()))
    }
}

#[test]
fn a_waiting_user_is_told_how_the_job_stands_until_its_shell_answers() {
    let cluster = Slurm::new();
    let mut session = waiting(&cluster, Program::proxy());
    cluster.tell("reason", "Priority");
    cluster.tell("start", "2026-11-25T14:03:00");
    for _ in 0..3 {
        let line = line(&mut session, "waiting for ");
        let (_, about) = line.split_once(" s: ").expect("a time");
        assert_eq!(
            about,
            "job 4711 is PENDING (Priority), expected to start 2026-11-25T14:03:00"
        );
    }
    assert_eq!(cluster.questions(), [QUESTION; 3]);
    cluster.grant();
    let summary = line(&mut session, "job 4711 runs on ");
    let node = rustix::system::uname();
    let node = node.nodename().to_string_lossy().into_owned();
    assert!(
        summary.starts_with(&format!("job 4711 runs on {node}, after ")),
        "{summary}"
    );
    // For the time limit: there is none.
    asked(&mut session, &cluster, 4);
    assert_eq!(session.ask("sleep 2; echo here"), "here");
    assert_eq!(cluster.questions().len(), 4);
    assert!(!session.stderr_so_far().contains("waiting for 15 s"));
}

#[test]
fn a_session_that_starts_at_once_says_nothing() {
    let cluster = Slurm::new();
    let mut session = running(&cluster);
    asked(&mut session, &cluster, 1);
    session.send("exit 3\n");
    let stderr = session.wait_for_code(3).stderr_text();
    for ours in ["waiting for ", "runs on node", "job 4711 "] {
        let ours = format!("vscode-shell-proxy: {ours}");
        assert!(!stderr.contains(&ours), "{stderr}");
    }
}

#[test]
fn an_interval_of_zero_is_silence() {
    let cluster = Slurm::new();
    cluster.fill_queue();
    let program = Program::proxy().args(["--status-interval=1", "--status-interval=0"]);
    let mut session = cluster.serve(program).start();
    session.await_stderr("queued and waiting");
    let began = std::time::Instant::now();
    session.until("some time has passed", |_| {
        (began.elapsed().as_secs() >= 2).then_some(())
    });
    cluster.grant();
    assert_eq!(session.ask("echo here"), "here");
    let stderr = session.stderr_so_far();
    assert!(!stderr.contains("vscode-shell-proxy: waiting"), "{stderr}");
}

#[test]
fn where_the_launch_is_not_slurms_only_the_time_is_said() {
    let cluster = Slurm::new();
    // Never a shell that answers.
    let script = "echo salloc: Pending job allocation 12 >&2; exec sleep 1000";
    let program = Program::proxy().args(["--status-interval=1", "--", "sh", "-c", script]);
    let mut session = cluster.serve(program).start();
    let line = line(&mut session, "waiting for ");
    assert!(line.ends_with(" s: no shell has answered yet"), "{line}");
    assert_eq!(cluster.questions(), [""; 0]);
}

#[test]
fn the_lines_come_whatever_the_log_is_told() {
    let cluster = Slurm::new();
    let program = Program::proxy().args(["-q", "-q"]);
    line(&mut waiting(&cluster, program), "waiting for ");

    let cluster = Slurm::new();
    let mut session = waiting(&cluster, Program::proxy().logged());
    line(&mut session, "waiting for ");
    session.until("the line in the log", |session| {
        session.log().contains("info: waiting for ").then_some(())
    });
}

#[test]
fn a_controller_that_does_not_answer_delays_nothing() {
    let cluster = Slurm::new();
    let mut session = waiting(&cluster, Program::proxy());
    cluster.fall_silent();
    let line = line(&mut session, "waiting for ");
    assert!(
        line.ends_with(" s: no shell of job 4711 has answered yet"),
        "{line}"
    );
    cluster.grant();
    assert_eq!(session.ask("echo here"), "here");
    session.until("the question about the time limit is given up", |session| {
        let processes = session.processes();
        (!processes.iter().any(|it| is_process("squeue")(&it))).then_some(())
    });
    session.send("exit 3\n");
    session.wait_for_code(3);
    session.assert_nothing_left();
}

#[test]
fn an_answer_without_an_end_is_cut() {
    let cluster = Slurm::new();
    let mut session = waiting(&cluster, Program::proxy());
    cluster.flood();
    let line = line(&mut session, "waiting for ");
    assert!(line.len() < 200, "{line}");
    cluster.grant();
    assert_eq!(session.ask("echo here"), "here");
    session.until("nothing of the flood is left", |session| {
        let processes = session.processes();
        (!processes.iter().any(|it| is_process("yes")(&it))).then_some(())
    });
}

#[test]
fn a_short_time_limit_is_warned_of() {
    let cluster = Slurm::new();
    cluster.fill_queue();
    let mut session = cluster.serve(Program::proxy()).start();
    session.await_stderr("queued and waiting");
    cluster.tell("left", "4:59");
    cluster.grant();
    assert_eq!(
        line(&mut session, "job 4711 reaches"),
        "job 4711 reaches its time limit in 4 min 59 s"
    );
}

#[test]
fn a_job_that_was_taken_away_has_its_reason_told() {
    for (state, words) in [
        ("TIMEOUT", "job 4711 has reached its time limit ("),
        ("PREEMPTED", "job 4711 was preempted"),
        ("OUT_OF_MEMORY", "job 4711 has used more memory than it has"),
        ("NODE_FAIL", "job 4711 has lost its node"),
    ] {
        let cluster = Slurm::new();
        let mut session = running(&cluster);
        cluster.end_job(state);
        let stderr = session.wait().stderr_text();
        assert!(
            stderr.contains(&format!("vscode-shell-proxy: {words}")),
            "{stderr}"
        );
        session.assert_nothing_left();
    }
}

#[test]
fn who_cancelled_a_job_is_told_where_there_is_accounting() {
    let own = nix::unistd::getuid().as_raw();
    for (account, by) in [
        (None, "\n".to_owned()),
        (
            Some(format!("CANCELLED by {}\n", own + 1)),
            format!(" by the user with the uid {}\n", own + 1),
        ),
        (
            Some(format!("CANCELLED by {own}\n")),
            " by yourself\n".to_owned(),
        ),
    ] {
        let cluster = Slurm::new();
        if let Some(account) = account {
            cluster.account(&account);
        }
        let mut session = running(&cluster);
        cluster.end_job("CANCELLED");
        let stderr = session.wait().stderr_text();
        assert!(
            stderr.contains(&format!("vscode-shell-proxy: job 4711 was cancelled{by}")),
            "{stderr}"
        );
    }
}

#[test]
fn a_request_that_is_cancelled_while_it_waits_has_its_reason_told() {
    let cluster = Slurm::new();
    let mut session = waiting(&cluster, Program::proxy());
    cluster.tell("state", "CANCELLED");
    kill(Pid::from_raw(cluster.salloc()), Signal::SIGTERM).expect("salloc");
    let stderr = session.wait_for_code(1).stderr_text();
    assert!(
        stderr.contains("vscode-shell-proxy: job 4711 was cancelled\n"),
        "{stderr}"
    );
}

#[test]
fn for_a_client_that_has_gone_nothing_is_asked() {
    let cluster = Slurm::new();
    let mut session = running(&cluster);
    asked(&mut session, &cluster, 1);
    cluster.fall_silent();
    session.hang_up();
    session.wait_for_code(129);
    session.assert_nothing_left();
    assert_eq!(cluster.questions().len(), 1);
}

#[test]
fn a_controller_that_does_not_answer_holds_the_end_up_for_two_seconds() {
    let cluster = Slurm::new();
    let mut session = running(&cluster);
    asked(&mut session, &cluster, 1);
    cluster.fall_silent();
    session.send("exit 3\n");
    session.wait_for_code(3);
    session.assert_nothing_left();
    assert_eq!(cluster.questions().len(), 2);
}

#[test]
fn a_waiting_request_is_taken_back_although_its_salloc_was_killed() {
    let cluster = Slurm::new();
    let mut session = waiting(&cluster, Program::proxy());
    kill(Pid::from_raw(cluster.salloc()), Signal::SIGKILL).expect("salloc");
    session.wait_for_code(137);
    assert_eq!(cluster.state(), "CANCELLED");
}
