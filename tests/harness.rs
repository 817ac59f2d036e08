//! The harness's own promises, with plain commands: a harness that cannot fail proves nothing.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::sys::signal::Signal;
use support::{Program, Stream};

#[test]
fn steps_are_answered_one_by_one() {
    let mut shell = Program::new("sh").start();
    assert_eq!(shell.ask("echo one"), "one");
    assert_eq!(shell.ask("echo $((1 + 1)); echo error >&2"), "2");
    shell.await_stderr("error\n");
    shell.end_stdin();
    shell.wait_for_code(0);
    shell.assert_nothing_left();
}

#[test]
fn output_is_taken_while_input_is_given() {
    let mut cat = Program::new("cat").start();
    let bytes: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    cat.send(&bytes);
    assert!(cat.read_stdout(bytes.len()) == bytes);
    cat.end_stdin();
    assert_eq!(cat.rest_of_stdout(), b"");
    cat.wait_for_code(0);
}

#[test]
fn a_process_in_another_session_is_found_and_killed() {
    let mut shell = Program::new("sh").start();
    assert_eq!(
        shell.ask("setsid sleep 1000 > /dev/null 2>&1 & echo started"),
        "started"
    );
    shell.until("sleep is there", |shell| {
        shell
            .processes()
            .iter()
            .any(|process| process.mentions("sleep"))
            .then_some(())
    });
    shell.end_stdin();
    shell.wait_for_code(0);
    let left = shell.processes();
    assert_eq!(left.len(), 1, "{left:?}");
    drop(shell);
    assert!(support::processes::Process::read(left[0].pid).is_none());
}

#[test]
fn a_signal_becomes_a_code_as_in_a_shell() {
    let mut sleep = Program::new("sleep").arg("1000").start();
    sleep.signal(Signal::SIGTERM);
    sleep.wait_for_code(128 + 15);
}

#[test]
fn wrappers_and_limits_reach_the_program() {
    let end = Program::new("sh")
        .args(["-c", "ulimit -Hn; echo $1", "sh", "x y"])
        .open_files(40);
    let end = end.stream(0, Stream::Null).run("");
    assert_eq!(end.stdout_text(), "40\nx y\n");
}

#[test]
fn a_failure_shows_everything() {
    let mut shell = Program::new("sh").start();
    let reason = catch_unwind(AssertUnwindSafe(|| {
        shell.send("echo 'on stdout'; echo on stderr >&2; exit 7\n");
        shell.await_stdout("something else");
    }));
    let reason = reason.expect_err("a missing answer is a failure");
    let text = reason
        .downcast_ref::<String>()
        .expect("a panic with a text");
    for part in [
        "without \"something else\"",
        "\"sh\"",
        "on stdout",
        "stderr",
        "alive",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}
