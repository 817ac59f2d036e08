//! What admission costs a connection: looked up by `sock_diag`, by `/proc/net/tcp`, not at all.
//!
//! `cargo bench --bench admission -- [--quick]`. One thread connects to its own listener, accepts
//! and resets; the contestants take turns, and each round's CPU time is that of this thread, system
//! time included. The figure is the median of the rounds, with the least and the most.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use rustix::net::sockopt::set_socket_linger;
use vscode_shell_proxy::sys::peer::Lookup;

/// A contestant's name, and its look-up if it has one.
type Contestant = (&'static str, Option<Lookup>);

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let (rounds, connections) = if quick { (3, 200) } else { (21, 2_000) };
    let mut contestants: [Contestant; 3] = [
        ("no look-up", None),
        ("sock_diag", Some(Lookup::new())),
        ("/proc/net/tcp", Some(Lookup::by_proc())),
    ];
    let mut times: [Vec<Duration>; 3] = Default::default();
    for _ in 0..rounds {
        for ((_, lookup), times) in contestants.iter_mut().zip(&mut times) {
            times.push(round(lookup, connections) / connections);
        }
    }
    println!("connect, accept, reset: CPU time per connection, {rounds} rounds of {connections}");
    println!(
        "/proc/net/tcp grows with the node's sockets; it has {} rows here",
        rows()
    );
    let mut base = None;
    for ((name, _), times) in contestants.iter().zip(&mut times) {
        times.sort();
        let [least, median, most] =
            [0, times.len() / 2, times.len() - 1].map(|at| times[at].as_nanos() as f64 / 1000.0);
        let base = *base.get_or_insert(median);
        println!(
            "{name:15} {median:7.2} us ({least:.2} to {most:.2}), {:.2} x",
            median / base
        );
    }
}

fn round(lookup: &mut Option<Lookup>, connections: u32) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port of 127.0.0.1");
    let at = listener
        .local_addr()
        .expect("a bound socket has an address");
    let before = cpu_time();
    for _ in 0..connections {
        connection(lookup, &listener, at);
    }
    cpu_time() - before
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
