//! Where the relay inside the job dials back to: a listener that other machines reach, and the
//! handshakes of whoever connects to it.
//!
//! Anybody may connect. Until a visitor has proved that it is the session's relay it has one of few
//! places, and little time; where all places are taken, others wait in the kernel. A visitor that
//! has not even said what it wants, which the relay does at once, then has next to no time: nobody
//! can hold the relay off by connecting and keeping silent.

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
use crate::relay::Close;
use crate::sys::{interfaces, tcp};
use crate::transfer::{self, End};

use super::{Owner, Source};

/// Most visitors at a time.
pub(super) const MOST: usize = 16;
/// How long a visitor may take to prove itself.
const LIMIT: Duration = Duration::from_secs(5);
/// How long one may be silent while others wait.
const SILENCE: Duration = Duration::from_millis(250);
/// How long accepting pauses where it fails.
const PAUSE: Duration = Duration::from_secs(1);
/// The time between two lines of the log about visitors that were refused.
const LINES: Duration = Duration::from_secs(60);
/// A burst of clients is a burst of dials. The kernel lowers it to net.core.somaxconn.
const BACKLOG: u32 = 4096;
/// Ports of a range that are tried.
const TRIES: u16 = 64;

/// The listener, and its visitors.
pub(super) struct DialBack {
    listener: (OwnedFd, Token),
    secret: Secret,
    /// [`MOST`] places. (On the heap: a session is moved about the stack while it starts.)
    visitors: Vec<Option<Visitor>>,
    /// Others wait for a place, as far as is known.
    is_full: bool,
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
    since: Instant,
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
            Self::Crowded => f.write_str("it is silent, and others wait"),
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
                        visitors: (0..MOST).map(|_| None).collect(),
                        is_full: false,
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
        for _ in 0..MOST {
            let Some(index) = self.place(reactor, deadlines) else {
                return;
            };
            match tcp::accept(&self.listener.0) {
                Ok((stream, peer)) => self.admit(index, stream, peer, reactor, deadlines),
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

    /// The pause of accepting is over, or a place became free.
    pub(super) fn resume(&mut self, reactor: &mut Reactor<Source>) {
        self.is_full = false;
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
                let Visitor { stream, token, .. } = self.leave(index, reactor, deadlines)?;
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
            if let Some(Visitor { stream, token, .. }) = visitor {
                transfer::close((stream, token), Close::Reset, reactor);
                deadlines.set(Owner::Visitor(index), None);
            }
        }
    }

    /// A free place; or, where there is none, that of a visitor who was silent for too long.
    fn place(
        &mut self,
        reactor: &mut Reactor<Source>,
        deadlines: &mut Deadlines<Owner>,
    ) -> Option<usize> {
        if let Some(index) = self.visitors.iter().position(Option::is_none) {
            return Some(index);
        }
        let silent = |(index, visitor): (usize, &Option<Visitor>)| {
            let visitor = visitor.as_ref().filter(|visitor| !visitor.has_spoken)?;
            Some((visitor.since, index))
        };
        let oldest = self.visitors.iter().enumerate().filter_map(silent).min();
        match oldest.map(|(since, index)| (since + SILENCE, index)) {
            Some((until, index)) if until <= Instant::now() => {
                self.refuse(index, &Why::Crowded, reactor, deadlines);
                Some(index)
            }
            silent => {
                // A place becomes free in time: no visitor stays for long.
                self.is_full = true;
                deadlines.set(Owner::DialBack, silent.map(|(until, _)| until));
                None
            }
        }
    }

    /// Takes the visitor `index` out: its place is free.
    fn leave(
        &mut self,
        index: usize,
        reactor: &mut Reactor<Source>,
        deadlines: &mut Deadlines<Owner>,
    ) -> Option<Visitor> {
        let visitor = self.visitors.get_mut(index)?.take()?;
        deadlines.set(Owner::Visitor(index), None);
        if self.is_full {
            deadlines.set(Owner::DialBack, None);
            self.resume(reactor);
        }
        Some(visitor)
    }

    fn admit(
        &mut self,
        index: usize,
        stream: TcpStream,
        peer: SocketAddr,
        reactor: &mut Reactor<Source>,
        deadlines: &mut Deadlines<Owner>,
    ) {
        let now = Instant::now();
        let mut nonce = [0; NONCE];
        let token = getrandom(&mut nonce, GetRandomFlags::empty())
            .map_err(io::Error::from)
            .and_then(|_| reactor.register(stream.as_fd(), Source::Visitor(index)));
        match token {
            Ok(token) => {
                self.visitors[index] = Some(Visitor {
                    stream,
                    token,
                    peer,
                    acceptor: Acceptor::new(nonce),
                    has_spoken: false,
                    since: now,
                });
                deadlines.set(Owner::Visitor(index), Some(now + LIMIT));
                reactor.wake(token);
            }
            Err(error) => log::error!("cannot watch the connection from {peer}: {error}"),
        }
    }

    fn refuse(
        &mut self,
        index: usize,
        why: &Why,
        reactor: &mut Reactor<Source>,
        deadlines: &mut Deadlines<Owner>,
    ) {
        let Some(visitor) = self.leave(index, reactor, deadlines) else {
            return;
        };
        let end = (visitor.stream, visitor.token);
        transfer::close(end, Close::Reset, reactor);
        if let Why::Failed(_) | Why::Ended = why {
            // Nobody was refused anything. So leaves a relay, too, whose shell ends while it dials.
            let peer = visitor.peer;
            return log::debug!("{peer} has left where the relay in the job dials: {why}");
        }
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
