//! As many bytes as go through.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use polling::{Event, Events};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create, sendfile};
use rustix::net::{RecvFlags, recv};

use crate::cpu::Relay;
use crate::pairs::{BOUND, Pair, Watch, some};

/// What the ends do with a byte.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// Nothing: the sender lends pages of a file, the receiver drops what has arrived.
    Pass,
    /// They copy it out of a buffer and into one.
    Touch,
}

/// The most that one call moves without touching.
const PASS: usize = 1024 * 1024;
/// The buffer of an end that touches.
const TOUCH: usize = 256 * 1024;

pub fn run(
    server: &TcpListener,
    to: u16,
    relay: &Relay,
    conns: usize,
    dir: &str,
    ends: Ends,
    ms: u64,
) -> io::Result<String> {
    let pairs = Pair::several(server, to, conns)?;
    let (up, down) = (dir != "down", dir != "up");
    // A client's key is even: it sends what goes up and receives what goes down.
    let sends = |key: usize| [up, down][key % 2];
    let receives = |key: usize| [down, up][key % 2];
    let watch = Watch::new(&pairs, |key| Event::new(key, receives(key), sends(key)))?;
    let mut ends = Mover::new(ends)?;
    let mut received = vec![0u64; 2 * conns];

    // Buffers and windows grow during the first fifth, which does not count.
    let span = Duration::from_millis(ms);
    pump(&watch, &mut ends, &mut received, span / 5)?;
    received.fill(0);
    let before = relay.cpu();
    let lasted = pump(&watch, &mut ends, &mut received, span)?;
    let cpu = relay.cpu() - before;

    let bytes: u64 = received.iter().sum();
    let of_pair: Vec<u64> = received.chunks(2).map(|pair| pair.iter().sum()).collect();
    let (least, most) = (of_pair.iter().min(), of_pair.iter().max());
    let fair = *least.unwrap_or(&0) as f64 / (*most.unwrap_or(&1)).max(1) as f64;
    let ns = lasted.as_nanos();
    Ok(format!("bytes={bytes} ns={ns} cpu={cpu} fair={fair:.4}"))
}

fn pump(
    watch: &Watch<'_>,
    ends: &mut Mover,
    received: &mut [u64],
    span: Duration,
) -> io::Result<Duration> {
    let began = Instant::now();
    let mut events = Events::new();
    loop {
        events.clear();
        if watch.poller.wait(&mut events, Some(BOUND))? == 0 {
            return Err(io::Error::other("nothing goes through"));
        }
        for event in events.iter() {
            let end = watch.end(event.key);
            if event.readable {
                match some(ends.receive(end))? {
                    Some(0) => return Err(io::Error::other("a connection has ended")),
                    bytes => received[event.key] += bytes.unwrap_or(0) as u64,
                }
            }
            if event.writable {
                some(ends.send(end, usize::MAX))?;
            }
        }
        let lasted = began.elapsed();
        if lasted >= span {
            return Ok(lasted);
        }
    }
}

/// How bytes are sent and received.
pub struct Mover {
    ends: Ends,
    file: OwnedFd,
    buffer: Vec<u8>,
}

impl Mover {
    pub fn new(ends: Ends) -> io::Result<Self> {
        let file = memfd_create("bulk", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, PASS as u64)?;
        let size = if ends == Ends::Pass { PASS } else { TOUCH };
        Ok(Self {
            ends,
            file,
            buffer: vec![0; size],
        })
    }

    /// Sends `most` bytes, if one call sends so many.
    pub fn send(&self, mut end: &TcpStream, most: usize) -> io::Result<usize> {
        let most = most.min(self.buffer.len());
        match self.ends {
            Ends::Pass => Ok(sendfile(end, &self.file, Some(&mut 0), most)?),
            Ends::Touch => end.write(&self.buffer[..most]),
        }
    }

    pub fn receive(&mut self, mut end: &TcpStream) -> io::Result<usize> {
        match self.ends {
            // With MSG_TRUNC a TCP socket drops what it would have copied (tcp(7)).
            Ends::Pass => Ok(recv(end, &mut self.buffer[..], RecvFlags::TRUNC)?.1),
            Ends::Touch => end.read(&mut self.buffer),
        }
    }
}
