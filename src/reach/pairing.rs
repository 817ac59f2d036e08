//! Which data connection belongs to whom: the proxy's books, and the relay's.

/// The proxy's books of the data connections: which one is the spare, which client waits for which
/// number, and which orders the relay has not answered.
///
/// `C` names a client in the proxy, `D` is a data connection. A client is in here from
/// [`Pairing::client`] until its connection is paired and its order answered, or until
/// [`Pairing::gone`]; so there are at most as many as the proxy has clients.
#[derive(Clone, Debug)]
pub struct Pairing<C, D> {
    /// The number that no client has yet: the spare's.
    next: u64,
    spare: Option<D>,
    /// Invariant: every number is less than `next`, they ascend, and no entry is paired and
    /// answered.
    clients: Vec<Client<C>>,
}

#[derive(Clone, Debug)]
struct Client<C> {
    number: u64,
    client: C,
    paired: bool,
    answered: bool,
}

/// What a data connection that has arrived is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival<C, D> {
    /// It is kept as the spare. The one before, whose number it repeats, is to be closed: the relay
    /// has given it up.
    Spare(Option<D>),
    /// It is this client's.
    For(C, D),
    /// Its number has been used, or is not to be used yet, or its client is gone: close it.
    Unwanted(D),
}

impl<C, D> Default for Pairing<C, D> {
    fn default() -> Self {
        Self {
            next: 0,
            spare: None,
            clients: Vec::new(),
        }
    }
}

impl<C: Copy, D> Pairing<C, D> {
    /// A client is to be connected: the number for its [`Order::Open`](super::Order::Open), and its
    /// data connection, where that is there already.
    pub fn client(&mut self, client: C) -> (u64, Option<D>) {
        let number = self.next;
        // Not within a thousand years of a million clients a second.
        self.next = self.next.wrapping_add(1);
        let connection = self.spare.take();
        self.clients.push(Client {
            number,
            client,
            paired: connection.is_some(),
            answered: false,
        });
        (number, connection)
    }

    /// An authenticated data connection with this number has arrived.
    pub fn arrived(&mut self, number: u64, connection: D) -> Arrival<C, D> {
        if number == self.next {
            return Arrival::Spare(self.spare.replace(connection));
        }
        match self.find(number) {
            Some(at) if !self.clients[at].paired => {
                self.clients[at].paired = true;
                Arrival::For(self.strike(at), connection)
            }
            _ => Arrival::Unwanted(connection),
        }
    }

    /// The spare.
    pub fn spare(&self) -> Option<&D> {
        self.spare.as_ref()
    }

    /// Takes the spare out, which has ended before it was used; or all is over.
    pub fn take_spare(&mut self) -> Option<D> {
        self.spare.take()
    }

    /// The relay has reached the target of this number; whose it is, where that was not known yet.
    pub fn opened(&mut self, number: u64) -> Option<C> {
        let at = self.find(number)?;
        let first = !std::mem::replace(&mut self.clients[at].answered, true);
        let client = self.strike(at);
        first.then_some(client)
    }

    /// The relay has not reached it, and the data connection is reset or will never come: whose it
    /// is, where that was not known yet.
    pub fn failed(&mut self, number: u64) -> Option<C> {
        self.gone(number)
    }

    /// The client with this number is gone, or its data connection is. One that still arrives is
    /// unwanted.
    pub fn gone(&mut self, number: u64) -> Option<C> {
        let at = self.find(number)?;
        Some(self.clients.remove(at).client)
    }

    /// The orders that have no answer, in the order of their numbers: they are given again on a new
    /// control connection.
    pub fn unanswered(&self) -> impl Iterator<Item = (u64, C)> {
        (self.clients.iter())
            .filter(|entry| !entry.answered)
            .map(|entry| (entry.number, entry.client))
    }

    fn find(&self, number: u64) -> Option<usize> {
        let found = (self.clients).binary_search_by_key(&number, |entry| entry.number);
        found.ok()
    }

    /// Forgets the entry at `at` once it is paired and answered; whose it is.
    fn strike(&mut self, at: usize) -> C {
        let entry = &self.clients[at];
        let client = entry.client;
        if entry.paired && entry.answered {
            self.clients.remove(at);
        }
        client
    }
}

/// The relay's books: which numbers have had their order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sequence {
    next: u64,
}

/// What an order for a number means to the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Its connection is to be bound.
    New,
    /// It had its order before; the answer was lost, or is still to come.
    Again,
}

impl Sequence {
    /// The spare's number: the next one that a client may get.
    pub fn next(self) -> u64 {
        self.next
    }

    /// An order for `number` has come. Numbers that it passes over have lost their clients before
    /// their order came through.
    pub fn order(&mut self, number: u64) -> Turn {
        if number < self.next {
            return Turn::Again;
        }
        self.next = number.saturating_add(1);
        Turn::New
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Books = Pairing<char, &'static str>;

    #[test]
    fn a_spare_is_the_next_clients() {
        let mut books = Books::default();
        assert_eq!(books.arrived(0, "zero"), Arrival::Spare(None));
        assert_eq!(books.spare(), Some(&"zero"));
        assert_eq!(books.client('a'), (0, Some("zero")));
        assert_eq!(books.unanswered().collect::<Vec<_>>(), [(0, 'a')]);
        assert_eq!(books.opened(0), Some('a'));
        assert_eq!(books.unanswered().count(), 0);
        assert!(books.clients.is_empty());
        assert_eq!(books.arrived(1, "one"), Arrival::Spare(None));
    }

    #[test]
    fn a_burst_is_paired_in_any_order() {
        let mut books = Books::default();
        for (number, client) in ['a', 'b', 'c'].into_iter().enumerate() {
            assert_eq!(books.client(client), (number as u64, None));
        }
        assert_eq!(books.opened(1), Some('b'), "before its connection is here");
        assert_eq!(books.arrived(2, "two"), Arrival::For('c', "two"));
        assert_eq!(books.arrived(1, "one"), Arrival::For('b', "one"));
        assert_eq!(books.unanswered().collect::<Vec<_>>(), [(0, 'a'), (2, 'c')]);
        assert_eq!(books.failed(0), Some('a'));
        assert_eq!(books.arrived(0, "zero"), Arrival::Unwanted("zero"));
    }

    #[test]
    fn a_number_is_used_once() {
        let mut books = Books::default();
        books.arrived(0, "zero");
        books.client('a');
        assert_eq!(books.arrived(0, "again"), Arrival::Unwanted("again"));
        books.opened(0);
        assert_eq!(books.arrived(0, "again"), Arrival::Unwanted("again"));
        assert_eq!(books.arrived(2, "early"), Arrival::Unwanted("early"));
        assert_eq!((books.opened(0), books.failed(0)), (None, None));
    }

    #[test]
    fn a_spare_that_was_lost_may_come_again() {
        let mut books = Books::default();
        books.arrived(0, "zero");
        assert_eq!(books.arrived(0, "new"), Arrival::Spare(Some("zero")));
        assert_eq!(books.take_spare(), Some("new"));
        assert_eq!(books.arrived(0, "newer"), Arrival::Spare(None));
        assert_eq!(books.client('a'), (0, Some("newer")));
    }

    #[test]
    fn the_connection_of_a_client_that_is_gone_is_unwanted() {
        let mut books = Books::default();
        books.client('a');
        assert_eq!(books.gone(0), Some('a'));
        assert_eq!(books.unanswered().count(), 0);
        assert_eq!(books.arrived(0, "zero"), Arrival::Unwanted("zero"));
    }

    #[test]
    fn an_order_counts_once_and_may_pass_numbers_over() {
        let mut sequence = Sequence::default();
        assert_eq!((sequence.order(0), sequence.next()), (Turn::New, 1));
        assert_eq!((sequence.order(0), sequence.next()), (Turn::Again, 1));
        assert_eq!((sequence.order(4), sequence.next()), (Turn::New, 5));
        assert_eq!((sequence.order(2), sequence.next()), (Turn::Again, 5));
        assert_eq!(sequence.order(u64::MAX), Turn::New);
    }
}
