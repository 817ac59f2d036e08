//! Where the server's end of a connection comes from: today the node's addresses, looked up by a
//! short-lived helper, so that a slow name service never stalls the streams.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Duration;

use bstr::{BStr, BString, ByteSlice};
use rustix::process::{Pid, Signal, kill_process};

use crate::reactor::{Reactor, Token};
use crate::resolve;
use crate::sys::stdio::Stream;

use super::Source;

/// How long the look-up of the node's name may take.
pub(super) const LOOKUP_LIMIT: Duration = Duration::from_secs(5);

/// The compute node, as far as it is known.
#[derive(Default)]
pub(super) struct Backend {
    node: Option<BString>,
    addresses: Vec<IpAddr>,
    lookup: Option<Lookup>,
}

/// A helper that is looking the name up.
struct Lookup {
    /// Until it was reaped.
    pid: Option<Pid>,
    output: Stream,
    token: Token,
    text: Vec<u8>,
}

/// What a turn of the look-up has brought.
pub(super) enum Found {
    /// Nothing yet.
    NotYet,
    /// The addresses are known.
    Addresses,
    /// There are none; the reason is logged.
    Nothing,
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
    /// `true` when one was started: its limit begins.
    pub(super) fn look_up(&mut self, reactor: &mut Reactor<Source>) -> bool {
        let Some(node) = &self.node else { return false };
        if self.lookup.is_some() || !self.addresses.is_empty() {
            return false;
        }
        match Lookup::start(node.as_bstr(), reactor) {
            Ok(lookup) => {
                self.lookup = Some(lookup);
                true
            }
            Err(error) => {
                log::error!("cannot look up the address of {node}: {error}");
                false
            }
        }
    }

    /// Whether a look-up is under way.
    pub(super) fn is_looking(&self) -> bool {
        self.lookup.is_some()
    }

    /// The helper's process, while it lives: it is ours, and nothing of the job's.
    pub(super) fn helper(&self) -> Option<Pid> {
        self.lookup.as_ref().and_then(|lookup| lookup.pid)
    }

    /// A child was reaped: from now on its pid may be another's.
    pub(super) fn reaped(&mut self, pid: Pid) {
        if let Some(lookup) = &mut self.lookup {
            lookup.pid.take_if(|helper| *helper == pid);
        }
    }

    /// Reads what the helper has to say.
    pub(super) fn turn(&mut self, reactor: &mut Reactor<Source>) -> Found {
        let Some(lookup) = &mut self.lookup else {
            return Found::NotYet;
        };
        match lookup.read(reactor) {
            Ok(false) => return Found::NotYet,
            Ok(true) => self.addresses = resolve::parse(&lookup.text),
            Err(error) => log::error!("cannot read the look-up's answer: {error}"),
        }
        let node = self.node().unwrap_or_default();
        if self.addresses.is_empty() {
            log::error!("the node's name {node} has no address here: connections to it fail");
        } else {
            log::info!("node {node} has {:?}", self.addresses);
        }
        self.end_lookup(reactor);
        if self.addresses.is_empty() {
            Found::Nothing
        } else {
            Found::Addresses
        }
    }

    /// The look-up took too long.
    pub(super) fn give_up(&mut self, reactor: &mut Reactor<Source>) {
        let node = self.node().unwrap_or_default();
        log::error!(
            "the look-up of the node's name {node} did not end within {} s: connections to it fail",
            LOOKUP_LIMIT.as_secs()
        );
        self.end_lookup(reactor);
    }

    fn end_lookup(&mut self, reactor: &mut Reactor<Source>) {
        if let Some(lookup) = self.lookup.take() {
            reactor.deregister(lookup.output.as_fd(), lookup.token);
            if let Some(pid) = lookup.pid {
                // One that has just ended is a zombie of ours and does not mind.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

impl Lookup {
    fn start(node: &BStr, reactor: &mut Reactor<Source>) -> io::Result<Self> {
        let (output, input) = io::pipe()?;
        let child = Command::new("/proc/self/exe")
            .arg(resolve::MODE)
            .arg(node.to_os_str_lossy())
            .stdin(Stdio::null())
            .stdout(input)
            .stderr(Stdio::null())
            .spawn()?;
        let output = Stream::own(OwnedFd::from(output))?;
        let token = reactor.register(output.as_fd(), Source::Lookup)?;
        let pid = Some(Pid::from_child(&child));
        Ok(Self {
            pid,
            output,
            token,
            text: Vec::new(),
        })
    }

    /// Whether the answer is complete.
    fn read(&mut self, reactor: &mut Reactor<Source>) -> io::Result<bool> {
        let mut buffer = [0; 1024];
        while self.text.len() < resolve::ANSWER_LIMIT {
            match self.output.read(&mut buffer) {
                Ok(0) => return Ok(true),
                Ok(bytes) => self.text.extend_from_slice(&buffer[..bytes]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    reactor.read_blocked(self.token);
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}
