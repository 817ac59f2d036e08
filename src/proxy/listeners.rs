//! The listeners that stand for the ports announced inside the job.
//!
//! The first one is bound before anything is launched, so the port that is announced can always be
//! connected to. A further backend port gets a further listener; a known one gets its own again.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use crate::reactor::{Reactor, Token};
use crate::sys::tcp;

use super::Source;

/// Most listeners of one session.
const MOST: usize = 16;

/// A listener, and the port inside the job that it stands for, once one was announced.
pub(super) struct Listener {
    pub(super) socket: OwnedFd,
    pub(super) token: Token,
    /// Where it listens.
    pub(super) at: SocketAddr,
    pub(super) backend: Option<u16>,
    /// A failed connection to the backend was explained in the log.
    pub(super) explained: bool,
}

/// All of them. A listener is named by its index, which never changes.
pub(super) struct Listeners {
    all: Vec<Listener>,
    ip: IpAddr,
    backlog: u32,
}

impl Listeners {
    /// Takes the first listener, bound by [`tcp::listener`].
    pub(super) fn new(
        first: (OwnedFd, SocketAddr),
        backlog: u32,
        reactor: &mut Reactor<Source>,
    ) -> io::Result<Self> {
        let mut listeners = Self {
            all: Vec::with_capacity(1),
            ip: first.1.ip(),
            backlog,
        };
        listeners.add(first, reactor)?;
        Ok(listeners)
    }

    /// Our port for `backend`, an announced port inside the job; `None` where all listeners stand
    /// for others, or no further one can be had.
    pub(super) fn stand_for(&mut self, backend: u16, reactor: &mut Reactor<Source>) -> Option<u16> {
        let known = self
            .all
            .iter()
            .position(|listener| listener.backend == Some(backend));
        let free = || {
            self.all
                .iter()
                .position(|listener| listener.backend.is_none())
        };
        let index = match known.or_else(free) {
            Some(index) => index,
            None if self.all.len() == MOST => {
                log::warn!(
                    "port {backend} in the job is announced unchanged: {MOST} ports have listeners already"
                );
                return None;
            }
            None => {
                let added = tcp::listener(SocketAddr::new(self.ip, 0), self.backlog)
                    .and_then(|bound| self.add(bound, reactor));
                match added {
                    Ok(index) => index,
                    Err(error) => {
                        log::error!(
                            "port {backend} in the job is announced unchanged: cannot listen on {}: {error}",
                            self.ip
                        );
                        return None;
                    }
                }
            }
        };
        let listener = &mut self.all[index];
        listener.backend = Some(backend);
        log::info!(
            "port {} here stands for port {backend} in the job",
            listener.at.port()
        );
        Some(listener.at.port())
    }

    pub(super) fn get(&self, index: usize) -> Option<&Listener> {
        self.all.get(index)
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut Listener> {
        self.all.get_mut(index)
    }

    /// Gives every listener a turn: there is room for connections again.
    pub(super) fn wake(&self, reactor: &mut Reactor<Source>) {
        for listener in &self.all {
            reactor.wake(listener.token);
        }
    }

    /// Closes all of them: whoever connects from now on is refused.
    pub(super) fn close(&mut self, reactor: &mut Reactor<Source>) {
        for listener in self.all.drain(..) {
            reactor.deregister(listener.socket.as_fd(), listener.token);
        }
    }

    fn add(
        &mut self,
        (socket, at): (OwnedFd, SocketAddr),
        reactor: &mut Reactor<Source>,
    ) -> io::Result<usize> {
        let index = self.all.len();
        let token = reactor.register(socket.as_fd(), Source::Listener(index))?;
        log::info!("listening on {at}");
        let (backend, explained) = (None, false);
        self.all.push(Listener {
            socket,
            token,
            at,
            backend,
            explained,
        });
        Ok(index)
    }
}
