//! Small messages, to and fro.

use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use polling::{Event, Events};

use crate::cpu::Relay;
use crate::pairs::{BOUND, Pair, Watch, some};

/// Bytes of a message.
const SIZE: usize = 64;

pub fn run(
    server: &TcpListener,
    to: u16,
    relay: &Relay,
    conns: usize,
    ms: u64,
) -> io::Result<String> {
    let pairs = Pair::several(server, to, conns)?;
    let span = Duration::from_millis(ms);
    let mut times = Vec::with_capacity(1 << 20);
    let mut exchange = |span: Duration| {
        times.clear();
        let before = relay.cpu();
        let began = Instant::now();
        match &pairs[..] {
            [pair] => one(pair, began, span, &mut times)?,
            pairs => many(pairs, began, span, &mut times)?,
        }
        times.sort_unstable();
        let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or(0);
        let (cpu, ns) = (relay.cpu() - before, began.elapsed().as_nanos());
        let (count, p50, p99) = (times.len(), at(50), at(99));
        Ok(format!(
            "count={count} ns={ns} cpu={cpu} p50={p50} p99={p99}"
        ))
    };
    exchange(span / 5).and_then(|_: String| exchange(span))
}

/// One connection needs no poller: whose turn it is, is known.
fn one(pair: &Pair, began: Instant, span: Duration, times: &mut Vec<u32>) -> io::Result<()> {
    let mut message = [0; SIZE];
    let (mut client, mut server) = (&pair.client, &pair.server);
    loop {
        let sent = began.elapsed();
        client.write_all(&message)?;
        server.read_exact(&mut message)?;
        server.write_all(&message)?;
        client.read_exact(&mut message)?;
        let now = began.elapsed();
        times.push(u32::try_from((now - sent).as_nanos()).unwrap_or(u32::MAX));
        if now >= span {
            return Ok(());
        }
    }
}

fn many(pairs: &[Pair], began: Instant, span: Duration, times: &mut Vec<u32>) -> io::Result<()> {
    let watch = Watch::new(pairs, Event::readable)?;
    let mut message = [0; SIZE];
    let mut arrived = vec![0; 2 * pairs.len()];
    let mut sent = vec![began.elapsed(); pairs.len()];
    for mut client in pairs.iter().map(|pair| &pair.client) {
        client.write_all(&message)?;
    }
    // Those that are under way when the time is over come to their end, so that the next one finds
    // empty connections.
    let mut under_way = pairs.len();
    let mut events = Events::new();
    while under_way > 0 {
        events.clear();
        if watch.poller.wait(&mut events, Some(BOUND))? == 0 {
            return Err(io::Error::other("a message does not arrive"));
        }
        for key in events.iter().map(|event| event.key) {
            let mut end = watch.end(key);
            arrived[key] += match some(end.read(&mut message[arrived[key]..]))? {
                Some(0) => return Err(io::Error::other("a connection has ended")),
                bytes => bytes.unwrap_or(0),
            };
            if arrived[key] < SIZE {
                continue;
            }
            arrived[key] = 0;
            if key % 2 == 0 {
                let now = began.elapsed();
                let took = now - std::mem::replace(&mut sent[key / 2], now);
                times.push(u32::try_from(took.as_nanos()).unwrap_or(u32::MAX));
                if now >= span {
                    under_way -= 1;
                    continue;
                }
            }
            // A message fits into any send buffer that is empty.
            end.write_all(&message)?;
        }
    }
    Ok(())
}
