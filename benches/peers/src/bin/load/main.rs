//! The load: both far ends of a relay in one process, on one CPU, with the relay on another.
//!
//! It owns the server that all relays lead to, prints that server's port, and then obeys one
//! command a line on stdin with one line of `key=value` on stdout:
//!
//! | command | does | answers |
//! |---|---|---|
//! | `bulk` | as many bytes as go through in `ms`, `dir=up`, `down` or `both`, over `conns`; `ends=pass` touches no byte, `ends=touch` reads and writes them | `bytes` `ns` `fair` (slowest by fastest connection) |
//! | `steady` | `rate` MB a second over one connection, for `ms`, `dir=up` or `down` | `bytes` `ns` |
//! | `trips` | messages of 64 bytes to and fro, one under way on each of `conns` | `count` `ns` `p50` `p99` (ns) |
//! | `connect` | `count` connections, one after the other: a message to, one fro, the client closes | `count` `ns` |
//! | `verify` | `conns` at once, `bytes` each way, every byte checked, half-closed by either side first | `bytes` |
//!
//! All take `to=PORT`, where the relay listens (or this server itself, for none); `pid=PID` of the
//! relay, whose CPU time, with that of all below it, comes back as `cpu` in ns; and `own=CPU`,
//! `relay=CPU`, where the two shall run.

mod bulk;
mod connect;
mod cpu;
mod pairs;
mod steady;
mod trips;
mod verify;

use std::collections::HashMap;
use std::io::{self, BufRead, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::str::FromStr;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn main() -> io::Result<()> {
    let files = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: files.maximum,
        ..files
    };
    setrlimit(Resource::Nofile, most)?;
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    rustix::net::listen(&server, 4096)?;
    let mut stdout = io::stdout();
    writeln!(stdout, "{}", server.local_addr()?.port())?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        match Command::parse(&line).run(&server) {
            Ok(answer) => writeln!(stdout, "{answer}")?,
            Err(error) => writeln!(stdout, "error={error}")?,
        }
        stdout.flush()?;
    }
    Ok(())
}

/// A word and its `key=value` arguments.
struct Command<'a> {
    word: &'a str,
    args: HashMap<&'a str, &'a str>,
}

impl<'a> Command<'a> {
    fn parse(line: &'a str) -> Self {
        let mut words = line.split_ascii_whitespace();
        let word = words.next().unwrap_or_default();
        let args = words.filter_map(|word| word.split_once('=')).collect();
        Self { word, args }
    }

    fn number<T: FromStr>(&self, key: &str, default: T) -> T {
        let given = self.args.get(key).and_then(|value| value.parse().ok());
        given.unwrap_or(default)
    }

    fn run(&self, server: &TcpListener) -> io::Result<String> {
        // What waits here is left over from before: somebody looked whether a relay listens.
        server.set_nonblocking(true)?;
        while server.accept().is_ok() {}
        server.set_nonblocking(false)?;
        let relay = cpu::Relay::new(self.number("pid", 0));
        relay.pin(self.number("own", 0), self.number("relay", 1))?;
        let to = self.number("to", server.local_addr()?.port());
        let ms = self.number("ms", 500);
        let conns = self.number("conns", 1);
        match self.word {
            "bulk" => {
                let dir = self.args.get("dir").copied().unwrap_or("up");
                let ends = match self.args.get("ends").copied() {
                    Some("touch") => bulk::Ends::Touch,
                    _ => bulk::Ends::Pass,
                };
                bulk::run(server, to, &relay, conns, dir, ends, ms)
            }
            "steady" => {
                let dir = self.args.get("dir").copied().unwrap_or("up");
                steady::run(server, to, &relay, dir, self.number("rate", 400), ms)
            }
            "trips" => trips::run(server, to, &relay, conns, ms),
            "connect" => connect::run(server, to, &relay, self.number("count", 500)),
            "verify" => verify::run(server, to, conns, self.number("bytes", 65536)),
            word => Err(io::Error::other(format!("no command: {word}"))),
        }
    }
}
