//! How the server in the job is reached: through a relay there, or directly; what decides it, and
//! what becomes of connections. Through the real program, real shells and real sockets; the job runs
//! on this very machine, under the name of a node that cannot be reached from here.

mod support;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::processes::Process;
use support::tcp::{
    Server, assert_sent_away, connect, exchange, half_close, noise, read_all, read_exactly,
};
use support::{Program, Session, shell};
use vscode_shell_proxy::reach::{Dialler, Instructions, Message, Report, Role};

const BUILD: &str = env!("CARGO_BIN_EXE_vscode-shell-proxy");

/// The proxy, with this value of `--reach`, whose job is on a node without an address.
fn proxy(reach: &str) -> Program {
    let program = Program::proxy().logged().args(["--reach", reach]);
    program.stand_in(
        "uname",
        "#!/bin/sh\n[ $1 = -n ] && echo node.invalid || exec /usr/bin/uname \"$@\"\n",
    )
}

/// A job whose shell gets another line than the one that starts the relay.
fn bash_behind(edit: &str) -> [String; 4] {
    let script = format!("sed -u '{edit}' | bash");
    ["--", "sh", "-c", &script].map(str::to_owned)
}

#[track_caller]
fn assert_ended(mut client: &TcpStream) {
    match client.read(&mut [0]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("expected the end of the connection, got {other:?}"),
    }
}

#[track_caller]
fn await_log(session: &mut Session, words: &str) {
    session.until(&format!("{words:?} in the log"), |session| {
        session.log().contains(words).then_some(())
    });
}

/// The relay's process, once it stands alone.
#[track_caller]
fn relay(session: &mut Session) -> Process {
    session.until("the relay runs", |session| {
        let relays: Vec<Process> = (session.processes().into_iter())
            .filter(|process| process.mentions("--in-job"))
            .collect();
        match &relays[..] {
            [relay] => Some(relay.clone()),
            _ => None,
        }
    })
}

/// What an edit of the line takes away: the program at its path; and each copy of it, too.
fn hidden_at(path: &str) -> String {
    format!("s|test -x {path} |false |")
}
const ALL_HIDDEN: &str = "s|test -x [^ ]* |false |";

/// The copies of the program in this directory.
fn copies(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory.join("vscode-shell-proxy"));
    let entries = entries.expect("the directory of the copies");
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

/// What the shell got that starts the relay.
#[track_caller]
fn instructions(session: &mut Session, tee: &PathBuf) -> Instructions {
    session.until("the line that starts the relay", |_| {
        let text = fs::read_to_string(tee).ok()?;
        let line = text.lines().find(|line| line.contains("reach-"))?;
        let word = line.strip_prefix("\\echo ")?.split(' ').next()?;
        Instructions::parse(word.as_bytes()).ok()
    })
}

/// Connects to where the relay dials, as the relay does.
#[track_caller]
fn dial(instructions: &Instructions, role: Role) -> TcpStream {
    let mut stream = connect(instructions.addresses[0].port());
    let mut dialler = Dialler::new(role, [7; 32]);
    stream.write_all(dialler.hello()).expect("hello");
    let challenge = read_exactly(&stream, dialler.wanted());
    let proof = dialler.feed(&instructions.secret, &mut &challenge[..]);
    let proof = proof.expect("the proxy").expect("all of it");
    stream.write_all(&proof).expect("proof");
    stream
}

/// The first report on a control connection.
#[track_caller]
fn greet(mut control: &TcpStream, version: &str) {
    let mut greeting = Vec::new();
    Report::Greeting {
        version: version.to_owned(),
        node: b"node".to_vec(),
        job: Vec::new(),
    }
    .encode(&mut greeting);
    control.write_all(&greeting).expect("greeting");
}

#[track_caller]
fn assert_reset(mut stream: &TcpStream, what: &str) {
    match stream.read(&mut [0]) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("{what}: expected a reset, got {other:?}"),
    }
}

/// When the kernel will ask the other ends of the connections to and from `port` whether they are
/// there, at either end: hundredths of a second. `None` while one has bytes under way.
fn questions(port: u16) -> Option<[Vec<u64>; 2]> {
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
    let mut questions = [vec![], vec![]];
    for line in table.lines() {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let port = format!(":{port:04X}");
        let Some(end) = (0..2).find(|end| fields[1 + end].ends_with(&port)) else {
            continue;
        };
        if fields[3] == "01" {
            let (kind, when) = fields[5].split_once(':')?;
            if kind != "02" {
                return None;
            }
            questions[end].push(u64::from_str_radix(when, 16).ok()?);
        }
    }
    Some(questions)
}

#[test]
fn a_server_on_loopback_is_reached_and_its_start_is_not_changed() {
    let server = Server::on("127.0.0.1");
    let mut session = proxy("in-job")
        .stand_in("server-cli", "#!/bin/sh\necho \"$@\"\n")
        .args(["--", "bash"])
        .start();
    let start = "\"server-cli\" --start-server --host=127.0.0.1 --port=0 \
                 --connection-token-file token";
    assert_eq!(
        session.ask(start),
        "--start-server --host=127.0.0.1 --port=0 --connection-token-file token"
    );
    // One that nobody was seen to start is reached as well.
    let port = session.announce(server.port());
    exchange(port, &server);
    let second = Server::on("127.0.0.1");
    exchange(session.announce(second.port()), &second);
    assert_eq!(session.stderr_so_far(), "", "there is nothing to warn of");
    session.send("exit 3\n");
    session.wait_for_code(3);
    session.assert_nothing_left();
}

#[test]
fn in_every_shell_the_relay_starts_and_its_secret_is_not_shown() {
    for name in ["dash", "bash", "zsh", "csh", "tcsh", "mksh"] {
        let Some(path) = shell(name) else { continue };
        for flag in [None, Some("-v"), Some("-x")] {
            let server = Server::on("127.0.0.1");
            let program = proxy("in-job");
            let tee = program.path("tee");
            let mut session = program
                .arg("--tee-stdin")
                .arg(&tee)
                .arg("--")
                .arg(&path)
                .args(flag)
                .start();
            assert_eq!(session.ask("echo ready"), "ready", "{name} {flag:?}");
            exchange(session.announce(server.port()), &server);
            let line = fs::read_to_string(&tee).expect("the copy of stdin");
            let secret = line.split(':').find(|word| word.len() == 64).expect("it");
            session.end_stdin();
            let end = session.wait();
            let seen = [end.stdout_text(), end.stderr_text(), end.log].concat();
            assert!(!seen.contains(&secret[..16]), "{name} {flag:?}: {seen}");
            assert!(!seen.contains("@"), "{name} {flag:?}: {seen}");
            session.assert_nothing_left();
        }
    }
}

#[test]
fn where_a_relay_is_demanded_and_cannot_run_the_session_ends_before_the_bootstrap() {
    let directory = tempfile::tempdir().expect("a directory");
    // The head of a program for a machine of 1979.
    let foreign = directory.path().join("foreign");
    let head = [b"\x7fELF\x01\x02\x01".to_vec(), vec![0; 57]].concat();
    fs::write(&foreign, head).expect("write");
    fs::set_permissions(&foreign, PermissionsExt::from_mode(0o755)).expect("chmod");
    let foreign = format!("s|{BUILD}|{}|g", foreign.display());
    let stranger = "s|`uname -m`|m68k|".to_owned();
    for (edit, why) in [
        (ALL_HIDDEN.to_owned(), "neither this program nor its copy"),
        (foreign, "cannot execute"),
        (stranger, "the node is no "),
        ("/reach-/d".to_owned(), "within 3 s"),
    ] {
        let mut session = proxy("in-job").args(bash_behind(&edit)).start();
        session.send_as_far_as_taken(b"echo never >&2; echo never\n");
        let end = session.wait_for_code(1);
        session.assert_nothing_left();
        assert_eq!(end.stdout_text(), "", "{edit}");
        assert!(!end.stderr_text().contains("never"), "{edit}");
        assert!(
            end.log.contains(why) && end.log.contains("in-job demands"),
            "{}",
            end.log
        );
    }
}

#[test]
fn without_a_relay_auto_goes_directly_and_says_why_once() {
    let hidden = hidden_at(BUILD);
    let cases = [
        (ALL_HIDDEN, 0o700, "neither this program nor its copy"),
        (&hidden, 0o755, "no copy of it can be made: cannot open"),
        ("/reach-/d", 0o700, "within 3 s"),
    ];
    for (edit, mode, why) in cases {
        let server = Server::on("127.0.0.1");
        let program = Program::proxy().logged().args(["--reach", "auto"]);
        let directory = program.path("home/.cache/vscode-shell-proxy");
        fs::create_dir_all(&directory).expect("a directory of the test's own");
        fs::set_permissions(&directory, PermissionsExt::from_mode(mode)).expect("chmod");
        let mut session = program.args(bash_behind(edit)).start();
        exchange(session.announce(server.port()), &server);
        session.end_stdin();
        let end = session.wait_for_code(0);
        let told = end.log.matches("there is no relay in the job").count();
        assert!(told == 1 && end.log.contains(why), "{}", end.log);
        session.assert_nothing_left();
    }
}

#[test]
fn what_has_written_and_answers_nothing_gets_the_clients_bytes_after_a_minute() {
    let program = Program::proxy().logged().args(["--reach", "auto"]);
    let got = program.path("got");
    // What it writes later gives it no more time.
    let command = "echo a banner; sleep 50; echo more; exec cat > \"$0\"";
    let program = program.args(["--", "sh", "-c", command]).arg(&got);
    let mut session = program.start();
    session.send("the client's bytes\n");
    session.expect_line("a banner");
    session.expect_line("more");
    let read = || fs::read_to_string(&got).unwrap_or_default();
    session.until("the question", |_| read().contains("uname").then_some(()));
    assert!(!read().contains("the client's bytes"), "they wait");
    await_log(
        &mut session,
        "something in the job has written, but no shell has answered",
    );
    session.end_stdin();
    session.wait_for_code(0);
    assert!(read().ends_with("\nthe client's bytes\n"), "{}", read());
}

#[test]
fn what_gives_back_the_question_and_no_answer_gets_the_clients_bytes_all_the_same() {
    // A command that is no shell; and one that a shell's start-up file has written before.
    for command in ["cat", "echo motd; exec cat"] {
        let program = Program::proxy().logged().args(["--", "sh", "-c", command]);
        let mut session = program.start();
        session.send("the client's\n");
        if command.contains("motd") {
            session.expect_line("motd");
        }
        session.expect_line("the client's");
        session.end_stdin();
        let end = session.wait_for_code(0);
        let told = end.log.matches("there is no relay in the job").count();
        let why = "something in the job has written, but no shell has answered";
        assert!(told == 1 && end.log.contains(why), "{}", end.log);
        assert_eq!(end.stdout_text().matches("client").count(), 1);
        session.assert_nothing_left();
    }
}

#[test]
fn where_the_node_lacks_the_program_a_copy_in_the_cache_is_the_relay() {
    let cache = tempfile::tempdir().expect("a directory");
    let mut inode = None;
    for chosen in [false, true, true] {
        let server = Server::on("127.0.0.1");
        let program = proxy("in-job");
        let place = match chosen {
            true => cache.path().to_owned(),
            false => program.path("home/.cache"),
        };
        let program = match chosen {
            true => program.env("XDG_CACHE_HOME", &place),
            false => program,
        };
        let mut session = program.args(bash_behind(&hidden_at(BUILD))).start();
        assert_eq!(session.ask("echo ready"), "ready");
        exchange(session.announce(server.port()), &server);
        let relay = relay(&mut session);
        let [copy] = &copies(&place)[..] else {
            panic!("{:?}", copies(&place));
        };
        assert!(relay.mentions(copy.to_str().expect("plain")), "{relay:?}");
        let metadata = fs::metadata(copy).expect("it is there");
        assert_eq!(metadata.mode() & 0o7777, 0o700);
        if chosen {
            let first = *inode.get_or_insert(metadata.ino());
            assert_eq!(metadata.ino(), first, "it was made again");
        }
        assert_eq!(session.stderr_so_far(), "", "there is nothing to warn of");
        session.end_stdin();
        session.wait_for_code(0);
        session.assert_nothing_left();
    }
}

#[test]
fn sessions_that_make_the_copy_at_once_all_get_a_relay() {
    let cache = tempfile::tempdir().expect("a directory");
    let start = || {
        let program = proxy("in-job").env("XDG_CACHE_HOME", cache.path());
        program.args(bash_behind(&hidden_at(BUILD))).start()
    };
    let mut sessions: Vec<Session> = (0..4).map(|_| start()).collect();
    for session in &mut sessions {
        assert_eq!(session.ask("echo ready"), "ready");
        relay(session);
        session.end_stdin();
        session.wait_for_code(0);
    }
    assert_eq!(copies(cache.path()).len(), 1);
}

#[test]
fn a_relay_of_another_version_is_not_used() {
    let server = Server::on("127.0.0.1");
    let program = Program::proxy().logged().args(["--reach", "auto"]);
    let tee = program.path("tee");
    let mut session = program
        .arg("--tee-stdin")
        .arg(&tee)
        .args(bash_behind("/reach-/d"))
        .start();
    let instructions = instructions(&mut session, &tee);
    let control = dial(&instructions, Role::Control);
    greet(&control, "0.0.0");
    await_log(&mut session, "it is of version 0.0.0");
    exchange(session.announce(server.port()), &server);
    // It was told to leave.
    assert_eq!(read_all(&control), b"\0\x01E");
}

#[test]
fn by_the_control_connection_alone_a_cut_network_is_noticed() {
    let server = Server::on("127.0.0.1");
    let program = proxy("in-job").args(["--reach-host", "127.0.0.1", "--", "bash"]);
    let mut session = program.start();
    let port = session.announce(server.port());
    let dialled = session.listening_ports();
    let dialled = *dialled.iter().find(|other| **other != port).expect("two");
    let _client = connect(port);
    let _peer = server.accept();
    let ends = session.until("control, a stream and a spare stand", |_| {
        questions(dialled).filter(|ends| ends.iter().all(|end| end.len() == 3))
    });
    for (mut end, whose) in ends.into_iter().zip(["the proxy", "the relay"]) {
        end.sort_unstable();
        assert!(end[0] <= 1500, "{whose}'s control connection: {end:?}");
        assert!(end[1] > 60_000, "{whose}'s other connections: {end:?}");
    }
}

#[test]
fn what_the_relay_dials_and_nobody_wants_is_reset() {
    let program = proxy("in-job");
    let tee = program.path("tee");
    let mut session = program
        .args(["--reach-host", "127.0.0.1", "--tee-stdin"])
        .arg(&tee)
        .args(bash_behind("/reach-/d"))
        .start();
    let instructions = instructions(&mut session, &tee);
    let control = dial(&instructions, Role::Control);
    greet(&control, env!("CARGO_PKG_VERSION"));
    let data = |number| dial(&instructions, Role::Data { number });
    assert_reset(&data(7), "a number that no client has");
    let first = data(0);
    let second = data(0);
    assert_reset(&first, "a spare that is replaced");
    half_close(&second);
    assert_reset(&second, "a spare that the relay has given up");
    let third = data(0);
    assert_eq!(session.ask("echo ready"), "ready");
    session.end_stdin();
    session.wait_for_code(0);
    assert_reset(&third, "the spare at the end");
    // What was said last is no part of that.
    assert_eq!(read_all(&control), b"\0\x01E");
}

#[test]
fn when_the_relay_is_killed_its_connections_end_and_the_shell_goes_on() {
    let server = Server::on("127.0.0.1");
    let mut session = proxy("in-job").args(["--", "bash"]).start();
    let port = session.announce(server.port());
    let client = connect(port);
    let _peer = server.accept();
    let relay = relay(&mut session);
    kill(Pid::from_raw(relay.pid), Signal::SIGKILL).expect("kill");
    assert_ended(&client);
    await_log(&mut session, "the relay in the job is gone");
    assert_sent_away(port);
    await_log(&mut session, "cannot connect to node.invalid");
    assert_eq!(session.ask("echo the shell goes on"), "the shell goes on");
    session.end_stdin();
    session.wait_for_code(0);
    session.assert_nothing_left();
}

#[test]
fn a_server_that_has_ended_is_explained_once_and_its_clients_are_reset() {
    let server = Server::on("127.0.0.1");
    let gone = server.port();
    drop(server);
    let mut session = proxy("in-job").args(["--", "bash"]).start();
    let port = session.announce(gone);
    for _ in 0..3 {
        assert_sent_away(port);
    }
    await_log(&mut session, "the server has ended");
    session.end_stdin();
    let end = session.wait_for_code(0);
    assert_eq!(end.log.matches("the server has ended").count(), 1);
}

#[test]
fn junk_where_the_relay_dials_disturbs_no_transfer_and_no_new_connection() {
    const JUNK: usize = 2000;
    const LENGTH: usize = 32 << 20;
    let server = Server::on("127.0.0.1");
    let mut session = proxy("in-job")
        .args(["--reach-host", "127.0.0.1", "--", "bash"])
        .start();
    let port = session.announce(server.port());
    let dialled = session.listening_ports();
    let dialled = *dialled.iter().find(|other| **other != port).expect("two");
    let client = connect(port);
    let peer = server.accept();
    thread::scope(|scope| {
        scope.spawn(|| {
            let at = SocketAddr::from(([127, 0, 0, 1], dialled));
            let mut silent = Vec::new();
            for number in 0..JUNK {
                let Ok(mut junk) = TcpStream::connect(at) else {
                    continue;
                };
                match number % 3 {
                    0 => silent.push(junk),
                    1 => drop(junk),
                    _ => drop(junk.write_all(&noise(number as u64, 200))),
                }
                // As many as one process may have open, at most.
                silent.truncate(400);
            }
        });
        scope.spawn(|| {
            let block = noise(1, 1 << 20);
            for _ in 0..LENGTH >> 20 {
                (&peer).write_all(&block).expect("write");
            }
            half_close(&peer);
        });
        let mut left = LENGTH;
        let mut block = vec![0; 1 << 20];
        while left > 0 {
            match (&client).read(&mut block) {
                Ok(read) if read > 0 => left -= read,
                other => panic!("{left} bytes are missing: {other:?}"),
            }
        }
        exchange(port, &server);
    });
    exchange(port, &server);
    session.end_stdin();
    let end = session.wait_for_code(0);
    let lines = end.log.matches("refused a connection").count();
    assert!((1..=3).contains(&lines), "{lines} lines about junk");
}

#[test]
fn who_leaves_by_itself_where_the_relay_dials_is_no_news() {
    let program = proxy("in-job");
    let tee = program.path("tee");
    let mut session = program
        .arg("--tee-stdin")
        .arg(&tee)
        .args(["--", "bash"])
        .start();
    assert_eq!(session.ask("echo ready"), "ready");
    let instructions = instructions(&mut session, &tee);
    // As a relay does whose shell ends while it dials: before it has said anything, and behind its hello.
    for says in [false, true] {
        let mut control = TcpStream::connect(instructions.addresses[0]).expect("it listens");
        if says {
            let dialler = Dialler::new(Role::Control, [7; 32]);
            control.write_all(dialler.hello()).expect("hello");
        }
    }
    session.until("both have left", |session| {
        let left = session.log().matches("has left where the relay").count();
        (left == 2).then_some(())
    });
    assert!(!session.log().contains("refused"), "{}", session.log());
}

#[test]
fn the_relay_dials_a_port_of_the_range_at_the_one_address() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let first = taken.local_addr().expect("its address").port();
    // Whatever lies above may be taken too; one of a hundred is not.
    let last = first.saturating_add(100);
    let program = proxy("in-job");
    let tee = program.path("tee");
    let mut session = program
        .arg(format!("--reach-ports={first}-{last}"))
        .args(["--reach-host=127.0.0.1", "--tee-stdin"])
        .arg(&tee)
        .args(["--", "bash"])
        .start();
    assert_eq!(session.ask("echo ready"), "ready");
    let instructions = instructions(&mut session, &tee);
    let [at] = instructions.addresses[..] else {
        panic!("{:?}", instructions.addresses);
    };
    assert_eq!(at.ip(), IpAddr::from([127, 0, 0, 1]));
    assert!((first + 1..=last).contains(&at.port()), "{at}");
}

#[test]
fn where_no_port_of_the_range_can_be_had_nothing_is_launched() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port();
    let program = proxy("in-job");
    let launched = program.path("launched");
    let end = program
        .arg(format!("--reach-ports={port}-{port}"))
        .args(["--reach-host=127.0.0.1", "--", "touch"])
        .arg(&launched)
        .run("");
    assert_eq!(end.code(), 1);
    assert!(
        end.stderr_text().contains("--reach in-job is not possible"),
        "{}",
        end.stderr_text()
    );
    assert!(!launched.exists());
}
