//! Who may use the listener: only the proxy's own user, unless the options say otherwise.
//!
//! The announced port is on the login node's loopback, where every user of that node can connect.
//! So before a byte is relayed the owner of the *client's* socket is looked up ([`sock_diag`], or
//! [`proc_net`] where netlink is refused) and [`Rules`] decide. sshd's forwarding process runs
//! as the user, so Remote-SSH passes.
//!
//! A peer on another machine has no owner that could be looked up here; such peers are refused
//! unless `--admit any` or `--admit-from` lets them in.

pub mod proc_net;
pub mod sock_diag;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::{Duration, Instant};

/// Whose local connections are relayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admit {
    /// Those of the proxy's own user: `self`.
    Own,
    /// Those of root too: `root`.
    Root,
    /// Everybody's, from other machines too: `any`.
    Any,
}

impl fmt::Display for Admit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Admit::Own => "self",
            Admit::Root => "root",
            Admit::Any => "any",
        })
    }
}

impl FromStr for Admit {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Admit, &'static str> {
        match text {
            "self" => Ok(Admit::Own),
            "root" => Ok(Admit::Root),
            "any" => Ok(Admit::Any),
            _ => Err("self, root or any is expected"),
        }
    }
}

/// A network: the addresses that share their first `prefix` bits with `base`.
///
/// The other bits of `base` are 0. An IPv4-mapped IPv6 network is held as its IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    base: IpAddr,
    prefix: u32,
}

impl Cidr {
    /// Is `address` in this network? An IPv4-mapped address counts as its IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(it)) => {
                (base.to_bits() ^ it.to_bits()) & mask4(self.prefix) == 0
            }
            (IpAddr::V6(base), IpAddr::V6(it)) => {
                (base.to_bits() ^ it.to_bits()) & mask6(self.prefix) == 0
            }
            _ => false,
        }
    }
}

/// The first `prefix` of 32 bits.
fn mask4(prefix: u32) -> u32 {
    u32::MAX.checked_shl(32 - prefix).unwrap_or(0)
}

/// The first `prefix` of 128 bits.
fn mask6(prefix: u32) -> u128 {
    u128::MAX.checked_shl(128 - prefix).unwrap_or(0)
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = String;

    /// Reads `ADDRESS/PREFIX`, or an address alone.
    fn from_str(text: &str) -> Result<Cidr, String> {
        let form = || {
            "a network such as 10.1.0.0/16 or fd00:1::/32, or an address, is expected".to_owned()
        };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| form())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(prefix) => match prefix.parse() {
                Ok(prefix) if prefix <= bits => prefix,
                _ => {
                    return Err(format!(
                        "a prefix from 0 to {bits} is expected behind the /"
                    ));
                }
            },
        };
        let (base, prefix) = match (address, address.to_canonical()) {
            (IpAddr::V6(_), IpAddr::V4(mapped)) if prefix >= 96 => {
                (IpAddr::V4(mapped), prefix - 96)
            }
            _ => (address, prefix),
        };
        let network = match base {
            IpAddr::V4(it) => IpAddr::V4(Ipv4Addr::from_bits(it.to_bits() & mask4(prefix))),
            IpAddr::V6(it) => IpAddr::V6(Ipv6Addr::from_bits(it.to_bits() & mask6(prefix))),
        };
        if network != base {
            return Err(format!(
                "bits are set behind the prefix; {network}/{prefix} is the network"
            ));
        }
        Ok(Cidr { base, prefix })
    }
}

/// What the kernel knows of a TCP socket that has exactly the addresses that were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Whose it is; 0 for one that nobody holds any more.
    pub uid: u32,
    /// Its inode; 0 once the last descriptor is closed.
    pub inode: u32,
    /// Its state, by the numbers of the kernel's `tcp_states.h`.
    pub state: u8,
}

impl Owner {
    /// `TCP_ESTABLISHED`.
    pub const ESTABLISHED: u8 = 1;
    /// `TCP_FIN_WAIT1`: the client has shut its sending side down.
    pub const FIN_WAIT1: u8 = 4;
    /// `TCP_FIN_WAIT2`: and we have acknowledged it.
    pub const FIN_WAIT2: u8 = 5;

    /// Does a process hold this socket and wait for our bytes? After close() the entry stays for
    /// a minute with uid 0 and inode 0, and must not pass for root's.
    fn is_held(&self) -> bool {
        self.inode != 0
            && matches!(
                self.state,
                Self::ESTABLISHED | Self::FIN_WAIT1 | Self::FIN_WAIT2
            )
    }
}

/// Who is admitted.
#[derive(Debug, Clone)]
pub struct Rules {
    admit: Admit,
    from: Vec<Cidr>,
    own_uid: u32,
}

/// Whether a connection is relayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Admitted,
    /// It is reset at once.
    Refused(Reason),
}

/// Why a connection is not relayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Its socket belongs to another user.
    OtherUser(u32),
    /// It comes from another machine, and no network was named that holds its address.
    OtherMachine,
    /// No process holds its other end: closed already, or not found.
    NoOwner,
}

impl Rules {
    /// The rules of a proxy that runs as `own_uid` (its effective uid).
    pub fn new(admit: Admit, from: Vec<Cidr>, own_uid: u32) -> Rules {
        Rules {
            admit,
            from,
            own_uid,
        }
    }

    /// Has the owner to be looked up before [`decide`](Rules::decide)? `local` is whether the
    /// peer's address is this machine's own.
    pub fn asks_owner(&self, local: bool) -> bool {
        local && self.admit != Admit::Any
    }

    /// Whose connections from other machines are admitted, in words.
    pub fn others(&self) -> String {
        match (self.admit, &self.from[..]) {
            (Admit::Any, _) => "all (--admit any)".to_owned(),
            (_, []) => "none (--admit-from CIDR lets some in)".to_owned(),
            (_, from) => {
                let networks: Vec<String> = from.iter().map(Cidr::to_string).collect();
                format!("those from {}", networks.join(", "))
            }
        }
    }

    /// Decides on a connection. `owner` is what the look-up found, if it was asked and did.
    pub fn decide(&self, peer: IpAddr, local: bool, owner: Option<Owner>) -> Verdict {
        if self.admit == Admit::Any {
            return Verdict::Admitted;
        }
        if !local {
            return match self.from.iter().any(|network| network.contains(peer)) {
                true => Verdict::Admitted,
                false => Verdict::Refused(Reason::OtherMachine),
            };
        }
        match owner.filter(Owner::is_held) {
            None => Verdict::Refused(Reason::NoOwner),
            Some(Owner { uid, .. })
                if uid == self.own_uid || (uid == 0 && self.admit == Admit::Root) =>
            {
                Verdict::Admitted
            }
            Some(Owner { uid, .. }) => Verdict::Refused(Reason::OtherUser(uid)),
        }
    }
}

/// Counts refused connections and decides which of them get a line in the log: a few at once,
/// then one in each interval, so that a scan cannot fill a disk. Each line carries the count of all,
/// so nothing is lost but the detail.
#[derive(Debug)]
pub struct Refusals {
    burst: u32,
    interval: Duration,
    total: u64,
    /// Lines that may be written now; `lines <= burst`.
    lines: u32,
    /// Since when `lines` has been what it is; `None` while it is full.
    since: Option<Instant>,
}

impl Refusals {
    /// Lines that may follow one another at once.
    pub const BURST: u32 = 8;
    /// How long it takes until one more line may be written: about 30 KiB of log an hour.
    pub const INTERVAL: Duration = Duration::from_secs(10);

    /// Nothing refused yet.
    pub fn new() -> Refusals {
        Self::rationed(Self::BURST, Self::INTERVAL)
    }

    /// Nothing refused yet; `burst` lines at once, then one in each `interval`, of a second or more.
    pub fn rationed(burst: u32, interval: Duration) -> Refusals {
        Refusals {
            burst,
            interval,
            total: 0,
            lines: burst,
            since: None,
        }
    }

    /// Notes a refusal; the number of all so far where it shall be logged.
    pub fn refused(&mut self, now: Instant) -> Option<u64> {
        self.total += 1;
        if let Some(since) = self.since {
            let passed =
                now.saturating_duration_since(since).as_secs() / self.interval.as_secs().max(1);
            // At most `burst` lines are missing, so more intervals than that do not matter.
            let regained = passed.min(u64::from(self.burst - self.lines)) as u32;
            self.lines += regained;
            self.since = (self.lines < self.burst).then(|| since + self.interval * regained);
        }
        self.lines = self.lines.checked_sub(1)?;
        self.since.get_or_insert(now);
        Some(self.total)
    }

    /// How many connections were refused.
    pub fn total(&self) -> u64 {
        self.total
    }
}

impl Default for Refusals {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ME: u32 = 1000;

    fn owned(uid: u32) -> Option<Owner> {
        Some(Owner {
            uid,
            inode: 7,
            state: Owner::ESTABLISHED,
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn who_is_admitted_is_said_in_words() {
        let from: Vec<Cidr> = ["10.1.0.0/16", "fd00::/8"]
            .map(|it| it.parse().unwrap())
            .into();
        let (none, some) = (
            "none (--admit-from CIDR lets some in)",
            "those from 10.1.0.0/16, fd00::/8",
        );
        let all = "all (--admit any)";
        for (word, admit, others) in [
            ("self", Admit::Own, [none, some]),
            ("root", Admit::Root, [none, some]),
            ("any", Admit::Any, [all, all]),
        ] {
            assert_eq!(
                (word.parse(), admit.to_string()),
                (Ok(admit), word.to_owned())
            );
            let said = [Vec::new(), from.clone()].map(|from| Rules::new(admit, from, ME).others());
            assert_eq!(said, others, "{word}");
        }
        assert!("all".parse::<Admit>().is_err());
    }

    #[test]
    fn local_peers_are_judged_by_their_uid() {
        use Reason::{NoOwner, OtherUser};
        use Verdict::{Admitted, Refused};
        for (admit, uid, verdict) in [
            (Admit::Own, ME, Admitted),
            (Admit::Own, 0, Refused(OtherUser(0))),
            (Admit::Own, 1001, Refused(OtherUser(1001))),
            (Admit::Root, ME, Admitted),
            (Admit::Root, 0, Admitted),
            (Admit::Root, 1001, Refused(OtherUser(1001))),
            (Admit::Any, ME, Admitted),
            (Admit::Any, 1001, Admitted),
        ] {
            // A network that holds loopback opens nothing to users of this machine.
            let rules = Rules::new(admit, vec!["127.0.0.0/8".parse().unwrap()], ME);
            assert_eq!(
                rules.decide(ip("127.0.0.1"), true, owned(uid)),
                verdict,
                "{admit} {uid}"
            );
            if admit != Admit::Any {
                assert!(rules.asks_owner(true));
                assert_eq!(rules.decide(ip("127.0.0.1"), true, None), Refused(NoOwner));
            }
        }
    }

    #[test]
    fn a_socket_that_nobody_holds_is_nobodys() {
        for admit in [Admit::Own, Admit::Root] {
            let rules = Rules::new(admit, Vec::new(), 0);
            for state in 0..=255 {
                let held = matches!(state, 1 | 4 | 5);
                for (inode, held) in [(7, held), (0, false)] {
                    let owner = Owner {
                        uid: 0,
                        inode,
                        state,
                    };
                    let expected = match held {
                        true => Verdict::Admitted,
                        false => Verdict::Refused(Reason::NoOwner),
                    };
                    assert_eq!(
                        rules.decide(ip("::1"), true, Some(owner)),
                        expected,
                        "{owner:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn other_machines_need_a_network_or_any() {
        let networks = vec!["10.1.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let rules = Rules::new(Admit::Root, networks.clone(), ME);
        assert!(!rules.asks_owner(false));
        for (peer, admitted) in [
            ("10.1.255.1", true),
            ("::ffff:10.1.0.1", true),
            ("fd12::1", true),
            ("10.2.0.1", false),
            ("fe80::1", false),
        ] {
            let verdict = rules.decide(ip(peer), false, None);
            assert_eq!(verdict == Verdict::Admitted, admitted, "{peer}");
            let closed = Rules::new(Admit::Own, Vec::new(), ME).decide(ip(peer), false, None);
            assert_eq!(closed, Verdict::Refused(Reason::OtherMachine));
        }
        let any = Rules::new(Admit::Any, Vec::new(), ME);
        assert!(!any.asks_owner(false) && !any.asks_owner(true));
        assert_eq!(any.decide(ip("8.8.8.8"), false, None), Verdict::Admitted);
    }

    #[test]
    fn networks_are_read_and_wrong_ones_explained() {
        for (text, printed) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("::1", "::1/128"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ] {
            assert_eq!(
                text.parse::<Cidr>().map(|it| it.to_string()),
                Ok(printed.to_owned())
            );
        }
        for text in [
            "",
            "/8",
            "10.0.0.0/",
            "10.0.0/8",
            "10.0.0.0/33",
            "::/129",
            "::/-1",
            "::/1/1",
            "10.0.0.1/8",
            "fd00::1/64",
            "::ffff:10.0.0.0/90",
            "localhost",
        ] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_network_holds_what_shares_its_bits(a: u128, b: u128, prefix in 0..=128u32) {
            let address = |bits| IpAddr::V6(Ipv6Addr::from_bits(bits));
            let mask = if prefix == 0 { 0 } else { !0 << (128 - prefix) };
            prop_assume!(address(b).to_canonical().is_ipv6());
            let network: Cidr = format!("{}/{prefix}", address(a & mask)).parse().unwrap();
            prop_assert_eq!(network.contains(address(b)), a & mask == b & mask);
            prop_assert!(network.contains(address(a)) || address(a).to_canonical().is_ipv4());
            prop_assert_eq!(network.to_string().parse(), Ok(network));
        }

        #[test]
        fn any_text_is_a_network_or_explained(text in ".*") {
            if let Ok(network) = text.parse::<Cidr>() {
                prop_assert_eq!(network.to_string().parse(), Ok(network));
            }
        }

        #[test]
        fn a_scan_of_any_shape_gets_few_lines(gaps in prop::collection::vec(0..15_000u64, 1..500)) {
            let start = Instant::now();
            let (mut now, mut lines, mut refusals) = (start, 0, Refusals::new());
            for (n, gap) in gaps.iter().enumerate() {
                now += Duration::from_millis(*gap);
                if let Some(total) = refusals.refused(now) {
                    prop_assert_eq!(total, n as u64 + 1);
                    lines += 1;
                }
            }
            prop_assert_eq!(refusals.total(), gaps.len() as u64);
            let allowed = (now - start).as_secs() / Refusals::INTERVAL.as_secs();
            prop_assert!(lines <= allowed + u64::from(Refusals::BURST));
        }
    }

    #[test]
    fn lines_come_back_with_time() {
        let start = Instant::now();
        let mut refusals = Refusals::new();
        let mut logged = |seconds| refusals.refused(start + Duration::from_secs(seconds));
        for n in 1..=8 {
            assert_eq!(logged(0), Some(n));
        }
        assert_eq!(logged(9), None);
        assert_eq!(logged(10), Some(10));
        assert_eq!(logged(19), None);
        assert_eq!(logged(20), Some(12));
        // A quiet hour gives all eight back, and no more, however many of them were used.
        for n in 13..=20 {
            assert_eq!(logged(3600), Some(n));
        }
        assert_eq!(logged(3600), None);
        for n in 22..=24 {
            assert_eq!(logged(7200), Some(n));
        }
        for n in 25..=32 {
            assert_eq!(logged(10_800), Some(n));
        }
        assert_eq!(logged(10_800), None);
    }
}
