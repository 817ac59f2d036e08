//! The command line of the real program: wrong use, files, and whatever the standard streams are.

mod support;

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use support::{BOUND, End, Program, Stream};

/// Requires one line on stderr with these words, nothing on stdout, and that code.
#[track_caller]
fn refused(end: &End, code: i32, words: &[&str]) {
    let text = end.stderr_text();
    assert_eq!(end.code(), code, "{text}");
    assert_eq!(end.stdout_text(), "");
    assert!(
        text.ends_with('\n') && text.lines().count() == 1,
        "one line: {text:?}"
    );
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
}

/// The proxy with a `salloc` that leaves a trace when it is launched.
fn proxy() -> Program {
    Program::proxy().stand_in("salloc", "#!/bin/sh\n: > \"$HOME/launched\"\n")
}

/// As [`refused`], and nothing was launched.
#[track_caller]
fn refused_before_launch(program: Program, code: i32, words: &[&str]) {
    let mut session = program.start();
    session.end_stdin();
    refused(&session.wait(), code, words);
    session.assert_nothing_left();
    assert!(
        !session.path("home/launched").exists(),
        "salloc was launched"
    );
}

#[test]
fn wrong_use_is_one_line_that_names_it_and_launches_nothing() {
    let table: &[(&[&str], &[&str])] = &[
        (&["--no-such-option"], &["no-such-option"]),
        (&["-x"], &["x"]),
        (&["word"], &["word", "--"]),
        (&["-v", "word", "--", "bash"], &["word"]),
        (&["--backlog"], &["backlog"]),
        (&["--backlog", "0"], &["backlog", "0", "1", "65535"]),
        (&["-b", "65536"], &["backlog", "65536", "1", "65535"]),
        (&["-b", "many"], &["backlog", "many"]),
        (&["-b", "-1"], &["backlog", "-1"]),
        (&["-B", "511"], &["byte-limit", "511", "512", "1048576"]),
        (&["--byte-limit=1048577"], &["byte-limit", "1048577"]),
        (&["-p", "65536"], &["listen-port", "65536", "65535"]),
        (&["-p", ""], &["listen-port"]),
        (&["-H", ""], &["listen-host"]),
        (&["-l", ""], &["log-file"]),
        (&["-0", ""], &["tee-stdin"]),
        (&["-1", ""], &["tee-stdout"]),
        (&["-2", ""], &["tee-stderr"]),
        (&["-g", ""], &["group"]),
        (&["-e", "=value"], &["salloc-env", "=value"]),
        (&["--verbose=3"], &["verbose"]),
        (&["-S", "--x11", "--", "bash"], &["salloc-arg"]),
        (&["-g", "physics", "--", "bash"], &["group"]),
        (&["--"], &["--"]),
        (&["--admit", "nobody"], &["admit", "nobody"]),
        (&["--self-test", "-b", "0"], &["backlog"]),
    ];
    for (args, words) in table {
        refused_before_launch(proxy().args(*args), 2, words);
    }
}

#[test]
fn arguments_that_are_not_utf8_are_wrong_use_before_the_dashes_and_verbatim_behind_them() {
    use std::os::unix::ffi::OsStrExt;
    let bytes = std::ffi::OsStr::from_bytes(b"\xff\xfe 'x'");
    refused_before_launch(
        proxy().arg("-g").arg(bytes),
        2,
        &["UTF-8", "\\xFF\\xFE 'x'"],
    );
    let end = Program::proxy()
        .args(["--", "printf", "%s"])
        .arg(bytes)
        .run("");
    assert_eq!(end.stdout, b"\xff\xfe 'x'");
    assert_eq!(end.code(), 0);
}

#[test]
fn what_cannot_be_opened_or_bound_is_said_before_anything_is_submitted() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let table: &[(&[&str], &[&str])] = &[
        (
            &["-l", "/no/such/directory/log"],
            &["/no/such/directory/log"],
        ),
        (&["-l", "/dev"], &["/dev"]),
        (&["-0", "/no/such/directory/0"], &["/no/such/directory/0"]),
        (&["-1", "/no/such/directory/1"], &["/no/such/directory/1"]),
        (&["-2", "/no/such/directory/2"], &["/no/such/directory/2"]),
        (&["-p", &port], &[&port, "127.0.0.1"]),
        (&["-H", "192.0.2.1"], &["192.0.2.1"]),
        (&["-H", "name.invalid"], &["name.invalid"]),
    ];
    for (args, words) in table {
        refused_before_launch(proxy().args(*args), 1, words);
    }
}

#[test]
fn a_command_that_does_not_run_is_named_with_the_status_of_a_shell() {
    let end = Program::proxy().args(["--", "/no/such/command"]).run("");
    refused(&end, 127, &["/no/such/command"]);
    let end = Program::proxy().args(["--", "no-such-command"]).run("");
    refused(&end, 127, &["no-such-command"]);
    let end = Program::proxy().args(["--", "/etc/passwd"]).run("");
    refused(&end, 126, &["/etc/passwd"]);
}

#[test]
fn help_and_version_go_to_stdout() {
    for option in ["-h", "--help"] {
        let end = proxy().arg(option).run("");
        let text = end.stdout_text();
        assert_eq!((end.code(), end.stderr_text()), (0, String::new()));
        assert!(text.starts_with("Usage: vscode-shell-proxy "), "{text}");
        for option in ["--backlog", "--self-test", "-- COMMAND"] {
            assert!(text.contains(option), "{option} is not in {text}");
        }
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    }
    for option in ["-V", "--version"] {
        let end = proxy().arg(option).run("");
        let text = format!("vscode-shell-proxy {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(
            (end.code(), end.stdout_text(), end.stderr_text()),
            (0, text, String::new())
        );
    }
}

#[test]
fn help_into_a_closed_pipe_is_no_error() {
    // The reader is gone before the program writes: it starts when its stdin ends.
    let script = "read line; exec \"$0\" \"$@\"";
    let mut session = Program::proxy()
        .arg("--help")
        .under(["sh", "-c", script])
        .start();
    session.close_stdout();
    session.end_stdin();
    let end = session.wait_for_code(0);
    assert_eq!(end.stderr_text(), "");
}

#[test]
fn a_command_on_stdin_prints_and_the_status_is_its_own() {
    let end = Program::proxy().args(["--", "bash"]).run("hostname\n");
    let name = fs::read_to_string("/proc/sys/kernel/hostname").expect("a host's name");
    assert_eq!(
        (end.code(), end.stdout_text(), end.stderr_text()),
        (0, name, String::new())
    );
    let end = Program::proxy()
        .args(["--", "bash"])
        .run("echo out; echo error >&2; exit 7\n");
    assert_eq!(
        (end.code(), end.stdout_text(), end.stderr_text().as_str()),
        (7, "out\n".into(), "error\n")
    );
    let end = Program::proxy().args(["--", "bash"]).run("kill -9 $$\n");
    assert_eq!((end.code(), end.stdout_text()), (128 + 9, String::new()));
}

#[test]
fn tees_get_what_the_readers_get() {
    let program = Program::proxy();
    let paths = ["0", "1", "2"].map(|name| program.path(name));
    let mut session = program
        .arg("-0")
        .arg(&paths[0])
        .arg("-1")
        .arg(&paths[1])
        .arg("-2")
        .arg(&paths[2])
        .args(["--", "bash"])
        .start();
    let port = session.announce(4711);
    session.send("echo to stderr >&2\n");
    session.await_stderr("to stderr\n");
    session.send("exit 3\n");
    let end = session.wait_for_code(3);
    let [stdin, stdout, stderr] = paths.map(|path| {
        let mode = fs::metadata(&path)
            .expect("a tee's file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
        fs::read(path).expect("a tee's file")
    });
    assert_eq!(
        stdout,
        format!("listeningOn==127.0.0.1:{port}==\n").as_bytes()
    );
    assert_eq!(stdout, end.stdout);
    assert_eq!(stderr, end.stderr);
    // The shell gets the probe first, and then what the client wrote.
    let sent = "echo listeningOn==127.0.0.1:4711==\necho to stderr >&2\nexit 3\n";
    let stdin = String::from_utf8_lossy(&stdin);
    assert!(stdin.ends_with(sent), "{stdin}");
}

#[test]
fn a_tee_that_fails_ends_and_the_session_goes_on() {
    // A limit on the size of files stands in for a full disk.
    let script = "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\"";
    let program = Program::proxy();
    let path = program.path("tee");
    let program = program.arg("-1").arg(&path).args(["--", "bash"]);
    let mut session = program.under(["sh", "-c", script]).start();
    session.send("seq 100000; exit 5\n");
    let end = session.wait();
    let expected: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    assert!(end.stdout_text() == expected, "what the client gets");
    assert_eq!(end.code(), 5);
    assert!(end.stderr_text().contains("tee"), "{}", end.stderr_text());
    let tee = fs::read_to_string(path).expect("the tee's file");
    assert!(
        !tee.is_empty() && expected.starts_with(&tee),
        "{} bytes",
        tee.len()
    );
}

#[test]
fn the_log_goes_to_its_file_and_nowhere_else() {
    let program = Program::proxy();
    let path = program.path("log.[PID].[PID]");
    let mut session = program
        .arg("-vvv")
        .arg("-l")
        .arg(path)
        .args(["--", "bash"])
        .start();
    let pid = session.pid();
    session.announce(4711);
    session.send("exit 0\n");
    let end = session.wait_for_code(0);
    assert_eq!(end.stderr_text(), "");
    let path = session.path(format!("log.{pid}.{pid}"));
    let log = fs::read_to_string(&path).expect("[PID] is the process id");
    assert!(log.contains("listening on 127.0.0.1"), "{log}");
    assert_eq!(
        fs::metadata(path).expect("the log").permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn the_level_of_the_log_is_the_options_or_the_environments() {
    let lines = |args: &[&str], variable: &str| {
        let program = Program::proxy()
            .args(args)
            .env("RUST_LOG", variable)
            .args(["--", "true"]);
        program.run("").stderr_text()
    };
    assert_eq!(lines(&[], ""), "");
    assert!(lines(&["-v"], "").contains("listening on"));
    assert!(lines(&[], "info").contains("listening on"));
    assert_eq!(lines(&["-q"], "info"), "");
    assert_eq!(lines(&["-v", "-q"], "info"), "");
}

#[test]
fn variables_reach_the_job_and_the_last_of_one_name_counts() {
    let args = [
        "-e",
        "ONE=1",
        "-e",
        "NONE",
        "-e",
        "TWO=a=b c",
        "-e",
        "ONE=2",
        "--",
        "bash",
    ];
    let end = Program::proxy()
        .args(args)
        .run("echo \"$ONE,${NONE-unset},$TWO\"\n");
    assert_eq!(end.stdout_text(), "2,,a=b c\n");
}

/// A file with this content, read from its beginning.
fn file(content: &str) -> File {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(content.as_bytes()).expect("write");
    file.rewind().expect("seek");
    file
}

fn content(mut file: &File) -> String {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).expect("seek");
    file.read_to_string(&mut text).expect("read");
    text
}

#[test]
fn stdin_may_be_a_file_or_the_null_device() {
    let end = Program::proxy()
        .args(["--", "bash"])
        .stream(0, Stream::File(file("echo 1\nexit 4\n")))
        .run("");
    assert_eq!((end.code(), end.stdout_text().as_str()), (4, "1\n"));
    let end = Program::proxy()
        .direct()
        .args(["--", "sh", "-c", "echo 1; cat"])
        .stream(0, Stream::Null)
        .run("");
    assert_eq!(end.code(), 0, "{}", end.stderr_text());
    assert_eq!(end.stdout_text(), "1\n");
}

#[test]
fn stdout_and_stderr_may_be_files_or_the_null_device() {
    let (out, error) = (file(""), file(""));
    let clone = |file: &File| Stream::File(file.try_clone().expect("dup"));
    let steps = "echo out; echo error >&2; exit 4\n";
    let end = Program::proxy()
        .args(["--", "bash"])
        .stream(1, clone(&out))
        .stream(2, clone(&error))
        .run(steps);
    assert_eq!(end.code(), 4);
    assert_eq!(
        (content(&out).as_str(), content(&error).as_str()),
        ("out\n", "error\n")
    );

    let nulls = [(true, false), (false, true), (true, true)];
    for (stdout, stderr) in nulls {
        let mut program = Program::proxy().args(["--", "bash"]);
        if stdout {
            program = program.stream(1, Stream::Null);
        }
        if stderr {
            program = program.stream(2, Stream::Null);
        }
        let end = program.run(steps);
        assert_eq!(end.code(), 4);
        assert_eq!(end.stdout_text(), if stdout { "" } else { "out\n" });
        assert_eq!(end.stderr_text(), if stderr { "" } else { "error\n" });
    }
}

#[test]
fn the_standard_streams_may_be_one_socket() {
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let stream = || Stream::File(OwnedFd::from(theirs.try_clone().expect("dup")).into());
    let program = Program::proxy().args(["--", "bash"]);
    let program = program
        .stream(0, stream())
        .stream(1, stream())
        .stream(2, Stream::Null);
    let mut session = program.start();
    drop(theirs);
    ours.set_read_timeout(Some(BOUND)).expect("SO_RCVTIMEO");
    (&ours).write_all(b"echo out\n").expect("write");
    let mut answer = [0; 4];
    (&ours).read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"out\n");
    drop(ours);
    session.wait_for_code(129);
    session.assert_nothing_left();
}

#[test]
fn standard_streams_may_be_closed() {
    for (closed, out, error) in [
        ("<&-", "out\n", "error\n"),
        (">&-", "", "error\n"),
        ("2>&-", "out\n", ""),
        ("<&- >&- 2>&-", "", ""),
    ] {
        let script = format!("exec \"$0\" \"$@\" {closed}");
        let program = Program::proxy().args(["--", "sh", "-c", "echo out; echo error >&2; exit 3"]);
        let end = program
            .under(["sh", "-c", &script])
            .stream(0, Stream::Null)
            .run("");
        let got = (end.code(), end.stdout_text(), end.stderr_text());
        assert_eq!(got, (3, out.to_owned(), error.to_owned()), "{closed}");
    }
}

#[test]
fn a_pipe_that_others_share_stays_blocking() {
    // The shell that stays as the parent writes to the same pipe.
    let script = "\"$0\" \"$@\"; grep flags: /proc/self/fdinfo/1";
    let program = Program::proxy().args(["--", "true"]);
    let end = program.under(["sh", "-c", script]).run("");
    let text = end.stdout_text();
    let flags = text.trim().strip_prefix("flags:").map(str::trim);
    let flags = i32::from_str_radix(flags.expect("a line of grep's"), 8).expect("octal digits");
    assert_eq!(flags & nix::libc::O_NONBLOCK, 0, "{flags:o}");
}
