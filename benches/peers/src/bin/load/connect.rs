//! Whole lives of connections.

use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::time::Instant;

use crate::cpu::Relay;
use crate::pairs::Pair;

pub fn run(server: &TcpListener, to: u16, relay: &Relay, count: usize) -> io::Result<String> {
    live(server, to)?;
    let before = relay.cpu();
    let began = Instant::now();
    for _ in 0..count {
        live(server, to)?;
    }
    let (cpu, ns) = (relay.cpu() - before, began.elapsed().as_nanos());
    Ok(format!("count={count} ns={ns} cpu={cpu}"))
}

/// A message, its answer, and the end from the client's side.
fn live(server: &TcpListener, to: u16) -> io::Result<()> {
    let Pair {
        mut client,
        mut server,
    } = Pair::connect(server, to)?;
    let mut message = [0; 64];
    client.write_all(&message)?;
    server.read_exact(&mut message)?;
    server.write_all(&message)?;
    client.read_exact(&mut message)?;
    drop(client);
    match server.read(&mut message)? {
        0 => Ok(()),
        bytes => Err(io::Error::other(format!("{bytes} bytes that nobody sent"))),
    }
}
