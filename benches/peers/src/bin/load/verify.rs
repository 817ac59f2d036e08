//! Every byte, in order, up to the end, both ways, with either side ending first.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use polling::{Event, Events, PollMode};

use crate::pairs::{BOUND, Pair, Watch, some};

/// One end: what it still has to send, and what it has received.
#[derive(Clone, Copy, Default)]
struct End {
    sent: usize,
    received: usize,
    shut: bool,
    ended: bool,
    /// It sends nothing before the other side has ended.
    answers: bool,
}

pub fn run(server: &TcpListener, to: u16, conns: usize, bytes: usize) -> io::Result<String> {
    let pairs = Pair::several(server, to, conns)?;
    // Of three connections one is ended first by its client, one by its server, one by both.
    let mut ends: Vec<End> = (0..2 * conns)
        .map(|key| End {
            answers: (key / 2) % 3 == key % 2,
            ..End::default()
        })
        .collect();
    let interest = |key: usize, end: &End| {
        Event::new(key, !end.ended, !end.shut && (!end.answers || end.ended))
    };
    let watch = Watch::new(&pairs, |key| interest(key, &ends[key]))?;
    let mut buffer = vec![0; 64 * 1024];
    let mut open = ends.len();
    let mut events = Events::new();
    while open > 0 {
        events.clear();
        if watch.poller.wait(&mut events, Some(BOUND))? == 0 {
            return Err(io::Error::other(format!("{open} ends wait in vain")));
        }
        for event in events.iter() {
            let (key, stream) = (event.key, watch.end(event.key));
            let end = &mut ends[key];
            let was = *end;
            if event.readable && !end.ended {
                receive(stream, key, end, bytes, &mut buffer)?;
            }
            if event.writable && !end.shut {
                send(stream, key, end, bytes, &mut buffer)?;
            }
            if (was.ended, was.shut) != (end.ended, end.shut) {
                open -= usize::from(end.ended && end.shut);
                watch
                    .poller
                    .modify_with_mode(stream, interest(key, end), PollMode::Level)?;
            }
        }
    }
    Ok(format!("bytes={}", bytes * ends.len()))
}

fn send(
    mut stream: &TcpStream,
    key: usize,
    end: &mut End,
    bytes: usize,
    buffer: &mut [u8],
) -> io::Result<()> {
    let most = buffer.len().min(bytes - end.sent);
    for (offset, byte) in buffer[..most].iter_mut().enumerate() {
        *byte = byte_at(key, end.sent + offset);
    }
    end.sent += some(stream.write(&buffer[..most]))?.unwrap_or(0);
    if end.sent == bytes {
        stream.shutdown(Shutdown::Write)?;
        end.shut = true;
    }
    Ok(())
}

fn receive(
    mut stream: &TcpStream,
    key: usize,
    end: &mut End,
    bytes: usize,
    buffer: &mut [u8],
) -> io::Result<()> {
    let Some(got) = some(stream.read(buffer))? else {
        return Ok(());
    };
    for (offset, byte) in buffer[..got].iter().enumerate() {
        // What comes was sent by the pair's other end.
        if *byte != byte_at(key ^ 1, end.received + offset) {
            let at = end.received + offset;
            return Err(io::Error::other(format!("byte {at} of end {key} is wrong")));
        }
    }
    end.received += got;
    end.ended = got == 0;
    if end.received > bytes || (end.ended && end.received < bytes) {
        let got = end.received;
        return Err(io::Error::other(format!(
            "end {key} got {got} of {bytes} bytes"
        )));
    }
    Ok(())
}

/// Any two ends and any two near offsets differ: a lost, doubled or strayed byte shows.
fn byte_at(key: usize, offset: usize) -> u8 {
    let mixed = (offset as u64 ^ (key as u64) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}
