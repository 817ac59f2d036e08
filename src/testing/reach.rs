//! The protocol between the proxy and the relay inside the job: both of them, a network that cuts,
//! delays and loses, and a stranger who records, replays, reflects and makes things up.
//!
//! What must hold: a stranger is never let in; a client is paired with the one connection that the
//! relay bound to the client's own target; no connection is paired twice; and once the network
//! delivers, every client that is still there is paired and answered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::reach::{
    Acceptor, Arrival, Decoder, Dialler, LIMIT, Malformed, Message, Order, Pairing, Reached,
    Report, Role, Secret, Sequence, Target, Turn,
};

use super::slices::Slices;

/// Most clients and connections of one run.
const MOST: usize = 64;

/// One data connection, from both of its ends.
struct Data {
    number: u64,
    dialler: Dialler,
    acceptor: Acceptor,
    to_proxy: VecDeque<u8>,
    to_relay: VecDeque<u8>,
    /// All that the relay has sent.
    sent: Vec<u8>,
    accepted: bool,
    closed: bool,
}

/// A control connection, from both of its ends.
#[derive(Default)]
struct Control {
    to_relay: VecDeque<u8>,
    to_proxy: VecDeque<u8>,
    orders: Decoder<Order>,
    reports: Decoder<Report>,
}

struct Client {
    number: u64,
    connection: Option<usize>,
    gone: bool,
    answered: bool,
}

struct World {
    secret: Secret,
    nonces: u64,
    control: Option<Control>,
    pairing: Pairing<usize, usize>,
    clients: Vec<Client>,
    sequence: Sequence,
    /// The relay's: what each number was bound to.
    bound: BTreeMap<u64, Target>,
    /// The relay's: targets that it could not reach.
    failed: BTreeSet<u64>,
    connections: Vec<Data>,
}

/// Each client has a target of its own, by which it is known.
fn target(client: usize) -> Target {
    match client % 2 {
        0 => Target::Port(client as u16),
        _ => Target::Socket(format!("/run/{client}").into_bytes()),
    }
}

impl World {
    fn nonce(&mut self) -> [u8; 32] {
        self.nonces += 1;
        let mut nonce = [0; 32];
        nonce[..8].copy_from_slice(&self.nonces.to_ne_bytes());
        nonce
    }

    fn order(&mut self, client: usize) {
        let number = self.clients[client].number;
        if let Some(control) = &mut self.control {
            let target = target(client);
            let mut frame = Vec::new();
            Order::Open { number, target }.encode(&mut frame);
            control.to_relay.extend(frame);
        }
    }

    fn pair(&mut self, client: usize, connection: usize) {
        let number = self.connections[connection].number;
        assert_eq!(self.clients[client].number, number, "another client's");
        assert!(self.clients[client].connection.is_none(), "paired twice");
        let is_taken = |client: &Client| client.connection == Some(connection);
        assert!(!self.clients.iter().any(is_taken), "shared by two clients");
        self.clients[client].connection = Some(connection);
    }

    fn new_client(&mut self) {
        if self.clients.len() == MOST {
            return;
        }
        let client = self.clients.len();
        let (number, connection) = self.pairing.client(client);
        self.clients.push(Client {
            number,
            connection: None,
            gone: false,
            answered: false,
        });
        if let Some(connection) = connection {
            self.pair(client, connection);
        }
        self.order(client);
    }

    fn dial(&mut self, number: u64) {
        let dialler = Dialler::new(Role::Data { number }, self.nonce());
        let acceptor = Acceptor::new(self.nonce());
        let sent = dialler.hello().to_vec();
        self.connections.push(Data {
            number,
            dialler,
            acceptor,
            to_proxy: sent.iter().copied().collect(),
            to_relay: VecDeque::new(),
            sent,
            accepted: false,
            closed: false,
        });
    }

    /// The relay dials what it has not dialled yet: this number.
    fn see_to(&mut self, number: u64) {
        let is_there = |data: &Data| data.number == number && !data.closed;
        if !self.connections.iter().any(is_there) {
            self.dial(number);
        }
    }

    /// The relay gets the next bytes of its control connection.
    fn relay_reads(&mut self, bytes: usize, refuses: bool) {
        let Some(control) = &mut self.control else {
            return;
        };
        let bytes = bytes.min(control.to_relay.len());
        let taken: Vec<u8> = control.to_relay.drain(..bytes).collect();
        let (mut input, mut orders) = (&taken[..], Vec::new());
        while let Some(order) = control.orders.next(&mut input).expect("the proxy's words") {
            orders.push(order);
        }
        for order in orders {
            let Order::Open { number, target } = order else {
                panic!("nobody has ended it");
            };
            let report = match self.sequence.order(number) {
                Turn::New => {
                    let before = self.bound.insert(number, target);
                    assert!(before.is_none(), "bound twice");
                    self.see_to(number);
                    self.see_to(self.sequence.next());
                    refuses.then_some(111)
                }
                Turn::Again => {
                    assert_eq!(self.bound.get(&number), Some(&target), "bound to another");
                    let is_live = |data: &Data| data.number == number && !data.closed;
                    let live = self.connections.iter().any(is_live);
                    let live = live && !self.failed.contains(&number);
                    (!live).then_some(103)
                }
            };
            if report.is_some() {
                self.failed.insert(number);
                let of_number = self.connections.iter_mut().filter(|c| c.number == number);
                of_number.for_each(|connection| connection.closed = true);
            }
            let report = match report {
                Some(errno) => Report::Failed { number, errno },
                None => Report::Opened { number },
            };
            let mut frame = Vec::new();
            report.encode(&mut frame);
            if let Some(control) = &mut self.control {
                control.to_proxy.extend(frame);
            }
        }
    }

    /// The proxy gets the next bytes of its control connection.
    fn proxy_reads(&mut self, bytes: usize) {
        let Some(control) = &mut self.control else {
            return;
        };
        let bytes = bytes.min(control.to_proxy.len());
        let taken: Vec<u8> = control.to_proxy.drain(..bytes).collect();
        let mut input = &taken[..];
        while let Some(report) = control.reports.next(&mut input).expect("the relay's words") {
            let told = match report {
                Report::Opened { number } => self.pairing.opened(number),
                Report::Failed { number, .. } => {
                    let client = self.pairing.failed(number);
                    if let Some(client) = client {
                        self.clients[client].gone = true;
                    }
                    client
                }
                other => panic!("{other:?}"),
            };
            if let Some(client) = told {
                assert!(!std::mem::replace(&mut self.clients[client].answered, true));
            }
        }
    }

    /// A data connection delivers up to so many bytes each way.
    fn deliver(&mut self, index: usize, bytes: usize) {
        let secret = self.secret.clone();
        let connection = &mut self.connections[index];
        if connection.closed {
            return;
        }
        let bytes_up = bytes
            .min(connection.to_proxy.len())
            .min(connection.acceptor.wanted());
        let up: Vec<u8> = connection.to_proxy.drain(..bytes_up).collect();
        if !up.is_empty() {
            let reached = connection.acceptor.feed(&secret, &mut &up[..]);
            match reached.expect("the relay is let in") {
                Reached::More => {}
                Reached::Answer(challenge) => connection.to_relay.extend(challenge),
                Reached::Accepted(role) => {
                    let number = connection.number;
                    assert_eq!(role, Role::Data { number });
                    assert!(!std::mem::replace(&mut connection.accepted, true));
                    self.arrive(number, index);
                }
            }
        }
        let connection = &mut self.connections[index];
        let bytes = bytes
            .min(connection.to_relay.len())
            .min(connection.dialler.wanted());
        let down: Vec<u8> = connection.to_relay.drain(..bytes).collect();
        if !down.is_empty() {
            let proof = connection.dialler.feed(&secret, &mut &down[..]);
            if let Some(proof) = proof.expect("the proxy is believed") {
                connection.to_proxy.extend(proof);
                connection.sent.extend(proof);
            }
        }
    }

    fn arrive(&mut self, number: u64, index: usize) {
        match self.pairing.arrived(number, index) {
            Arrival::Spare(before) => {
                assert_eq!(number, self.clients.len() as u64, "not the next number");
                if let Some(before) = before {
                    self.connections[before].closed = true;
                }
            }
            Arrival::For(client, connection) => {
                assert!(!self.clients[client].gone, "its client is gone");
                self.pair(client, connection);
            }
            Arrival::Unwanted(connection) => {
                let used = self.clients.iter().any(|client| {
                    client.number == number && (client.gone || client.connection.is_some())
                });
                let early = number > self.clients.len() as u64;
                assert!(used || early, "a wanted connection was sent away");
                self.connections[connection].closed = true;
            }
        }
    }

    /// A stranger without the secret says `bytes`, and then, if he is answered, reflects the answer.
    fn stranger(&mut self, bytes: &[u8], cut: usize) {
        let mut acceptor = Acceptor::new(self.nonce());
        let mut said: VecDeque<u8> = bytes.iter().copied().collect();
        loop {
            let count = said.len().min(acceptor.wanted()).min(cut.max(1));
            if count == 0 {
                return;
            }
            let part: Vec<u8> = said.drain(..count).collect();
            match acceptor.feed(&self.secret, &mut &part[..]) {
                Ok(Reached::More) => {}
                Ok(Reached::Answer(challenge)) => said.extend(&challenge[32..]),
                Ok(Reached::Accepted(role)) => panic!("a stranger was let in as {role:?}"),
                Err(_) => {
                    assert_eq!(acceptor.wanted(), 0);
                    return;
                }
            }
        }
    }

    fn lose_control(&mut self) {
        self.control = None;
    }

    fn dial_control(&mut self) {
        self.control = Some(Control::default());
        let again: Vec<(u64, usize)> = self.pairing.unanswered().collect();
        assert!(again.is_sorted());
        for (number, client) in again {
            assert_eq!(self.clients[client].number, number);
            self.order(client);
        }
    }

    fn lose_spare(&mut self) {
        if let Some(spare) = self.pairing.take_spare() {
            self.connections[spare].closed = true;
        }
        self.see_to(self.sequence.next());
    }

    fn client_goes(&mut self, client: usize) {
        let Some(entry) = self.clients.get_mut(client) else {
            return;
        };
        self.pairing.gone(entry.number);
        entry.gone = true;
        if let Some(connection) = entry.connection {
            self.connections[connection].closed = true;
        }
    }

    /// From now on the network delivers.
    fn finish(mut self) {
        if self.control.is_none() {
            self.dial_control();
        }
        for _ in 0..2 * MOST {
            self.relay_reads(usize::MAX, false);
            self.proxy_reads(usize::MAX);
            (0..self.connections.len()).for_each(|index| self.deliver(index, usize::MAX));
        }
        assert_eq!(self.pairing.unanswered().count(), 0, "an answer is missing");
        for (index, client) in self.clients.iter().enumerate() {
            if client.gone {
                continue;
            }
            assert!(client.answered, "client {index} has no answer");
            let connection = client.connection.expect("paired");
            assert!(
                !self.connections[connection].closed,
                "client {index} was cut off"
            );
            assert_eq!(self.bound.get(&client.number), Some(&target(index)));
        }
    }
}

/// Reads `text` as messages, whole and in slices: the same ones, and the same end.
fn decode<M: Message + PartialEq + std::fmt::Debug>(text: &[u8], slices: &Slices<'_>) {
    let run = |slices: &mut dyn Iterator<Item = &[u8]>| {
        let (mut decoder, mut messages) = (Decoder::<M>::default(), Vec::new());
        for mut slice in slices {
            loop {
                match decoder.next(&mut slice) {
                    Ok(Some(message)) => messages.push(message),
                    Ok(None) => break,
                    Err(Malformed) => return (messages, true),
                }
            }
            assert!(slice.is_empty() && decoder.holds() < 2 + LIMIT);
        }
        (messages, false)
    };
    let whole = run(&mut std::iter::once(text));
    assert_eq!(run(&mut slices.of(text)), whole);
    // What was understood is written and understood again.
    let mut written = Vec::new();
    whole
        .0
        .iter()
        .for_each(|message| message.encode(&mut written));
    assert_eq!(run(&mut std::iter::once(&written[..])), (whole.0, false));
}

/// Runs what `data` stands for. Panics where something does not hold.
pub fn check(data: &[u8]) {
    let (slices, text) = Slices::take(data);
    decode::<Order>(text, &slices);
    decode::<Report>(text, &slices);

    let mut world = World {
        secret: Secret::new([9; 32]),
        nonces: 0,
        control: Some(Control::default()),
        pairing: Pairing::default(),
        clients: Vec::new(),
        sequence: Sequence::default(),
        bound: BTreeMap::new(),
        failed: BTreeSet::new(),
        connections: Vec::new(),
    };
    world.dial(0);
    for (index, pair) in text.chunks(2).enumerate().take(1024) {
        let (operation, amount) = (pair[0], usize::from(pair.get(1).copied().unwrap_or(1)));
        let count = world.connections.len();
        match operation % 16 {
            0 | 1 => world.new_client(),
            2 | 3 => world.relay_reads(amount % 32, operation > 240),
            4 | 5 => world.proxy_reads(amount % 32),
            6..=10 => world.deliver(amount % count, usize::from(operation)),
            11 if amount > 128 => world.lose_control(),
            11 => world.dial_control(),
            12 => world.client_goes(amount % MOST),
            13 if count < 2 * MOST && amount < 128 => world.lose_spare(),
            // A relay that is out of its mind.
            13 if count < 2 * MOST => world.dial((amount % 8) as u64),
            14 => {
                let mut recording = world.connections[amount % count].sent.clone();
                if operation > 128 {
                    recording[index % 49] ^= operation;
                }
                world.stranger(&recording, amount);
            }
            15 => world.stranger(text, amount),
            _ => {}
        }
    }
    world.finish();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn no_network_and_no_stranger_mixes_connections_up(
            data in proptest::collection::vec(any::<u8>(), 0..600),
        ) {
            super::check(&data);
        }
    }
}
