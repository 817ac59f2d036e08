//! Whether somebody is connected to a tree: an established connection to a socket on which one of
//! its processes listens, from anywhere, its own processes included.
//!
//! A listening socket is known by its inode, which is what `/proc/PID/fd` and the tables in
//! `/proc/PID/net` have in common. The tables are those of the process's own network namespace.
//! A connection is then recognised by its near end: the listener's port and address, or its path.
//! So one that waits in the backlog, owned by nobody yet, counts too; over a Unix socket it does
//! until the server takes it, even if the other end is gone.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind};

use crate::process_tree::Pid;

/// What the sockets say about a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// Nobody is connected.
    Free,
    /// Its sockets cannot be seen, so that somebody may be connected.
    Unseen,
    /// Somebody is connected.
    Attached,
}

/// Looks at the sockets of all `trees`, each given by its processes. One reading of the tables
/// serves all trees of a network namespace.
pub fn uses(trees: &[Vec<Pid>]) -> Vec<Use> {
    let mut uses = vec![Use::Free; trees.len()];
    let mut namespaces: HashMap<Vec<u8>, Namespace> = HashMap::new();
    for (tree, pids) in trees.iter().enumerate() {
        for &pid in pids {
            let sockets = match sockets(pid) {
                Ok(sockets) if sockets.is_empty() => continue,
                Ok(sockets) => sockets,
                Err(error) if is_gone(&error) => continue,
                Err(_) => {
                    uses[tree] = uses[tree].max(Use::Unseen);
                    continue;
                }
            };
            let Ok(name) = fs::read_link(format!("/proc/{pid}/ns/net")) else {
                uses[tree] = uses[tree].max(Use::Unseen);
                continue;
            };
            let name = name.into_os_string().into_encoded_bytes();
            let namespace = namespaces.entry(name).or_default();
            namespace.pids.push(pid);
            for inode in sockets {
                namespace.owners.entry(inode).or_default().insert(tree);
            }
        }
    }
    for namespace in namespaces.values() {
        match namespace.connected() {
            Ok(connected) => {
                for tree in connected {
                    uses[tree] = Use::Attached;
                }
            }
            Err(_) => {
                for &tree in namespace.owners.values().flatten() {
                    uses[tree] = uses[tree].max(Use::Unseen);
                }
            }
        }
    }
    uses
}

/// The inodes of a process's sockets.
fn sockets(pid: Pid) -> io::Result<Vec<u64>> {
    let mut sockets = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // A descriptor that was closed meanwhile is no error.
        let Some(target) = entry
            .ok()
            .and_then(|entry| fs::read_link(entry.path()).ok())
        else {
            continue;
        };
        let target = target.into_os_string().into_encoded_bytes();
        let inode: Option<u64> = target
            .strip_prefix(b"socket:[")
            .and_then(|rest| rest.strip_suffix(b"]"))
            .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        sockets.extend(inode);
    }
    Ok(sockets)
}

/// ESRCH is what reading a directory of a process gives that ends meanwhile.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

/// The trees' sockets in one network namespace.
#[derive(Default)]
struct Namespace {
    /// Processes that live in it; any of them shows its tables.
    pids: Vec<Pid>,
    /// Socket inode to trees: children inherit their parents' sockets, across trees too.
    owners: HashMap<u64, HashSet<usize>>,
}

impl Namespace {
    /// The trees that somebody is connected to.
    fn connected(&self) -> io::Result<HashSet<usize>> {
        let mut connected = HashSet::new();
        let mut listeners: HashMap<Endpoint, HashSet<usize>> = HashMap::new();
        // Listeners first, from all tables: one for IPv6 takes connections from IPv4 as well.
        self.each_socket(|socket| {
            if let (true, Some(trees)) = (socket.listens, self.owners.get(&socket.inode)) {
                listeners.entry(socket.near).or_default().extend(trees);
            }
        })?;
        if listeners.is_empty() {
            return Ok(connected);
        }
        self.each_socket(|socket| {
            if socket.is_connected {
                for near in [socket.near.any(), socket.near] {
                    connected.extend(listeners.get(&near).into_iter().flatten());
                }
            }
        })?;
        Ok(connected)
    }

    /// Reads the three tables, a line at a time.
    fn each_socket(&self, mut see: impl FnMut(Socket)) -> io::Result<()> {
        for (table, parse) in [
            ("tcp", parse_tcp as fn(&[u8]) -> Option<Socket>),
            ("tcp6", parse_tcp),
            ("unix", parse_unix),
        ] {
            let Some(file) = self.open(table)? else {
                continue;
            };
            let mut file = BufReader::new(file);
            let mut line = Vec::new();
            while file.read_until(b'\n', &mut line)? > 0 {
                if let Some(socket) = parse(line.strip_suffix(b"\n").unwrap_or(&line)) {
                    see(socket);
                }
                line.clear();
            }
        }
        Ok(())
    }

    /// A table of a process that still lives; `None` where the kernel has none (no IPv6).
    fn open(&self, table: &str) -> io::Result<Option<File>> {
        for pid in &self.pids {
            match File::open(format!("/proc/{pid}/net/{table}")) {
                Ok(file) => return Ok(Some(file)),
                Err(error) if is_gone(&error) || error.kind() == ErrorKind::InvalidInput => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// The near end of a socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Endpoint {
    /// Address as the table writes it, without leading IPv4-in-IPv6; empty is any.
    Tcp { address: Vec<u8>, port: u16 },
    /// A path, or `@` and an abstract name.
    Unix(Vec<u8>),
}

impl Endpoint {
    /// The endpoint that takes connections on any address.
    fn any(&self) -> Self {
        match self {
            Self::Tcp { port, .. } => Self::Tcp {
                address: Vec::new(),
                port: *port,
            },
            Self::Unix(path) => Self::Unix(path.clone()),
        }
    }
}

/// One line of a table.
#[derive(Debug, PartialEq, Eq)]
struct Socket {
    near: Endpoint,
    listens: bool,
    is_connected: bool,
    inode: u64,
}

/// `sl local remote st queues timer retransmits uid timeout inode …`: proc_net_tcp.rst of the
/// kernel. States: 01 established, 0A listening.
fn parse_tcp(line: &[u8]) -> Option<Socket> {
    let mut fields = line
        .split(u8::is_ascii_whitespace)
        .filter(|field| !field.is_empty());
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    let inode = std::str::from_utf8(fields.nth(5)?).ok()?.parse().ok()?;
    let colon = local.iter().position(|&byte| byte == b':')?;
    let port = std::str::from_utf8(&local[colon + 1..]).ok()?;
    let mut address = &local[..colon];
    if address.len() == 32 {
        // ::ffff:a.b.c.d, in words of this machine's byte order.
        let mapped = [b"0000000000000000FFFF0000", b"00000000000000000000FFFF"];
        let prefix = mapped
            .into_iter()
            .find(|prefix| address.starts_with(*prefix));
        address = &address[prefix.map_or(0, |prefix| prefix.len())..];
    }
    let is_any = address.iter().all(|&digit| digit == b'0');
    Some(Socket {
        near: Endpoint::Tcp {
            address: if is_any { Vec::new() } else { address.to_vec() },
            port: u16::from_str_radix(port, 16).ok()?,
        },
        listens: state == b"0A",
        is_connected: state == b"01",
        inode,
    })
}

/// `Num RefCount Protocol Flags Type St Inode Path`, proc_pid_net(5). An accepted socket carries
/// its listener's path. A path may hold spaces and newlines; what its owner makes up that way can
/// only add connections, never hide one.
fn parse_unix(line: &[u8]) -> Option<Socket> {
    let mut rest = line;
    let mut next = || {
        let start = rest.iter().position(|byte| *byte != b' ')?;
        let end = rest[start..].iter().position(|byte| *byte == b' ');
        let end = end.map_or(rest.len(), |length| start + length);
        let field = &rest[start..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        Some(field)
    };
    let mut fields = [&b""[..]; 7];
    for field in &mut fields {
        *field = next()?;
    }
    let [_, _, _, flags, _, state, inode] = fields;
    if rest.is_empty() {
        return None; // without a path nobody has connected to it
    }
    let flags = u32::from_str_radix(std::str::from_utf8(flags).ok()?, 16).ok()?;
    let listens = flags & 0x1_0000 != 0; // __SO_ACCEPTCON
    Some(Socket {
        near: Endpoint::Unix(rest.to_vec()),
        listens,
        // SS_CONNECTED, or SS_CONNECTING: what is in the backlog.
        is_connected: matches!(state, b"03" | b"02") && !listens,
        inode: std::str::from_utf8(inode).ok()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn lines_of_the_tables_are_read() {
        let line = b"   0: 0100007F:9C41 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 424 1 ff";
        let near = |address: &[u8]| Endpoint::Tcp {
            address: address.to_vec(),
            port: 0x9C41,
        };
        let socket = parse_tcp(line).expect("a complete line");
        assert_eq!(
            (socket.near, socket.listens, socket.inode),
            (near(b"0100007F"), true, 424)
        );
        let line = b" 1: 0000000000000000FFFF00000100007F:9C41 0000000000000000FFFF00000100007F:D5E4 01 0:0 0:0 0 0 0 7";
        let socket = parse_tcp(line).expect("a complete line");
        assert_eq!(
            (socket.near, socket.is_connected),
            (near(b"0100007F"), true)
        );
        let line = b" 1: 00000000000000000000000000000000:9C41 0:0 0A 0:0 0:0 0 0 0 7";
        assert_eq!(parse_tcp(line).map(|s| s.near), Some(near(b"")));
        let socket =
            parse_unix(b"0000: 00000002 00000000 00010000 0001 01 31 /run/a b").expect("complete");
        assert_eq!(socket.near, Endpoint::Unix(b"/run/a b".to_vec()));
        assert!(socket.listens && !socket.is_connected);
        let socket =
            parse_unix(b"0000: 00000003 00000000 00000000 0001 03    32 @x").expect("complete");
        assert!(!socket.listens && socket.is_connected && socket.inode == 32);
    }

    #[test]
    fn what_is_no_line_is_left_out() {
        for line in [
            "",
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt",
            " 0: nocolon 0:0 0A 0:0 0:0 0 0 0 7",
            " 0: 1:xyz 0:0 0A 0:0 0:0 0 0 0 7",
            " 0: 1:1 0:0 0A",
        ] {
            assert_eq!(parse_tcp(line.as_bytes()), None, "{line}");
        }
        for line in [
            "",
            "Num       RefCount Protocol Flags    Type St Inode Path",
            "0000: 00000003 00000000 00000000 0001 03 1660",
            "0000: 00000003 00000000 00000000 0001 03 1660 ",
            "0000: 00000003 00000000 flags 0001 03 1660 /x",
            "0000: 00000003 00000000 00000000 0001 03 inode /x",
        ] {
            assert_eq!(parse_unix(line.as_bytes()), None, "{line}");
        }
    }

    /// This process as a tree: other tests may hold connections of their own meanwhile, so a
    /// listener's inode is asked for by itself.
    fn connected(inode: u64) -> bool {
        let own = i32::try_from(std::process::id()).expect("a pid is positive");
        let namespace = Namespace {
            pids: vec![own],
            owners: HashMap::from([(inode, HashSet::from([0]))]),
        };
        !namespace.connected().expect("the tables").is_empty()
    }

    fn inode(socket: &impl std::os::fd::AsFd) -> u64 {
        let inode = rustix::fs::fstat(socket).expect("an open socket").st_ino;
        let own = i32::try_from(std::process::id()).expect("a pid is positive");
        assert!(sockets(own).expect("own descriptors").contains(&inode));
        inode
    }

    #[test]
    fn a_tcp_connection_counts_from_the_backlog_to_its_end() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                assert!(address.starts_with('['), "without IPv6");
                continue;
            };
            let port = listener.local_addr().expect("it is bound").port();
            let inode = inode(&listener);
            assert!(!connected(inode), "{address}");
            let client = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
            assert!(connected(inode), "{address}");
            let accepted = listener.accept().expect("a connection");
            assert!(connected(inode), "{address}");
            drop((client, accepted));
            assert!(!connected(inode), "{address}");
        }
    }

    #[test]
    fn a_unix_connection_counts_from_the_backlog_to_its_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a b.sock");
        let listener = UnixListener::bind(&path).expect("a listener");
        let inode = inode(&listener);
        assert!(!connected(inode));
        let client = UnixStream::connect(&path).expect("a connection");
        assert!(connected(inode));
        let accepted = listener.accept().expect("a connection");
        assert!(connected(inode));
        drop((client, accepted));
        assert!(!connected(inode));
    }

    #[test]
    fn a_process_that_is_gone_has_no_sockets() {
        assert_eq!(uses(&[vec![i32::MAX], vec![]]), [Use::Free, Use::Free]);
    }
}
