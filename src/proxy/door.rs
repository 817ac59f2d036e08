//! Who gets in: a connection is relayed only for its own user, and refused before a byte of it is
//! read and before the compute node is contacted.

use std::fmt;
use std::io;
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
        let reason = match self.judge(client, peer, at) {
            Ok(Verdict::Admitted) => return true,
            Ok(Verdict::Refused(reason)) => Ok(reason),
            Err(error) => Err(error),
        };
        tcp::reset_on_close(client);
        if let Some(count) = self.refusals.refused(Instant::now()) {
            let why = Why(reason);
            log::warn!("refused a connection from {peer}: {why} (refused so far: {count})");
        }
        false
    }

    /// The lines were rationed; their sum, at the session's end, is not.
    pub(super) fn sum_up(&self) {
        let total = self.refusals.total();
        if total > 0 {
            log::warn!("connections refused in this session: {total}");
        }
    }

    /// What cannot be found out is an error, and not let in.
    fn judge(
        &mut self,
        client: &TcpStream,
        peer: SocketAddr,
        at: SocketAddr,
    ) -> io::Result<Verdict> {
        let local = peer::is_own(peer.ip())?;
        let owner = match self.rules.asks_owner(local) {
            false => None,
            // Only a listener on all addresses leaves open which one the client has reached.
            true if at.ip().is_unspecified() => self.lookup.owner(client.local_addr()?, peer)?,
            true => self.lookup.owner(at, peer)?,
        };
        Ok(self.rules.decide(peer.ip(), local, owner))
    }
}

/// Says, of a listener on `ip`, whom it lets in from other machines.
pub(super) fn announce(ip: IpAddr, rules: &Rules) {
    if !ip.to_canonical().is_loopback() {
        log::warn!(
            "other machines can connect to the listener on {ip}; admitted are {}",
            rules.others()
        );
    }
}

struct Why(io::Result<Reason>);

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ok(Reason::OtherUser(uid)) => match peer::user_name(*uid) {
                Some(name) => write!(f, "its owner is {name} (uid {uid})"),
                None => write!(f, "its owner has uid {uid}"),
            },
            Ok(Reason::OtherMachine) => f.write_str("it comes from another machine"),
            Ok(Reason::NoOwner) => f.write_str("it has no owner any more"),
            Err(error) => write!(f, "its owner cannot be looked up: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    use nix::unistd::geteuid;

    use crate::admission::Admit;

    fn door(admit: Admit) -> Door {
        Door::new(Rules::new(admit, Vec::new(), geteuid().as_raw()))
    }

    fn admits(door: &mut Door, listener: &TcpListener) -> bool {
        let (client, peer) = listener.accept().unwrap();
        let at = listener.local_addr().unwrap();
        door.admits(&client, peer, at)
    }

    #[test]
    fn the_user_is_let_in_wherever_the_listener_is_bound() {
        for bind in ["127.0.0.1", "0.0.0.0", "::1", "::"] {
            let listener = TcpListener::bind((bind, 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            let dial = if bind == "::1" { "::1" } else { "127.0.0.1" };
            let _client = TcpStream::connect((dial, port)).unwrap();
            assert!(admits(&mut door(Admit::Own), &listener), "{bind}");
        }
    }

    #[test]
    fn a_client_that_is_gone_already_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        drop(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let mut door = door(Admit::Root);
        assert!(!admits(&mut door, &listener));
        assert_eq!(door.refusals.total(), 1);
    }

    /// Connects as `uid` and waits for the end of the connection.
    fn connect_as(uid: u32, port: u16) -> Child {
        Command::new("/bin/bash")
            .args([
                "-c",
                &format!("exec 3<>/dev/tcp/127.0.0.1/{port}; read -r -u 3"),
            ])
            .uid(uid)
            .gid(uid)
            .current_dir("/")
            .stdin(Stdio::null())
            .spawn()
            .unwrap()
    }

    #[test]
    fn a_stranger_needs_any() {
        if !geteuid().is_root() {
            return; // Only root can be somebody else.
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        for (admit, admitted) in [
            (Admit::Own, false),
            (Admit::Root, false),
            (Admit::Any, true),
        ] {
            let mut stranger = connect_as(12345, port);
            assert_eq!(admits(&mut door(admit), &listener), admitted, "{admit}");
            stranger.wait().unwrap();
        }
    }
}
