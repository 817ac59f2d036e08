//! What admission costs a connection: looked up by `sock_diag`, by `/proc/net/tcp`, not at all; and
//! what a stranger costs the program, beside its user.
//!
//! `cargo bench --bench admission -- [--quick]`. One thread connects to its own listener, accepts
//! and resets; the contestants take turns, and each round's CPU time is that of this thread, system
//! time included. The figure is the median of the rounds, with the least and the most. Then the
//! same with the program's own CPU time: a stranger is refused, the user has a byte relayed to a
//! server and back. Only root can be a stranger.

mod support;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::unistd::{Uid, geteuid, setfsuid};
use rustix::net::sockopt::set_socket_linger;
use support::contestant::{Contestant, ours};
use support::{cpu, record};
use vscode_shell_proxy::sys::peer::Lookup;

/// A name, and the look-up if there is one.
type Contender = (&'static str, Option<Lookup>);

/// A uid that owns nothing here.
const STRANGER: u32 = 54321;

fn main() -> io::Result<()> {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let (rounds, connections) = if quick { (3, 200) } else { (21, 2_000) };
    let mut contestants: [Contender; 3] = [
        ("no look-up", None),
        ("sock_diag", Some(Lookup::new())),
        ("/proc/net/tcp", Some(Lookup::by_proc())),
    ];
    let mut times: [Vec<f64>; 3] = Default::default();
    for _ in 0..rounds {
        for ((_, lookup), times) in contestants.iter_mut().zip(&mut times) {
            times.push(round(lookup, connections));
        }
    }
    println!("connect, accept, reset: CPU time per connection, {rounds} rounds of {connections}");
    println!(
        "/proc/net/tcp grows with the node's sockets; it has {} rows here",
        rows()
    );
    let named = contestants.iter().map(|(name, _)| *name).zip(times);
    print_beside_the_first(named);

    if !geteuid().is_root() {
        println!("\nleft out, a stranger beside the user: only root can connect as another user");
        return Ok(());
    }
    let connections = connections / 4;
    println!("\nthe program's CPU time for a connection, {rounds} rounds of {connections}");
    let server = TcpListener::bind("127.0.0.1:0")?;
    let program = ours(
        "proxy",
        &[],
        &["--reach=direct"],
        server.local_addr()?.port(),
    )?;
    thread::spawn(move || {
        for peer in server.incoming() {
            peer.and_then(answer)
                .expect("the server answers its client");
        }
    });
    let (mut relayed, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        relayed.push(of_program(&program, connections, None, relay)?);
        refused.push(of_program(
            &program,
            connections,
            Some(STRANGER),
            be_refused,
        )?);
    }
    print_beside_the_first([("relayed", relayed), ("refused", refused)]);
    Ok(())
}

/// Prints the median of each contestant's figures in us, with the least and the most.
fn print_beside_the_first(figures: impl IntoIterator<Item = (&'static str, Vec<f64>)>) {
    let mut base = None;
    for (name, samples) in figures {
        let median = record::median(&samples);
        let (least, most) = record::spread(&samples);
        let base = *base.get_or_insert(median);
        println!(
            "{name:15} {median:7.2} us ({least:.2} to {most:.2}), {:.2} x",
            median / base
        );
    }
}

/// The program's CPU time in us for each of so many connections to it, one after the other, made
/// by a thread whose sockets belong to `uid`, or else to us.
fn of_program(
    program: &Contestant,
    connections: u32,
    uid: Option<u32>,
    connection: fn(u16) -> io::Result<()>,
) -> io::Result<f64> {
    let all = || {
        if let Some(uid) = uid {
            setfsuid(Uid::from_raw(uid));
        }
        (0..connections).try_for_each(|_| connection(program.port))
    };
    let before = cpu(program.pid);
    thread::scope(|scope| scope.spawn(all).join().expect("no panic"))?;
    Ok((cpu(program.pid) - before) as f64 / 1000.0 / f64::from(connections))
}

fn relay(port: u16) -> io::Result<()> {
    let mut client = TcpStream::connect(("127.0.0.1", port))?;
    client.write_all(b"x")?;
    client.read_exact(&mut [0])
}

fn be_refused(port: u16) -> io::Result<()> {
    // The reset may come before the connection is seen to stand.
    let connected = TcpStream::connect(("127.0.0.1", port));
    match connected.and_then(|mut client| client.read(&mut [0])) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
        other => Err(io::Error::other(format!("not refused: {other:?}"))),
    }
}

/// The server's end: a byte back, and its own end when the client has ended.
fn answer(mut peer: TcpStream) -> io::Result<()> {
    let mut byte = [0];
    peer.read_exact(&mut byte)?;
    peer.write_all(&byte)?;
    peer.read(&mut byte).map(drop)
}

/// This thread's CPU time in us for each of so many connections.
fn round(lookup: &mut Option<Lookup>, connections: u32) -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port of 127.0.0.1");
    let at = listener
        .local_addr()
        .expect("a bound socket has an address");
    let before = cpu_time();
    for _ in 0..connections {
        connection(lookup, &listener, at);
    }
    (cpu_time() - before).as_nanos() as f64 / 1000.0 / f64::from(connections)
}

fn connection(lookup: &mut Option<Lookup>, listener: &TcpListener, at: SocketAddr) {
    let client = TcpStream::connect(at).expect("our own listener accepts");
    let (_accepted, peer) = listener.accept().expect("a connection is there");
    if let Some(lookup) = lookup {
        let owner = lookup.owner(at, peer).expect("the kernel answers");
        assert!(owner.is_some(), "our own client is found");
    }
    // A reset, so that no round leaves the next one's /proc/net/tcp full of TIME_WAIT.
    set_socket_linger(&client, Some(Duration::ZERO)).expect("SO_LINGER");
    drop(client);
}

fn rows() -> usize {
    let count = |path| std::fs::read_to_string(path).map_or(0, |text| text.lines().count());
    count("/proc/net/tcp") + count("/proc/net/tcp6")
}

fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("getrusage of this thread");
    let micros = (usage.user_time() + usage.system_time()).num_microseconds();
    Duration::from_micros(u64::try_from(micros).expect("time since the start is positive"))
}
