//! The relay, through the real program, beside its peers.
//!
//! `cargo bench --bench relay -- [--quick] [FILTER]`. A peer that is not installed is left out, and
//! said so; `PEER_CMD` adds one (see `support/contestant.rs`). The load runs on CPU 0 and the relay
//! on CPU 1, except where a scenario says otherwise; direct connections have both their ends on
//! CPU 0. `proxy, in-job` is the proxy with a relay in the job, which stands for one on another machine: it
//! runs with the load, and its CPU time is nobody's.

mod support;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

use support::contestant::{self, Contestant};
use support::load::Load;
use support::record::Record;
use support::{Peers, Plan};

/// How the figures of a scenario are made of what the load generator counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bulk,
    Trips,
    Connect,
    Verify,
}

/// A scenario's name in tables, the load generator's command for it, and its figures.
type Scenario = (&'static str, &'static str, Kind);

const SCENARIOS: &[Scenario] = &[
    ("up, 1 connection", "bulk dir=up conns=1", Kind::Bulk),
    ("down, 1 connection", "bulk dir=down conns=1", Kind::Bulk),
    (
        "both ways, 1 connection",
        "bulk dir=both conns=1",
        Kind::Bulk,
    ),
    ("up, 8 connections", "bulk dir=up conns=8", Kind::Bulk),
    ("down, 8 connections", "bulk dir=down conns=8", Kind::Bulk),
    (
        "both ways, 8 connections",
        "bulk dir=both conns=8",
        Kind::Bulk,
    ),
    (
        "up, 1 connection, bytes touched",
        "bulk dir=up conns=1 ends=touch",
        Kind::Bulk,
    ),
    (
        "down, 1 connection, bytes touched",
        "bulk dir=down conns=1 ends=touch",
        Kind::Bulk,
    ),
    (
        "up, 8 connections, bytes touched",
        "bulk dir=up conns=8 ends=touch",
        Kind::Bulk,
    ),
    (
        "up, 1 connection, 400 MB/s",
        "steady dir=up rate=400",
        Kind::Bulk,
    ),
    (
        "down, 1 connection, 400 MB/s",
        "steady dir=down rate=400",
        Kind::Bulk,
    ),
    (
        "64-byte round trips, 1 connection",
        "trips conns=1",
        Kind::Trips,
    ),
    (
        "64-byte round trips, 64 connections",
        "trips conns=64",
        Kind::Trips,
    ),
    (
        "64-byte round trips, 1 connection, one CPU",
        "trips conns=1 own=0 relay=0",
        Kind::Trips,
    ),
    ("connections", "connect", Kind::Connect),
    (
        "1000 connections, every byte checked",
        "verify conns=1000 bytes=65536",
        Kind::Verify,
    ),
];

const SWEPT: &[Scenario] = &[
    ("sweep: up, 1 connection", "bulk dir=up conns=1", Kind::Bulk),
    (
        "sweep: up, 8 connections",
        "bulk dir=up conns=8",
        Kind::Bulk,
    ),
];

const LIMITS: [&str; 5] = ["4096", "16384", "65536", "262144", "1048576"];

fn main() {
    let plan = Plan::from_args();
    let peers = Peers::build();
    let network = support::network::unpaced();
    let mut load = Load::start(&peers);
    let mut record = Record::default();
    record.fact("network", &network);
    let field = field(&peers, load.port);
    for contestant in &field {
        record.fact(&contestant.name, &contestant.command);
    }
    compete(&plan, SCENARIOS, &field, &mut load, &mut record);
    drop(field);
    let field = sweep(&peers, load.port);
    compete(&plan, SWEPT, &field, &mut load, &mut record);
    record.print("proxy");
    record.save("relay");
}

/// Everybody who can be started.
fn field(peers: &Peers, backend: u16) -> Vec<Contestant> {
    let without_splice = [peers.path("without-splice")];
    let ours = |name: &'static str, under: &[PathBuf], reach: &str| {
        let started = contestant::ours(name, under, &["--reach", reach], backend);
        (name, Some(started))
    };
    let candidates = [
        ours("proxy", &[], "direct"),
        ours("proxy, no splice", &without_splice, "direct"),
        ours("proxy, in-job", &[], "in-job"),
        (
            "polling-relay",
            Some(contestant::peer("polling-relay", peers, backend)),
        ),
        (
            "tokio-relay",
            Some(contestant::peer("tokio-relay", peers, backend)),
        ),
        ("haproxy", contestant::haproxy(false, backend)),
        ("haproxy-splice", contestant::haproxy(true, backend)),
        ("nginx", contestant::nginx(backend)),
        ("socat", contestant::socat(backend)),
        ("ssh -L", contestant::ssh(backend)),
        ("PEER_CMD", contestant::any_other(backend)),
    ];
    let mut field = vec![contestant::direct(backend)];
    for (name, candidate) in candidates {
        match candidate {
            Some(Ok(contestant)) => field.push(contestant),
            Some(Err(error)) => println!("left out: {name}: {error}"),
            None if name == "PEER_CMD" => {}
            None => println!("left out: {name} is not installed"),
        }
    }
    field
}

/// The proxy with each byte limit, with splice and without.
fn sweep(peers: &Peers, backend: u16) -> Vec<Contestant> {
    let without_splice = [peers.path("without-splice")];
    let start = |limit: &str, splice: bool| -> io::Result<Contestant> {
        let args = ["--reach", "direct", "--byte-limit", limit];
        match splice {
            true => contestant::ours(&format!("-B {limit}"), &[], &args, backend),
            false => {
                let name = format!("-B {limit}, no splice");
                contestant::ours(&name, &without_splice, &args, backend)
            }
        }
    };
    let all = LIMITS
        .iter()
        .flat_map(|limit| [start(limit, true), start(limit, false)]);
    all.map(|started| started.expect("the proxy starts"))
        .collect()
}

fn compete(
    plan: &Plan,
    scenarios: &[Scenario],
    field: &[Contestant],
    load: &mut Load,
    record: &mut Record,
) {
    for _ in 0..plan.rounds {
        for &(name, command, kind) in scenarios.iter().filter(|(name, ..)| plan.wants(name)) {
            let command = format!("{command} ms={}", plan.ms);
            for contestant in field.iter().filter(|one| takes_part(one, kind)) {
                match load.measure(&command, contestant) {
                    Ok(counted) => note(name, kind, contestant, &counted, record),
                    Err(error) => {
                        let ours = contestant.name.starts_with("proxy");
                        assert!(!ours, "{name}: {}: {error}", contestant.name);
                        println!("{name}: {}: {error}", contestant.name);
                    }
                }
            }
        }
    }
}

/// A process for each of a thousand connections would measure the machine's memory.
fn takes_part(contestant: &Contestant, kind: Kind) -> bool {
    kind != Kind::Verify || contestant.name != "socat"
}

fn note(
    scenario: &str,
    kind: Kind,
    contestant: &Contestant,
    counted: &HashMap<String, f64>,
    record: &mut Record,
) {
    let number = |key: &str| counted.get(key).copied().unwrap_or(f64::NAN);
    let relayed = contestant.pid != 0;
    let mut sample = |figure, value| record.sample(scenario, &contestant.name, figure, value);
    match kind {
        Kind::Bulk => {
            // ns for a byte are s for a GB.
            if relayed {
                sample(("cpu", "s/GB"), number("cpu") / number("bytes"));
            }
            sample(("rate", "GB/s"), number("bytes") / number("ns"));
            if scenario.contains("8 connections") {
                sample(("fair", ""), number("fair"));
            }
        }
        Kind::Trips => {
            sample(("p50", "µs"), number("p50") / 1e3);
            sample(("p99", "µs"), number("p99") / 1e3);
            if relayed {
                sample(("cpu", "µs"), number("cpu") / number("count") / 1e3);
            }
        }
        Kind::Connect => {
            sample(("rate", "/s"), number("count") / number("ns") * 1e9);
            if relayed {
                sample(("cpu", "µs"), number("cpu") / number("count") / 1e3);
            }
        }
        Kind::Verify => sample(("sound", "MB"), number("bytes") / 1e6),
    }
}
