//! Where the server's end of a connection comes from: today the node's addresses, looked up by a
//! short-lived helper, so that a slow name service never stalls the streams.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::Duration;

use bstr::{BStr, BString, ByteSlice};

use crate::resolve;

use super::errand::{Errand, Errands, Watch};

/// How long the look-up of the node's name may take.
pub(super) const LOOKUP_LIMIT: Duration = Duration::from_secs(5);

/// The compute node, as far as it is known.
#[derive(Default)]
pub(super) struct Backend {
    node: Option<BString>,
    addresses: Vec<IpAddr>,
}

impl Backend {
    /// The shell runs on `node`. With `is_here` that is this very machine, reached by loopback.
    pub(super) fn set_node(&mut self, node: BString, is_here: bool) {
        if is_here {
            self.addresses = vec![Ipv4Addr::LOCALHOST.into()];
        }
        self.node = Some(node);
    }

    /// The node's name, once the shell has told it.
    pub(super) fn node(&self) -> Option<&BStr> {
        self.node.as_ref().map(|node| node.as_bstr())
    }

    /// The node's addresses in the order to try; empty while they are unknown.
    pub(super) fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// `address` has answered: it is tried first from now on.
    pub(super) fn answered(&mut self, address: IpAddr) {
        if let Some(index) = self.addresses.iter().position(|known| *known == address) {
            self.addresses[..=index].rotate_right(1);
        }
    }

    /// Starts the look-up where the node is known, its addresses are not, and none is under way.
    /// `true` when one was started.
    pub(super) fn look_up(&mut self, errands: &mut Errands, watch: &mut Watch<'_>) -> bool {
        let Some(node) = &self.node else { return false };
        if errands.is_under_way(Errand::Lookup) || !self.addresses.is_empty() {
            return false;
        }
        let mut command = Command::new("/proc/self/exe");
        command.arg(resolve::MODE).arg(node.to_os_str_lossy());
        match errands.start(Errand::Lookup, command, LOOKUP_LIMIT, watch) {
            Ok(()) => true,
            Err(error) => {
                log::error!("cannot look up the address of {node}: {error}");
                false
            }
        }
    }

    /// The look-up has ended with `answer`. `true` where there are addresses now.
    pub(super) fn looked_up(&mut self, answer: &[u8]) -> bool {
        self.addresses = resolve::parse(answer);
        let node = self.node().unwrap_or_default();
        if self.addresses.is_empty() {
            log::error!("the node's name {node} has no address here: connections to it fail");
        } else {
            log::info!("node {node} has {:?}", self.addresses);
        }
        !self.addresses.is_empty()
    }

    /// The look-up took too long.
    pub(super) fn give_up(&self) {
        let node = self.node().unwrap_or_default();
        log::error!(
            "the look-up of the node's name {node} did not end within {} s: connections to it fail",
            LOOKUP_LIMIT.as_secs()
        );
    }
}
