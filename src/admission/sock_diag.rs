//! The kernel's answer to "whose socket is this?", as bytes: one `NETLINK_SOCK_DIAG` request for
//! exactly one connection, and its answer. Layouts by `linux/netlink.h` and `linux/inet_diag.h`;
//! numbers are in the machine's byte order, ports and addresses in the network's.
//!
//! The socket is looked for from the client's side: its source is our peer. A look-up that finds
//! no such connection answers with a socket that *listens* on the source port instead, so an
//! answer counts only where all of its addresses are those of the question (measured, Linux 6.18;
//! `__inet_lookup` in the kernel's source falls through to the listeners).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Owner;

/// Bytes of a request: a netlink header and an `inet_diag_req_v2`.
pub const REQUEST_LEN: usize = HEADER_LEN + 56;

const HEADER_LEN: usize = 16;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const ENOENT: i32 = 2;

/// What the kernel said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// There is a socket with exactly these addresses.
    Owner(Owner),
    /// There is one on this port, but with other addresses: it listens.
    OtherSocket,
    /// There is none, or nobody here who would know (`ENOENT` stands for both: a kernel whose
    /// `tcp_diag` module is missing says so too).
    Nothing,
    /// The question was refused with this error number.
    Refused(i32),
}

/// The question who holds the socket that is bound to `client` and connected to `server`; `None`
/// for two addresses that no connection can have, one IPv4 and one IPv6.
pub fn request(client: SocketAddr, server: SocketAddr, sequence: u32) -> Option<[u8; REQUEST_LEN]> {
    let (source, destination) = (client.ip().to_canonical(), server.ip().to_canonical());
    if source.is_ipv4() != destination.is_ipv4() {
        return None;
    }
    let mut message = [0; REQUEST_LEN];
    let mut rest = &mut message[..];
    let mut put = |bytes: &[u8]| {
        let (here, behind) = std::mem::take(&mut rest).split_at_mut(bytes.len());
        here.copy_from_slice(bytes);
        rest = behind;
    };
    put(&(REQUEST_LEN as u32).to_ne_bytes());
    put(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    put(&NLM_F_REQUEST.to_ne_bytes());
    put(&sequence.to_ne_bytes());
    put(&[0; 4]); // Port id: the kernel fills it in.

    let family = if source.is_ipv4() { AF_INET } else { AF_INET6 };
    put(&[family, IPPROTO_TCP, 0, 0]); // No extensions.
    put(&u32::MAX.to_ne_bytes()); // In any state; an exact look-up does not read this.
    put(&client.port().to_be_bytes());
    put(&server.port().to_be_bytes());
    put(&padded(source));
    put(&padded(destination));
    // A link-local address is one only together with its interface.
    let interface = match client {
        SocketAddr::V6(client) if source.is_ipv6() => client.scope_id(),
        _ => 0,
    };
    put(&interface.to_ne_bytes());
    put(&[0xff; 8]); // INET_DIAG_NOCOOKIE.
    Some(message)
}

/// Reads what came back for that question; `None` if it is no answer to it.
pub fn answer(
    datagram: &[u8],
    client: SocketAddr,
    server: SocketAddr,
    sequence: u32,
) -> Option<Answer> {
    let mut rest = datagram;
    while let Some((kind, its_sequence, payload, behind)) = split(rest) {
        rest = behind;
        if its_sequence != sequence {
            continue;
        }
        return match kind {
            SOCK_DIAG_BY_FAMILY => socket(payload, client, server),
            NLMSG_ERROR => match number(payload, 0)? as i32 {
                errno if errno == -ENOENT => Some(Answer::Nothing),
                errno => Some(Answer::Refused(errno.saturating_neg())),
            },
            _ => None,
        };
    }
    None
}

/// The first message of a datagram: type, sequence number, payload, and what follows.
fn split(bytes: &[u8]) -> Option<(u16, u32, &[u8], &[u8])> {
    let length = number(bytes, 0)? as usize;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let payload = bytes.get(HEADER_LEN..length)?;
    let behind = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, number(bytes, 8)?, payload, behind))
}

/// An `inet_diag_msg`.
fn socket(payload: &[u8], client: SocketAddr, server: SocketAddr) -> Option<Answer> {
    let &[family, state, ..] = payload else {
        return None;
    };
    let address = |at: usize| -> Option<IpAddr> {
        let bytes: [u8; 16] = *payload.get(at..)?.first_chunk()?;
        Some(match family {
            AF_INET => IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])),
            _ => IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical(),
        })
    };
    let port = |at: usize| Some(u16::from_be_bytes(*payload.get(at..)?.first_chunk()?));
    let (source, destination) = ((address(8)?, port(4)?), (address(24)?, port(6)?));
    let (uid, inode) = (number(payload, 64)?, number(payload, 68)?);
    let is_asked = matches!(family, AF_INET | AF_INET6)
        && source == (client.ip().to_canonical(), client.port())
        && destination == (server.ip().to_canonical(), server.port());
    Some(if is_asked {
        Answer::Owner(Owner { uid, inode, state })
    } else {
        Answer::OtherSocket
    })
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// An address in the sixteen bytes that every family gets.
fn padded(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V6(it) => it.octets(),
        IpAddr::V4(it) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&it.octets());
            bytes
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::sock_diag::{check, compose};
    use proptest::prelude::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    const OURS: Owner = Owner {
        uid: 1000,
        inode: 77,
        state: Owner::ESTABLISHED,
    };

    #[test]
    fn a_request_is_what_the_kernel_reads() {
        let bytes = request(at("127.0.0.1:258"), at("10.1.2.3:443"), 9).unwrap();
        assert_eq!(number(&bytes, 0), Some(72));
        assert_eq!(bytes[16..20], [AF_INET, IPPROTO_TCP, 0, 0]);
        assert_eq!(
            bytes[24..28],
            [1, 2, 443u16.to_be_bytes()[0], 443u16.to_be_bytes()[1]]
        );
        assert_eq!(bytes[28..33], [127, 0, 0, 1, 0]);
        assert_eq!(bytes[44..49], [10, 1, 2, 3, 0]);
        assert_eq!(bytes[60..64], [0; 4]);
        assert_eq!(bytes[64..], [0xff; 8]);
        let bytes = request(at("[fe80::1%3]:1"), at("[fe80::1]:2"), 9).unwrap();
        assert_eq!(bytes[16], AF_INET6);
        assert_eq!(number(&bytes, 60), Some(3));
        assert_eq!(request(at("127.0.0.1:1"), at("[::1]:2"), 9), None);
    }

    #[test]
    fn an_ipv4_mapped_pair_is_asked_for_as_ipv4() {
        assert_eq!(
            request(at("[::ffff:127.0.0.1]:1"), at("127.0.0.1:2"), 9),
            request(at("127.0.0.1:1"), at("[::ffff:127.0.0.1]:2"), 9),
        );
        // Only a link-local address needs an interface, and no IPv4 address is one.
        assert_eq!(
            request(at("[::ffff:127.0.0.1%3]:1"), at("127.0.0.1:2"), 9),
            request(at("127.0.0.1:1"), at("127.0.0.1:2"), 9),
        );
    }

    #[test]
    fn only_the_very_connection_counts() {
        let (client, server) = (at("127.0.0.1:5000"), at("127.0.0.1:80"));
        for (source, destination, expected) in [
            (client, server, Answer::Owner(OURS)),
            (
                at("[::ffff:127.0.0.1]:5000"),
                at("[::ffff:127.0.0.1]:80"),
                Answer::Owner(OURS),
            ),
            // A listener on the client's port, as measured.
            (client, at("0.0.0.0:0"), Answer::OtherSocket),
            (client, at("127.0.0.1:81"), Answer::OtherSocket),
            (client, at("127.0.0.2:80"), Answer::OtherSocket),
            (at("127.0.0.1:5001"), server, Answer::OtherSocket),
            (server, client, Answer::OtherSocket),
        ] {
            let bytes = compose(source, destination, OURS, 3);
            assert_eq!(
                answer(&bytes, client, server, 3),
                Some(expected),
                "{source} {destination}"
            );
            assert_eq!(
                answer(&bytes, client, server, 4),
                None,
                "an older question's answer"
            );
        }
    }

    #[test]
    fn an_error_is_told_from_nothing_found() {
        let error = |errno: i32| {
            let mut bytes = 36u32.to_ne_bytes().to_vec();
            bytes.extend(NLMSG_ERROR.to_ne_bytes());
            bytes.extend([0; 2]);
            bytes.extend(3u32.to_ne_bytes());
            bytes.extend([0; 4]);
            bytes.extend(errno.to_ne_bytes());
            bytes.extend([0; 16]);
            bytes
        };
        let (client, server) = (at("[::1]:1"), at("[::1]:2"));
        for (errno, expected) in [
            (-2, Answer::Nothing),
            (-1, Answer::Refused(1)),
            (i32::MIN, Answer::Refused(i32::MAX)),
        ] {
            assert_eq!(answer(&error(errno), client, server, 3), Some(expected));
            // An older answer before it is skipped.
            let both = [compose(client, server, OURS, 2), error(errno)].concat();
            assert_eq!(answer(&both, client, server, 3), Some(expected));
        }
    }

    #[test]
    fn what_is_cut_off_is_no_answer() {
        let (client, server) = (at("[::1]:1"), at("[::1]:2"));
        let bytes = compose(client, server, OURS, 3);
        for length in 0..bytes.len() {
            assert_eq!(
                answer(&bytes[..length], client, server, 3),
                None,
                "{length}"
            );
            // The same with a length that says so.
            let mut short = bytes[..length].to_vec();
            if let Some(field) = short.first_chunk_mut() {
                *field = (length as u32).to_ne_bytes();
                assert_eq!(answer(&short, client, server, 3), None, "{length}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_answer_is_taken_for_another_connections(data: Vec<u8>) {
            check(&data);
        }

        #[test]
        fn answers_are_read_as_composed(
            uid: u32, inode: u32, state: u8, sequence: u32,
            client: SocketAddr, server: SocketAddr, other: SocketAddr,
        ) {
            let owner = Owner { uid, inode, state };
            let bytes = compose(client, server, owner, sequence);
            let same = |a: SocketAddr, b: SocketAddr| {
                (a.ip().to_canonical(), a.port()) == (b.ip().to_canonical(), b.port())
            };
            prop_assume!(client.is_ipv4() == server.is_ipv4());
            prop_assert_eq!(answer(&bytes, client, server, sequence), Some(Answer::Owner(owner)));
            if !same(other, client) {
                let read = answer(&bytes, other, server, sequence);
                prop_assert_eq!(read, Some(Answer::OtherSocket));
            }
        }
    }
}
