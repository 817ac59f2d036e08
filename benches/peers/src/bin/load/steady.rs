//! So many bytes in a second, whoever relays them: bursts, each of which arrives before the next.

use std::io;
use std::net::TcpListener;
use std::thread::sleep;
use std::time::{Duration, Instant};

use polling::{Event, Events};

use crate::bulk::{Ends, Mover};
use crate::cpu::Relay;
use crate::pairs::{BOUND, Pair, Watch, some};

const BURST: usize = 256 * 1024;

/// `rate` is in MB/s.
pub fn run(
    server: &TcpListener,
    to: u16,
    relay: &Relay,
    dir: &str,
    rate: u64,
    ms: u64,
) -> io::Result<String> {
    let pairs = Pair::several(server, to, 1)?;
    let (source, sink) = if dir == "down" { (1, 0) } else { (0, 1) };
    let watch = Watch::new(&pairs, |key| Event::new(key, key == sink, false))?;
    let mut ends = Mover::new(Ends::Pass)?;
    let mut events = Events::new();
    let mut burst = || -> io::Result<()> {
        let (mut to_send, mut to_receive) = (BURST, BURST);
        while to_receive > 0 {
            if to_send > 0 {
                to_send -= some(ends.send(watch.end(source), to_send))?.unwrap_or(0);
            }
            events.clear();
            if watch.poller.wait(&mut events, Some(BOUND))? == 0 {
                return Err(io::Error::other("nothing goes through"));
            }
            match some(ends.receive(watch.end(sink)))? {
                Some(0) => return Err(io::Error::other("the connection has ended")),
                bytes => to_receive -= bytes.unwrap_or(0),
            }
        }
        Ok(())
    };
    let period = Duration::from_nanos(BURST as u64 * 1000 / rate.max(1));
    let span = Duration::from_millis(ms);
    let mut pace = |span: Duration| -> io::Result<(u64, Duration)> {
        let began = Instant::now();
        let mut bursts = 0;
        while began.elapsed() < span {
            burst()?;
            bursts += 1;
            sleep((period * bursts).saturating_sub(began.elapsed()));
        }
        Ok((u64::from(bursts) * BURST as u64, began.elapsed()))
    };
    // Buffers and windows grow during the first fifth, which does not count.
    pace(span / 5)?;
    let before = relay.cpu();
    let (bytes, lasted) = pace(span)?;
    let cpu = relay.cpu() - before;
    Ok(format!("bytes={bytes} ns={} cpu={cpu}", lasted.as_nanos()))
}
