//! Which of the node's names leads to it: what the shell printed first, then the others, until one
//! answers.
//!
//! The job is a `bash` on this host. An address may stand for a name; all of 127.0.0.0/8 is this host,
//! and a multicast address is one that nothing can be connected to.

mod support;

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use support::slurm::Slurm;
use support::tcp::{Server, assert_sent_away, connect, exchange, reset};
use support::{Program, Session};

/// Leads nowhere, which is known at once.
const UNREACHABLE: &str = "224.0.0.1";

/// A direct session whose shell prints `node` as its node's name; the log is at level info on stderr.
fn on_node(node: &str) -> Program {
    Program::proxy()
        .direct()
        .arg("-v")
        .stand_in("uname", &format!("#!/bin/sh\necho {node}\n"))
}

/// The same in a job of Slurm's, which calls the node `slurm_node`.
fn in_slurm(cluster: &Slurm, node: &str, slurm_node: &str) -> Program {
    cluster
        .serve(on_node(node))
        .env("SLURM_JOB_ID", "4711")
        .env("SLURMD_NODENAME", slurm_node)
}

/// How many times Slurm was asked for this node.
fn asked(cluster: &Slurm, node: &str) -> usize {
    let question = format!("scontrol show node {node}");
    let questions = cluster.questions();
    questions.iter().filter(|it| **it == question).count()
}

/// Starts it with a bash for a job.
fn start(program: Program) -> Session {
    program.args(["--", "bash"]).start()
}

/// Everything on stderr that tells of the node's names, once the session has ended.
#[track_caller]
fn told(mut session: Session) -> Vec<String> {
    session.send("exit 0\n");
    let end = session.wait_for_code(0);
    session.assert_nothing_left();
    let lines = end.stderr_text();
    let is_told = |line: &&str| line.contains("uname -n") || line.contains("answers as");
    let level = |line: &str| line.replacen("vscode-shell-proxy: ", "", 1);
    lines.lines().filter(is_told).map(level).collect()
}

#[test]
fn the_name_that_the_shell_printed_is_enough_where_it_answers() {
    let server = Server::on("127.0.0.2");
    let cluster = Slurm::new();
    let mut session = start(in_slurm(&cluster, "127.0.0.2", "127.0.0.3"));
    let port = session.announce(server.port());
    exchange(port, &server);
    exchange(port, &server);
    assert_eq!(
        told(session),
        ["info: the node answers as 127.0.0.2 (uname -n)"]
    );
    assert_eq!(asked(&cluster, "127.0.0.3"), 0);
}

#[test]
fn a_name_that_does_not_resolve_gives_way_to_slurms_name() {
    let server = Server::on("127.0.0.2");
    let mut session = start(on_node("node.invalid").env("SLURMD_NODENAME", "127.0.0.2"));
    exchange(session.announce(server.port()), &server);
    let faults = "node.invalid (uname -n) has no address here";
    assert_eq!(
        told(session),
        [
            format!("info: {faults}; trying 127.0.0.2 (SLURMD_NODENAME)"),
            "info: the node answers as 127.0.0.2 (SLURMD_NODENAME)".to_owned(),
        ]
    );
}

#[test]
fn a_name_that_is_unreachable_gives_way_and_the_result_is_kept() {
    let server = Server::on("127.0.0.2");
    let mut session = start(on_node(UNREACHABLE).env("SLURMD_NODENAME", "127.0.0.2"));
    let port = session.announce(server.port());
    // Several at a time, as a client does it, and more afterwards.
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| exchange(port, &server));
        }
    });
    exchange(port, &server);
    let lines = told(session);
    let [gave_way, answers] = &lines[..] else {
        panic!("expected two lines, got {lines:?}")
    };
    assert!(
        gave_way.starts_with("warn: 224.0.0.1 (uname -n) does not answer: Network is unreachable")
            && gave_way.ends_with("; trying 127.0.0.2 (SLURMD_NODENAME)"),
        "{gave_way}"
    );
    assert!(answers.contains("127.0.0.2 (SLURMD_NODENAME)"), "{answers}");
}

#[test]
fn a_name_that_keeps_silent_gives_way_after_a_while() {
    // A listener with a full backlog drops what comes, as a firewall does.
    let silent = TcpListener::bind(("127.0.0.2", 0)).expect("a listener");
    rustix::net::listen(&silent, 0).expect("a shorter backlog");
    let at = silent.local_addr().expect("bound");
    let _one = TcpStream::connect(at).expect("the first one finds room");
    let server = Server::at("127.0.0.3", at.port());
    let mut session = start(on_node("127.0.0.2").env("SLURMD_NODENAME", "127.0.0.3"));
    let port = session.announce(at.port());
    // One that leaves again, and one that waits.
    reset(connect(port));
    exchange(port, &server);
    exchange(port, &server);
    let lines = told(session);
    let silence = "warn: 127.0.0.2 (uname -n) does not answer: timed out; trying 127.0.0.3";
    assert!(lines[0].starts_with(silence), "{lines:?}");
    assert_eq!(lines.len(), 2, "{lines:?}");
}

#[test]
fn a_refused_connection_is_an_answer_and_no_other_name_is_tried() {
    let server = Server::on("127.0.0.3");
    let mut session = start(on_node("127.0.0.2").env("SLURMD_NODENAME", "127.0.0.3"));
    let port = session.announce(server.port());
    assert_sent_away(port);
    session.await_stderr("the server has ended");
    assert!(server.accept_within(Duration::ZERO).is_none());
    // Its server comes later: nothing has to be found out again.
    let late = Server::at("127.0.0.2", server.port());
    exchange(port, &late);
    assert_eq!(
        told(session),
        ["info: the node answers as 127.0.0.2 (uname -n)"]
    );
}

#[test]
fn slurm_is_asked_once_where_no_name_of_the_job_leads_to_the_node() {
    let server = Server::on("127.0.0.2");
    let cluster = Slurm::new();
    cluster.describe_node(
        "n1.invalid",
        "NodeName=n1.invalid Arch=x86_64 \n   NodeAddr=127.0.0.2 NodeHostName=n1-ib Version=22.05.8\n",
    );
    let mut session = start(in_slurm(&cluster, "node.invalid", "n1.invalid"));
    let port = session.announce(server.port());
    exchange(port, &server);
    exchange(port, &server);
    let lines = told(session);
    assert_eq!(
        lines.last().map(String::as_str),
        Some("info: the node answers as 127.0.0.2 (NodeAddr of Slurm)"),
        "{lines:?}"
    );
    assert_eq!(asked(&cluster, "n1.invalid"), 1);
}

#[test]
fn slurms_address_gives_way_to_its_host_name() {
    let server = Server::on("127.0.0.2");
    let cluster = Slurm::new();
    let text = format!("   NodeAddr={UNREACHABLE} NodeHostName=127.0.0.2\n");
    cluster.describe_node("n1.invalid", &text);
    let mut session = start(in_slurm(&cluster, "node.invalid", "n1.invalid"));
    exchange(session.announce(server.port()), &server);
    let lines = told(session);
    assert_eq!(
        lines.last().map(String::as_str),
        Some("info: the node answers as 127.0.0.2 (NodeHostName of Slurm)"),
        "{lines:?}"
    );
}

#[test]
fn names_by_the_sites_rules_come_last() {
    let cluster = Slurm::new();
    cluster.describe_node(
        "n1.invalid",
        "   NodeAddr=n2.invalid NodeHostName=n1.invalid\n",
    );
    // What stands in front of a first dot and an address made of it, as if it were a host's name.
    for (rules, name) in [
        (
            ["--node-domain=0.0.2", "--node-address=%n-invalid"],
            "127.0.0.2 (node-domain)",
        ),
        (
            ["--node-domain=invalid", "--node-address=%n.0.0.2"],
            "127.0.0.2 (node-address)",
        ),
    ] {
        let server = Server::on("127.0.0.2");
        let program = in_slurm(&cluster, "127.invalid", "n1.invalid").args(rules);
        let mut session = start(program);
        exchange(session.announce(server.port()), &server);
        let lines = told(session);
        let last = format!("info: the node answers as {name}");
        assert_eq!(lines.last(), Some(&last), "{lines:?}");
        let faults = "127.invalid (uname -n) has no address here; \
                      n1.invalid (SLURMD_NODENAME) has no address here; \
                      n2.invalid (NodeAddr of Slurm) has no address here; trying";
        assert!(lines.iter().any(|line| line.contains(faults)), "{lines:?}");
    }
}

#[test]
fn a_scontrol_that_is_silent_or_missing_is_not_waited_for() {
    for is_there in [true, false] {
        let cluster = Slurm::new();
        cluster.fall_silent();
        let program = in_slurm(&cluster, "node.invalid", "n1.invalid");
        if !is_there {
            std::fs::remove_file(program.path("bin").join("scontrol")).expect("a stand-in");
        }
        let mut session = start(program);
        let port = session.announce(4711);
        // As long as it is waited for, the client waits too.
        assert_sent_away(port);
        assert_sent_away(port);
        let lines = told(session);
        let errors = lines.iter().filter(|it| it.starts_with("error: ")).count();
        assert_eq!(errors, 1, "{lines:?}");
        assert_eq!(asked(&cluster, "n1.invalid"), usize::from(is_there));
    }
}

#[test]
fn where_every_name_fails_clients_are_sent_away_and_one_line_says_why() {
    let mut session = start(on_node("node.invalid").env("SLURMD_NODENAME", UNREACHABLE));
    let port = session.announce(4711);
    for _ in 0..3 {
        assert_sent_away(port);
    }
    assert_eq!(session.ask("echo still here"), "still here");
    let lines = told(session);
    let errors: Vec<&String> = lines.iter().filter(|it| it.starts_with("error")).collect();
    let [error] = errors[..] else {
        panic!("expected one error, got {lines:?}")
    };
    let beginning = "error: connections to the node fail: node.invalid (uname -n) has no address here; \
                     224.0.0.1 (SLURMD_NODENAME) does not answer: ";
    assert!(error.starts_with(beginning), "{error}");
}
