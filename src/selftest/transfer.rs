//! The client's side of the TCP connections: does every byte arrive, how fast, and does the end of
//! one direction leave the other alone?

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};

use super::failure::Failure;
use super::outgoing::Outgoing;
use super::player::{Player, Woken};
use super::wire::{Pattern, Request, TOKEN, TOTALS, Tally, Task, Totals, Way};

/// How long a connection may stay without any progress.
const STALL_LIMIT: Duration = Duration::from_secs(20);
/// The length of one message of a round trip.
const MESSAGE: usize = 64;
/// Most bytes read at one time.
const BLOCK: usize = 64 * 1024;

/// Where to connect to, and what opens the server's door.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    /// The address that was announced to the client.
    pub(super) address: SocketAddr,
    /// The token that the script gave to the server.
    pub(super) token: [u8; TOKEN],
}

impl Client {
    /// A connection that the server echoes, after its first answer: proof of a way to the server,
    /// where a mere connection would be one of a way to the proxy.
    pub(super) fn echo(&self) -> Result<TcpStream, Failure> {
        let expected = "an answer of the server through the announced port";
        let stream = self
            .connect(Task::Echo, 0, 0)
            .map_err(|error| told(expected, &error))?;
        round_trip(&stream).map_err(|error| told(expected, &error))?;
        Ok(stream)
    }

    /// Sends `length` bytes each way on so many connections at a time and compares the sums; how
    /// long that took, from the first connection to the last end of file.
    pub(super) fn exchange(
        &self,
        player: &mut Player,
        connections: u64,
        length: u64,
    ) -> Result<Duration, Failure> {
        let expected = "every byte of every connection arrives, each way";
        let begin = Instant::now();
        let mut exchanges = Vec::new();
        for number in 1..=connections {
            let exchange = self.begin_exchange(number, length);
            exchanges.push(exchange.map_err(|error| told(expected, &error))?);
        }
        while !exchanges.iter().all(Exchange::is_done) {
            let watched: Vec<PollFd<'_>> = exchanges
                .iter()
                .filter(|e| !e.is_done())
                .map(Exchange::interest)
                .collect();
            if player.wait(&watched, Instant::now() + STALL_LIMIT)? == Woken::Late {
                let got: u64 = exchanges.iter().map(Exchange::moved).sum();
                let seconds = STALL_LIMIT.as_secs();
                let got = format!("{got} bytes, then none for {seconds} s");
                return Err(Failure::new(expected, &got));
            }
            for exchange in &mut exchanges {
                exchange.turn().map_err(|error| {
                    let got = format!("after {} bytes: {error}", exchange.moved());
                    Failure::new(expected, &got)
                })?;
            }
        }
        let duration = begin.elapsed();
        exchanges.iter().try_for_each(Exchange::judge)?;
        Ok(duration)
    }

    fn begin_exchange(&self, number: u64, length: u64) -> io::Result<Exchange> {
        let stream = self.connect(Task::Exchange, number, length)?;
        stream.set_nonblocking(true)?;
        let mut outgoing = Outgoing::default();
        outgoing.then(Pattern::new(number, Way::Up, length));
        Ok(Exchange {
            stream,
            number,
            length,
            outgoing,
            sent: 0,
            shut: false,
            tally: Tally::default(),
            got: 0,
            trailer: Vec::new(),
            ended: false,
        })
    }

    /// Lets the server end its direction first, and sends `length` bytes after that.
    pub(super) fn half_close(&self, length: u64) -> Result<(), Failure> {
        const NUMBER: u64 = 1 << 32;
        let expected = "the server's end of file arrives, and bytes pass the other way after it";
        let told = |error: io::Error| told(expected, &error);
        let swallow = self.connect(Task::Swallow, NUMBER, 0).map_err(told)?;
        match (&swallow).read(&mut [0]) {
            Ok(0) => {}
            Ok(_) => return Err(Failure::new(expected, "a byte that nobody has sent")),
            Err(error) => return Err(told(error)),
        }
        let pattern = Pattern::new(NUMBER, Way::Up, length);
        let mut outgoing = Outgoing::default();
        outgoing.then(pattern.clone());
        while !outgoing.is_empty() {
            // A blocking socket that takes nothing for so long says that it would block.
            if outgoing.send(&mut &swallow).map_err(told)? == 0 {
                return Err(Failure::new(expected, "no more bytes are taken"));
            }
        }
        swallow.shutdown(Shutdown::Write).map_err(told)?;
        let report = self.connect(Task::Report, NUMBER, 0).map_err(told)?;
        let mut totals = [0; TOTALS];
        (&report).read_exact(&mut totals).map_err(told)?;
        compare("the server", Totals::decode(&totals), pattern.totals())
    }

    fn connect(&self, task: Task, number: u64, length: u64) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect_timeout(&self.address, STALL_LIMIT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(STALL_LIMIT))?;
        stream.set_write_timeout(Some(STALL_LIMIT))?;
        let request = Request {
            token: self.token,
            task,
            number,
            length,
        };
        stream.write_all(&request.encode())?;
        Ok(stream)
    }
}

/// The time of each of `count` messages to an echoing server and back, in ascending order.
pub(super) fn round_trips(stream: &TcpStream, count: usize) -> Result<Vec<Duration>, Failure> {
    let expected = "each message comes back";
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let time = round_trip(stream).map_err(|error| told(expected, &error))?;
        times.insert(times.partition_point(|less| *less < time), time);
    }
    Ok(times)
}

fn round_trip(mut stream: &TcpStream) -> io::Result<Duration> {
    let message: [u8; MESSAGE] = std::array::from_fn(|at| at as u8);
    let begin = Instant::now();
    stream.write_all(&message)?;
    let mut answer = [0; MESSAGE];
    stream.read_exact(&mut answer)?;
    if answer != message {
        return Err(io::Error::other("another message came back"));
    }
    Ok(begin.elapsed())
}

/// One connection of [`Client::exchange`].
struct Exchange {
    stream: TcpStream,
    number: u64,
    /// The length of the pattern, the same each way.
    length: u64,
    outgoing: Outgoing,
    sent: u64,
    /// Our end of file is on its way.
    shut: bool,
    tally: Tally,
    /// How much of the server's pattern has come; `got <= length`.
    got: u64,
    /// What has come behind the pattern.
    trailer: Vec<u8>,
    /// The server's end of file has come.
    ended: bool,
}

impl Exchange {
    fn is_done(&self) -> bool {
        self.shut && self.ended
    }

    fn moved(&self) -> u64 {
        self.sent + self.got
    }

    fn interest(&self) -> PollFd<'_> {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::POLLIN, !self.ended);
        flags.set(PollFlags::POLLOUT, !self.shut);
        PollFd::new(self.stream.as_fd(), flags)
    }

    fn turn(&mut self) -> io::Result<()> {
        if !self.shut {
            self.sent += self.outgoing.send(&mut &self.stream)?;
            if self.outgoing.is_empty() {
                self.stream.shutdown(Shutdown::Write)?;
                self.shut = true;
            }
        }
        if !self.ended {
            let mut block = [0; BLOCK];
            match self.stream.read(&mut block) {
                Ok(0) => self.ended = true,
                Ok(n) => self.take(&block[..n])?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        let missing = (self.length - self.got).min(bytes.len() as u64);
        let (pattern, trailer) = bytes.split_at(missing as usize);
        self.tally.take(pattern);
        self.got += missing;
        self.trailer.extend_from_slice(trailer);
        if self.trailer.len() > TOTALS {
            return Err(io::Error::other("more bytes came than were sent"));
        }
        Ok(())
    }

    fn judge(&self) -> Result<(), Failure> {
        let sent = |way| Pattern::new(self.number, way, self.length).totals();
        compare("the client", Some(self.tally.totals()), sent(Way::Down))?;
        compare("the server", Totals::decode(&self.trailer), sent(Way::Up))
    }
}

fn compare(receiver: &str, got: Option<Totals>, sent: Totals) -> Result<(), Failure> {
    let show = |totals: Totals| format!("{} bytes, checksum {:x}", totals.bytes, totals.checksum);
    match got {
        Some(got) if got == sent => Ok(()),
        got => {
            let got = got.map_or_else(|| "no count at all".to_owned(), show);
            Err(Failure::new(
                &format!("{receiver} gets {}", show(sent)),
                &got,
            ))
        }
    }
}

/// The failure of a socket call. An end of file or a reset is the proxy's way to say that it does
/// not reach the server.
fn told(expected: &str, error: &io::Error) -> Failure {
    let got = match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            format!("nothing within {} s", STALL_LIMIT.as_secs())
        }
        ErrorKind::UnexpectedEof => "the connection was closed before that".to_owned(),
        _ => error.to_string(),
    };
    Failure::new(expected, &got)
}
