//! What the program costs, counted and not timed: system calls, wakeups, memory, descriptors,
//! threads, the size of its file. The bounds are the project's goals, so each is an assertion.
//!
//! All of it is true of the release build and of no other; whichever build the test itself is, it
//! has cargo make that one, which takes no time where it is up to date.

#[path = "../support/mod.rs"]
mod support;

mod in_job;
mod observe;
mod trace;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use support::processes::{Process, write_back};
use support::stranger::{STRANGER, as_user, can_be_somebody_else, is_reset};
use support::tcp::{self, Server};
use support::{Program, Session};

use observe::Activity;
use trace::Counter;

/// The release build of the program.
fn release() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        // .../target/debug/vscode-shell-proxy, or release
        let ours = PathBuf::from(env!("CARGO_BIN_EXE_vscode-shell-proxy"));
        let target = ours
            .ancestors()
            .nth(2)
            .expect("a program lies in target/PROFILE");
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--release", "--locked"])
            .args(["--bin", "vscode-shell-proxy", "--target-dir"])
            .arg(target)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .expect("cargo runs");
        assert!(status.success(), "the release build fails");
        let program = target.join("release/vscode-shell-proxy");
        write_back(&program);
        program
    };
    BUILT.get_or_init(build).clone()
}

/// Both far ends of a thousand connections are this process's.
fn raise_open_files() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("the soft limit may be raised");
}

/// A session whose shell has announced a server of ours.
struct Relay {
    session: Session,
    server: Server,
    port: u16,
}

/// A connection through the relay, by both its far ends.
struct Pair {
    client: TcpStream,
    server: TcpStream,
}

impl Relay {
    fn start() -> Self {
        Self::start_with(&[])
    }

    fn start_with(args: &[&str]) -> Self {
        raise_open_files();
        // No server start is sent to it, of which it would warn.
        // With the search path that cargo sets, the loader has pages of its own.
        let program = Program::new(release()).without_env("LD_LIBRARY_PATH");
        let program = program.arg("-q").args(args);
        let mut session = program.args(["--", "bash"]).start();
        let server = Server::on("127.0.0.1");
        let port = session.announce(server.port());
        Self {
            session,
            server,
            port,
        }
    }

    fn pair(&self) -> Pair {
        let client = tcp::connect(self.port);
        let server = self.server.accept();
        for end in [&client, &server] {
            end.set_nodelay(true).expect("TCP_NODELAY");
        }
        Pair { client, server }
    }

    fn pairs(&self, count: usize) -> Vec<Pair> {
        (0..count).map(|_| self.pair()).collect()
    }

    fn proxy(&self) -> Process {
        let pid = self.session.pid().cast_signed();
        Process::read(pid).expect("the proxy is alive")
    }

    fn counter(&self) -> Counter<'_> {
        Counter {
            process: self.proxy(),
            session: &self.session,
        }
    }

    fn keeper(&self) -> Process {
        let proxy = self.session.pid().cast_signed();
        let mut processes = self.session.processes().into_iter();
        processes
            .find(|process| process.parent == proxy)
            .expect("the keeper is alive")
    }

    /// Waits until the proxy has as many descriptors as it had: what was closed at our end is
    /// closed there.
    fn await_descriptors(&mut self, count: usize) {
        let proxy = self.proxy();
        self.session.until("descriptors are closed", |_| {
            (proxy.open_files() == count).then_some(())
        });
    }
}

impl Pair {
    /// 64 bytes to the server and back.
    fn round_trip(&mut self) {
        let mut message = [7; 64];
        self.client.write_all(&message).expect("a message");
        self.server.read_exact(&mut message).expect("the message");
        self.server.write_all(&message).expect("an answer");
        self.client.read_exact(&mut message).expect("the answer");
    }

    /// `bytes` from the client to the server.
    fn carry(&self, bytes: usize) {
        carry(&self.client, &self.server, bytes);
    }
}

fn carry(mut from: &TcpStream, mut to: &TcpStream, bytes: usize) {
    thread::scope(|scope| {
        scope.spawn(|| {
            let block = vec![7; 256 * 1024];
            let mut left = bytes;
            while left > 0 {
                left -= from
                    .write(&block[..left.min(block.len())])
                    .expect("a write");
            }
        });
        let mut block = vec![0; 256 * 1024];
        let mut left = bytes;
        while left > 0 {
            let most = left.min(block.len());
            match to.read(&mut block[..most]).expect("a read") {
                0 => panic!("{left} bytes are missing"),
                got => left -= got,
            }
        }
    });
}

fn does_nothing_while_idle(connections: usize) {
    let relay = Relay::start();
    let mut pairs = relay.pairs(connections);
    pairs.iter_mut().for_each(Pair::round_trip);
    for process in [relay.proxy(), relay.keeper()] {
        let before = Activity::settled(&process);
        // The assertion is about a time in which nothing happens.
        thread::sleep(Duration::from_secs(5));
        assert_eq!(
            Activity::of(&process),
            before,
            "{connections} connections: {process}"
        );
    }
}

#[test]
fn an_idle_session_does_nothing() {
    does_nothing_while_idle(0);
}

#[test]
fn an_idle_connection_wakes_nobody() {
    does_nothing_while_idle(1);
}

#[test]
fn a_thousand_idle_connections_wake_nobody() {
    does_nothing_while_idle(1000);
}

#[test]
fn a_session_that_waits_is_small() {
    let relay = Relay::start();
    let (proxy, keeper) = (relay.proxy(), relay.keeper());
    Activity::settled(&proxy);
    Activity::settled(&keeper);
    assert_eq!((proxy.threads(), keeper.threads()), (1, 1));
    let resident = proxy.status_kib("VmRSS").expect("VmRSS");
    let figures = (
        proxy.private_kib().expect("it runs"),
        keeper.private_kib().expect("it runs"),
    );
    println!("resident {resident} KiB, private (proxy, keeper) {figures:?} KiB");
    // Nine tenths are pages of the program and of the C library that every other process shares.
    assert!(resident <= 3000, "the proxy has {resident} KiB resident");
    // What the shell has said so far has touched a page or two of the buffer.
    assert!(
        figures.0 <= 236,
        "the proxy has {} KiB of its own",
        figures.0
    );
    // Two or three pages of it are the environment that it was given.
    assert!(
        figures.1 <= 140,
        "the keeper has {} KiB of its own",
        figures.1
    );
}

#[test]
fn an_idle_connection_costs_two_descriptors_and_512_bytes() {
    let relay = Relay::start();
    // Tables, blocks and pipes that the first ones need are not the cost of a connection.
    relay.pair().carry(1 << 20);
    let proxy = relay.proxy();
    let (memory, files) = (proxy.private_kib().expect("it runs"), proxy.open_files());
    let pairs = relay.pairs(1000);
    // The connection before is closed here, and may not be closed there yet; and what the relay in the job
    // has dialled ahead may not be there, then or now.
    assert!(
        (1997..=2001).contains(&(proxy.open_files() - files)),
        "{} descriptors",
        proxy.open_files() - files
    );
    let idle = proxy.private_kib().expect("it runs");
    for pair in &pairs {
        pair.carry(256 * 1024);
        carry(&pair.server, &pair.client, 256 * 1024);
    }
    let used = proxy.private_kib().expect("it runs");
    println!("private KiB: {memory} without, {idle} with 1000 connections, {used} after use");
    for (kib, when) in [(idle, "before"), (used, "after")] {
        let each = kib.saturating_sub(memory) * 1024 / 1000;
        assert!(
            each <= 512,
            "{each} bytes for an idle connection, {when} it was used"
        );
    }
}

#[test]
fn the_second_thousand_connections_find_the_place_of_the_first() {
    let mut relay = Relay::start();
    let files = relay.proxy().open_files();
    let mut wave = || {
        let pairs = relay.pairs(1000);
        pairs.iter().for_each(|pair| pair.carry(1000));
        drop(pairs);
        relay.await_descriptors(files);
        relay.proxy().status_kib("VmRSS").expect("VmRSS")
    };
    let (first, second) = (wave(), wave());
    println!("resident KiB: {first} after the first wave, {second} after the second");
    assert!(
        first.abs_diff(second) <= 64,
        "{first} KiB, then {second} KiB resident"
    );
}

#[test]
fn bulk_on_one_connection_takes_4_system_calls_for_a_megabyte() {
    let relay = Relay::start();
    let pair = relay.pair();
    pair.carry(16 << 20);
    relay
        .counter()
        .assert_bulk_calls(4.0, 64 << 20, || pair.carry(64 << 20));
}

#[test]
fn bulk_on_eight_connections_takes_20_system_calls_for_a_megabyte() {
    let relay = Relay::start();
    let pairs = relay.pairs(8);
    let carry_all = |bytes: usize| {
        thread::scope(|scope| {
            for pair in &pairs {
                scope.spawn(move || pair.carry(bytes));
            }
        });
    };
    carry_all(2 << 20);
    relay
        .counter()
        .assert_bulk_calls(20.0, 64 << 20, || carry_all(8 << 20));
}

#[test]
fn a_round_trip_takes_6_system_calls() {
    let relay = Relay::start();
    let mut pair = relay.pair();
    pair.round_trip();
    relay
        .counter()
        .assert_calls(6.05, 2000.0, "round trip", || {
            (0..2000).for_each(|_| pair.round_trip());
        });
}

#[test]
fn round_trips_on_64_connections_take_4_system_calls_each() {
    let relay = Relay::start();
    let mut pairs = relay.pairs(64);
    let mut message = [7; 64];
    // One message under way on each.
    let mut all_at_once = || {
        for Pair { client, .. } in &mut pairs {
            client.write_all(&message).expect("a message");
        }
        for Pair { server, .. } in &mut pairs {
            server.read_exact(&mut message).expect("the message");
            server.write_all(&message).expect("an answer");
        }
        for Pair { client, .. } in &mut pairs {
            client.read_exact(&mut message).expect("the answer");
        }
    };
    relay
        .counter()
        .assert_calls(4.3, 50.0 * 64.0, "round trip", || {
            (0..50).for_each(|_| all_at_once());
        });
}

/// To ask the kernel whose a client is takes two calls: a question and its answer. With a relay in the job
/// there are the order and its answer, and the proof of the connection that is dialled; how many wakeups
/// they share depends on the machine.
#[test]
fn a_connection_takes_23_system_calls_and_two_to_know_whose_it_is_or_37_with_a_relay() {
    for (reach, admit, bound) in [
        ("direct", "self", 25.0),
        ("direct", "any", 23.0),
        ("in-job", "self", 38.0),
    ] {
        let relay = Relay::start_with(&["--reach", reach, "--admit", admit]);
        relay.pair().round_trip();
        relay
            .counter()
            .assert_calls(bound, 500.0, "connection", || {
                for _ in 0..500 {
                    let mut pair = relay.pair();
                    pair.round_trip();
                    // The client closes first, and the server when it has seen that.
                    drop(pair.client);
                    assert_eq!(pair.server.read(&mut [0; 1]).expect("an end"), 0);
                }
            });
    }
}

/// A scan that is refused takes from the user's connections what these calls take of the one thread.
#[test]
fn a_refusal_takes_9_system_calls() {
    if !can_be_somebody_else() {
        return;
    }
    let relay = Relay::start();
    let refuse = |count| {
        as_user(STRANGER, || {
            (0..count).for_each(|_| assert!(is_reset(relay.port)))
        })
    };
    // The first few are logged, and a name is looked up.
    refuse(20);
    relay
        .counter()
        .assert_calls(9.05, 500.0, "refusal", || refuse(500));
}

#[test]
fn the_program_has_at_most_800_kilobytes() {
    let bytes = std::fs::metadata(release())
        .expect("the release build")
        .len();
    println!("{bytes} bytes");
    assert!(bytes <= 800_000, "{bytes} bytes");
}
