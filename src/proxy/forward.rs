//! The connections: accepted, parked until the node is known, connected, relayed, closed.

mod direct;
mod through;

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use log::Level;

use crate::reactor::{Deadlines, Reactor};
use crate::relay::{Close, Pool, Side};
use crate::sys::tcp::{self, Unconnected};
use crate::transfer::{self, End, Means, Pipes, Transfer};

use super::backend::{Backend, Way};
use super::door::Door;
use super::errand::Errands;
use super::in_job::{self, InJob, State};
use super::listeners::Listeners;
use super::watch::SlurmCommands;
use super::{Owner, Source};

/// Most connections at a time; beyond it they wait in the listener's backlog.
pub(super) const MOST: usize = 4096;
/// Descriptors that are not for connections: streams, poller, signals, keeper, listeners, pipes, log,
/// tees; and the relay in the job.
const RESERVED: usize = 96 + in_job::DESCRIPTORS;
/// Connections taken in one turn of a listener.
const ACCEPTS: usize = 64;
/// How long accepting pauses where descriptors ran out, unless one becomes free before.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a connection to the node may take, all its addresses together.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// One client's connection.
struct Forward {
    /// Its number in the log.
    number: u64,
    /// The index of the listener that it came through.
    listener: usize,
    peer: SocketAddr,
    /// The number of the order that was given to the relay in the job.
    ordered: Option<u64>,
    /// The addresses of the node that have failed.
    tried: Vec<IpAddr>,
    stage: Stage,
}

enum Stage {
    /// Unread, until the node and the port are known.
    Parked {
        client: End,
        /// The socket for the other end: a client is only taken where there is one.
        spare: Option<Unconnected>,
    },
    /// Under way to this address of the node.
    Connecting {
        client: End,
        server: End,
        to: IpAddr,
    },
    /// Ordered of the relay in the job, whose connection is not here yet.
    Ordered {
        client: End,
    },
    Relaying(Transfer),
}

/// All connections. One is named by its index, which is reused after its end.
pub(super) struct Forwards {
    table: Vec<Option<Forward>>,
    vacant: Vec<usize>,
    /// Those of one turn that have not been let in yet; empty between turns.
    fresh: Vec<(TcpStream, SocketAddr, Unconnected)>,
    /// For the other end of the next one. With it in hand before a client is taken, no client ever
    /// waits for a descriptor that other clients hold.
    spare: Option<Unconnected>,
    most: usize,
    accepted: u64,
    paused: bool,
    /// The log has said that descriptors ran out.
    exhaustion_told: bool,
}

/// What the connections need of the proxy.
pub(super) struct Net<'a> {
    pub(super) reactor: &'a mut Reactor<Source>,
    pub(super) pool: &'a mut Pool,
    pub(super) pipes: &'a mut Pipes,
    pub(super) scratch: &'a mut [u8],
    pub(super) deadlines: &'a mut Deadlines<Owner>,
    pub(super) listeners: &'a mut Listeners,
    pub(super) backend: &'a mut Backend,
    pub(super) errands: &'a mut Errands,
    pub(super) slurm: &'a SlurmCommands,
    pub(super) door: &'a mut Door,
    /// Where connections go through a relay in the job, or that is not known yet.
    pub(super) in_job: &'a mut Option<InJob>,
}

impl Forwards {
    /// Room for as many connections as `descriptors`, the limit of open files, has room for.
    pub(super) fn new(descriptors: u64) -> Self {
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        let most = (descriptors.saturating_sub(RESERVED) / 2).clamp(1, MOST);
        Self {
            // Address space and no memory, until there are that many: so nothing is ever moved.
            table: Vec::with_capacity(most),
            vacant: Vec::new(),
            fresh: Vec::new(),
            // One that cannot be had now is asked for again with the first client.
            spare: tcp::unconnected(Ipv4Addr::UNSPECIFIED.into()).ok(),
            most,
            accepted: 0,
            paused: false,
            exhaustion_told: false,
        }
    }

    /// How many descriptors the process has when there are as many connections as may be.
    pub(super) fn descriptors(&self) -> usize {
        2 * self.most + RESERVED
    }

    /// Takes connections of the listener `index`, as they come: first out of the backlog, which is
    /// short, then one by one through the door.
    pub(super) fn accept(&mut self, index: usize, net: &mut Net<'_>) {
        let Some(listener) = net.listeners.get(index) else {
            return;
        };
        let (token, ours) = (listener.token, listener.at);
        let room = match self.paused {
            true => 0,
            false => (self.most - self.open()).min(ACCEPTS),
        };
        let mut fresh = std::mem::take(&mut self.fresh);
        for _ in 0..room {
            match self.take(&listener.socket, net.backend) {
                Ok(taken) => fresh.push(taken),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    net.reactor.read_blocked(token);
                    break;
                }
                Err(error) if is_exhaustion(&error) => {
                    let told = std::mem::replace(&mut self.exhaustion_told, true);
                    let level = if told { Level::Debug } else { Level::Warn };
                    log::log!(level, "accepting pauses: {error}");
                    self.paused = true;
                    net.deadlines
                        .set(Owner::Accept, Some(Instant::now() + PAUSE));
                    break;
                }
                // The connection was gone before it was taken; the next one may be good.
                Err(error) => log::debug!("cannot accept a connection: {error}"),
            }
        }
        for (client, peer, spare) in fresh.drain(..) {
            if net.door.admits(&client, peer, ours) {
                self.admit(client, peer, spare, index, net);
            } else {
                self.spare = Some(spare);
            }
        }
        self.fresh = fresh;
        if !self.paused && self.open() < self.most && net.reactor.ready(token).read {
            net.reactor.wake(token);
        }
    }

    /// The next connection of `listener`, with a socket for its other end.
    fn take(
        &mut self,
        listener: &OwnedFd,
        backend: &Backend,
    ) -> io::Result<(TcpStream, SocketAddr, Unconnected)> {
        let spare = match self.spare.take() {
            Some(spare) => spare,
            None => {
                let likely = backend.addresses().first().copied();
                tcp::unconnected(likely.unwrap_or(Ipv4Addr::UNSPECIFIED.into()))?
            }
        };
        match tcp::accept(listener) {
            Ok((client, peer)) => Ok((client, peer, spare)),
            Err(error) => {
                self.spare = Some(spare);
                Err(error)
            }
        }
    }

    /// The pause of accepting is over.
    pub(super) fn resume(&mut self, net: &mut Net<'_>) {
        self.paused = false;
        net.listeners.wake(net.reactor);
    }

    /// The node became known, or a listener got its port: whoever waited for it goes on.
    pub(super) fn unpark(&mut self, net: &mut Net<'_>) {
        for index in 0..self.table.len() {
            if self.is_parked(index) {
                self.connect(index, net);
            }
        }
    }

    /// Goes on with the way to the node, as far as it goes without waiting.
    pub(super) fn seek(&mut self, net: &mut Net<'_>) {
        match net.seek() {
            Way::Known => self.unpark(net),
            Way::Sought => {}
            Way::None => self.fail_parked(net),
        }
    }

    /// No name leads to the node: whoever waited for it is sent away.
    fn fail_parked(&mut self, net: &mut Net<'_>) {
        for index in 0..self.table.len() {
            if self.is_parked(index) && self.port(index, net).is_some() {
                self.close(index, Close::Reset, net);
            }
        }
    }

    /// One turn of the connection `index`.
    pub(super) fn turn(&mut self, index: usize, net: &mut Net<'_>) {
        let Some(Some(forward)) = self.table.get_mut(index) else {
            return;
        };
        match &mut forward.stage {
            Stage::Relaying(transfer) => {
                let mut means = Means {
                    reactor: net.reactor,
                    pool: net.pool,
                    pipes: net.pipes,
                    scratch: net.scratch,
                };
                if let Some(close) = transfer.turn(&mut means) {
                    self.close(index, close, net);
                }
            }
            Stage::Parked { client, .. }
            | Stage::Connecting { client, .. }
            | Stage::Ordered { client }
                if net.reactor.ready(client.1).write_closed =>
            {
                self.close(index, Close::Orderly, net);
            }
            Stage::Parked { .. } | Stage::Ordered { .. } => {}
            Stage::Connecting { server, .. } => {
                let ready = net.reactor.ready(server.1);
                // A socket that is still connecting is not writable; one that failed is closed too.
                let is_connected = ready.write && !ready.read_closed && !ready.write_closed;
                if is_connected {
                    self.relay(index, net);
                } else if ready.write || ready.read {
                    match tcp::connected(&server.0) {
                        Ok(Some(())) => self.relay(index, net),
                        Ok(None) => {}
                        Err(error) => self.next_address(index, error, net),
                    }
                }
            }
        }
    }

    /// Whether bytes for a client are on their way here. What a relay in the job still has cannot be
    /// seen; but it closes its connections behind the last byte.
    pub(super) fn owe_clients(&self, reactor: &Reactor<Source>) -> bool {
        let mut open = self.table.iter().flatten();
        open.any(|forward| match &forward.stage {
            Stage::Relaying(transfer) if forward.ordered.is_some() => {
                !transfer.is_done(Side::Client)
            }
            Stage::Relaying(transfer) => transfer.owes(Side::Client, reactor),
            _ => false,
        })
    }

    /// The connection `index` took too long to reach its address.
    pub(super) fn connect_timeout(&mut self, index: usize, net: &mut Net<'_>) {
        let error = ErrorKind::TimedOut.into();
        match self.table.get(index) {
            Some(Some(Forward {
                stage: Stage::Ordered { .. },
                ..
            })) => self.fail(index, &error, net),
            _ => self.next_address(index, error, net),
        }
    }

    fn open(&self) -> usize {
        self.table.len() - self.vacant.len()
    }

    fn is_parked(&self, index: usize) -> bool {
        matches!(
            &self.table[index],
            Some(Forward {
                stage: Stage::Parked { .. },
                ..
            })
        )
    }

    fn listener_of(&self, index: usize) -> Option<usize> {
        self.table[index].as_ref().map(|forward| forward.listener)
    }

    fn admit(
        &mut self,
        client: TcpStream,
        peer: SocketAddr,
        spare: Unconnected,
        listener: usize,
        net: &mut Net<'_>,
    ) {
        let index = self.vacant.last().copied().unwrap_or(self.table.len());
        let token = match net.reactor.register(client.as_fd(), Source::Client(index)) {
            Ok(token) => token,
            Err(error) => {
                log::error!("cannot watch the connection from {peer}: {error}");
                return;
            }
        };
        self.accepted += 1;
        let number = self.accepted;
        log::debug!("#{number} accepted from {peer}");
        let stage = Stage::Parked {
            client: (client, token),
            spare: Some(spare),
        };
        let forward = Some(Forward {
            number,
            listener,
            peer,
            ordered: None,
            tried: Vec::new(),
            stage,
        });
        match self.table.get_mut(index) {
            Some(place) => {
                self.vacant.pop();
                *place = forward;
            }
            None => self.table.push(forward),
        }
        self.connect(index, net);
    }

    /// Begins to connect a parked connection, where it is known to what.
    fn connect(&mut self, index: usize, net: &mut Net<'_>) {
        let Some(port) = self.port(index, net) else {
            return;
        };
        match net.in_job.as_ref().map(InJob::state) {
            None => {}
            Some(State::Awaited) => return,
            Some(_) => return self.order(index, port, net),
        }
        // Somebody new may find what the others did not.
        net.backend.begin_again();
        // Where it has tried all there is, that was by another name.
        let error = io::Error::other("its addresses have failed before");
        self.advance(index, port, error, net);
    }

    /// The port in the job that the connection `index` leads to, once it was announced.
    fn port(&self, index: usize, net: &Net<'_>) -> Option<u16> {
        net.listeners.get(self.listener_of(index)?)?.backend
    }

    /// Puts the client of a connection that is not relayed yet into another stage.
    fn restage(&mut self, index: usize, stage: impl FnOnce(End) -> Stage) {
        if let Some(mut forward) = self.table[index].take() {
            forward.stage = match forward.stage {
                Stage::Parked { client, .. }
                | Stage::Connecting { client, .. }
                | Stage::Ordered { client } => stage(client),
                relaying @ Stage::Relaying(_) => relaying,
            };
            self.table[index] = Some(forward);
        }
    }

    /// The backend cannot be reached: the client learns it at once, the log once for each listener.
    fn fail(&mut self, index: usize, error: &io::Error, net: &mut Net<'_>) {
        if let Some(Some(forward)) = self.table.get(index) {
            Self::explain(forward.listener, Some(forward.number), error, net);
        }
        self.close(index, Close::Reset, net);
    }

    /// Says why a connection that came through `listener` has failed.
    fn explain(listener: usize, number: Option<u64>, error: &io::Error, net: &mut Net<'_>) {
        let Some(listener) = net.listeners.get_mut(listener) else {
            return;
        };
        let number = number.map_or(String::new(), |number| format!("#{number} "));
        let node = net.backend.node().unwrap_or_default();
        let port = listener.backend.unwrap_or_default();
        if std::mem::replace(&mut listener.explained, true) {
            log::debug!("{number}cannot connect to {node}:{port}: {error}");
        } else if error.kind() != ErrorKind::ConnectionRefused {
            log::warn!(
                "{number}cannot connect to {node}:{port}: {error} (further failures of this port are \
                 logged at debug level)"
            );
        } else if net.in_job.is_some() {
            log::warn!(
                "{number}cannot connect to {node}:{port}: {error}: the server has ended (further \
                 refusals of this port are logged at debug level)"
            );
        } else {
            log::warn!(
                "{number}cannot connect to {node}:{port}: {error}: the server has ended, or it \
                 listens on the node's loopback only, because it was already running and was \
                 reused, or takes no option for its host; end that server on the node and \
                 connect again (further refusals of this port are logged at debug level)"
            );
        }
    }

    fn close(&mut self, index: usize, close: Close, net: &mut Net<'_>) {
        let Some(forward) = self.table.get_mut(index).and_then(Option::take) else {
            return;
        };
        self.vacant.push(index);
        net.deadlines.set(Owner::Connect(index), None);
        Self::withdraw(&forward, net.in_job.as_mut());
        let ends = match forward.stage {
            Stage::Parked { client, .. } | Stage::Ordered { client } => [Some(client), None],
            Stage::Connecting { client, server, .. } => [Some(client), Some(server)],
            Stage::Relaying(transfer) => {
                let (up, down) = transfer.carried();
                let (number, peer) = (forward.number, forward.peer);
                log::debug!("#{number} client {peer} closed: {up} bytes in, {down} bytes out");
                transfer.into_ends(net.pool, net.pipes).map(Some)
            }
        };
        for end in ends.into_iter().flatten() {
            transfer::close(end, close, net.reactor);
        }
        if self.paused || self.open() + 1 == self.most {
            net.deadlines.set(Owner::Accept, None);
            self.resume(net);
        }
    }
}

/// Whether `error` says that descriptors or memory ran out, here or in the whole system.
fn is_exhaustion(error: &io::Error) -> bool {
    use nix::libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
    matches!(
        error.raw_os_error(),
        Some(EMFILE | ENFILE | ENOBUFS | ENOMEM)
    )
}
