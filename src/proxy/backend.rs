//! The server's end of a connection: the node's names are looked up, and Slurm is asked for more, by
//! errands, so that a slow name service never stalls the streams. Which name is tried when,
//! [`NodeNames`] says.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::Duration;

use log::Level;

use crate::intercept::ProbeAnswer;
use crate::node_names::{Next, NodeNames, Rules};
use crate::resolve;
use crate::slurm::Node;

use super::errand::{Errand, Errands, Watch};
use super::watch::{ANSWER_LIMIT, SlurmCommands};

/// How long the look-up of a name may take.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);

/// The compute node, as far as it is known.
pub(super) struct Backend {
    rules: Rules,
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
    /// A node that is not known yet, which has further names by `rules`.
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            names: None,
            failure_told: false,
        }
    }

    /// The shell has told where it runs. With `is_here` that is this very machine, reached by loopback.
    pub(super) fn set_node(&mut self, answer: &ProbeAnswer, is_here: bool) {
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        let printed = text(&answer.node);
        self.names = Some(match is_here {
            true => NodeNames::settled(printed, Ipv4Addr::LOCALHOST.into()),
            false => {
                let is_slurm = answer.job.is_some() || answer.slurm_node.is_some();
                let slurm_node = answer.slurm_node.as_deref().map(text);
                NodeNames::new(printed, slurm_node, is_slurm, &self.rules)
            }
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
    pub(super) fn seek(
        &mut self,
        errands: &mut Errands,
        slurm: &SlurmCommands,
        watch: &mut Watch<'_>,
    ) -> Way {
        loop {
            let (errand, command, limit) = match self.names.as_ref().map(NodeNames::next) {
                None => return Way::Sought,
                Some(Next::Connect(_)) => return Way::Known,
                Some(Next::Nothing) => return Way::None,
                Some(Next::LookUp(name)) => {
                    let mut command = Command::new("/proc/self/exe");
                    command.arg(resolve::MODE).arg(name);
                    (Errand::Lookup, command, LOOKUP_LIMIT)
                }
                Some(Next::AskSlurm(query)) => (Errand::Node, slurm.command(query), ANSWER_LIMIT),
            };
            if errands.is_under_way(errand) {
                return Way::Sought;
            }
            match errands.start(errand, command, limit, watch) {
                Ok(()) => return Way::Sought,
                Err(error) if errand == Errand::Node => {
                    log::info!("cannot start scontrol: {error}");
                    self.described(Node::default());
                }
                Err(error) => self.resolved(Err(format!("cannot be looked up: {error}"))),
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

    /// Slurm was asked for the node, and has given this answer or, past the limit, none.
    pub(super) fn slurm_told(&mut self, answer: Option<&[u8]>) {
        if answer.is_none() {
            let seconds = ANSWER_LIMIT.as_secs();
            log::info!("scontrol has not answered within {seconds} s");
        }
        self.described(answer.map(Node::parse).unwrap_or_default());
    }

    fn described(&mut self, node: Node) {
        let gave_way = self.names.as_mut().is_some_and(|it| it.slurm_told(node));
        if gave_way {
            self.gave_way(Level::Info);
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

    /// Says what is tried next, and why; but once every name has failed, it was all said.
    fn gave_way(&mut self, wanted: Level) {
        let Some(names) = &self.names else { return };
        let faults = names.faults();
        let level = |level| {
            if self.failure_told {
                Level::Debug
            } else {
                level
            }
        };
        if let Some(name) = names.current() {
            log::log!(level(wanted), "{faults}; trying {name}");
        } else {
            log::log!(
                level(Level::Error),
                "connections to the node fail: {faults}"
            );
            self.failure_told = true;
        }
    }
}
