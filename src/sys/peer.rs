//! Who is at the other end of a local TCP connection.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send,
    socket,
};
use nix::unistd::{Uid, User};

use crate::admission::Owner;
use crate::admission::proc_net;
use crate::admission::sock_diag::{self, Answer};

use super::interfaces;

/// Passes over `/proc/net/tcp` before a connection counts as not found: rows move while it is
/// read.
const PASSES: u32 = 3;

/// Looks owners of sockets up.
#[derive(Debug)]
pub struct Lookup {
    /// A netlink socket, or `None` where the system has or allows none.
    netlink: Option<OwnedFd>,
    /// The number of the last question.
    sequence: u32,
    /// Has the kernel ever shown that it knows TCP sockets? Until then "no such socket" may mean
    /// that its module is missing, and `/proc` is asked too.
    proven: bool,
}

impl Lookup {
    /// Opens what look-ups need, so that none fails later for want of a descriptor. Where netlink
    /// is refused, `/proc` serves.
    pub fn new() -> Lookup {
        let netlink = open().inspect_err(|error| {
            log::debug!("no sock_diag, owners of sockets come from /proc/net/tcp: {error}");
        });
        Lookup {
            netlink: netlink.ok(),
            sequence: 0,
            proven: false,
        }
    }

    /// Looks up in `/proc` alone, as where netlink is refused.
    pub fn by_proc() -> Lookup {
        Lookup {
            netlink: None,
            sequence: 0,
            proven: false,
        }
    }

    /// Who holds the other end of a connection accepted here, whose own address is `local` and
    /// whose peer is `peer`, an address of this machine. `None` if nothing has these addresses.
    ///
    /// # Errors
    /// Neither netlink nor `/proc` could be asked.
    pub fn owner(&mut self, local: SocketAddr, peer: SocketAddr) -> io::Result<Option<Owner>> {
        match self.ask(local, peer) {
            Ok(Answer::Owner(owner)) => {
                self.proven = true;
                Ok(Some(owner))
            }
            Ok(Answer::OtherSocket) => {
                self.proven = true;
                Ok(None)
            }
            Ok(Answer::Nothing) if self.proven => Ok(None),
            Ok(Answer::Nothing | Answer::Refused(_)) | Err(_) => read_tables(local, peer),
        }
    }

    fn ask(&mut self, local: SocketAddr, peer: SocketAddr) -> io::Result<Answer> {
        let Some(netlink) = &self.netlink else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let fd = netlink.as_raw_fd();
        self.sequence = self.sequence.wrapping_add(1);
        let Some(request) = sock_diag::request(peer, local, self.sequence) else {
            return Ok(Answer::Nothing);
        };
        send(fd, &request, MsgFlags::MSG_DONTWAIT)?;
        // The kernel answers within send(2). An older answer that nobody fetched is passed over.
        let mut datagram = [0; 512];
        loop {
            let length = recv(fd, &mut datagram, MsgFlags::MSG_DONTWAIT)?;
            let answer = sock_diag::answer(&datagram[..length], peer, local, self.sequence);
            if let Some(answer) = answer {
                return Ok(answer);
            }
        }
    }
}

impl Default for Lookup {
    fn default() -> Self {
        Self::new()
    }
}

/// Is this an address of this very machine? Strictly of this network namespace, which is where
/// the look-up looks, too.
///
/// # Errors
/// The interfaces' addresses could not be listed; such a peer must not pass for another machine's.
pub fn is_own(address: IpAddr) -> io::Result<bool> {
    let address = address.to_canonical();
    if address.is_loopback() {
        return Ok(true);
    }
    Ok(interfaces::addresses()?.any(|own| own == address))
}

/// A user's name. The site's user database may take its time; but whoever connects from this
/// machine is at work here, so the node's cache knows the name.
pub fn user_name(uid: u32) -> Option<String> {
    Some(User::from_uid(Uid::from_raw(uid)).ok()??.name)
}

fn open() -> nix::Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    // Connected to the kernel, so that no process can send us an answer.
    connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    Ok(socket)
}

fn read_tables(local: SocketAddr, peer: SocketAddr) -> io::Result<Option<Owner>> {
    for _ in 0..PASSES {
        // An IPv4-mapped client is in the second table, whatever the question looks like.
        for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
            let found = match File::open(table) {
                Ok(file) => read_table(file, local, peer)?,
                // A kernel without IPv6.
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
            if found.is_some() {
                return Ok(found);
            }
        }
    }
    Ok(None)
}

fn read_table(file: File, local: SocketAddr, peer: SocketAddr) -> io::Result<Option<Owner>> {
    let mut rows = BufReader::new(file);
    let mut row = String::new();
    while rows.read_line(&mut row)? > 0 {
        if let Some(owner) = proc_net::owner(&row, peer, local) {
            return Ok(Some(owner));
        }
        row.clear();
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use nix::unistd::geteuid;

    /// Both ways to look up: as a system gives them, and through /proc alone.
    fn ways() -> [Lookup; 2] {
        let netlink = Lookup::new();
        assert!(
            netlink.netlink.is_some(),
            "this system has no sock_diag to test"
        );
        [netlink, Lookup::by_proc()]
    }

    struct Pair {
        listener: TcpListener,
        client: TcpStream,
        accepted: TcpStream,
        local: SocketAddr,
        peer: SocketAddr,
    }

    /// A connection to a listener on `listen`, dialled as `dial`.
    fn pair(listen: &str, dial: &str) -> Pair {
        let listener = TcpListener::bind((listen, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect((dial, port)).unwrap();
        let (accepted, peer) = listener.accept().unwrap();
        Pair {
            local: accepted.local_addr().unwrap(),
            listener,
            client,
            accepted,
            peer,
        }
    }

    #[track_caller]
    fn state(lookup: &mut Lookup, local: SocketAddr, peer: SocketAddr) -> Option<u8> {
        lookup.owner(local, peer).unwrap().map(|owner| owner.state)
    }

    #[test]
    fn our_own_client_is_ours_in_every_family() {
        for (listen, dial) in [
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "::1"),
            ("::", "::1"),
            ("::", "127.0.0.1"),             // accepted as ::ffff:127.0.0.1
            ("0.0.0.0", "::ffff:127.0.0.1"), // a client socket of the other family
            ("::", "::ffff:127.0.0.1"),
        ] {
            let pair = pair(listen, dial);
            for mut lookup in ways() {
                let owner = lookup.owner(pair.local, pair.peer).unwrap();
                let owner = owner.unwrap_or_else(|| panic!("{listen} {dial} {lookup:?}"));
                assert_eq!(owner.uid, geteuid().as_raw(), "{listen} {dial}");
                assert_eq!(owner.state, Owner::ESTABLISHED);
                assert_ne!(owner.inode, 0);
            }
            assert!(is_own(pair.peer.ip()).unwrap());
        }
    }

    #[test]
    fn a_client_that_shut_its_side_down_is_still_held() {
        let mut pair = pair("127.0.0.1", "127.0.0.1");
        pair.client.shutdown(Shutdown::Write).unwrap();
        for mut lookup in ways() {
            let owner = lookup.owner(pair.local, pair.peer).unwrap().unwrap();
            assert!(matches!(owner.state, Owner::FIN_WAIT1 | Owner::FIN_WAIT2));
            assert_ne!(owner.inode, 0);
        }
        // A byte from us brings the acknowledgement along.
        pair.accepted.write_all(b"x").unwrap();
        pair.client.read_exact(&mut [0]).unwrap();
        for mut lookup in ways() {
            let owner = lookup.owner(pair.local, pair.peer).unwrap().unwrap();
            assert_eq!(owner.state, Owner::FIN_WAIT2);
            assert_ne!(owner.inode, 0);
        }
    }

    #[test]
    fn a_closed_client_has_no_inode_and_then_is_in_time_wait() {
        const TIME_WAIT: u8 = 6;
        let Pair {
            listener: _listener,
            client,
            accepted,
            local,
            peer,
        } = pair("127.0.0.1", "127.0.0.1");
        drop(client);
        for mut lookup in ways() {
            let owner = lookup.owner(local, peer).unwrap().unwrap();
            assert!(matches!(owner.state, Owner::FIN_WAIT1 | Owner::FIN_WAIT2));
            assert_eq!(
                owner.inode, 0,
                "whatever the uid is, which differs between kernels"
            );
        }
        drop(accepted);
        for mut lookup in ways() {
            // The last segments may still be on their way through the kernel.
            let deadline = Instant::now() + Duration::from_secs(10);
            while state(&mut lookup, local, peer) != Some(TIME_WAIT) && Instant::now() < deadline {
                std::thread::yield_now();
            }
            let owner = lookup.owner(local, peer).unwrap().unwrap();
            assert_eq!((owner.state, owner.uid, owner.inode), (TIME_WAIT, 0, 0));
        }
    }

    #[test]
    fn a_listener_on_the_clients_port_is_not_the_client() {
        let Pair {
            listener, local, ..
        } = pair("127.0.0.1", "127.0.0.1");
        let listening = listener.local_addr().unwrap();
        for mut lookup in ways() {
            assert_eq!(state(&mut lookup, local, listening), None);
        }
        let mut netlink = Lookup::new();
        assert_eq!(netlink.ask(local, listening).unwrap(), Answer::OtherSocket);
    }

    #[test]
    fn a_connection_that_never_was_is_not_found_and_the_socket_goes_on_working() {
        let Pair {
            listener: _listener,
            client: _client,
            accepted: _accepted,
            local,
            peer,
        } = pair("127.0.0.1", "127.0.0.1");
        for mut lookup in ways() {
            for _ in 0..3 {
                assert_eq!(
                    state(&mut lookup, peer, SocketAddr::from(([127, 0, 0, 1], 1))),
                    None
                );
                assert_eq!(state(&mut lookup, local, "[::1]:1".parse().unwrap()), None);
                assert_eq!(state(&mut lookup, local, peer), Some(Owner::ESTABLISHED));
            }
        }
    }

    #[test]
    fn another_users_client_is_anothers() {
        if !geteuid().is_root() {
            return; // Only root can be somebody else.
        }
        const STRANGER: u32 = 12345;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut stranger = Command::new("/bin/bash")
            .args([
                "-c",
                &format!("exec 3<>/dev/tcp/127.0.0.1/{port}; read -r -u 3"),
            ])
            .uid(STRANGER)
            .gid(STRANGER)
            .current_dir("/")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let (mut accepted, peer) = listener.accept().unwrap();
        for mut lookup in ways() {
            let owner = lookup
                .owner(accepted.local_addr().unwrap(), peer)
                .unwrap()
                .unwrap();
            assert_eq!((owner.uid, owner.state), (STRANGER, Owner::ESTABLISHED));
        }
        accepted.write_all(b"go\n").unwrap();
        assert!(stranger.wait().unwrap().success());
    }

    #[test]
    fn other_machines_addresses_are_not_our_own() {
        // TEST-NET-1 and the documentation prefix: nobody's.
        for address in ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "0.0.0.0"] {
            assert!(!is_own(address.parse().unwrap()).unwrap(), "{address}");
        }
        for address in ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"] {
            assert!(is_own(address.parse().unwrap()).unwrap(), "{address}");
        }
    }

    #[test]
    fn root_has_a_name() {
        assert_eq!(user_name(0).as_deref(), Some("root"));
        assert_eq!(user_name(u32::MAX - 5), None);
    }
}
