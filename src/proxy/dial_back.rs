//! Where the relay inside the job dials back to: a listener that other machines reach, and the
//! handshakes of whoever connects to it.
//!
//! Anybody may connect. Until a visitor has proved that it is the session's relay it has one of few
//! places, and little time. Where all places are taken the oldest visitor goes that has not even
//! said what it wants, so nobody can hold the relay off by connecting and keeping silent.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::rand::{GetRandomFlags, getrandom};

use crate::admission::Refusals;
use crate::reach::{Acceptor, HELLO, NONCE, PROOF, Reached, Refusal, Role, Secret};
use crate::reactor::{Deadlines, Reactor, Token};
use crate::sys::{interfaces, tcp};
use crate::transfer::End;

use super::{Owner, Source};

/// Most visitors at a time.
pub(super) const MOST: usize = 16;
/// Visitors taken in one turn of the listener: each gets a turn before it may have to go.
const ACCEPTS: usize = MOST / 2;
/// How long a visitor may take to prove itself.
const LIMIT: Duration = Duration::from_secs(5);
/// How long accepting pauses where it fails.
const PAUSE: Duration = Duration::from_secs(1);
/// The time between two lines of the log about visitors that were refused.
const LINES: Duration = Duration::from_secs(60);
/// A burst of clients is a burst of dials: as many wait while others are taken.
const BACKLOG: u32 = 256;
/// Ports of a range that are tried.
const TRIES: u16 = 64;

/// The listener, and its visitors.
pub(super) struct DialBack {
    listener: (OwnedFd, Token),
    secret: Secret,
    visitors: [Option<Visitor>; MOST],
    /// How many have been taken.
    taken: u64,
    refusals: Refusals,
}

/// Somebody who has not proved anything yet.
struct Visitor {
    stream: TcpStream,
    token: Token,
    peer: SocketAddr,
    acceptor: Acceptor,
    /// It has said, in the right form, what it wants.
    has_spoken: bool,
    /// The how-manieth it is.
    number: u64,
}

/// Why a visitor was sent away.
enum Why {
    Refused(Refusal),
    Failed(io::Error),
    Ended,
    Late,
    Crowded,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Failed(error) => error.fmt(f),
            Self::Ended => f.write_str("it has ended before it proved anything"),
            Self::Late => write!(f, "it has proved nothing within {} s", LIMIT.as_secs()),
            Self::Crowded => write!(f, "{MOST} others have proved nothing yet"),
        }
    }
}

impl DialBack {
    /// Listens: at `host`, where that is one of this machine's addresses, else on all of them; on a
    /// port in `ports`, or one of the kernel's. With it, the addresses to be offered to the relay:
    /// `host`, or those at which other machines may reach this one; where there are none, a job can
    /// only run right here.
    ///
    /// # Errors
    /// No address or no port can be had.
    pub(super) fn open(
        secret: Secret,
        host: Option<IpAddr>,
        ports: Option<RangeInclusive<u16>>,
        reactor: &mut Reactor<Source>,
    ) -> io::Result<(Self, Vec<SocketAddr>)> {
        let everywhere = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
        let mut failure = io::Error::from(ErrorKind::AddrNotAvailable);
        for at in host.into_iter().chain(everywhere) {
            match bind(at, ports.as_ref()) {
                Ok((socket, bound)) => {
                    let token = reactor.register(socket.as_fd(), Source::DialBack)?;
                    let offered = match host {
                        Some(host) => vec![host],
                        None => interfaces::reachable_addresses()?,
                    };
                    // Without IPv6 in the kernel the listener has the other family only.
                    let is_reached = |ip: &IpAddr| !bound.is_ipv4() || ip.is_ipv4();
                    let mut offered: Vec<SocketAddr> = (offered.into_iter().filter(is_reached))
                        .map(|ip| SocketAddr::new(ip, bound.port()))
                        .collect();
                    if offered.is_empty() {
                        offered.push((Ipv4Addr::LOCALHOST, bound.port()).into());
                    }
                    let door = Self {
                        listener: (socket, token),
                        secret,
                        visitors: Default::default(),
                        taken: 0,
                        refusals: Refusals::rationed(1, LINES),
                    };
                    return Ok((door, offered));
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Takes visitors, as they come.
    pub(super) fn accept(
        &mut self,
        reactor: &mut Reactor<Source>,
        deadlines: &mut Deadlines<Owner>,
    ) {
        for _ in 0..ACCEPTS {
            match tcp::accept(&self.listener.0) {
                Ok((stream, peer)) => self.admit(stream, peer, reactor, deadlines),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return reactor.read_blocked(self.listener.1);
                }
                // It was gone before it was taken.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    log::debug!("taking what the relay dials pauses: {error}");
                    return deadlines.set(Owner::DialBack, Some(Instant::now() + PAUSE));
                }
            }
        }
        reactor.wake(self.listener.1);
    }

    /// The pause of accepting is over.
    pub(super) fn resume(&self, reactor: &mut Reactor<Source>) {
        reactor.wake(self.listener.1);
    }

    /// One turn of the visitor `index`. Once it has proved itself it is one no more: what it is for,
    /// and the connection, from which nothing behind the handshake was read.
    pub(super) fn turn(
        &mut self,
        index: usize,
        reactor: &mut Reactor<Source>,
        deadlines: &mut Deadlines<Owner>,
    ) -> Option<(Role, End)> {
        let visitor = self.visitors.get_mut(index)?.as_mut()?;
        match visitor.turn(&self.secret, reactor) {
            Ok(None) => None,
            Ok(Some(role)) => {
                deadlines.set(Owner::Visitor(index), None);
                let Visitor { stream, token, .. } = self.visitors[index].take()?;
                Some((role, (stream, token)))
            }
            Err(why) => {
                self.refuse(index, &why, reactor, deadlines);
                None
            }
        }
    }

    /// Whether somebody speaks as the relay does, who has proved nothing yet.
    pub(super) fn has_speaker(&self) -> bool {
        let mut visitors = self.visitors.iter().flatten();
        visitors.any(|visitor| visitor.has_spoken)
    }

    /// The visitor `index` took too long.
    pub(super) fn expire(
        &mut self,
        index: usize,
        reactor: &mut Reactor<Source>,
        deadlines: &mut Deadlines<Owner>,
    ) {
        self.refuse(index, &Why::Late, reactor, deadlines);
    }

    /// Nobody is taken any more.
    pub(super) fn close(self, reactor: &mut Reactor<Source>, deadlines: &mut Deadlines<Owner>) {
        reactor.deregister(self.listener.0.as_fd(), self.listener.1);
        deadlines.set(Owner::DialBack, None);
        for (index, visitor) in self.visitors.into_iter().enumerate() {
            if let Some(visitor) = visitor {
                reactor.forget(visitor.token);
                deadlines.set(Owner::Visitor(index), None);
            }
        }
    }

    fn admit(
        &mut self,
        stream: TcpStream,
        peer: SocketAddr,
        reactor: &mut Reactor<Source>,
        deadlines: &mut Deadlines<Owner>,
    ) {
        let index = self.place();
        if self.visitors[index].is_some() {
            self.refuse(index, &Why::Crowded, reactor, deadlines);
        }
        let mut nonce = [0; NONCE];
        let token = getrandom(&mut nonce, GetRandomFlags::empty())
            .map_err(io::Error::from)
            .and_then(|_| reactor.register(stream.as_fd(), Source::Visitor(index)));
        match token {
            Ok(token) => {
                self.taken += 1;
                self.visitors[index] = Some(Visitor {
                    stream,
                    token,
                    peer,
                    acceptor: Acceptor::new(nonce),
                    has_spoken: false,
                    number: self.taken,
                });
                deadlines.set(Owner::Visitor(index), Some(Instant::now() + LIMIT));
                reactor.wake(token);
            }
            Err(error) => log::error!("cannot watch the connection from {peer}: {error}"),
        }
    }

    /// A free place, or that of whoever has to go.
    fn place(&self) -> usize {
        let worth = |visitor: &Option<Visitor>| {
            let of = |visitor: &Visitor| (visitor.has_spoken, visitor.number);
            visitor.as_ref().map(of)
        };
        // An empty place is worth least.
        let places = self.visitors.iter().enumerate();
        let least = places.min_by_key(|(_, visitor)| worth(visitor));
        least.map_or(0, |(index, _)| index)
    }

    fn refuse(
        &mut self,
        index: usize,
        why: &Why,
        reactor: &mut Reactor<Source>,
        deadlines: &mut Deadlines<Owner>,
    ) {
        let Some(visitor) = self.visitors.get_mut(index).and_then(Option::take) else {
            return;
        };
        deadlines.set(Owner::Visitor(index), None);
        tcp::reset_on_close(&visitor.stream);
        reactor.forget(visitor.token);
        if let Some(count) = self.refusals.refused(Instant::now()) {
            log::warn!(
                "refused a connection from {} to where the relay in the job dials: {why} (refused \
                 so far: {count})",
                visitor.peer
            );
        }
    }
}

impl Visitor {
    /// Reads what has come of the handshake, and no more.
    fn turn(
        &mut self,
        secret: &Secret,
        reactor: &mut Reactor<Source>,
    ) -> Result<Option<Role>, Why> {
        let mut buffer = [0; if HELLO > PROOF { HELLO } else { PROOF }];
        loop {
            let wanted = self.acceptor.wanted().min(buffer.len());
            let mut input = match (&self.stream).read(&mut buffer[..wanted]) {
                Ok(0) => return Err(Why::Ended),
                Ok(bytes) => &buffer[..bytes],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    reactor.read_blocked(self.token);
                    return Ok(None);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Why::Failed(error)),
            };
            match self.acceptor.feed(secret, &mut input) {
                Ok(Reached::More) => {}
                Ok(Reached::Answer(answer)) => {
                    self.has_spoken = true;
                    // The first bytes on a connection always have room.
                    (&self.stream).write_all(&answer).map_err(Why::Failed)?;
                }
                Ok(Reached::Accepted(role)) => return Ok(Some(role)),
                Err(refusal) => return Err(Why::Refused(refusal)),
            }
        }
    }
}

/// A listener at `ip`, on a port of the range from a random one on, or on one of the kernel's.
fn bind(ip: IpAddr, ports: Option<&RangeInclusive<u16>>) -> io::Result<(OwnedFd, SocketAddr)> {
    let Some(ports) = ports else {
        return tcp::listener(SocketAddr::new(ip, 0), BACKLOG);
    };
    let mut random = [0; 2];
    getrandom(&mut random, GetRandomFlags::empty())?;
    let (start, end) = (u32::from(*ports.start()), u32::from(*ports.end()));
    let width = end.saturating_sub(start) + 1;
    let mut failure = io::Error::from(ErrorKind::AddrInUse);
    for attempt in 0..width.min(TRIES.into()) {
        let offset = (u32::from(u16::from_ne_bytes(random)) + attempt) % width;
        let port = u16::try_from(start + offset).unwrap_or(*ports.end());
        match tcp::listener(SocketAddr::new(ip, port), BACKLOG) {
            Ok(bound) => return Ok(bound),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}
