//! From exec to listening, beside the plain relay, socat and `/bin/true`.
//!
//! `cargo bench --bench startup -- [--quick]`. The proxy binds its listener before it starts
//! anything, so the launch command is not in this figure. *First address* is the time from exec to
//! the rewritten line of a shell that announces an address at once; there `PEER_CMD` may name a
//! program of the same kind (see `support/contestant.rs`).
//!
//! The program starts on CPU 1, and is watched by attempts to connect from CPU 0.

mod support;

use std::io;
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use support::contestant::{self, free_port};
use support::record::Record;
use support::{Peers, Plan, installed, pin, proxy};

/// Starts in each round.
const STARTS: usize = 20;
/// How long one may take.
const BOUND: Duration = Duration::from_secs(20);

fn main() -> io::Result<()> {
    let plan = Plan::from_args();
    let peers = Peers::build();
    let mut record = Record::default();
    pin(std::process::id(), 0);
    let socat = installed("socat");
    if socat.is_none() {
        println!("left out: socat is not installed");
    }
    let starts = if plan.quick { 2 } else { STARTS };
    for _ in 0..plan.rounds * starts {
        let mut sample = |scenario, name, time: Duration| {
            record.sample(scenario, name, ("time", "ms"), time.as_secs_f64() * 1e3);
        };
        let listening = "exec to listening";
        let port = free_port()?;
        let mut ours = Command::new(proxy());
        ours.args(["-q", "-p", &port.to_string(), "--", "sleep", "60"]);
        sample(listening, "proxy", until_listening(ours, port)?);
        let mut plain = Command::new(peers.path("polling-relay"));
        let port = free_port()?;
        plain.args(["1", &port.to_string()]);
        sample(listening, "polling-relay", until_listening(plain, port)?);
        if let Some(socat) = &socat {
            let port = free_port()?;
            let mut command = Command::new(socat);
            command.arg(format!("TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork"));
            command.arg("PIPE");
            sample(listening, "socat", until_listening(command, port)?);
        }
        let (mut process, began) = start(Command::new("/bin/true"))?;
        process.wait()?;
        sample(listening, "/bin/true (to its end)", began.elapsed());

        let first = "exec to the first address";
        let began = Instant::now();
        let session = contestant::ours("proxy", &[], &[], 1)?;
        sample(first, "proxy", began.elapsed());
        drop(session);
        if std::env::var("PEER_CMD").is_ok_and(|peer| !peer.contains("{listen}")) {
            let began = Instant::now();
            if let Some(session) = contestant::any_other(1) {
                session?;
                sample(first, "PEER_CMD", began.elapsed());
            }
        }
    }
    record.print("proxy");
    record.save("startup");
    Ok(())
}

/// Runs `command` until somebody listens on `port`; from its start to that moment.
fn until_listening(command: Command, port: u16) -> io::Result<Duration> {
    let (mut process, began) = start(command)?;
    let listening = loop {
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => break Ok(began.elapsed()),
            Err(error) if began.elapsed() > BOUND => break Err(error),
            Err(_) => {}
        }
    };
    process.kill()?;
    process.wait()?;
    listening
}

/// Starts `command` on CPU 1.
fn start(mut command: Command) -> io::Result<(Child, Instant)> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    // A child runs where the thread ran that started it.
    let thread = thread::spawn(move || {
        pin(nix::unistd::gettid().as_raw().cast_unsigned(), 1);
        let began = Instant::now();
        Ok((command.spawn()?, began))
    });
    thread
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the starting thread has panicked")))
}
