//! The files of contrib/sites whose scheduler cannot be had here, with a stand-in for its command.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails where something is missing"
)]

mod support;

use std::fs;
use std::path::Path;

use bstr::ByteSlice;
use support::{Program, shell};

/// `qsub -I`, as far as it matters here: without a terminal there is no interactive job. With one, it
/// says what PBS's says, makes that terminal raw, and gives the job a terminal of its own, as yet
/// neither raw nor silent, with a login shell on it.
const QSUB: &str = r#"#!/bin/bash
printf '%s\n' "$@" > "$HOME/given"
if ! [[ -t 0 && -t 1 ]]; then
    echo 'qsub: standard input and output must be a terminal for interactive job submission' >&2
    exit 1
fi
if [[ $REFUSED ]]; then
    echo "qsub: $REFUSED"
    exit 171
fi
echo 'qsub: waiting for job 12.pbs to start'
echo 'qsub: job 12.pbs ready'
echo
exec script -qec 'exec bash --login' /dev/null
"#;

/// The proxy with the PBS file; `None`, said aloud, without util-linux's script.
fn pbs() -> Option<Program> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/sites/pbs.conf");
    shell("script")?;
    let program = Program::proxy().args(["--config", "none", "--config"]);
    let program = program.arg(file).arg("--profile=main").direct();
    Some(program.env("USER", "alice").stand_in("qsub", QSUB))
}

#[test]
fn the_stand_in_insists_on_a_terminal() {
    let program = Program::proxy().stand_in("qsub", QSUB).direct();
    let end = program.args(["--", "qsub", "-I"]).run("");
    assert_eq!(end.code(), 1);
    assert!(end.stderr_text().contains("must be a terminal"));
}

#[test]
fn through_two_terminals_of_pbs_every_byte_passes_both_ways() {
    let Some(program) = pbs() else { return };
    let mut session = program.args(["-S", "-v", "-S=A=b c;'d'"]).start();
    // More than both terminals and all pipes hold, and whatever a terminal might take for itself:
    // every byte, alone, at the end of a line, and in pairs with every other.
    let mut bytes = Vec::new();
    for first in 0..=255 {
        for second in 0..=255 {
            bytes.extend([first, second, b'\n']);
        }
    }
    let length = bytes.len();
    session.send(format!("head -c {length}; echo; echo done\n"));
    session.send(&bytes);
    let back = session.read_stdout(length);
    let wrong = back.iter().zip(&bytes).position(|(got, sent)| got != sent);
    assert_eq!(wrong, None, "the first byte that differs");
    session.expect_line("");
    session.expect_line("done");
    // Neither shell takes it for a terminal: no prompt, no echo, and none of a shell started by it.
    let kind = "case $- in *i*) echo interactive;; *) echo plain;; esac";
    assert_eq!(session.ask(kind), "plain");
    session.send("sh\n");
    assert_eq!(session.ask("echo in sh; exit"), "in sh");
    session.send("exit 5\n");
    let end = session.wait_for_code(5);
    let stderr = end.stderr_text().replace('\r', "");
    assert_eq!(
        stderr,
        "qsub: waiting for job 12.pbs to start\nqsub: job 12.pbs ready\n\n"
    );
    let given = fs::read_to_string(session.path("home/given")).unwrap();
    assert_eq!(
        given,
        "-I\n-N\nvscode-alice\n-S\n/bin/bash\n-l\nwalltime=8:00:00\n-l\nselect=1:ncpus=2\n\
         -v\nA=b c;'d'\n"
    );
    session.assert_nothing_left();
}

#[test]
fn a_job_of_pbs_outlives_the_clients_stdin_and_ends_with_the_client() {
    let Some(program) = pbs() else { return };
    let mut session = program.logged().start();
    session.send("mkfifo $HOME/go; echo one; read < $HOME/go; echo two\n");
    session.expect_line("one");
    session.end_stdin();
    session.until("the proxy knows of the end", |session| {
        let log = session.log();
        log.contains("the client has ended stdin").then_some(())
    });
    fs::write(session.path("home/go"), "").unwrap();
    session.expect_line("two");
    session.hang_up();
    session.wait_for_code(129);
    session.assert_nothing_left();
}

#[test]
fn what_pbs_refuses_is_said_with_its_status() {
    let Some(program) = pbs() else { return };
    let words = "Unknown queue";
    let end = program.env("REFUSED", words).run("echo mine\n");
    assert_eq!((end.code(), end.stdout_text()), (171, String::new()));
    let stderr = end.stderr_text();
    assert!(
        stderr.contains(words) && !stderr.contains("mine"),
        "{stderr}"
    );
}

#[test]
fn a_whole_session_through_pbs_passes_the_self_test() {
    let Some(program) = pbs() else { return };
    let end = program.arg("--self-test").run("");
    assert_eq!(end.code(), 0, "{}", end.stdout_text());
    assert!(end.stdout.contains_str("PASSED"));
}
