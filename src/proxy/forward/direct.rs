//! Connections that go directly to the node: to one of its addresses after the other.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::proxy::backend::Way;
use crate::proxy::errand::Watch;
use crate::relay::Close;
use crate::sys::tcp;
use crate::transfer::Transfer;

use super::{CONNECT_LIMIT, Forward, Forwards, Net, Owner, Source, Stage, is_exhaustion};

/// How long a connection may take while no name of the node has answered, all addresses of a name
/// together.
const NAME_LIMIT: Duration = Duration::from_secs(5);

impl Net<'_> {
    /// How far the way to the node is known; what is missing is under way.
    pub(super) fn seek(&mut self) -> Way {
        let mut watch = Watch {
            reactor: self.reactor,
            deadlines: self.deadlines,
        };
        self.backend.seek(self.errands, self.slurm, &mut watch)
    }
}

impl Forwards {
    /// Takes a parked connection, whose last attempt has ended with `error`, to `port` of the next
    /// address that it has not tried; it stays parked while none is known.
    pub(super) fn advance(
        &mut self,
        index: usize,
        port: u16,
        mut error: io::Error,
        net: &mut Net<'_>,
    ) {
        loop {
            match net.seek() {
                Way::Known => {}
                Way::Sought => return,
                Way::None => return self.close(index, Close::Reset, net),
            }
            let Some(to) = self.untried(index, net) else {
                match net.backend.unanswered(&error) {
                    true => continue,
                    false => return self.fail(index, &error, net),
                }
            };
            match self.begin(index, SocketAddr::new(to, port), net) {
                Ok(()) => return,
                // That says nothing of the node.
                Err(error) if is_exhaustion(&error) => return self.fail(index, &error, net),
                Err(failure) => error = failure,
            }
            self.failed(index, to, &error, net);
        }
    }

    /// The node's next address for the connection `index`.
    fn untried(&self, index: usize, net: &Net<'_>) -> Option<IpAddr> {
        let tried = &self.table.get(index)?.as_ref()?.tried;
        let mut addresses = net.backend.addresses().iter().copied();
        addresses.find(|address| !tried.contains(address))
    }

    /// Begins to connect a parked connection to this address.
    fn begin(&mut self, index: usize, to: SocketAddr, net: &mut Net<'_>) -> io::Result<()> {
        let spare = match self.table.get_mut(index) {
            Some(Some(Forward {
                stage: Stage::Parked { spare, .. },
                ..
            })) => spare.take(),
            _ => None,
        };
        let stream = tcp::connect_to(to, spare)?;
        let source = Source::Server(index);
        let token = net.reactor.register(stream.as_fd(), source)?;
        let limit = match net.backend.is_settled() {
            true => CONNECT_LIMIT,
            false => NAME_LIMIT,
        };
        // Each address gets an even share of the time.
        let share = u32::try_from(net.backend.addresses().len()).unwrap_or(u32::MAX);
        let at = Instant::now() + limit / share.max(1);
        net.deadlines.set(Owner::Connect(index), Some(at));
        self.restage(index, |client| Stage::Connecting {
            client,
            server: (stream, token),
            to: to.ip(),
        });
        Ok(())
    }

    /// The connection `index` has not reached the address `ip`.
    fn failed(&mut self, index: usize, ip: IpAddr, error: &io::Error, net: &mut Net<'_>) {
        if let Some(Some(forward)) = self.table.get_mut(index) {
            forward.tried.push(ip);
        }
        if is_refusal(error) {
            net.backend.refused(ip);
        }
    }

    /// The address under way has failed with `error`.
    pub(super) fn next_address(&mut self, index: usize, error: io::Error, net: &mut Net<'_>) {
        let Some(Some(forward)) = self.table.get_mut(index) else {
            return;
        };
        let Stage::Connecting { server, to, .. } = &forward.stage else {
            return;
        };
        let to = *to;
        net.reactor.forget(server.1);
        net.deadlines.set(Owner::Connect(index), None);
        self.restage(index, |client| Stage::Parked {
            client,
            spare: None,
        });
        self.failed(index, to, &error, net);
        match self.port(index, net) {
            Some(port) => self.advance(index, port, error, net),
            // Its listener was closed: the session ends.
            None => self.close(index, Close::Reset, net),
        }
    }

    /// The connection `index` has reached its address.
    pub(super) fn relay(&mut self, index: usize, net: &mut Net<'_>) {
        net.deadlines.set(Owner::Connect(index), None);
        let Some(Some(forward)) = self.table.get_mut(index) else {
            return;
        };
        let Stage::Connecting { to, .. } = &forward.stage else {
            return;
        };
        net.backend.connected(*to);
        log::debug!("#{} connected", forward.number);
        let Some(forward) = self.table[index].take() else {
            return;
        };
        let Stage::Connecting { client, server, .. } = forward.stage else {
            return;
        };
        let stage = Stage::Relaying(Transfer::new(client, server));
        self.table[index] = Some(Forward { stage, ..forward });
        self.turn(index, net);
    }
}

/// Whether `error` says that somebody was there: a node without its server. Any other one says that
/// nobody was.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset
    )
}
