//! Life and death of a session: what ends it, with which status, and that nothing is left of it,
//! through the real program, real pipes and real processes.

mod support;

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::processes::Process;
use support::slurm::Slurm;
use support::{Program, Session, tcp, wrapper};
use vscode_shell_proxy::ending::{self, GRACE};
use vscode_shell_proxy::session::{CLIENT_GONE, HOLDER_LIMIT, KEEPER_LOST, STALL_LIMIT};

/// The proxy with this launch command.
fn launching<'a>(command: impl IntoIterator<Item = &'a str>) -> Program {
    Program::proxy().logged().arg("--").args(command)
}

/// The proxy with bash as the launch command, conversing.
fn with_bash() -> Session {
    let mut session = launching(["bash"]).start();
    assert_eq!(session.ask("echo ready"), "ready");
    session
}

/// The proxy with a job of this cluster's, conversing; the job's id is known to it.
fn with_job(cluster: &Slurm) -> Session {
    let mut session = cluster.serve(Program::proxy().logged()).start();
    assert_eq!(session.ask("echo ready"), "ready");
    assert_eq!(cluster.state(), "RUNNING");
    session
}

/// A script that leaves behind what is hard to find and to end: it ignores SIGTERM and SIGHUP, has
/// a group or a session of its own, or lost its parent.
const STUBBORN: &str = "
    trap '' TERM HUP INT
    (set -m; sleep 600 &)
    setsid bash -c '(sleep 600 &) & exit'
    setsid sleep 600 &
    echo ready";

/// The same, and stays itself.
fn stubborn() -> Session {
    let script = format!("{STUBBORN}\nwhile :; do sleep 600; done");
    let mut session = launching(["bash", "-c", &script]).start();
    session.expect_line("ready");
    session
}

/// The keeper of a session.
#[track_caller]
fn keeper(session: &Session) -> Process {
    let is_keeper = |process: &Process| process.args[0].starts_with(b"vscode-shell-proxy: keeper");
    let found = session.processes().into_iter().find(is_keeper);
    found.unwrap_or_else(|| session.fail("no keeper"))
}

fn send_signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("kill");
}

/// Requires that the session ends with this code, and nothing of it is left; how long it took.
#[track_caller]
fn expect_end(mut session: Session, code: u8) -> Duration {
    let began = Instant::now();
    session.wait_for_code(code.into());
    session.assert_nothing_left();
    began.elapsed()
}

/// As [`expect_end`], and that whoever gets SIGTERM had its time before it was killed.
#[track_caller]
fn expect_end_by_kill(session: Session, code: u8) {
    let took = expect_end(session, code);
    assert!(took >= GRACE && took < ending::BOUND, "{took:?}");
}

#[test]
fn a_client_that_ends_stdin_after_one_command_gets_its_output_and_status() {
    let end = launching(["bash"]).run("hostname\n");
    let hostname = rustix::system::uname().nodename().to_bytes().to_vec();
    assert_eq!(end.stdout, [hostname, b"\n".to_vec()].concat());
    assert_eq!(end.code(), 0);

    let cluster = Slurm::new();
    let end = cluster
        .serve(Program::proxy())
        .run("echo $SLURM_JOB_ID; exit 3\n");
    assert_eq!((end.stdout_text().as_str(), end.code()), ("4711\n", 3));
    assert_eq!(cluster.state(), "COMPLETED");
}

#[test]
fn every_byte_reaches_the_shell_before_its_stdin_is_closed() {
    let count = 3_000_000;
    // The first line is the probe.
    let program = Program::proxy().direct();
    let job = ["--", "sh", "-c", "read -r probe; exec wc -c"];
    let end = program.args(job).run(vec![b'x'; count]);
    assert_eq!(end.stdout_text().trim(), count.to_string());
    assert_eq!(end.code(), 0);
}

#[test]
fn after_the_end_of_stdin_output_and_connections_go_on() {
    let server = tcp::Server::on("127.0.0.1");
    let mut session = with_bash();
    let late = session.path("late");
    session.ask(&format!("mkfifo {}; echo made", late.display()));
    let port = session.announce(server.port());
    let client = tcp::connect(port);
    let backend = server.accept();
    session.send(format!(
        "read -r word < {}; echo \"late $word\"; exit 4\n",
        late.display()
    ));
    session.end_stdin();
    // The shell blocks in that line now; whether it has seen the end of its stdin is its own affair.
    (&client).write_all(b"ping").expect("relayed");
    assert_eq!(tcp::read_exactly(&backend, 4), b"ping");
    let second = tcp::connect(port);
    (&server.accept()).write_all(b"pong").expect("relayed");
    assert_eq!(tcp::read_exactly(&second, 4), b"pong");
    fs::write(&late, "go\n").expect("the shell reads");
    session.expect_line("late go");
    expect_end(session, 4);
}

#[test]
fn a_client_that_vanishes_ends_the_job() {
    let cluster = Slurm::new();
    let mut session = with_job(&cluster);
    session.hang_up();
    assert!(expect_end(session, CLIENT_GONE) < GRACE);
    assert_eq!(cluster.state(), "COMPLETED");
}

#[test]
fn a_client_whose_stdout_alone_is_gone_has_vanished() {
    let cluster = Slurm::new();
    let mut session = with_job(&cluster);
    session.close_stdout();
    assert!(expect_end(session, CLIENT_GONE) < GRACE);
    assert_eq!(cluster.state(), "COMPLETED");
}

#[test]
fn a_client_that_vanishes_while_the_job_is_pending_withdraws_it() {
    let cluster = Slurm::new();
    cluster.fill_queue();
    let mut session = cluster.serve(Program::proxy()).start();
    session.await_stderr("queued and waiting for resources");
    session.hang_up();
    assert!(expect_end(session, CLIENT_GONE) < GRACE);
    assert_eq!(cluster.state(), "CANCELLED");
}

#[test]
fn a_job_that_waited_in_the_queue_serves_as_any_other() {
    let cluster = Slurm::new();
    cluster.fill_queue();
    let mut session = cluster.serve(Program::proxy()).start();
    session.send("echo ready\n");
    session.await_stderr("queued and waiting for resources");
    cluster.grant();
    session.expect_line("ready");
    session.end_stdin();
    expect_end(session, 0);
    assert_eq!(cluster.state(), "COMPLETED");
}

#[test]
fn a_client_that_vanishes_ends_what_is_hard_to_end() {
    let mut session = stubborn();
    session.hang_up();
    expect_end_by_kill(session, CLIENT_GONE);
}

#[test]
fn signals_end_the_job() {
    for signal in [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
    ] {
        let cluster = Slurm::new();
        let session = with_job(&cluster);
        session.signal(signal);
        assert!(expect_end(session, 128 + signal as u8) < GRACE);
        assert_eq!(cluster.state(), "COMPLETED");
    }
}

#[test]
fn a_signal_ends_what_is_hard_to_end() {
    let session = stubborn();
    session.signal(Signal::SIGTERM);
    expect_end_by_kill(session, 143);
}

#[test]
fn a_second_signal_does_not_wait_but_the_end_goes_on() {
    let mut session = stubborn();
    session.signal(Signal::SIGTERM);
    session.until("the end has begun", |session| {
        session.log().contains("SIGTERM: ending").then_some(())
    });
    session.signal(Signal::SIGINT);
    let began = Instant::now();
    session.wait_for_code(143);
    assert!(began.elapsed() < GRACE / 2);
    session.assert_nothing_left();
}

#[test]
fn the_launch_commands_status_is_the_programs() {
    for (script, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
        ("kill -40 $$", 168),
    ] {
        assert_eq!(
            launching(["bash", "-c", script]).run("").code(),
            code,
            "{script}"
        );
    }
}

/// The numbers from 1 to `last`, as seq(1) prints them.
fn numbers(last: u32) -> String {
    (1..=last).map(|number| format!("{number}\n")).collect()
}

#[test]
fn all_output_is_delivered_before_the_end() {
    let script = "seq 1 400000; seq 1 100000 >&2; exit 7";
    let end = launching(["bash", "-c", script]).run("");
    assert_eq!(end.code(), 7);
    assert!(end.stdout_text() == numbers(400_000));
    assert!(end.stderr_text() == numbers(100_000));
}

#[test]
fn output_that_the_client_reads_after_the_end_of_the_launch_command_is_delivered() {
    // More than one pipe holds, less than two: the launch command need not wait for the client.
    let mut session = launching(["bash", "-c", "seq 1 16000; exit 7"]).start();
    session.pause_stdout();
    session.until("the launch command has ended", |session| {
        session
            .log()
            .contains("ended with exit status 7")
            .then_some(())
    });
    session.resume_stdout();
    let end = session.wait_for_code(7);
    assert!(end.stdout_text() == numbers(16_000));
    session.assert_nothing_left();
}

#[test]
fn a_client_that_does_not_read_delays_the_end_by_ten_seconds() {
    // More than the pipes take between the launch command and the client.
    let script = "head -c 100000 /dev/zero; exit 7";
    let mut session = launching(["bash", "-c", script]).start();
    session.pause_stdout();
    let took = expect_end(session, 7);
    assert!(
        took >= STALL_LIMIT && took < STALL_LIMIT + GRACE,
        "{took:?}"
    );
}

#[test]
fn output_that_somebody_else_holds_open_delays_the_end_by_two_seconds() {
    let mut session = launching(["bash", "-c", "setsid sleep 600 & echo last; exit 7"]).start();
    session.expect_line("last");
    let took = expect_end(session, 7);
    assert!(
        took >= HOLDER_LIMIT - Duration::from_millis(500),
        "{took:?}"
    );
    assert!(took < GRACE, "{took:?}");
}

#[test]
fn at_the_end_clients_get_what_was_taken_for_them_and_connections_are_closed() {
    for reach in ["direct", "in-job"] {
        let server = tcp::Server::on("127.0.0.1");
        let program = Program::proxy().args(["--reach", reach, "--", "bash"]);
        let mut session = program.start();
        let port = session.announce(server.port());
        let [client, idle] = [(); 2].map(|()| tcp::connect(port));
        let [backend, idle_backend] = [(); 2].map(|()| server.accept());
        let noise = tcp::noise(5, 4096);
        let written = fill(&backend, &noise);
        let taken = written - tcp::outstanding(&backend);
        session.send("exit 5\n");
        let read = tcp::read_all(&client);
        assert!(read.len() >= taken, "{reach}: {} of {taken}", read.len());
        assert!(
            read.chunks(noise.len())
                .all(|chunk| noise.starts_with(chunk)),
            "{reach}"
        );
        let took = expect_end(session, 5);
        assert!(took < GRACE, "{reach}: {took:?}");
        for end in [client, backend, idle, idle_backend] {
            assert!(closed(&end), "{reach}");
        }
    }
}

#[test]
fn a_client_that_does_not_read_its_last_bytes_delays_the_end_by_two_seconds() {
    for reach in ["direct", "in-job"] {
        let server = tcp::Server::on("127.0.0.1");
        let program = Program::proxy().args(["--reach", reach, "--", "bash"]);
        let mut session = program.start();
        let client = tcp::connect(session.announce(server.port()));
        let backend = server.accept();
        fill(&backend, &[7; 4096]);
        session.send("exit 5\n");
        let took = expect_end(session, 5);
        assert!(
            took >= HOLDER_LIMIT - Duration::from_millis(500),
            "{reach}: {took:?}"
        );
        assert!(took < GRACE, "{reach}: {took:?}");
        assert!(closed(&backend), "{reach}");
        drop(client);
    }
}

/// Writes `block` again and again until all that is between the two ends is full: how many bytes.
fn fill(mut stream: &std::net::TcpStream, block: &[u8]) -> usize {
    let patience = Duration::from_millis(500);
    stream.set_write_timeout(Some(patience)).expect("set");
    let mut written = 0;
    while let Ok(bytes) = stream.write(&block[written % block.len()..]) {
        written += bytes;
    }
    written
}

/// Whether a connection's other end is gone, by an orderly end or by a reset.
fn closed(mut stream: &std::net::TcpStream) -> bool {
    use std::io::Read;
    matches!(stream.read(&mut [0]), Ok(0))
        || stream
            .write(&[0])
            .is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock)
}

#[test]
fn a_cancelled_job_ends_the_session() {
    let cluster = Slurm::new();
    let mut session = with_job(&cluster);
    cluster.cancel();
    session.await_stderr("has been revoked");
    expect_end(session, 143);
    assert_eq!(cluster.state(), "CANCELLED");
}

#[test]
fn a_cancelled_job_ends_the_session_also_where_salloc_overlooks_it() {
    let cluster = Slurm::new();
    let mut session = with_job(&cluster);
    cluster.overlook();
    cluster.cancel();
    session.await_stderr("has been revoked");
    let end = session.wait_for_code(1);
    session.assert_nothing_left();
    let told = "job 4711 was cancelled";
    assert!(end.stderr_text().contains(told), "{}", end.stderr_text());
    let logged = "stays though its job is gone, and its command too: hanging it up";
    assert!(session.log().contains(logged), "{}", session.log());
}

#[test]
fn a_refused_job_is_told_in_sallocs_words_and_status() {
    let cluster = Slurm::new();
    let refusals: [(&[&str], &str, i32); 2] = [
        (
            &["-S", "-p", "-S", "bad"],
            "salloc: error: invalid partition specified: bad",
            1,
        ),
        (
            &["-S", "--x11"],
            "salloc: error: No DISPLAY variable set",
            255,
        ),
    ];
    for (args, words, code) in refusals {
        let program = cluster.serve(Program::proxy()).without_env("DISPLAY");
        let end = program.args(args).run("echo never\n");
        assert_eq!(end.code(), code);
        assert!(end.stderr_text().contains(words), "{}", end.stderr_text());
        assert_eq!(end.stdout_text(), "");
    }
    assert_eq!(cluster.jobs(), []);
}

#[test]
fn a_command_that_cannot_be_started_is_named() {
    for (command, code) in [("no-such-program", 127), ("/dev/null", 126)] {
        let end = Program::proxy().args(["--", command]).run("echo never\n");
        assert_eq!(end.code(), code);
        assert!(end.stderr_text().contains(command), "{}", end.stderr_text());
    }
}

#[test]
fn when_the_proxy_is_killed_the_job_is_released() {
    let cluster = Slurm::new();
    let session = with_job(&cluster);
    session.signal(Signal::SIGKILL);
    assert!(expect_end(session, 137) < GRACE);
    assert_eq!(cluster.state(), "COMPLETED");
}

#[test]
fn when_the_proxy_is_killed_what_is_hard_to_end_ends_too() {
    let session = stubborn();
    session.signal(Signal::SIGKILL);
    expect_end_by_kill(session, 137);
}

#[test]
fn when_the_keeper_is_killed_the_job_is_released() {
    let cluster = Slurm::new();
    let session = with_job(&cluster);
    send_signal(keeper(&session).pid, Signal::SIGKILL);
    assert!(expect_end(session, KEEPER_LOST) < GRACE);
    assert_eq!(cluster.state(), "COMPLETED");
}

#[test]
fn when_the_keeper_is_killed_what_is_hard_to_end_ends_too() {
    let session = stubborn();
    send_signal(keeper(&session).pid, Signal::SIGKILL);
    expect_end_by_kill(session, KEEPER_LOST);
}

/// A salloc that waits in the queue, without a child, and takes a moment for withdrawing its request.
const WAITING_SALLOC: &str = r#"#!/bin/bash
mkfifo "$HOME/nothing"
exec 3<> "$HOME/nothing"
trap 'echo TERM' TERM
trap 'echo HUP; read -rt 0.5 -u 3; exit' HUP
echo waiting
read -r -u 3
"#;

#[test]
fn when_the_keeper_is_killed_a_salloc_that_waits_is_signalled_once() {
    let program = Program::proxy().logged();
    let mut session = program.stand_in("salloc", WAITING_SALLOC).start();
    session.expect_line("waiting");
    send_signal(keeper(&session).pid, Signal::SIGKILL);
    let end = session.wait_for_code(KEEPER_LOST.into());
    assert_eq!(String::from_utf8_lossy(&end.stdout), "waiting\nHUP\n");
}

#[test]
fn when_the_keeper_is_ended_by_somebody_else_the_session_ends() {
    let cluster = Slurm::new();
    let session = with_job(&cluster);
    send_signal(keeper(&session).pid, Signal::SIGTERM);
    // What it does ends the launch command first: its shell with SIGTERM.
    assert!(expect_end(session, 143) < GRACE);
    assert_eq!(cluster.state(), "COMPLETED");
}

#[test]
fn when_both_are_killed_the_job_is_released() {
    // Nobody is left who could do more than the launch command's death signal does.
    let cluster = Slurm::new();
    let session = with_job(&cluster);
    let keeper = keeper(&session).pid;
    session.signal(Signal::SIGSTOP);
    send_signal(keeper, Signal::SIGKILL);
    session.signal(Signal::SIGKILL);
    expect_end(session, 137);
    assert_eq!(cluster.state(), "COMPLETED");
}

#[test]
fn when_salloc_is_killed_its_job_is_cancelled() {
    let cluster = Slurm::new();
    let session = with_job(&cluster);
    send_signal(cluster.salloc(), Signal::SIGKILL);
    assert!(expect_end(session, 137) < GRACE);
    assert_eq!(cluster.state(), "CANCELLED");
}

#[test]
fn a_job_that_salloc_does_not_release_is_cancelled() {
    let cluster = Slurm::new();
    let deaf = ["bash", "-c", "trap '' TERM HUP; exec salloc"];
    let mut session = cluster.serve(launching(deaf)).start();
    // The shell is not to end with its stdin.
    assert_eq!(session.ask("echo ready; sleep 600"), "ready");
    session.hang_up();
    expect_end_by_kill(session, CLIENT_GONE);
    assert_eq!(cluster.state(), "CANCELLED");
}

/// The cluster's `workgroup`: set-group-id, so that no parent-death signal passes it.
fn with_workgroup(cluster: &Slurm, directory: &tempfile::TempDir) -> Option<Session> {
    let wrapper: PathBuf = wrapper::set_gid(directory.path())?;
    let script = format!(
        "#!/bin/sh\n[ \"$1 $2 $3 $4 $5\" = '-g it_css --command @ --' ] || exit 64\n\
         shift 5\nexec {} \"$@\"\n",
        wrapper.display()
    );
    let program = cluster
        .serve(Program::proxy().logged())
        .stand_in("workgroup", &script);
    let mut session = program.args(["-g", "it_css"]).start();
    assert_eq!(session.ask("echo ready"), "ready");
    Some(session)
}

#[test]
fn below_a_set_gid_wrapper_the_job_is_released_whoever_is_killed() {
    type End = fn(&mut Session);
    let ends: [(End, u8); 4] = [
        (|session| session.hang_up(), CLIENT_GONE),
        (|session| session.signal(Signal::SIGTERM), 143),
        (|session| session.signal(Signal::SIGKILL), 137),
        (
            |session| send_signal(keeper(session).pid, Signal::SIGKILL),
            KEEPER_LOST,
        ),
    ];
    for (end, code) in ends {
        let cluster = Slurm::new();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let Some(mut session) = with_workgroup(&cluster, &directory) else {
            return;
        };
        end(&mut session);
        assert!(expect_end(session, code) < GRACE);
        assert_eq!(cluster.state(), "COMPLETED");
    }
}
