//! Lines of `/proc/net/tcp` and `/proc/net/tcp6`: the other place where the kernel tells whose a
//! socket is. Slower than `sock_diag`, and a table that changes while it is read may miss a row.
//!
//! A row, by `get_tcp4_sock` and `get_tcp6_sock` of the kernel's source:
//!
//! ```text
//!   0: 0100007F:D4D1 0100007F:CAD8 01 00000000:00000000 00:00000000 00000000  1000  0 67889 1 …
//! ```
//!
//! number, local and remote address, state, queues, timer, retransmissions, uid, timeout, inode.
//! An address is printed as 32-bit words of the machine's byte order, hexadecimal.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Owner;

/// The owner in this row, if it is that of the socket that is bound to `client` and connected to
/// `server`. The table's heading is no such row.
pub fn owner(row: &str, client: SocketAddr, server: SocketAddr) -> Option<Owner> {
    let mut words = row.split_ascii_whitespace().skip(1);
    let is = |word: &str, asked: SocketAddr| {
        address(word) == Some((asked.ip().to_canonical(), asked.port()))
    };
    if !is(words.next()?, client) || !is(words.next()?, server) {
        return None;
    }
    let state = u8::from_str_radix(words.next()?, 16).ok()?;
    let mut words = words.skip(3);
    let uid = words.next()?.parse().ok()?;
    let inode = words.nth(1)?.parse().ok()?;
    Some(Owner { uid, inode, state })
}

fn address(word: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = word.split_once(':')?;
    let mut bytes = [0; 16];
    if !matches!(address.len(), 8 | 32) {
        return None;
    }
    for (i, to) in bytes
        .chunks_exact_mut(4)
        .take(address.len() / 8)
        .enumerate()
    {
        let word = u32::from_str_radix(address.get(8 * i..8 * i + 8)?, 16).ok()?;
        to.copy_from_slice(&word.to_ne_bytes());
    }
    let ip = match (address.len(), bytes) {
        (8, [a, b, c, d, ..]) => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        (_, bytes) => IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical(),
    };
    Some((ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(client: SocketAddr, server: SocketAddr, owner: Owner) -> String {
        let text = |at: SocketAddr| {
            let octets = match at.ip() {
                IpAddr::V4(it) => it.octets().to_vec(),
                IpAddr::V6(it) => it.octets().to_vec(),
            };
            let words = octets
                .chunks(4)
                .map(|word| format!("{:08X}", u32::from_ne_bytes(*word.first_chunk().unwrap())));
            format!("{}:{:04X}", words.collect::<String>(), at.port())
        };
        format!(
            "  12: {} {} {:02X} 00000000:00000000 00:00000000 00000000 {:5} {:8} {} 1 0000 20 4 0 10 -1",
            text(client),
            text(server),
            owner.state,
            owner.uid,
            0,
            owner.inode
        )
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_row_of_the_kernel_is_read() {
        let row = "   0: 0100007F:D4D1 0100007F:CAD8 01 00000000:00000000 00:00000000 00000000  \
                   1000        0 67889 1 0000000000000000 20 4 30 10 -1";
        let (client, server) = (
            "127.0.0.1:54481".parse().unwrap(),
            "127.0.0.1:51928".parse().unwrap(),
        );
        let found = Owner {
            uid: 1000,
            inode: 67889,
            state: 1,
        };
        assert_eq!(owner(row, client, server), Some(found));
        assert_eq!(owner(row, server, client), None);
        let mapped = row.replace("0100007F:", "0000000000000000FFFF00000100007F:");
        assert_eq!(owner(&mapped, client, server), Some(found));
    }

    #[test]
    fn the_heading_is_no_row() {
        let heading = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt";
        let any = "0.0.0.0:0".parse().unwrap();
        assert_eq!(owner(heading, any, any), None);
        assert_eq!(owner("", any, any), None);
    }

    proptest! {
        #[test]
        fn rows_are_read_as_written(
            client: SocketAddr, server: SocketAddr, uid: u32, inode: u32, state: u8,
        ) {
            prop_assume!(client != server);
            let it = Owner { uid, inode, state };
            prop_assert_eq!(owner(&row(client, server, it), client, server), Some(it));
            prop_assert_eq!(owner(&row(client, server, it), server, client), None);
        }

        #[test]
        fn any_line_is_a_row_or_none(line in ".*", at in 0..200usize, with in ".") {
            let (a, b) = ("[::1]:1".parse().unwrap(), "[::1]:2".parse().unwrap());
            owner(&line, a, b);
            let mut changed = row(a, b, Owner { uid: 0, inode: 1, state: 1 });
            if changed.is_char_boundary(at) && at < changed.len() {
                changed.replace_range(at..at + 1, &with);
            }
            owner(&changed, a, b);
        }
    }
}
