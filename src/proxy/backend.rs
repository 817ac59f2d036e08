//! The server's end of a connection: the node's names are looked up by short-lived helpers, so that a
//! slow name service never stalls the streams. Which name is tried when, [`NodeNames`] says.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::Duration;

use log::Level;

use crate::intercept::ProbeAnswer;
use crate::node_names::{Next, NodeNames};
use crate::resolve;

use super::errand::{Errand, Errands, Watch};

/// How long the look-up of a name may take.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);

/// The compute node, as far as it is known.
#[derive(Default)]
pub(super) struct Backend {
    names: Option<NodeNames>,
    /// The log has said that every name has failed.
    failure_told: bool,
}

/// How far the way to the node is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// There are addresses to connect to.
    Known,
    /// There will be an answer.
    Sought,
    /// Every name has failed.
    None,
}

impl Backend {
    /// The shell has told where it runs. With `is_here` that is this very machine, reached by loopback.
    pub(super) fn set_node(&mut self, answer: &ProbeAnswer, is_here: bool) {
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        let printed = text(&answer.node);
        self.names = Some(match is_here {
            true => NodeNames::settled(printed, Ipv4Addr::LOCALHOST.into()),
            false => NodeNames::new(printed, answer.slurm_node.as_deref().map(text)),
        });
    }

    /// What the node calls itself, once the shell has told it.
    pub(super) fn node(&self) -> Option<&str> {
        self.names.as_ref().map(NodeNames::printed)
    }

    /// The addresses to connect to, in the order to try; empty while there are none.
    pub(super) fn addresses(&self) -> &[IpAddr] {
        self.names.as_ref().map_or(&[], NodeNames::addresses)
    }

    /// Whether an answer has shown that the addresses are the node's.
    pub(super) fn is_settled(&self) -> bool {
        self.names.as_ref().is_some_and(NodeNames::is_settled)
    }

    /// Has done what is to be done for the way to the node, where that is not under way.
    pub(super) fn seek(&mut self, errands: &mut Errands, watch: &mut Watch<'_>) -> Way {
        loop {
            let name = match self.names.as_ref().map(NodeNames::next) {
                None => return Way::Sought,
                Some(Next::Connect(_)) => return Way::Known,
                Some(Next::Nothing) => return Way::None,
                Some(Next::LookUp(name)) => name,
            };
            if errands.is_under_way(Errand::Lookup) {
                return Way::Sought;
            }
            let mut command = Command::new("/proc/self/exe");
            command.arg(resolve::MODE).arg(name);
            match errands.start(Errand::Lookup, command, LOOKUP_LIMIT, watch) {
                Ok(()) => return Way::Sought,
                Err(error) => self.resolved(Err(format!("cannot be looked up ({error})"))),
            }
        }
    }

    /// A look-up has ended, with this answer or, past its limit, without one.
    pub(super) fn looked_up(&mut self, answer: Option<&[u8]>) {
        let overdue = || {
            let seconds = LOOKUP_LIMIT.as_secs();
            format!("was not looked up within {seconds} s")
        };
        self.resolved(answer.map(resolve::parse).ok_or_else(overdue));
    }

    fn resolved(&mut self, answer: Result<Vec<IpAddr>, String>) {
        let Some(names) = &mut self.names else { return };
        if names.looked_up(answer) {
            self.gave_way(Level::Info);
        } else if let Some(name) = names.current() {
            log::info!("{name} has {:?}", names.addresses());
        }
    }

    /// None of the addresses has answered a connection; the last one said `error`. `true` where their
    /// name has given way to another one, or there is none.
    pub(super) fn unanswered(&mut self, error: &io::Error) -> bool {
        let gave_way = self.names.as_mut().is_some_and(|it| it.unanswered(error));
        if gave_way {
            self.gave_way(Level::Warn);
        }
        gave_way
    }

    /// `address` was connected to.
    pub(super) fn connected(&mut self, address: IpAddr) {
        self.answered(|names| names.connected(address));
    }

    /// `address` has refused a connection.
    pub(super) fn refused(&mut self, address: IpAddr) {
        self.answered(|names| names.refused(address));
    }

    fn answered(&mut self, is_news: impl FnOnce(&mut NodeNames) -> bool) {
        let Some(names) = &mut self.names else { return };
        if is_news(names)
            && let Some(name) = names.current()
        {
            log::info!("the node answers as {name}");
        }
    }

    /// Where every name has failed, all are tried again.
    pub(super) fn begin_again(&mut self) {
        if let Some(names) = &mut self.names {
            names.begin_again();
        }
    }

    fn gave_way(&mut self, level: Level) {
        let Some(names) = &self.names else { return };
        let faults = names.faults();
        if let Some(name) = names.current() {
            log::log!(level, "{faults}; trying {name}");
        } else if std::mem::replace(&mut self.failure_told, true) {
            log::debug!("connections to the node fail: {faults}");
        } else {
            log::error!("connections to the node fail: {faults}");
        }
    }
}
