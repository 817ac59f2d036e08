//! The relay of the real program: every byte, back-pressure, half-close, reset, and its limits.
//!
//! The test plays both far ends: the client, and the server in the job. The job is a `bash` on
//! this host, which prints an address when it is told to.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};
use support::processes::Process;
use support::tcp::{
    Server, assert_sent_away, connect, half_close, noise, read_all, read_exactly, reset,
};
use support::{BOUND, Program, Session, skipped};

/// A proxy whose job is a bash, a server of the test's, and the port that the client dials.
fn session() -> (Session, Server, u16) {
    session_of(Program::proxy())
}

fn session_of(program: Program) -> (Session, Server, u16) {
    let server = Server::on("127.0.0.1");
    let mut session = program.args(["--", "bash"]).start();
    let port = session.announce(server.port());
    (session, server, port)
}

/// A node that is not this host as far as its name tells: the probe asks `uname -n`.
fn on_node(program: Program, name: &str) -> Program {
    // A relay would run here all the same, and dial back.
    program
        .direct()
        .stand_in("uname", &format!("#!/bin/sh\necho {name}\n"))
}

fn memory_peak_kib(session: &Session) -> u64 {
    let process = Process::read(session.pid().cast_signed()).expect("the proxy runs");
    process
        .status_kib("VmHWM")
        .expect("VmHWM in /proc/PID/status")
}

#[test]
fn every_byte_passes_on_the_standard_streams() {
    // `cat` gives back what it gets, the probe's line too, which the client must not see.
    let mut session = Program::proxy().direct().args(["--", "cat"]).start();
    let mut bytes: Vec<u8> = (0..=255).collect();
    bytes.extend_from_slice(b"\0\0\xff\xfe\xc3(\xe2\x28\xa1\r\n\r\r\n");
    bytes.extend(
        noise(1, 8 << 20)
            .iter()
            .map(|byte| if *byte == b'\n' { 0 } else { *byte }),
    );
    bytes.push(b'\n');
    session.send(&bytes);
    let got = session.read_stdout(bytes.len());
    assert!(got == bytes, "stdout differs from stdin");
    session.end_stdin();
    assert_eq!(session.rest_of_stdout(), b"");
    session.wait_for_code(0);
    session.assert_nothing_left();
}

#[test]
fn every_byte_passes_on_a_connection_each_way_at_the_same_time() {
    let (_session, server, port) = session();
    let client = connect(port);
    let peer = server.accept();
    let (up, down) = (noise(2, 8 << 20), noise(3, 8 << 20));
    thread::scope(|scope| {
        scope.spawn(|| {
            (&client).write_all(&up).expect("writing to the proxy");
            half_close(&client);
        });
        scope.spawn(|| {
            (&peer).write_all(&down).expect("writing to the proxy");
            half_close(&peer);
        });
        let got = scope.spawn(|| read_all(&peer));
        assert!(read_all(&client) == down, "what the server sent");
        assert!(got.join().expect("no panic") == up, "what the client sent");
    });
}

#[test]
fn the_end_of_one_direction_leaves_the_other_open() {
    let (_session, server, port) = session();
    for client_first in [true, false] {
        let client = connect(port);
        let peer = server.accept();
        let (first, second) = if client_first {
            (&client, &peer)
        } else {
            (&peer, &client)
        };
        (&mut &*first).write_all(b"last words").expect("write");
        half_close(first);
        assert_eq!(read_all(second), b"last words");
        // The other direction goes on, also after a while and with more than buffers hold.
        let answer = noise(4, 4 << 20);
        thread::scope(|scope| {
            scope.spawn(|| {
                (&mut &*second)
                    .write_all(&answer)
                    .expect("write after the end of file");
                half_close(second);
            });
            assert!(read_all(first) == answer);
        });
    }
}

#[test]
fn a_reset_passes_as_a_reset() {
    let (_session, server, port) = session();
    for client_resets in [true, false] {
        let client = connect(port);
        let peer = server.accept();
        let (near, far) = if client_resets {
            (client, peer)
        } else {
            (peer, client)
        };
        // The connection is whole before it breaks.
        (&near).write_all(b"x").expect("write");
        assert_eq!(read_exactly(&far, 1), b"x");
        reset(near);
        match (&far).read(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("expected a reset, got {other:?}"),
        }
    }
}

#[test]
fn five_hundred_connections_at_once_are_all_served() {
    for reach in ["direct", "in-job"] {
        five_hundred_connections(Program::proxy().args(["--reach", reach]));
    }
}

#[track_caller]
fn five_hundred_connections(program: Program) {
    const COUNT: usize = 500;
    let (session, server, port) = session_of(program.args(["-b", "512"]));
    let idle = Process::read(session.pid().cast_signed())
        .expect("it runs")
        .open_files();
    // Accepted as they come: the server's backlog is shorter than that.
    let peers = thread::spawn(move || (0..COUNT).map(|_| server.accept()).collect::<Vec<_>>());
    let clients: Vec<TcpStream> = (0..COUNT).map(|_| connect(port)).collect();
    for (number, mut client) in clients.iter().enumerate() {
        client
            .write_all(&(number as u64).to_be_bytes())
            .expect("write");
    }
    let peers = peers.join().expect("all arrive");
    let mut seen = vec![false; COUNT];
    for mut peer in &peers {
        let number = read_exactly(peer, 8);
        peer.write_all(&number).expect("write");
        let number = u64::from_be_bytes(number.try_into().expect("8 bytes"));
        assert!(
            !std::mem::replace(&mut seen[number as usize], true),
            "{number} came twice"
        );
    }
    for (number, client) in clients.iter().enumerate() {
        assert_eq!(read_exactly(client, 8), (number as u64).to_be_bytes());
    }
    let process = Process::read(session.pid().cast_signed()).expect("it runs");
    assert_eq!(process.threads(), 1);
    drop((clients, peers));
    let mut session = session;
    session.until(
        "the descriptors of closed connections are closed",
        |session| {
            let process = Process::read(session.pid().cast_signed())?;
            (process.open_files() <= idle).then_some(())
        },
    );
}

#[test]
fn a_reader_that_stalls_stops_its_writer_and_costs_no_memory() {
    const LENGTH: usize = 256 << 20;
    let (session, server, port) = session();
    let client = connect(port);
    let mut peer = server.accept();
    let block = noise(5, 1 << 20);
    thread::scope(|scope| {
        let block = &block;
        let (stalled, stall) = std::sync::mpsc::channel();
        scope.spawn(move || {
            let mut left = LENGTH;
            let mut stalled = Some(stalled);
            peer.set_nonblocking(true).expect("F_SETFL");
            while left > 0 {
                let from = (LENGTH - left) % block.len();
                match peer.write(&block[from..]) {
                    Ok(n) => left -= n.min(left),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        let mut watched = [PollFd::new(peer.as_fd(), PollFlags::POLLOUT)];
                        // A second without room: it is the reader that is waited for.
                        if poll(&mut watched, 1000_u16) == Ok(0)
                            && let Some(tell) = stalled.take()
                        {
                            tell.send(left).expect("the test waits for it");
                        }
                    }
                    Err(error) => panic!("writing to the proxy: {error}"),
                }
            }
            peer.shutdown(Shutdown::Write).expect("shutdown");
        });
        let left = stall.recv_timeout(BOUND).expect("a writer that is stopped");
        assert!(left > LENGTH / 2, "{} bytes went nowhere", LENGTH - left);
        let mut got = 0;
        let mut bytes = vec![0; 1 << 20];
        loop {
            let count = (&client).read(&mut bytes).expect("reading from the proxy");
            if count == 0 {
                break;
            }
            for (at, byte) in bytes[..count].iter().enumerate() {
                assert!(
                    *byte == block[(got + at) % block.len()],
                    "byte {}",
                    got + at
                );
            }
            got += count;
        }
        assert!(got >= LENGTH, "{got} of {LENGTH} bytes");
    });
    let peak = memory_peak_kib(&session);
    assert!(peak < 8 << 10, "the proxy took {peak} KiB");
}

#[test]
fn a_client_that_stops_reading_stops_the_job() {
    let mut session = Program::proxy().args(["--", "yes"]).start();
    session.await_stdout("y\n");
    session.pause_stdout();
    let written = |session: &Session| {
        let yes = session
            .processes()
            .into_iter()
            .find(|process| process.args == [b"yes"])?;
        let io = std::fs::read_to_string(format!("/proc/{}/io", yes.pid)).ok()?;
        let line = io.lines().find_map(|line| line.strip_prefix("wchar: "))?;
        line.parse::<u64>().ok()
    };
    let mut last = (written(&session), Instant::now());
    session.until("a second in which the job writes nothing", |session| {
        let now = written(session);
        if now != last.0 {
            last = (now, Instant::now());
        }
        (now.is_some() && last.1.elapsed() > Duration::from_secs(1)).then_some(())
    });
    let peak = memory_peak_kib(&session);
    assert!(peak < 8 << 10, "the proxy took {peak} KiB");
    session.resume_stdout();
    session.await_stdout(&"y\n".repeat(1 << 20));
    session.hang_up();
    session.wait_for_code(129);
    session.assert_nothing_left();
}

#[test]
fn the_announced_port_is_connectable_in_the_very_instant() {
    for _ in 0..20 {
        let (_session, server, port) = session();
        let mut client = connect(port);
        client.write_all(b"at once").expect("write");
        assert_eq!(read_exactly(&server.accept(), 7), b"at once");
    }
}

#[test]
fn connections_before_the_announcement_are_parked() {
    let server = Server::on("127.0.0.1");
    let mut session = Program::proxy().args(["--", "bash"]).start();
    let port = session.await_listening();
    let mut early = connect(port);
    early.write_all(b"too early").expect("write");
    assert_eq!(
        session.ask("echo a step and its answer"),
        "a step and its answer"
    );
    assert!(
        server.accept_within(Duration::ZERO).is_none(),
        "nobody knows the server yet"
    );
    assert_eq!(session.announce(server.port()), port);
    let mut peer = server.accept();
    assert_eq!(read_exactly(&peer, 9), b"too early");
    peer.write_all(b"in time").expect("write");
    assert_eq!(read_exactly(&early, 7), b"in time");
}

#[test]
fn a_port_keeps_its_listener_and_another_port_gets_its_own() {
    let (mut session, first, port) = session();
    let second = Server::on("127.0.0.1");
    let other = session.announce(second.port());
    assert_ne!(other, port);
    assert_eq!(session.announce(first.port()), port);
    assert_eq!(session.announce(second.port()), other);
    for (server, port) in [(&first, port), (&second, other)] {
        let mut client = connect(port);
        client.write_all(b"!").expect("write");
        assert_eq!(read_exactly(&server.accept(), 1), b"!");
    }
}

#[test]
fn beyond_sixteen_ports_an_address_passes_unchanged_with_a_warning() {
    let (mut session, _server, _port) = session();
    let servers: Vec<Server> = (0..16).map(|_| Server::on("127.0.0.1")).collect();
    for server in &servers[..15] {
        session.announce(server.port());
    }
    let line = format!("listeningOn==127.0.0.1:{}==", servers[15].port());
    assert_eq!(session.ask(&format!("echo {line}")), line);
    session.await_stderr(&servers[15].port().to_string());
}

#[test]
fn a_fixed_port_is_never_shared_by_two_proxies() {
    let mut first = Program::proxy().args(["-p", "0", "--", "bash"]).start();
    let port = first.await_listening();
    let second = Program::proxy();
    let launched = second.path("launched");
    let second = second
        .args(["-p", &port.to_string(), "--", "touch"])
        .arg(&launched);
    let end = second.run("");
    assert_eq!(end.code(), 1, "{}", end.stderr_text());
    assert!(
        end.stderr_text().contains(&port.to_string()),
        "{}",
        end.stderr_text()
    );
    assert!(!launched.exists(), "nothing is launched");
    first.end_stdin();
    first.wait_for_code(0);
    // And it is free at once for the next one, whatever connections there were.
    let mut third = Program::proxy()
        .args(["-p", &port.to_string(), "--", "bash"])
        .start();
    assert_eq!(third.await_listening(), port);
}

#[test]
fn a_server_on_loopback_of_another_node_is_explained_once() {
    // 127.0.0.2 is this host, but nothing that listens on 127.0.0.1 alone.
    let server = Server::on("127.0.0.1");
    let program = on_node(Program::proxy(), "127.0.0.2");
    let mut session = program.args(["--", "bash"]).start();
    let port = session.announce(server.port());
    for _ in 0..3 {
        assert_sent_away(port);
    }
    session.await_stderr("refused");
    session.end_stdin();
    let end = session.wait_for_code(0);
    let text = end.stderr_text();
    let told: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("cannot connect"))
        .collect();
    let [line] = told[..] else {
        panic!("expected one line, got {told:?}")
    };
    for word in ["127.0.0.2", &server.port().to_string(), "loopback"] {
        assert!(line.contains(word), "{word:?} is not in {line:?}");
    }
}

#[test]
fn a_server_on_all_interfaces_of_another_node_is_reached() {
    let server = Server::on("0.0.0.0");
    let program = on_node(Program::proxy(), "127.0.0.2");
    let mut session = program.args(["--", "bash"]).start();
    let mut client = connect(session.announce(server.port()));
    client.write_all(b"hello").expect("write");
    assert_eq!(read_exactly(&server.accept(), 5), b"hello");
}

#[test]
fn every_address_of_a_node_is_tried() {
    // A name with three addresses, none of which belongs to this host's own name, for the proxy
    // alone; the server has one of them at a time.
    let hosts = "::1 node-of-three\n127.0.0.2 node-of-three\n127.0.0.3 node-of-three\n";
    if !nix::unistd::geteuid().is_root() {
        return skipped("only root can give the proxy a hosts file of its own");
    }
    for host in ["::1", "127.0.0.2", "127.0.0.3"] {
        let Some(server) = Server::on_if_possible(host) else {
            skipped(&format!("{host} is no address of this host"));
            continue;
        };
        let program = on_node(Program::proxy(), "node-of-three");
        let file = program.path("hosts");
        std::fs::write(&file, hosts).expect("write");
        let script = "mount --bind \"$HOSTS\" /etc/hosts && exec \"$0\" \"$@\"";
        let program = program.args(["--", "bash"]).env("HOSTS", file);
        let mut session = program.under(["unshare", "-m", "sh", "-c", script]).start();
        let mut client = connect(session.announce(server.port()));
        client.write_all(b"hello").expect("write");
        assert_eq!(read_exactly(&server.accept(), 5), b"hello", "{host}");
    }
}

#[test]
fn the_end_of_the_job_ends_its_connections() {
    let (mut session, server, port) = session();
    let mut client = connect(port);
    let mut peer = server.accept();
    client.write_all(b"x").expect("write");
    assert_eq!(read_exactly(&peer, 1), b"x");
    session.send("exit 9\n");
    session.wait_for_code(9);
    for stream in [&mut client, &mut peer] {
        match stream.read(&mut [0]) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("expected the end of the connection, got {other:?}"),
        }
    }
    assert!(
        TcpStream::connect(("127.0.0.1", port)).is_err(),
        "the listener is closed"
    );
    session.assert_nothing_left();
}

#[test]
fn a_node_that_has_no_address_closes_the_connection_and_is_named() {
    let program = on_node(Program::proxy(), "node.invalid");
    let mut session = program.args(["--", "bash"]).start();
    assert_sent_away(session.announce(4));
    session.await_stderr("node.invalid");
    // The listener stays.
    assert_eq!(session.listening_ports().len(), 1);
    assert_eq!(session.ask("echo still here"), "still here");
}

#[test]
fn without_descriptors_accepting_pauses_and_goes_on() {
    // With a backlog that holds all of them, for the kernel to keep those that are not accepted.
    for reach in ["direct", "in-job"] {
        let program = Program::proxy().args(["-b", "200", "--reach", reach]);
        accepting_pauses_and_goes_on(program.open_files(160));
    }
}

#[track_caller]
fn accepting_pauses_and_goes_on(program: Program) {
    const COUNT: u8 = 100;
    let (mut session, server, port) = session_of(program);
    let mut clients: Vec<Option<TcpStream>> = Vec::new();
    for number in 0..COUNT {
        let mut client = connect(port);
        client.write_all(&[number]).expect("write");
        clients.push(Some(client));
    }
    // One after the other is given back. All come in the end, and none is refused.
    for _ in 0..COUNT {
        let peer = server.accept();
        let number = read_exactly(&peer, 1)[0];
        drop(peer);
        let client = clients[usize::from(number)]
            .take()
            .expect("each comes once");
        assert_eq!(read_all(&client), b"");
    }
    assert_eq!(session.ask("echo the streams go on"), "the streams go on");
    assert_eq!(session.ask("ulimit -n"), "160");
}

#[test]
fn connections_wait_for_a_descriptor_that_somebody_else_has_taken() {
    const COUNT: u8 = 12;
    // The proxy counts on the limit that it was started with; now it is lowered under its feet, to
    // room for a few connections.
    let (mut session, server, port) = session_of(Program::proxy().direct().args(["-b", "64"]));
    let pid = rustix::process::Pid::from_raw(session.pid().cast_signed());
    let open = std::fs::read_dir(format!("/proc/{}/fd", session.pid())).expect("the proxy runs");
    let limit = Some(open.count() as u64 + 5);
    let lowered = rustix::process::Rlimit {
        current: limit,
        maximum: limit,
    };
    rustix::process::prlimit(pid, rustix::process::Resource::Nofile, lowered).expect("lowered");
    let mut clients: Vec<Option<TcpStream>> = Vec::new();
    for number in 0..COUNT {
        let mut client = connect(port);
        client.write_all(&[number]).expect("write");
        clients.push(Some(client));
    }
    for _ in 0..COUNT {
        let peer = server.accept();
        let number = read_exactly(&peer, 1)[0];
        drop(peer);
        let client = clients[usize::from(number)].take().expect("each once");
        assert_eq!(read_all(&client), b"");
    }
    session.send("exit 0\n");
    let told = String::from_utf8(session.wait_for_code(0).stderr).expect("text");
    assert_eq!(told.matches("accepting pauses").count(), 1, "{told}");
}

#[test]
fn nothing_wakes_up_while_nothing_happens() {
    let (mut session, server, port) = session_of(
        Program::proxy()
            .args(["-b", "20", "--reach", "in-job"])
            .open_files(70),
    );
    // Connections that are open, some that wait in the kernel for a free place, and no traffic.
    let clients: Vec<TcpStream> = (0..15).map(|_| connect(port)).collect();
    let peer = server.accept();
    assert_eq!(session.ask("echo idle"), "idle");
    let wakeups = |session: &Session| {
        let ours = session.processes().into_iter();
        let ours = ours.filter(|process| process.mentions("vscode-shell-proxy"));
        let count = |process: Process| {
            let kinds = ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"];
            kinds
                .map(|kind| process.status_kib(kind).expect("a line of the status"))
                .iter()
                .sum()
        };
        ours.map(count).collect::<Vec<u64>>()
    };
    // What was begun ends first: until a second passes in which no process ran.
    let mut last = (wakeups(&session), Instant::now());
    assert_eq!(
        last.0.len(),
        3,
        "the proxy, its keeper, the relay in the job"
    );
    session.until("a second without a wakeup", |session| {
        let now = wakeups(session);
        if now != last.0 {
            last = (now, Instant::now());
        }
        (last.1.elapsed() > Duration::from_secs(1)).then_some(())
    });
    drop((clients, peer));
}

#[test]
fn the_job_gets_the_limits_that_the_proxy_was_started_with() {
    let program = Program::proxy().args(["--", "bash"]);
    let script = "ulimit -Sn 77 && exec \"$0\" \"$@\"";
    let mut session = program.under(["sh", "-c", script]).start();
    assert_eq!(session.ask("ulimit -Sn"), "77");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", session.pid()));
    let limits = limits.expect("the proxy runs");
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let numbers: Vec<&str> = line.expect("that line").split_ascii_whitespace().collect();
    assert_eq!(numbers[3], numbers[4], "its own soft limit is the hard one");
}

#[test]
fn a_busy_connection_starves_neither_the_streams_nor_another_connection() {
    let (mut session, server, port) = session();
    let bulk = connect(port);
    let bulk_peer = server.accept();
    let mut other = connect(port);
    let mut other_peer = server.accept();
    thread::scope(|scope| {
        scope.spawn(|| {
            let block = noise(6, 1 << 20);
            // Until the client closes it.
            while (&bulk_peer).write_all(&block).is_ok() {}
        });
        scope.spawn(|| {
            let mut block = vec![0; 1 << 20];
            while matches!((&bulk).read(&mut block), Ok(1..)) {}
        });
        for number in 0..50 {
            assert_eq!(session.ask(&format!("echo {number}")), number.to_string());
            other.write_all(b"ping").expect("write");
            assert_eq!(read_exactly(&other_peer, 4), b"ping");
            other_peer.write_all(b"pong").expect("write");
            assert_eq!(read_exactly(&other, 4), b"pong");
        }
        bulk.shutdown(Shutdown::Both).expect("shutdown");
        let _ = bulk_peer.shutdown(Shutdown::Both);
    });
}
