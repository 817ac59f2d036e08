//! Only its own user gets in, and nothing of its secrets out: the real program among strangers.
//!
//! Without root, who alone can be a stranger, these tests say that they are left out.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use nix::sys::signal::Signal;
use support::processes::{Process, write_back};
use support::stranger::{STRANGER, as_user, can_be_somebody_else, is_reset};
use support::tcp::{Server, connect, noise, read_exactly};
use support::{Program, Session};

/// `nobody`, whom a proxy of these tests may run as.
const NOBODY: u32 = 65534;

/// A proxy whose job is a bash here, and the port of its listener, which stands for nothing yet.
fn listening(program: Program) -> (Session, u16) {
    let mut session = program.args(["-v", "--", "bash"]).start();
    session.await_stderr("listening on ");
    let address = session.await_stderr("\n");
    let address = String::from_utf8(address).expect("an address");
    let port = address.trim().rsplit(':').next().expect("a port");
    (session, port.parse().expect("a port"))
}

/// Requires that the user's own connection works.
#[track_caller]
fn assert_relays(port: u16, server: &Server) {
    let mut client = connect(port);
    client.write_all(b"hello").expect("write");
    let mut peer = server.accept();
    assert_eq!(
        read_exactly(&peer, 5),
        b"hello",
        "the first to arrive is the user"
    );
    peer.write_all(b"welcome").expect("write");
    assert_eq!(read_exactly(&client, 7), b"welcome");
}

#[test]
fn a_stranger_is_reset_and_never_reaches_the_node() {
    if !can_be_somebody_else() {
        return;
    }
    let server = Server::on("127.0.0.1");
    let (mut session, port) = listening(Program::proxy());
    assert_eq!(session.announce(server.port()), port);
    for _ in 0..3 {
        assert!(as_user(STRANGER, || is_reset(port)));
    }
    assert_relays(port, &server);
    session.await_stderr("its owner has uid 54321 (refused so far: 1)");
    session.end_stdin();
    session.wait_for_code(0);
    session.await_stderr("connections refused in this session: 3");
}

#[test]
fn a_stranger_is_reset_while_the_job_waits_and_the_user_is_not() {
    if !can_be_somebody_else() {
        return;
    }
    let server = Server::on("127.0.0.1");
    let (mut session, port) = listening(Program::proxy());
    let mut early = connect(port);
    early.write_all(b"early").expect("write");
    for _ in 0..3 {
        assert!(as_user(STRANGER, || is_reset(port)));
    }
    session.announce(server.port());
    let peer = server.accept();
    assert_eq!(read_exactly(&peer, 5), b"early");
}

#[test]
fn strangers_that_hold_on_to_connections_take_no_room() {
    if !can_be_somebody_else() {
        return;
    }
    let server = Server::on("127.0.0.1");
    let (mut session, port) = listening(Program::proxy().args(["--backlog=1024"]).open_files(256));
    // More than the program could hold: it would run out of descriptors long before the last.
    let dial = || TcpStream::connect(("127.0.0.1", port));
    let held = as_user(STRANGER, || (0..500).map(|_| dial()).collect::<Vec<_>>());
    session.announce(server.port());
    assert_relays(port, &server);
    drop(held);
}

#[test]
fn root_needs_an_invitation_and_any_is_one_for_all() {
    if !can_be_somebody_else() {
        return;
    }
    // A proxy of another user than root, who can reach the program wherever it was built.
    let directory = tempfile::tempdir().expect("a directory");
    let program: PathBuf = directory.path().join("vscode-shell-proxy");
    std::fs::copy(env!("CARGO_BIN_EXE_vscode-shell-proxy"), &program).expect("a copy");
    for path in [directory.path(), &program] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    for (admit, root, stranger) in [
        ("self", false, false),
        ("root", true, false),
        ("any", true, true),
    ] {
        let server = Server::on("127.0.0.1");
        let nobody = [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
        ];
        let proxy = Program::new(&program).arg(format!("--admit={admit}"));
        let session = proxy.args(["-v", "--", "bash"]).under(nobody);
        let mut session = session.start();
        let port = session.announce(server.port());
        for (uid, admitted) in [(0, root), (STRANGER, stranger), (NOBODY, true)] {
            match admitted {
                true => as_user(uid, || assert_relays(port, &server)),
                false => assert!(
                    as_user(uid, || is_reset(port)),
                    "--admit {admit}, uid {uid}"
                ),
            }
        }
    }
}

/// Relays 32 MiB over each of eight connections, every byte checked.
fn relay(port: u16, server: &Server) {
    const BLOCKS: usize = 128;
    let block = &noise(1, 256 << 10)[..];
    let clients: Vec<TcpStream> = (0..8).map(|_| connect(port)).collect();
    let peers: Vec<TcpStream> = (0..8).map(|_| server.accept()).collect();
    thread::scope(|scope| {
        for (mut client, mut peer) in clients.into_iter().zip(peers) {
            scope.spawn(move || (0..BLOCKS).for_each(|_| client.write_all(block).expect("write")));
            scope.spawn(move || {
                let mut got = vec![0; block.len()];
                for _ in 0..BLOCKS {
                    peer.read_exact(&mut got).expect("read");
                    assert!(got == block);
                }
            });
        }
    });
}

/// Sockets that a process has open.
fn sockets(pid: u32) -> usize {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
    let targets = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    targets
        .filter(|target| target.to_string_lossy().starts_with("socket:"))
        .count()
}

/// What the user's connections lose is what refusals cost the program's one thread: that is counted
/// by `a_refusal_takes_9_system_calls`, and measured by the benchmark `admission`.
#[test]
fn ten_thousand_refusals_leave_memory_log_and_the_users_connections_alone() {
    if !can_be_somebody_else() {
        return;
    }
    const ATTEMPTS: usize = 10_000;
    write_back(Path::new(env!("CARGO_BIN_EXE_vscode-shell-proxy")));
    let began = Instant::now();
    let server = Server::on("127.0.0.1");
    let (mut session, port) = listening(Program::proxy());
    session.announce(server.port());
    let pid = session.pid();
    let before = sockets(pid);

    // A few attempts, and up to so many as long as `go_on` says: how many there were.
    let attack = |most: usize, go_on: &(dyn Fn() -> bool + Sync)| {
        as_user(STRANGER, || {
            let mut made = 0;
            while made < most && (made < 100 || go_on()) {
                assert!(is_reset(port));
                made += 1;
            }
            made
        })
    };
    let relayed = AtomicBool::new(false);
    let first = thread::scope(|scope| {
        let attack = scope.spawn(|| attack(ATTEMPTS / 2, &|| !relayed.load(Ordering::Relaxed)));
        relay(port, &server);
        relayed.store(true, Ordering::Relaxed);
        attack.join().expect("no panic")
    });

    // And then without anything else, until the number is full.
    session.until("the connections are closed", |_| {
        (sockets(pid) == before).then_some(())
    });
    let process = Process::read(pid.cast_signed()).expect("the proxy runs");
    let memory = || process.private_kib().expect("the proxy runs");
    let earlier = memory();
    attack(ATTEMPTS - first, &|| true);
    let later = memory();
    assert!(
        later <= earlier + 64,
        "{earlier} KiB before, {later} KiB after"
    );
    session.until("the connections are closed", |_| {
        (sockets(pid) == before).then_some(())
    });
    assert_relays(port, &server);

    session.end_stdin();
    session.wait_for_code(0);
    session.await_stderr(&format!("connections refused in this session: {ATTEMPTS}"));
    let lines = session
        .stderr_so_far()
        .matches("refused a connection")
        .count() as u64;
    let took = began.elapsed();
    assert!(
        lines <= 8 + 1 + took.as_secs() / 10,
        "{lines} lines in {took:?}"
    );
}

#[test]
fn a_client_that_is_gone_is_refused_and_the_next_one_is_not() {
    let server = Server::on("127.0.0.1");
    // No chance to accept before the client is gone: the program is stopped meanwhile.
    let (mut session, port) = listening(Program::proxy());
    session.announce(server.port());
    session.signal(Signal::SIGSTOP);
    drop(connect(port));
    session.signal(Signal::SIGCONT);
    session.await_stderr("it has no owner any more (refused so far: 1)");
    assert_relays(port, &server);
}

#[test]
fn a_listener_for_other_machines_is_announced_in_the_log() {
    let end = Program::proxy()
        .args([
            "--listen-host=0.0.0.0",
            "--admit-from=10.0.0.0/8",
            "--",
            "true",
        ])
        .run("");
    assert!(
        end.stderr_text().contains(
            "warn: other machines can connect to the listener on 0.0.0.0; admitted are those from \
             10.0.0.0/8"
        ),
        "{end:?}"
    );
    let end = Program::proxy().args(["--", "true"]).run("");
    assert_eq!(end.stderr_text(), "");
}

#[test]
fn the_launched_command_gets_nothing_of_ours() {
    let mut session = Program::proxy().args(["--", "bash"]).start();
    let launched = session.ask("echo $$");
    let read = |pid: &str, file: &str| {
        let bytes =
            std::fs::read(format!("/proc/{pid}/{file}")).expect("a file of our own process");
        let mut words: Vec<Vec<u8>> = bytes.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect();
        words.sort();
        words
    };
    let proxy = session.pid().to_string();
    assert_eq!(read(&launched, "environ"), read(&proxy, "environ"));
    assert_eq!(read(&launched, "cmdline"), [b"".to_vec(), b"bash".to_vec()]);
}
