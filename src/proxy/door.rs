//! Who gets in: a connection is relayed only for its own user, and refused before a byte of it is
//! read and before the compute node is contacted.

use std::fmt;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Instant;

use crate::admission::{Reason, Refusals, Rules, Verdict};
use crate::sys::peer::{self, Lookup};
use crate::sys::tcp;

/// The rules, with what it takes to ask for a client's owner.
pub(super) struct Door {
    rules: Rules,
    lookup: Lookup,
    refusals: Refusals,
}

impl Door {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            lookup: Lookup::new(),
            refusals: Refusals::new(),
        }
    }

    /// Whether `client`, just accepted from `peer` by a listener on `at`, is let in; one that is not
    /// will be reset when closed.
    pub(super) fn admits(&mut self, client: &TcpStream, peer: SocketAddr, at: SocketAddr) -> bool {
        // Only a listener on all addresses leaves open which one the client has reached.
        let ours = match at.ip().is_unspecified() {
            true => client.local_addr(),
            false => Ok(at),
        };
        let Ok(ours) = ours else { return false };
        let Verdict::Refused(reason) = self.judge(ours, peer) else {
            return true;
        };
        tcp::reset_on_close(client);
        if let Some(count) = self.refusals.refused(Instant::now()) {
            let who = Who(reason);
            log::warn!("refused a connection from {peer}: {who} (refused so far: {count})");
        }
        false
    }

    fn judge(&mut self, ours: SocketAddr, peer: SocketAddr) -> Verdict {
        let ip = peer.ip().to_canonical();
        let local = peer::is_own(ip).unwrap_or_else(|error| {
            log::error!("cannot list this machine's addresses: {error}");
            true
        });
        let owner = match self.rules.asks_owner(local) {
            false => None,
            true => self.lookup.owner(ours, peer).unwrap_or_else(|error| {
                log::error!("cannot look up who connects from {peer}: {error}");
                None
            }),
        };
        self.rules.decide(ip, local, owner)
    }
}

/// Says, of a listener on `ip`, whom it lets in from other machines.
pub(super) fn announce(ip: IpAddr, rules: &Rules) {
    if !ip.is_loopback() {
        log::warn!(
            "other machines can connect to the listener on {ip}; admitted are {}",
            rules.others()
        );
    }
}

struct Who(Reason);

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Reason::OtherUser(uid) => match peer::user_name(uid) {
                Some(name) => write!(f, "its owner is {name} (uid {uid})"),
                None => write!(f, "its owner has uid {uid}"),
            },
            Reason::OtherMachine => f.write_str("it comes from another machine"),
            Reason::NoOwner => f.write_str("it has no owner any more"),
        }
    }
}
