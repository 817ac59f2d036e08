//! What goes over a control connection after its handshake: frames of a length (two bytes, the
//! larger one first), a kind, and its content.

use std::fmt::{self, Display};
use std::marker::PhantomData;

use log::Level;

/// Most bytes of a frame behind its length.
pub const LIMIT: usize = 1024;
/// Most bytes of a text in a frame: a node's name, a line for the log. Longer ones are cut.
pub const TEXT: usize = 512;

/// Most bytes of a Unix socket's path (unix(7)).
const PATH: usize = 107;

/// Where a client's bytes go, on the relay's node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// This port of 127.0.0.1.
    Port(u16),
    /// The Unix socket with this path; at most 107 bytes, none of them 0.
    Socket(Vec<u8>),
}

/// From the proxy to the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Bind the data connection with this number to a target.
    Open {
        /// The connection's number.
        number: u64,
        /// Where it leads.
        target: Target,
    },
    /// The session is over: close everything and leave.
    End,
}

/// From the relay to the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The first one on each control connection.
    Greeting {
        /// The relay's own version.
        version: String,
        /// Its node's name, as `uname -n` prints it.
        node: Vec<u8>,
        /// What `SLURM_JOB_ID` holds there; empty where it holds nothing.
        job: Vec<u8>,
    },
    /// The target has taken the connection.
    Opened {
        /// The data connection's number.
        number: u64,
    },
    /// It has not; the data connection is reset, if it stands.
    Failed {
        /// The data connection's number.
        number: u64,
        /// Why: an errno(3).
        errno: i32,
    },
    /// A line for the log.
    Note {
        /// Its level.
        level: Level,
        /// Its text.
        text: String,
    },
}

/// What can be sent in a frame.
pub trait Message: Sized {
    /// Appends the kind and the content.
    fn write(&self, content: &mut Vec<u8>);
    /// Reads a kind and a content; `None` for what nobody says.
    fn read(content: &[u8]) -> Option<Self>;

    /// Appends the frame to `out`.
    fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend([0; 2]);
        self.write(out);
        let length = out.len() - start - 2;
        debug_assert!(length <= LIMIT, "every message is bounded");
        let length = u16::try_from(length).unwrap_or(u16::MAX);
        out[start..start + 2].copy_from_slice(&length.to_be_bytes());
    }
}

impl Message for Order {
    fn write(&self, content: &mut Vec<u8>) {
        match self {
            Self::Open { number, target } => {
                let (kind, place) = match target {
                    Target::Port(port) => (b'P', &port.to_be_bytes()[..]),
                    Target::Socket(path) => (b'S', &path[..path.len().min(PATH)]),
                };
                content.push(kind);
                content.extend(number.to_be_bytes());
                content.extend(place);
            }
            Self::End => content.push(b'E'),
        }
    }

    fn read(content: &[u8]) -> Option<Self> {
        let (kind, content) = content.split_first()?;
        let target: fn(&[u8]) -> Option<Target> = match kind {
            b'P' => |port| Some(Target::Port(u16::from_be_bytes(port.try_into().ok()?))),
            b'S' => |path| {
                let is_path = !path.is_empty() && path.len() <= PATH && !path.contains(&0);
                is_path.then(|| Target::Socket(path.to_vec()))
            },
            b'E' => return content.is_empty().then_some(Self::End),
            _ => return None,
        };
        let (number, place) = content.split_first_chunk()?;
        Some(Self::Open {
            number: u64::from_be_bytes(*number),
            target: target(place)?,
        })
    }
}

impl Message for Report {
    fn write(&self, content: &mut Vec<u8>) {
        match self {
            Self::Greeting { version, node, job } => {
                content.push(b'G');
                for text in [version.as_bytes(), node, job] {
                    // Three of them fit.
                    let text = &text[..text.len().min(usize::from(u8::MAX))];
                    content.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
                    content.extend(text);
                }
            }
            Self::Opened { number } => {
                content.push(b'O');
                content.extend(number.to_be_bytes());
            }
            Self::Failed { number, errno } => {
                content.push(b'F');
                content.extend(number.to_be_bytes());
                content.extend(errno.to_be_bytes());
            }
            Self::Note { level, text } => {
                let mut end = text.len().min(TEXT);
                while !text.is_char_boundary(end) {
                    end -= 1;
                }
                content.extend([b'N', *level as u8]);
                content.extend(&text.as_bytes()[..end]);
            }
        }
    }

    fn read(content: &[u8]) -> Option<Self> {
        let (kind, content) = content.split_first()?;
        match kind {
            b'G' => {
                let (version, rest) = text(content)?;
                let (node, rest) = text(rest)?;
                let (job, rest) = text(rest)?;
                let version = std::str::from_utf8(version).ok()?.to_owned();
                let (node, job) = (node.to_vec(), job.to_vec());
                rest.is_empty()
                    .then_some(Self::Greeting { version, node, job })
            }
            b'O' => Some(Self::Opened {
                number: u64::from_be_bytes(content.try_into().ok()?),
            }),
            b'F' => {
                let (number, errno) = content.split_first_chunk()?;
                Some(Self::Failed {
                    number: u64::from_be_bytes(*number),
                    errno: i32::from_be_bytes(errno.try_into().ok()?),
                })
            }
            b'N' => {
                let (level, text) = content.split_first()?;
                let text = std::str::from_utf8(text).ok()?;
                (text.len() <= TEXT).then_some(Self::Note {
                    level: Level::iter().find(|known| *known as u8 == *level)?,
                    text: text.to_owned(),
                })
            }
            _ => None,
        }
    }
}

/// A text behind its length, and what follows.
fn text(content: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = content.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

/// The peer does not speak the protocol. The connection is good for nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message that is none")
    }
}

impl std::error::Error for Malformed {}

/// Finds the messages in a stream that comes in slices. It holds at most one frame.
#[derive(Clone, Debug)]
pub struct Decoder<M> {
    /// The beginning of the next frame, its length included. Invariant: shorter than that frame, and
    /// `held.len() < 2 + LIMIT`.
    held: Vec<u8>,
    malformed: bool,
    message: PhantomData<fn() -> M>,
}

impl<M> Default for Decoder<M> {
    fn default() -> Self {
        Self {
            held: Vec::new(),
            malformed: false,
            message: PhantomData,
        }
    }
}

impl<M: Message> Decoder<M> {
    /// The next message in `input`, which is taken up to its end; `None` when all of `input` is
    /// taken.
    ///
    /// # Errors
    /// Once for all: the stream holds something else.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<M>, Malformed> {
        loop {
            if self.malformed {
                return Err(Malformed);
            }
            let length = match self.held.first_chunk() {
                Some(length) => usize::from(u16::from_be_bytes(*length)),
                None => 0,
            };
            if length > LIMIT {
                self.malformed = true;
                continue;
            }
            let missing = 2 + length - self.held.len();
            let (taken, rest) = input.split_at(missing.min(input.len()));
            self.held.extend_from_slice(taken);
            *input = rest;
            if taken.len() < missing {
                return Ok(None);
            }
            if self.held.len() == 2 && self.held != [0, 0] {
                // Now the length is known.
                continue;
            }
            let message = M::read(&self.held[2..]);
            self.held.clear();
            self.malformed = message.is_none();
            if message.is_some() {
                return Ok(message);
            }
        }
    }

    /// How many bytes of a frame that is not whole are held.
    pub fn holds(&self) -> usize {
        self.held.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::slices::cut;
    use proptest::prelude::*;

    fn decoded<M: Message>(slices: &[&[u8]]) -> (Vec<M>, bool) {
        let (mut decoder, mut messages) = (Decoder::default(), Vec::new());
        for slice in slices {
            let mut input = *slice;
            loop {
                match decoder.next(&mut input) {
                    Ok(Some(message)) => messages.push(message),
                    Ok(None) => break,
                    Err(Malformed) => return (messages, false),
                }
            }
            assert!(input.is_empty() && decoder.holds() < 2 + LIMIT);
        }
        (messages, true)
    }

    fn orders() -> impl Strategy<Value = Order> {
        let target = prop_oneof![
            any::<u16>().prop_map(Target::Port),
            proptest::collection::vec(1..=u8::MAX, 1..=PATH).prop_map(Target::Socket),
        ];
        prop_oneof![
            (any::<u64>(), target).prop_map(|(number, target)| Order::Open { number, target }),
            Just(Order::End),
        ]
    }

    fn reports() -> impl Strategy<Value = Report> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..=255);
        let level = prop_oneof![Just(Level::Error), Just(Level::Warn), Just(Level::Debug)];
        prop_oneof![
            ("[ -~]{0,255}", bytes(), bytes()).prop_map(|(version, node, job)| Report::Greeting {
                version,
                node,
                job
            }),
            any::<u64>().prop_map(|number| Report::Opened { number }),
            any::<(u64, i32)>().prop_map(|(number, errno)| Report::Failed { number, errno }),
            (level, ".{0,128}").prop_map(|(level, text)| Report::Note { level, text }),
        ]
    }

    #[test]
    fn what_nobody_says_ends_the_stream() {
        for bytes in [
            &b"\0\0"[..],
            b"\0\x01X",
            b"\0\x02Ex",
            b"\xff\xff",
            b"\x04\x01",
            b"\0\x04P\0\0\0",
            b"\0\x09S\0\0\0\0\0\0\0\0",
            b"\0\x0bS\0\0\0\0\0\0\0\0a\0",
        ] {
            let after = [b"\0\x01E", bytes, b"\0\x01E"].concat();
            let got = decoded::<Order>(&[&after]);
            assert_eq!(got, (vec![Order::End], false), "{bytes:?}");
        }
        assert_eq!(decoded::<Order>(&[b"\0"]), (vec![], true), "half a length");
        assert!(!Malformed.to_string().is_empty());
    }

    #[test]
    fn what_is_there_of_a_frame_is_held_and_told_so() {
        let mut decoder = Decoder::<Order>::default();
        for (bytes, held) in [(&b"\0"[..], 1), (b"\x09", 2), (b"Oabc", 6)] {
            let mut input = bytes;
            assert_eq!(decoder.next(&mut input), Ok(None));
            assert_eq!(decoder.holds(), held);
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let mut frame = Vec::new();
        let (level, text) = (Level::Warn, format!("x{}", "é".repeat(TEXT)));
        Report::Note { level, text }.encode(&mut frame);
        let (messages, _) = decoded::<Report>(&[&frame]);
        let [Report::Note { text, .. }] = &messages[..] else {
            panic!("{messages:?}");
        };
        assert_eq!(text.len(), TEXT - 1);

        frame.clear();
        let (level, text) = (Level::Warn, "x".repeat(TEXT + 1));
        Report::Note { level, text }.encode(&mut frame);
        let (messages, _) = decoded::<Report>(&[&frame]);
        assert!(matches!(&messages[..], [Report::Note { text, .. }] if text.len() == TEXT));

        frame.clear();
        let (version, node) = ("v".repeat(600), vec![b'n'; 600]);
        let job = node.clone();
        Report::Greeting { version, node, job }.encode(&mut frame);
        assert_eq!(decoded::<Report>(&[&frame]).0.len(), 1);
    }

    proptest! {
        #[test]
        fn orders_come_back_however_they_are_cut(
            orders in proptest::collection::vec(orders(), 0..6),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
        ) {
            let mut stream = Vec::new();
            orders.iter().for_each(|order| order.encode(&mut stream));
            prop_assert_eq!(decoded(&cut(&stream, &cuts)), (orders, true));
        }

        #[test]
        fn reports_come_back_however_they_are_cut(
            reports in proptest::collection::vec(reports(), 0..6),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
        ) {
            let mut stream = Vec::new();
            reports.iter().for_each(|report| report.encode(&mut stream));
            prop_assert_eq!(decoded(&cut(&stream, &cuts)), (reports, true));
        }
    }
}
