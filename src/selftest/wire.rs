//! What the self-test's client and its stand-in server say to each other, and how the bytes that
//! they exchange are made and checked. Pure: no socket, no clock.
//!
//! A connection begins with a [`Request`]: the session's token, what the client wants, and two
//! numbers. A server that does not find its token there hangs up, so that for the time of a test
//! nobody else on the cluster gets anything out of it.

/// Length of the token: 128 bits in hexadecimal digits.
pub(super) const TOKEN: usize = 32;
/// Length of a [`Request`].
pub(super) const REQUEST: usize = TOKEN + 1 + 8 + 8;
/// Length of a [`Totals`].
pub(super) const TOTALS: usize = 16;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// The server sends back what it gets, up to the end of file.
    Echo,
    /// Both send a pattern at the same time. After the client's end of file the server adds the
    /// [`Totals`] of what it got.
    Exchange,
    /// The server ends its direction at once, and then takes what comes, up to the end of file.
    Swallow,
    /// The server sends the [`Totals`] of the [`Task::Swallow`] connection with the same number, as
    /// soon as that has ended.
    Report,
}

/// The first bytes of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    /// Shared by client and server, told in the bootstrap script.
    pub(super) token: [u8; TOKEN],
    /// What the connection is for.
    pub(super) task: Task,
    /// The connection's number, which also selects the patterns.
    pub(super) number: u64,
    /// How many bytes of pattern the server shall send; of use for [`Task::Exchange`] alone.
    pub(super) length: u64,
}

impl Request {
    /// The bytes on the wire.
    pub(super) fn encode(&self) -> [u8; REQUEST] {
        let task = match self.task {
            Task::Echo => b'E',
            Task::Exchange => b'X',
            Task::Swallow => b'S',
            Task::Report => b'R',
        };
        let mut bytes = [task; REQUEST];
        bytes[..TOKEN].copy_from_slice(&self.token);
        bytes[TOKEN + 1..][..8].copy_from_slice(&self.number.to_be_bytes());
        bytes[TOKEN + 9..].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }

    /// Reads what [`Self::encode`] wrote; `None` for a task that does not exist.
    pub(super) fn decode(bytes: &[u8; REQUEST]) -> Option<Self> {
        let (token, rest) = bytes.split_first_chunk()?;
        let (task, rest) = rest.split_first()?;
        let (number, length) = two_numbers(rest)?;
        let task = match task {
            b'E' => Task::Echo,
            b'X' => Task::Exchange,
            b'S' => Task::Swallow,
            b'R' => Task::Report,
            _ => return None,
        };
        Some(Self {
            token: *token,
            task,
            number,
            length,
        })
    }
}

/// How many bytes one side has got, and their checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Totals {
    /// The count.
    pub(super) bytes: u64,
    /// The checksum.
    pub(super) checksum: u64,
}

impl Totals {
    /// The bytes on the wire.
    pub(super) fn encode(self) -> [u8; TOTALS] {
        let mut bytes = [0; TOTALS];
        bytes[..8].copy_from_slice(&self.bytes.to_be_bytes());
        bytes[8..].copy_from_slice(&self.checksum.to_be_bytes());
        bytes
    }

    /// Reads what [`Self::encode`] wrote; `None` if it is not of its length.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (bytes, checksum) = two_numbers(bytes)?;
        Some(Self { bytes, checksum })
    }
}

fn two_numbers(bytes: &[u8]) -> Option<(u64, u64)> {
    let (first, rest) = bytes.split_first_chunk()?;
    let second = rest.try_into().ok()?;
    Some((u64::from_be_bytes(*first), u64::from_be_bytes(second)))
}

/// Which of a connection's two patterns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// A run of bytes without repetition, so that a lost, doubled or displaced block shows.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    state: u64,
    left: u64,
}

impl Pattern {
    /// The pattern of connection `number` in one direction, `length` bytes of it.
    pub(super) fn new(number: u64, way: Way, length: u64) -> Self {
        let seed = number
            .wrapping_mul(2)
            .wrapping_add(u64::from(way == Way::Down));
        Self {
            state: seed.wrapping_mul(0xd134_2543_de82_ef95),
            left: length,
        }
    }

    /// Appends the next `most` bytes to `block`, or the rest of the pattern if that is less.
    /// `most` is a multiple of 8.
    pub(super) fn append(&mut self, block: &mut Vec<u8>, most: usize) {
        debug_assert!(most.is_multiple_of(8), "a word is not taken apart");
        let count = self.left.min(most as u64);
        let end = block.len() + count as usize;
        while block.len() < end {
            block.extend_from_slice(&self.word().to_ne_bytes());
        }
        block.truncate(end);
        self.left -= count;
    }

    /// Whether all of it has been taken.
    pub(super) fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// What a receiver of all that is left has to come to.
    pub(super) fn totals(mut self) -> Totals {
        let mut tally = Tally::default();
        let mut block = Vec::new();
        while !self.is_empty() {
            block.clear();
            self.append(&mut block, 8192);
            tally.take(&block);
        }
        tally.totals()
    }

    /// Steele, Lea, Flood: "Fast splittable pseudorandom number generators" (splitmix64).
    fn word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

/// Counts and sums up bytes as they come, in slices of any length.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    bytes: u64,
    state: u64,
    /// The word that is not yet full: its first `bytes % 8` bytes.
    word: [u8; 8],
}

impl Tally {
    /// Adds the next bytes.
    pub(super) fn take(&mut self, mut bytes: &[u8]) {
        while !self.bytes.is_multiple_of(8) || bytes.len() < 8 {
            let Some((first, rest)) = bytes.split_first() else {
                return;
            };
            self.word[(self.bytes % 8) as usize] = *first;
            self.bytes += 1;
            bytes = rest;
            if self.bytes.is_multiple_of(8) {
                self.mix(u64::from_ne_bytes(self.word));
            }
        }
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.mix(u64::from_ne_bytes(*word));
        }
        self.bytes += words.len() as u64 * 8;
        self.take(rest);
    }

    /// Each step can be undone, so two runs of one length that differ in one word differ in their
    /// sums; the rotation makes the order count.
    fn mix(&mut self, word: u64) {
        self.state = (self.state.rotate_left(23) ^ word).wrapping_mul(0x9fb2_1c65_1e98_df25);
    }

    /// The sum so far.
    pub(super) fn totals(&self) -> Totals {
        let mut end = self.clone();
        let rest = (self.bytes % 8) as usize;
        end.word[rest..].fill(0);
        end.mix(u64::from_ne_bytes(end.word));
        end.mix(self.bytes);
        Totals {
            bytes: self.bytes,
            checksum: end.state,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(number: u64, way: Way, length: u64) -> Vec<u8> {
        let mut pattern = Pattern::new(number, way, length);
        let mut bytes = Vec::new();
        while !pattern.is_empty() {
            pattern.append(&mut bytes, 64);
        }
        bytes
    }

    #[test]
    fn requests_and_totals_come_back_from_the_wire() {
        for task in [Task::Echo, Task::Exchange, Task::Swallow, Task::Report] {
            let request = Request {
                token: [b'a'; TOKEN],
                task,
                number: 1 << 40,
                length: u64::MAX,
            };
            assert_eq!(Request::decode(&request.encode()), Some(request));
        }
        let totals = Totals {
            bytes: 3,
            checksum: u64::MAX - 1,
        };
        assert_eq!(Totals::decode(&totals.encode()), Some(totals));
        assert_eq!(Totals::decode(&totals.encode()[1..]), None);
        assert_eq!(Request::decode(&[0; REQUEST]), None);
    }

    #[test]
    fn patterns_differ_by_connection_and_direction() {
        assert_ne!(bytes(1, Way::Up, 64), bytes(1, Way::Down, 64));
        assert_ne!(bytes(1, Way::Up, 64), bytes(2, Way::Up, 64));
        assert_eq!(bytes(7, Way::Up, 77)[..70], bytes(7, Way::Up, 70));
    }

    proptest! {
        #[test]
        fn the_sum_does_not_depend_on_the_slices(length in 0u64..200, cuts in
            proptest::collection::vec(0usize..200, 0..8))
        {
            let bytes = bytes(5, Way::Down, length);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            cuts.push(bytes.len());
            let mut tally = Tally::default();
            let mut from = 0;
            for cut in cuts {
                tally.take(&bytes[from..cut]);
                from = cut;
            }
            prop_assert_eq!(tally.totals(), Pattern::new(5, Way::Down, length).totals());
        }

        #[test]
        fn a_changed_lost_or_displaced_byte_changes_the_sum(length in 2usize..200, at in 0usize..200,
            change in 1u8..=255)
        {
            let at = at % (length - 1);
            let good = bytes(9, Way::Up, length as u64);
            let sum = |bytes: &[u8]| {
                let mut tally = Tally::default();
                tally.take(bytes);
                tally.totals()
            };
            let mut changed = good.clone();
            changed[at] ^= change;
            prop_assert_ne!(sum(&changed), sum(&good));
            let mut lost = good.clone();
            lost.remove(at);
            prop_assert_ne!(sum(&lost), sum(&good));
            let mut displaced = good.clone();
            displaced.swap(at, at + 1);
            prop_assert_eq!(displaced == good, sum(&displaced) == sum(&good));
        }
    }
}
