//! Bootstrap scripts of all recorded forms, fed to the real program as a client does it: a step,
//! its answer, the next step.
//!
//! The server in the job is a stand-in that notes its arguments and names a port on which the test
//! itself listens, on all interfaces or on loopback as it was told; so a connection through the
//! announced port proves that the rewritten command and the rewritten address fit together. Commands
//! are rewritten where connections go directly to the node; with a relay in the job (`reach.rs`)
//! nothing need be.

mod support;

use std::fs;
use std::time::Duration;

use support::tcp::{Server, exchange};
use support::{Program, Session, shell};

/// Notes each argument on a line of its own, then says what the original says.
const CLI: &str = r#"#!/bin/sh
printf '%s\n' "$@" > "$HOME/arguments.new"
mv "$HOME/arguments.new" "$HOME/arguments"
echo "Listening on 127.0.0.1:$BACKEND"
exec sleep 1000
"#;

/// Bash's own shape of the exec server's script, with these lines for what differs.
fn exec_server(arguments: &str, command: &str) -> String {
    format!(
        r#"
TOKEN=0a1b2c3d-fake-token
CLI_PATH=server-cli
CLI_LOG_FILE=$HOME/.cli.log
echo "abc: running"
echo "Script executing under PID: $$"
{arguments}
{command}
echo "Spawned remote CLI: $!"
echo "Waiting for server log..."
while [ -z "$LISTENING_ON" ]; do
  LISTENING_ON=$(sed -n 's/^Listening on //p' "$CLI_LOG_FILE" 2> /dev/null)
  [ -n "$LISTENING_ON" ] || sleep 0.03
done
echo "abc: start"
echo "listeningOn==$LISTENING_ON=="
echo "osReleaseId==debian=="
echo "execServerToken==$TOKEN=="
echo "platform==linux=="
echo "abc: end"
while true; do printf ' '; sleep 180; done
"#
    )
}

const COMMAND_SHELL: &str = r#"VSCODE_CLI_REQUIRE_TOKEN=${TOKEN} "$CLI_PATH" command-shell ${LOG_LEVEL_FLAG} ${RECONNECTION_FLAG} --cli-data-dir "$HOME" --parent-process-id $$ ${LISTEN_ARGS} > "$CLI_LOG_FILE" 2>&1 < /dev/null &"#;

/// A proxy in front of a bash that has answered the client's opening.
fn opened(server: &Server) -> Session {
    let mut session = Program::proxy()
        .direct()
        .stand_in("server-cli", CLI)
        .env("BACKEND", server.port().to_string())
        .args(["--", "bash"])
        .start();
    open(&mut session);
    session
}

/// The client's opening; every line has to be the answer and nothing else.
#[track_caller]
fn open(session: &mut Session) {
    session.send("echo \"ready: abc\"\n");
    session.expect_line("ready: abc");
    session.send("uname -s\n");
    session.expect_line("Linux");
    let shell = session.ask("echo $SHELL");
    assert!(shell.starts_with('/'), "{shell}");
    let pid = session.ask("sh -c 'echo $$; exec bash'");
    assert!(pid.parse::<u32>().is_ok(), "{pid}");
}

/// What follows the script: its lines up to the address, the connection in that instant, the rest
/// of the block, the blank. Returns the arguments of the server.
#[track_caller]
fn converse(session: &mut Session, server: &Server) -> Vec<String> {
    session.expect_line("abc: running");
    for begin in ["Script executing under PID: ", "Spawned remote CLI: "] {
        let line = session.line();
        let pid = line
            .strip_prefix(begin)
            .and_then(|pid| pid.parse::<u32>().ok());
        assert!(pid.is_some(), "{line:?}");
    }
    session.expect_line("Waiting for server log...");
    session.expect_line("abc: start");
    let port = address(&session.line(), "listeningOn==127.0.0.1:");
    assert_ne!(port, server.port());
    exchange(port, server);
    session.expect_line("osReleaseId==debian==");
    session.expect_line("execServerToken==0a1b2c3d-fake-token==");
    session.expect_line("platform==linux==");
    session.expect_line("abc: end");
    assert_eq!(session.read_stdout(1), b" ");
    arguments(session)
}

/// The port in `line`, which has to be `before`, the port, and `==`.
#[track_caller]
fn address(line: &str, before: &str) -> u16 {
    let port = line
        .strip_prefix(before)
        .and_then(|rest| rest.strip_suffix("=="));
    port.and_then(|port| port.parse().ok())
        .unwrap_or_else(|| panic!("{line:?} is no address"))
}

fn arguments(session: &Session) -> Vec<String> {
    let text = fs::read_to_string(session.path("home/arguments")).expect("the server's arguments");
    text.lines().map(str::to_owned).collect()
}

#[track_caller]
fn has(arguments: &[String], wanted: &[&str]) {
    let found = arguments
        .windows(wanted.len())
        .any(|window| window == wanted);
    assert!(found, "{wanted:?} is not in {arguments:?}");
    assert!(
        !arguments
            .iter()
            .any(|argument| argument.contains("127.0.0.1")),
        "{arguments:?}"
    );
}

#[test]
fn exec_server_with_its_arguments_on_a_line_of_their_own() {
    for (line, wanted) in [
        (
            r#"LISTEN_ARGS="--on-host=127.0.0.1 --on-port""#,
            ["--on-host=0.0.0.0", "--on-port"],
        ),
        (
            r#"LISTEN_ARGS="--on-port --on-host=127.0.0.1""#,
            ["--on-port", "--on-host=0.0.0.0"],
        ),
    ] {
        let server = Server::on("0.0.0.0");
        let mut session = opened(&server);
        session.send(exec_server(line, COMMAND_SHELL));
        let arguments = converse(&mut session, &server);
        has(&arguments, &wanted);
        assert_eq!(
            session.stderr_so_far(),
            "",
            "a session that goes well warns of nothing"
        );
        session.hang_up();
        session.wait_for_code(129);
        session.assert_nothing_left();
    }
}

#[test]
fn exec_server_of_the_first_form() {
    let command = r#"VSCODE_CLI_REQUIRE_TOKEN=0a1b2c3d-fake-token "$CLI_PATH" command-shell --cli-data-dir "$HOME" --parent-process-id $$ --on-port --on-host=127.0.0.1 &> "$CLI_LOG_FILE" < /dev/null &"#;
    let server = Server::on("0.0.0.0");
    let mut session = opened(&server);
    session.send(exec_server("", command));
    has(
        &converse(&mut session, &server),
        &["--on-port", "--on-host=0.0.0.0"],
    );
}

#[test]
fn exec_server_that_would_bind_loopback_by_default() {
    let command = r#"VSCODE_CLI_REQUIRE_TOKEN=0a1b2c3d-fake-token "$CLI_PATH" command-shell --cli-data-dir "$HOME" --parent-process-id $$ --on-port &> "$CLI_LOG_FILE" < /dev/null &"#;
    let server = Server::on("0.0.0.0");
    let mut session = opened(&server);
    session.send(exec_server("", command));
    let arguments = converse(&mut session, &server);
    let host = arguments
        .iter()
        .any(|argument| argument == "--on-host=0.0.0.0")
        || arguments
            .windows(2)
            .any(|pair| pair == ["--on-host", "0.0.0.0"]);
    assert!(host, "{arguments:?}");
    has(&arguments, &["--on-port"]);
}

#[test]
fn a_script_in_the_smallest_slices() {
    let server = Server::on("0.0.0.0");
    let mut session = opened(&server);
    let script = exec_server(
        r#"LISTEN_ARGS="--on-host=127.0.0.1 --on-port""#,
        COMMAND_SHELL,
    );
    // Single bytes, where the pipe does not join them by itself.
    for byte in script.as_bytes() {
        session.send([*byte]);
    }
    has(
        &converse(&mut session, &server),
        &["--on-host=0.0.0.0", "--on-port"],
    );
}

#[test]
fn the_session_lives_on_when_the_client_ends_stdin_behind_the_script() {
    let server = Server::on("0.0.0.0");
    let mut session = opened(&server);
    session.send(exec_server(
        r#"LISTEN_ARGS="--on-host=127.0.0.1 --on-port""#,
        COMMAND_SHELL,
    ));
    session.end_stdin();
    has(&converse(&mut session, &server), &["--on-host=0.0.0.0"]);
    let port = session.listening_ports()[0];
    exchange(port, &server);
    session.hang_up();
    session.wait_for_code(129);
    session.assert_nothing_left();
}

/// The node server's script, with these lines for the start and for what is announced.
fn legacy(start: &str, result: &str) -> String {
    format!(
        r#"
VSCH_LOGFILE=$HOME/.server.log
VSCH_SERVER_SCRIPT=server-cli
SERVER_SCRIPT=server-cli
echo "abc: running"
echo "Script executing under PID: $$"
{start}
echo "Spawned remote CLI: $!"
echo "Waiting for server log..."
while ! grep -q Listening "$VSCH_LOGFILE" 2> /dev/null; do sleep 0.03; done
echo "abc: start"
{result}
"#
    )
}

#[track_caller]
fn skip_to_start(session: &mut Session) {
    session.await_stdout("abc: start\n");
}

#[test]
fn the_legacy_server_announces_a_bare_port() {
    let start = r#"echo "Starting server with command... $VSCH_SERVER_SCRIPT --start-server --host=127.0.0.1 --port=0"
"$VSCH_SERVER_SCRIPT" --start-server --host=127.0.0.1 --accept-server-license-terms --enable-remote-auto-shutdown --port=0 --connection-token-file "$HOME/.token" &> "$VSCH_LOGFILE" < /dev/null &"#;
    let server = Server::on("0.0.0.0");
    let mut session = opened(&server);
    session.send(legacy(start, r#"echo "listeningOn==$BACKEND==""#));
    skip_to_start(&mut session);
    let port = address(&session.line(), "listeningOn==");
    assert_ne!(port, server.port());
    exchange(port, &server);
    has(&arguments(&session), &["--start-server", "--host=0.0.0.0"]);
}

#[test]
fn descendants_give_the_host_as_a_word_of_its_own_and_continue_lines() {
    let start = "\"$SERVER_SCRIPT\" --start-server \\\n  --host 127.0.0.1 \\\n  --port 0 \
        --connection-token-file \"$HOME/.token\" > \"$VSCH_LOGFILE\" 2>&1 < /dev/null &";
    let server = Server::on("0.0.0.0");
    let mut session = opened(&server);
    session.send(legacy(start, r#"echo "listeningOn==127.0.0.1:$BACKEND==""#));
    skip_to_start(&mut session);
    exchange(address(&session.line(), "listeningOn==127.0.0.1:"), &server);
    has(&arguments(&session), &["--host", "0.0.0.0", "--port", "0"]);
}

#[test]
fn cursor_announces_two_ports_and_both_are_reached() {
    let start = r#""$SERVER_SCRIPT" --start-server --host=127.0.0.1 --port 0 --connection-token-file "$HOME/.token" > "$VSCH_LOGFILE" 2>&1 < /dev/null &"#;
    let (code, multiplex) = (Server::on("0.0.0.0"), Server::on("127.0.0.1"));
    let mut session = opened(&code);
    let result = format!(
        "echo multiplexListeningOn=={}==\necho codeListeningOn==$BACKEND==",
        multiplex.port()
    );
    session.send(legacy(start, &result));
    skip_to_start(&mut session);
    let multiplex_port = address(&session.line(), "multiplexListeningOn==");
    let code_port = address(&session.line(), "codeListeningOn==");
    assert_ne!(multiplex_port, code_port);
    exchange(multiplex_port, &multiplex);
    exchange(code_port, &code);
    has(&arguments(&session), &["--start-server", "--host=0.0.0.0"]);
}

#[test]
fn a_server_without_a_token_stays_on_loopback_and_is_warned_about() {
    for command in [
        r#""$CLI_PATH" command-shell --without-connection-token --cli-data-dir "$HOME" --on-host=127.0.0.1 --on-port > "$CLI_LOG_FILE" 2>&1 < /dev/null &"#,
        r#"VSCODE_CLI_REQUIRE_TOKEN= "$CLI_PATH" command-shell --cli-data-dir "$HOME" --on-host=127.0.0.1 --on-port > "$CLI_LOG_FILE" 2>&1 < /dev/null &"#,
    ] {
        let server = Server::on("127.0.0.1");
        let mut session = opened(&server);
        session.send(exec_server("", command));
        session.await_stdout("abc: end\n");
        assert!(arguments(&session).contains(&"--on-host=127.0.0.1".to_owned()));
        session.await_stderr("token");
    }
}

#[test]
fn what_is_not_a_server_start_passes_untouched() {
    let server = Server::on("0.0.0.0");
    let mut session = opened(&server);
    let mine = "echo jupyter lab --host=127.0.0.1 --port=0";
    assert_eq!(session.ask(mine), mine.strip_prefix("echo ").expect("echo"));
    session.send("cat << 'END'\nserver --start-server --host=127.0.0.1\n'\"$`\\\nEND\n");
    session.expect_line("server --start-server --host=127.0.0.1");
    session.expect_line("'\"$`\\");
    session.announce(server.port());
    // Behind the announcement everything does.
    let late = "echo \"$CLI\" --start-server --host=127.0.0.1 --port=0";
    assert_eq!(
        session.ask(late),
        " --start-server --host=127.0.0.1 --port=0"
    );
}

#[test]
fn blanks_and_prompts_without_a_newline_pass_at_once() {
    let server = Server::on("127.0.0.1");
    let mut session = opened(&server);
    for text in [
        " ",
        "Password: ",
        "abc%%1%%",
        "list",
        "listeningOn",
        "listeningOn==",
    ] {
        session.send(format!("printf '%s' '{text}'\n"));
        // What may be the beginning of an address is held until it is seen not to be one.
        if text.starts_with("listeningOn=") {
            session.send("printf ' no'\n");
        }
        assert_eq!(session.read_stdout(text.len()), text.as_bytes());
        if text.starts_with("listeningOn=") {
            assert_eq!(session.read_stdout(3), b" no");
        }
    }
    // Three seconds' worth of a waiting client, and the line that is glued to it.
    session.send(format!(
        "printf '   listeningOn==127.0.0.1:{}==   \\r\\n'\n",
        server.port()
    ));
    let line = session.line();
    let line = line
        .strip_prefix("   ")
        .and_then(|line| line.strip_suffix("   \r"));
    exchange(
        address(
            line.expect("what stood around it"),
            "listeningOn==127.0.0.1:",
        ),
        &server,
    );
}

#[test]
fn lines_that_are_no_address_pass_untouched() {
    let server = Server::on("127.0.0.1");
    let mut session = opened(&server);
    for line in [
        "listeningOn====",
        "listeningOn==$LISTENING_ON==",
        "listeningOn== and words",
        "listeningOn==127.0.0.1:==",
        "listeningOn==127.0.0.1:65536==",
        "listeningOn==example.org:80==",
        "listening on 127.0.0.1:80",
    ] {
        assert_eq!(session.ask(&format!("echo '{line}'")), line);
    }
    assert_eq!(session.stderr_so_far(), "");
    let socket = "listeningOn==/run/user/1000/vscode-fake-sock==";
    assert_eq!(session.ask(&format!("echo {socket}")), socket);
    session.await_stderr("socket");
}

#[test]
fn the_address_is_found_on_stderr_and_in_each_of_its_forms() {
    let server = Server::on("127.0.0.1");
    let mut session = opened(&server);
    let port = session.announce(server.port());
    let backend = server.port();
    for (form, expected) in [
        (
            format!("listeningOn={backend}"),
            format!("listeningOn={port}"),
        ),
        (
            format!("listeningOn=={backend}=="),
            format!("listeningOn=={port}=="),
        ),
        (
            format!("listeningOn==0.0.0.0:{backend}=="),
            format!("listeningOn==127.0.0.1:{port}=="),
        ),
        (
            format!("listeningOn==[::1]:{backend}=="),
            format!("listeningOn==127.0.0.1:{port}=="),
        ),
        (
            format!("listeningOn==[::]:{backend}=="),
            format!("listeningOn==127.0.0.1:{port}=="),
        ),
        (
            format!("listeningOn==localhost:{backend}=="),
            format!("listeningOn==127.0.0.1:{port}=="),
        ),
        (
            format!("listeningOn==127.0.0.1:{backend}==arch==x86_64=="),
            format!("listeningOn==127.0.0.1:{port}==arch==x86_64=="),
        ),
    ] {
        assert_eq!(session.ask(&format!("echo '{form}'")), expected);
        session.send(format!("echo '{form}' >&2\n"));
        session.await_stderr(&format!("{expected}\n"));
    }
}

#[test]
fn an_address_without_a_recognised_start_is_logged_once() {
    let server = Server::on("127.0.0.1");
    let mut session = opened(&server);
    session.announce(server.port());
    session.announce(server.port());
    session.await_stderr("recognised");
    session.send("exit\nexit\n");
    let end = session.wait_for_code(0);
    assert_eq!(
        end.stderr_text().matches("recognised").count(),
        1,
        "{}",
        end.stderr_text()
    );
}

/// All shells of Debian that read a pipe line by line.
const SHELLS: [&str; 6] = ["dash", "bash", "zsh", "csh", "tcsh", "mksh"];

#[test]
fn the_probe_leaves_no_trace_in_any_shell() {
    for name in SHELLS {
        let Some(path) = shell(name) else { continue };
        let server = Server::on("127.0.0.1");
        let mut session = Program::proxy()
            .env("SHELL", &path)
            .arg("--")
            .arg(&path)
            .start();
        open(&mut session);
        assert_eq!(session.stderr_so_far(), "", "{name}");
        exchange(session.announce(server.port()), &server);
        session.end_stdin();
        let end = session.wait();
        let text = end.stderr_text();
        let others: Vec<&str> = text
            .lines()
            .filter(|line| !line.contains("recognised"))
            .collect();
        assert!(others.is_empty(), "{name}: {others:?}");
        session.assert_nothing_left();
    }
}

#[test]
fn the_probe_leaves_no_trace_in_a_shell_that_echoes() {
    // With -v shells repeat their input on stderr.
    for name in SHELLS {
        let Some(path) = shell(name) else { continue };
        let server = Server::on("127.0.0.1");
        let mut session = Program::proxy().arg("--").arg(&path).arg("-v").start();
        session.send("echo ready-1\n");
        session.await_stdout("ready-1\n");
        session.send(format!("echo listeningOn==127.0.0.1:{}==\n", server.port()));
        // The original csh reads on to the end of its input, behind an `exit` too.
        session.end_stdin();
        let end = session.wait();
        let seen = end.stdout_text() + &end.stderr_text();
        for word in ["uname", "SLURM_JOB_ID", "printenv", "@"] {
            assert!(!seen.contains(word), "{name}: {word:?} is in {seen}");
        }
        session.assert_nothing_left();
    }
}

#[test]
fn the_probe_leaves_no_trace_on_stdout_in_a_shell_that_traces() {
    // With -x shells show on stderr what they run, the probe's echo with the very words of its
    // answer: that must not pass for the answer, or the real one reached the client.
    for name in SHELLS {
        let Some(path) = shell(name) else { continue };
        let server = Server::on("127.0.0.1");
        let mut session = Program::proxy().arg("--").arg(&path).arg("-x").start();
        session.send("echo ready-1\n");
        session.expect_line("ready-1");
        exchange(session.announce(server.port()), &server);
        session.end_stdin();
        assert_eq!(session.rest_of_stdout(), b"");
        session.wait();
        session.assert_nothing_left();
    }
}

#[test]
fn a_login_shell_that_cannot_converse_is_replaced_and_given_back() {
    // As salloc's interactive step does it: the shell is whatever SHELL says.
    for name in ["fish", "nu"] {
        let path = format!("/usr/bin/{name}");
        let mut session = Program::proxy()
            .env("SHELL", &path)
            .args(["--", "sh", "-c", "exec \"$SHELL\""])
            .start();
        assert_eq!(session.ask("echo ready"), "ready");
        assert_eq!(session.ask("echo $SHELL"), path);
        session.send("exit 5\n");
        session.wait_for_code(5);
    }
    for name in SHELLS {
        let Some(path) = shell(name) else { continue };
        let mut session = Program::proxy()
            .env("SHELL", &path)
            .args(["--", "sh", "-c", "exec \"$SHELL\""])
            .start();
        open(&mut session);
        let path = path.to_string_lossy().into_owned();
        assert_eq!(session.ask("echo $SHELL; exit 6"), path);
        session.end_stdin();
        session.wait();
    }
}

#[test]
fn a_fish_as_the_command_ends_with_its_input() {
    let Some(fish) = shell("fish") else { return };
    let mut session = Program::proxy().direct().arg("--").arg(fish).start();
    session.send("echo at last\n");
    session.end_stdin();
    // It runs nothing before its input has ended, and makes of the probe what it likes.
    session.wait();
    session.assert_nothing_left();
}

#[test]
fn what_start_up_files_print_stands_before_the_answer_and_hides_nothing() {
    let script =
        "echo 'welcome to the cluster'; printf 'no newline here: '; echo module >&2; exec bash";
    let server = Server::on("127.0.0.1");
    let mut session = Program::proxy().args(["--", "sh", "-c", script]).start();
    session.expect_line("welcome to the cluster");
    assert_eq!(session.ask("echo ready"), "no newline here: ready");
    exchange(session.announce(server.port()), &server);
    session.await_stderr("module\n");
}

#[test]
fn an_address_before_the_probes_answer_waits_for_it() {
    let server = Server::on("127.0.0.1");
    // The announcement stands in the pipe before the shell reads its first line.
    let script = format!("echo listeningOn==127.0.0.1:{}==; exec bash", server.port());
    let mut session = Program::proxy()
        .direct()
        .args(["--", "sh", "-c", &script])
        .start();
    exchange(address(&session.line(), "listeningOn==127.0.0.1:"), &server);
    assert_eq!(session.ask("echo next"), "next");
}

#[test]
fn a_shell_that_never_answers_the_probe_gets_its_address_unchanged() {
    let script = "echo listeningOn==127.0.0.1:4711==; cat > /dev/null";
    let mut session = Program::proxy()
        .direct()
        .args(["--", "sh", "-c", script])
        .start();
    session.expect_line("listeningOn==127.0.0.1:4711==");
    session.await_stderr("unchanged");
    session.end_stdin();
    session.wait_for_code(0);
}

#[test]
fn the_token_is_never_logged() {
    let server = Server::on("0.0.0.0");
    let mut session = Program::proxy()
        .logged()
        .stand_in("server-cli", CLI)
        .env("BACKEND", server.port().to_string())
        .args(["--", "bash"])
        .start();
    open(&mut session);
    session.send(exec_server(
        r#"LISTEN_ARGS="--on-host=127.0.0.1 --on-port""#,
        COMMAND_SHELL,
    ));
    converse(&mut session, &server);
    assert!(server.accept_within(Duration::ZERO).is_none());
    session.hang_up();
    let end = session.wait_for_code(129);
    assert!(end.log.contains("listening on"), "{}", end.log);
    assert!(!end.log.contains("fake-token"), "{}", end.log);
}
