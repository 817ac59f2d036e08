//! The plain relay: level-triggered, a buffer for each direction of each connection, interest
//! changed whenever a buffer fills or empties. No trick, and nothing wrong with it.
//!
//! `polling-relay BACKEND-PORT [LISTEN-PORT]` prints the port on which it listens.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};

use polling::{Event, Events, PollMode, Poller};

const SIZE: usize = 64 * 1024;
const LISTENER: usize = 0;

fn main() -> io::Result<()> {
    let mut ports = std::env::args().skip(1).map(|port| port.parse::<u16>());
    let (Some(Ok(backend)), Ok(port)) = (ports.next(), ports.next().unwrap_or(Ok(0))) else {
        return Err(io::Error::other(
            "usage: polling-relay BACKEND-PORT [LISTEN-PORT]",
        ));
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    let poller = Poller::new()?;
    watch(&poller, &listener, Event::readable(LISTENER))?;
    println!("{}", listener.local_addr()?.port());
    io::stdout().flush()?;

    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut events = Events::new();
    loop {
        events.clear();
        poller.wait(&mut events, None)?;
        for event in events.iter() {
            if event.key == LISTENER {
                accept(&listener, backend, &poller, &mut connections)?;
                continue;
            }
            let index = (event.key - 1) / 2;
            let Some(place) = connections.get_mut(index) else {
                continue;
            };
            if let Some(connection) = place
                && connection.turn(index, &poller).is_err()
            {
                for end in &connection.ends {
                    poller.delete(end)?;
                }
                *place = None;
            }
        }
    }
}

#[allow(unsafe_code)]
fn watch(poller: &Poller, end: impl polling::AsRawSource, event: Event) -> io::Result<()> {
    // SAFETY: every source is deleted from the poller before it is closed; the listener never is.
    unsafe { poller.add_with_mode(end, event, PollMode::Level) }
}

fn accept(
    listener: &TcpListener,
    backend: u16,
    poller: &Poller,
    connections: &mut Vec<Option<Connection>>,
) -> io::Result<()> {
    let client = match listener.accept() {
        Ok((client, _)) => client,
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
        Err(error) => return Err(error),
    };
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, backend)) else {
        return Ok(());
    };
    let vacant = connections.iter().position(Option::is_none);
    let index = vacant.unwrap_or(connections.len());
    let ends = [client, server];
    let mut interest = [Event::none(0); 2];
    for (end, stream) in ends.iter().enumerate() {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        interest[end] = Event::readable(1 + 2 * index + end);
        watch(poller, stream, interest[end])?;
    }
    let connection = Some(Connection {
        ends,
        interest,
        halves: [Half::new(), Half::new()],
    });
    match vacant {
        Some(index) => connections[index] = connection,
        None => connections.push(connection),
    }
    Ok(())
}

struct Connection {
    ends: [TcpStream; 2],
    interest: [Event; 2],
    /// `halves[i]` reads from `ends[i]`.
    halves: [Half; 2],
}

/// One direction. `0 <= start <= end <= SIZE`
struct Half {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    ended: bool,
    shut: bool,
}

impl Connection {
    /// Moves what can be moved; an error, or the end of both directions, is the end of all.
    fn turn(&mut self, index: usize, poller: &Poller) -> io::Result<()> {
        for from in 0..2 {
            self.halves[from].pump(&self.ends[from], &self.ends[1 - from])?;
        }
        if self.halves.iter().all(|half| half.shut) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        for end in 0..2 {
            let (reads, writes) = (&self.halves[end], &self.halves[1 - end]);
            let wanted = Event::new(
                1 + 2 * index + end,
                !reads.ended && reads.is_empty(),
                !writes.is_empty(),
            );
            if wanted != self.interest[end] {
                poller.modify_with_mode(&self.ends[end], wanted, PollMode::Level)?;
                self.interest[end] = wanted;
            }
        }
        Ok(())
    }
}

impl Half {
    fn new() -> Self {
        let buffer = vec![0; SIZE].into_boxed_slice();
        let (start, end) = (0, 0);
        Self {
            buffer,
            start,
            end,
            ended: false,
            shut: false,
        }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Writes what is left over; then reads once, and writes that.
    fn pump(&mut self, mut source: &TcpStream, mut sink: &TcpStream) -> io::Result<()> {
        if self.is_empty() && !self.ended {
            (self.start, self.end) = (0, 0);
            match source.read(&mut self.buffer) {
                Ok(0) => self.ended = true,
                Ok(bytes) => self.end = bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if !self.is_empty() {
            match sink.write(&self.buffer[self.start..self.end]) {
                Ok(bytes) => self.start += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if self.is_empty() && self.ended && !self.shut {
            sink.shutdown(Shutdown::Write)?;
            self.shut = true;
        }
        Ok(())
    }
}
