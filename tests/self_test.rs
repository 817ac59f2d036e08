//! `--self-test` of the real program: that it passes where it should, and that it can fail.

mod support;

use support::{End, Program};

/// The steps of the report, in its order.
const STEPS: [&str; 12] = [
    "vscode-shell-proxy",
    "launch",
    "open",
    "place",
    "program",
    "announce",
    "reach",
    "connect",
    "transfer",
    "latency",
    "half-close",
    "hang-up",
];

fn steps(end: &End) -> Vec<String> {
    let text = end.stdout_text();
    text.lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect()
}

#[track_caller]
fn passed(end: &End) {
    let text = end.stdout_text();
    assert_eq!(end.code(), 0, "{text}");
    let mut expected: Vec<&str> = STEPS.to_vec();
    expected.extend(["remains", "PASSED"]);
    assert_eq!(steps(end), expected, "{text}");
    assert_eq!(end.stderr_text(), "");
}

#[track_caller]
fn failed(end: &End, words: &[&str]) {
    let text = end.stdout_text();
    assert_eq!(end.code(), 1, "{text}");
    assert_eq!(text.lines().last(), Some("FAILED"), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text}");
    }
}

#[test]
fn a_session_in_a_shell_right_here_passes() {
    passed(&Program::proxy().args(["--self-test", "--", "bash"]).run(""));
}

#[test]
fn it_says_how_the_server_was_reached() {
    for (reach, words) in [
        (
            "auto",
            "by a relay in the job: the server listens on loopback only",
        ),
        (
            "in-job",
            "by a relay in the job: the server listens on loopback only",
        ),
        (
            "direct",
            "directly: the server listens on all addresses of its node",
        ),
    ] {
        let program = Program::proxy().args(["--self-test", "--reach", reach]);
        let end = program.args(["--", "bash"]).run("");
        passed(&end);
        let text = end.stdout_text();
        assert!(text.contains(&format!("reach       {words}")), "{text}");
    }
}

#[test]
fn without_a_command_and_without_salloc_it_uses_bash_and_says_so() {
    // A PATH on which everything is but salloc.
    let mut program = Program::proxy().arg("--self-test");
    for name in [
        "bash", "sh", "uname", "printenv", "mktemp", "sed", "sleep", "rm", "cat", "tr",
    ] {
        let path = ["/bin", "/usr/bin"].map(|dir| format!("{dir}/{name}"));
        let path = path
            .into_iter()
            .find(|path| std::fs::exists(path).unwrap_or(false));
        let path = path.expect("a tool of every system");
        program = program.stand_in(name, &format!("#!/bin/sh\nexec {path} \"$@\"\n"));
    }
    let path = program.path("bin");
    let end = program.env("PATH", path).run("");
    passed(&end);
    let text = end.stdout_text();
    assert!(
        text.contains("bash, here (no COMMAND is given, and no salloc is on PATH)"),
        "{text}"
    );
}

#[test]
fn options_reach_the_second_copy() {
    let program = Program::proxy();
    let log = program.path("log");
    let args = ["--self-test", "-vv", "-B", "512", "-e", "NOTE=1"];
    let end = program
        .args(args)
        .arg("-l")
        .arg(&log)
        .args(["--", "sh"])
        .start()
        .wait();
    passed(&end);
}

#[test]
fn a_command_that_is_no_shell_fails_with_its_status_and_its_words() {
    let script = "echo 'invalid partition' >&2; exit 7";
    let end = Program::proxy()
        .args(["--self-test", "--", "sh", "-c", script])
        .run("");
    failed(&end, &["status 7", "invalid partition", "hint:"]);
}

#[test]
fn what_the_session_says_on_stderr_is_shown_when_it_passes_too() {
    let script = "echo 'a word of the scheduler' >&2; exec bash";
    let end = Program::proxy()
        .args(["--self-test", "--", "sh", "-c", script])
        .run("");
    assert_eq!(end.code(), 0, "{}", end.stdout_text());
    let text = end.stdout_text();
    assert!(
        text.contains("stderr of the session:\n    a word of the scheduler\nPASSED"),
        "{text}"
    );
}

#[test]
fn a_stray_line_fails_as_it_would_with_the_client() {
    let script = "sed -u 's/^uname -s$/echo a stray line; uname -s/' | bash";
    let end = Program::proxy()
        .args(["--self-test", "--", "sh", "-c", script])
        .run("");
    failed(&end, &["the kernel's name", "a stray line", "hint:"]);
}

#[test]
fn a_server_that_is_not_reached_fails() {
    // The probe is told a node that has no address.
    let program = Program::proxy().stand_in(
        "uname",
        "#!/bin/sh\n[ $1 = -n ] && echo node.invalid || exec /usr/bin/uname \"$@\"\n",
    );
    let end = program.direct().args(["--self-test", "--", "bash"]).run("");
    failed(&end, &["an answer of the server", "node.invalid", "hint:"]);
}

#[test]
fn a_server_of_another_architecture_is_reported_and_no_failure() {
    let program = Program::proxy().stand_in(
        "uname",
        "#!/bin/sh\n[ $1 = -m ] && echo m68k || exec /usr/bin/uname \"$@\"\n",
    );
    let end = program.args(["--self-test", "--", "bash"]).run("");
    assert_eq!(end.code(), 0, "{}", end.stdout_text());
    let text = end.stdout_text();
    assert!(
        text.contains("server      skipped: this program is of"),
        "{text}"
    );
}

#[test]
fn a_program_that_the_job_does_not_see_is_copied() {
    // A job with its own idea of `test -x`: the executable of this build is not there.
    let build = env!("CARGO_BIN_EXE_vscode-shell-proxy");
    let script = format!("exec sed -u \"s|^test -x '{build}' |false |\" | bash");
    let mut session = Program::proxy()
        .args(["--self-test", "--", "sh", "-c", &script])
        .start();
    let end = session.wait();
    passed(&end);
    let text = end.stdout_text();
    assert!(
        text.contains("/home/.cache/vscode-shell-proxy/")
            && text.contains("(a copy: the job does not see this program)"),
        "{text}"
    );
    session.assert_nothing_left();
}

#[test]
fn an_interrupted_test_leaves_nothing() {
    let mut session = Program::proxy()
        .args(["--self-test", "--", "sleep", "1000"])
        .start();
    session.until("the job runs", |session| {
        session
            .processes()
            .iter()
            .any(|process| process.args[0] == b"sleep")
            .then_some(())
    });
    session.signal(nix::sys::signal::Signal::SIGINT);
    failed(&session.wait(), &["interrupted by SIGINT"]);
    session.assert_nothing_left();
}
