//! Answers of the kernel about a socket, real and unreal ones.

use std::net::{IpAddr, SocketAddr};

use crate::admission::Owner;
use crate::admission::sock_diag::{Answer, answer, request};

/// Reads `data` as an answer: of any kind without a panic; and an owner is believed only where the
/// bytes hold the addresses that were asked for, so never for two different clients.
pub fn check(data: &[u8]) {
    let server = SocketAddr::from(([127, 0, 0, 1], 2222));
    let (one, two) = (
        SocketAddr::from(([127, 0, 0, 1], 1)),
        SocketAddr::from(([0; 16], 1)),
    );
    let sequence = data
        .get(8..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .unwrap_or_default();
    let sequence = u32::from_ne_bytes(sequence);
    let owned = |client| {
        matches!(
            answer(data, client, server, sequence),
            Some(Answer::Owner(_))
        )
    };
    assert!(!(owned(one) && owned(two)));
    assert!(request(one, server, sequence).is_some());
}

/// An answer as the kernel writes it: a header and an `inet_diag_msg`.
pub fn compose(client: SocketAddr, server: SocketAddr, owner: Owner, sequence: u32) -> Vec<u8> {
    let padded = |address: IpAddr| match address {
        IpAddr::V4(it) => [&it.octets()[..], &[0; 12]].concat(),
        IpAddr::V6(it) => it.octets().to_vec(),
    };
    let family = if client.is_ipv4() { 2 } else { 10 };
    [
        &88u32.to_ne_bytes()[..],
        &20u16.to_ne_bytes(),
        &[0; 2],
        &sequence.to_ne_bytes(),
        &[0; 4],
        &[family, owner.state, 0, 0],
        &client.port().to_be_bytes(),
        &server.port().to_be_bytes(),
        &padded(client.ip()),
        &padded(server.ip()),
        &[0; 12], // Interface and cookie.
        &[0; 12], // Timer and queues.
        &owner.uid.to_ne_bytes(),
        &owner.inode.to_ne_bytes(),
    ]
    .concat()
}
