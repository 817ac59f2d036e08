//! Shell to client: announced addresses.
//!
//! Everything passes as it comes, `listeningOn=` too; only the few bytes behind it that are an
//! address so far are held, until it is whole or is seen not to be one. A whole one is reported,
//! and nothing more passes before the answer.

use bstr::Finder;

use super::words::{ANNOUNCED_HOSTS, ANNOUNCEMENT, CLIENT_HOST};

/// Most bytes held: a second `=`, the longest host, a colon and a port.
const HOLD: usize = 1 + 9 + 1 + 5;

/// An address that a server in the job announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The server's port on its node.
    pub port: u16,
    /// Whether a host stood before the port.
    pub has_host: bool,
}

/// One step's answer.
#[derive(Debug, PartialEq, Eq)]
pub enum OutboundPiece<'a> {
    /// Bytes for the client.
    Bytes(&'a [u8]),
    /// An address; [`Outbound::release`] or [`Outbound::release_unchanged`] is to follow.
    Announced(Announcement),
    /// The path of a Unix socket stands where an address was expected; it passes.
    Socket,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Looking for an announcement.
    Passing,
    /// Behind one: `held` may be the beginning of an address, and reads so.
    Holding(Reading),
    /// `held` is an address, and has to be reported.
    Found(Announcement),
    /// `held` is an address, and its answer is awaited.
    Waiting(Announcement),
    /// `held` is on its way to the client.
    Releasing,
}

/// The machine. It holds at most 16 bytes of the stream.
#[derive(Clone, Debug)]
pub struct Outbound {
    state: State,
    held: Held,
    /// So many bytes of an announcement are the last that have passed: it may lie across slices.
    begun: usize,
    /// Made once: each slice is searched for one thing.
    finder: Finder<'static>,
    socket: bool,
}

/// A few bytes: `length` of them, never more than [`HOLD`].
#[derive(Clone, Debug)]
struct Held {
    bytes: [u8; HOLD],
    length: usize,
}

impl Held {
    const EMPTY: Self = Self {
        bytes: [0; HOLD],
        length: 0,
    };

    fn get(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Appends `more`, as far as there is room.
    fn push(&mut self, more: &[u8]) {
        for (place, byte) in self.bytes[self.length..].iter_mut().zip(more) {
            *place = *byte;
            self.length += 1;
        }
    }
}

/// What a text behind `listeningOn=` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// It may become an address.
    Unfinished,
    /// It is one, if nothing of the kind follows.
    Whole(Announcement),
    /// It is none.
    Other,
}

impl Default for Outbound {
    fn default() -> Self {
        Self::new()
    }
}

impl Outbound {
    /// A machine at the beginning of a stream.
    pub fn new() -> Self {
        Self {
            state: State::Passing,
            held: Held::EMPTY,
            begun: 0,
            finder: Finder::new(ANNOUNCEMENT),
            socket: false,
        }
    }

    /// The next piece. `None` when `input` is used up, or an answer is awaited: then what is left
    /// of `input` is to be offered again.
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Option<OutboundPiece<'s>> {
        if std::mem::take(&mut self.socket) {
            return Some(OutboundPiece::Socket);
        }
        loop {
            match self.state {
                State::Waiting(_) => return None,
                State::Found(announcement) => {
                    self.state = State::Waiting(announcement);
                    return Some(OutboundPiece::Announced(announcement));
                }
                State::Releasing => {
                    self.state = State::Passing;
                    if self.held.length == 0 {
                        continue;
                    }
                    self.begun = begun_in(self.held.get());
                    return Some(OutboundPiece::Bytes(self.held.get()));
                }
                State::Passing if input.is_empty() => return None,
                State::Passing => return Some(OutboundPiece::Bytes(self.pass(input))),
                State::Holding(reading) => {
                    let (byte, rest) = input.split_first()?;
                    if self.holds_on(reading, *byte) {
                        *input = rest;
                    }
                }
            }
        }
    }

    /// The announced address becomes this port, in the form that it had.
    pub fn release(&mut self, port: u16) {
        if let State::Waiting(announcement) = self.state {
            let text = match announcement.has_host {
                true => format!("{CLIENT_HOST}:{port}"),
                false => port.to_string(),
            };
            // A second `=` stays where it is.
            self.held.length = usize::from(self.held.get().first() == Some(&b'='));
            self.held.push(text.as_bytes());
            self.state = State::Releasing;
        }
    }

    /// The announced address passes as it is.
    pub fn release_unchanged(&mut self) {
        if let State::Waiting(_) = self.state {
            self.state = State::Releasing;
        }
    }

    /// The stream has ended: what is held comes out with the next pieces, an address that is whole
    /// as an announcement.
    pub fn end(&mut self) {
        if let State::Holding(reading) = self.state {
            self.state = match reading {
                Reading::Whole(announcement) => State::Found(announcement),
                Reading::Unfinished | Reading::Other => State::Releasing,
            };
        }
    }

    /// How many bytes are held.
    pub fn holds(&self) -> usize {
        match self.state {
            State::Holding(_) | State::Found(_) | State::Waiting(_) => self.held.length,
            State::Passing | State::Releasing => 0,
        }
    }

    /// Takes from `input` what passes: up to and with the next announcement's `=`, or all of it.
    fn pass<'i>(&mut self, input: &mut &'i [u8]) -> &'i [u8] {
        let found = self.rest_of_begun(input).or_else(|| self.within(input));
        let (passed, rest) = input.split_at(found.unwrap_or(input.len()));
        *input = rest;
        if found.is_some() {
            self.state = State::Holding(Reading::Unfinished);
            self.held = Held::EMPTY;
            self.begun = 0;
        } else {
            self.begun = match passed.len() {
                0..=KEY => self.begun_with(passed),
                _ => begun_in(passed),
            };
        }
        passed
    }

    /// The end of an announcement that began in bytes which have passed already.
    fn rest_of_begun(&self, input: &[u8]) -> Option<usize> {
        let rest = &ANNOUNCEMENT[self.begun.checked_sub(1)?..];
        let behind = input.strip_prefix(rest)?;
        may_be_address(behind).then_some(rest.len())
    }

    fn within(&self, input: &[u8]) -> Option<usize> {
        let mut from = 0;
        loop {
            let at = from + self.finder.find(&input[from..])?;
            from = at + ANNOUNCEMENT.len();
            let is_announcement = input[..at].last().is_some_and(begins_key);
            if is_announcement && may_be_address(&input[from..]) {
                return Some(from);
            }
        }
    }

    /// As [`begun_in`], of what has passed before and `passed`, which is short.
    fn begun_with(&self, passed: &[u8]) -> usize {
        let rest = &ANNOUNCEMENT[self.begun.saturating_sub(1)..];
        if self.begun > 0 && rest.starts_with(passed) {
            return self.begun + passed.len();
        }
        begun_in(passed)
    }

    /// Whether `byte`, the next one behind `held`, is taken: with it, too, it may be an address.
    fn holds_on(&mut self, reading: Reading, byte: u8) -> bool {
        let before = self.held.length;
        self.held.push(&[byte]);
        if self.held.length > before {
            let with_it = read(self.held.get());
            if with_it != Reading::Other {
                self.state = State::Holding(with_it);
                return true;
            }
        }
        self.held.length = before;
        self.state = match reading {
            Reading::Whole(announcement) if ends_address(byte) => State::Found(announcement),
            _ => State::Releasing,
        };
        self.socket = byte == b'/' && matches!(self.held.get(), b"" | b"=");
        false
    }
}

/// Bytes of an announcement: its key's `l` or `L`, and the rest of it.
const KEY: usize = 1 + ANNOUNCEMENT.len();

/// Whether `isteningOn=` behind this byte belongs to one of the known keys.
fn begins_key(before: &u8) -> bool {
    matches!(before, b'l' | b'L')
}

/// How many bytes at the end of `passed` may be the beginning of an announcement. There is but one
/// answer: what begins one occurs nowhere else in it.
fn begun_in(passed: &[u8]) -> usize {
    let last = &passed[passed.len().saturating_sub(ANNOUNCEMENT.len())..];
    let Some(at) = last.iter().rposition(begins_key) else {
        return 0;
    };
    match ANNOUNCEMENT.starts_with(&last[at + 1..]) {
        true => last.len() - at,
        false => 0,
    }
}

/// Whether `behind`, which follows the first `=`, may begin an address or a path: what surely does
/// not passes without a halt.
fn may_be_address(behind: &[u8]) -> bool {
    let behind = behind.strip_prefix(b"=").unwrap_or(behind);
    let begun = &behind[..behind.len().min(2)];
    matches!(begun, [b'0'..=b'9' | b'/', ..])
        || ANNOUNCED_HOSTS.iter().any(|host| host.starts_with(begun))
}

/// What may stand behind a whole address: the end of the value or of the line, a blank, or the
/// beginning of an escape sequence.
fn ends_address(byte: u8) -> bool {
    byte == b'=' || byte == 0x1b || byte.is_ascii_whitespace()
}

/// What `text`, the bytes behind the first `=`, is so far.
fn read(text: &[u8]) -> Reading {
    let text = text.strip_prefix(b"=").unwrap_or(text);
    if let whole @ Reading::Whole(_) = port(text, false) {
        return whole;
    }
    for host in ANNOUNCED_HOSTS {
        let same = host.iter().zip(text).take_while(|(a, b)| a == b).count();
        if same == text.len() {
            return Reading::Unfinished;
        }
        if same == host.len() {
            return match &text[same..] {
                [b':', digits @ ..] => port(digits, true),
                _ => Reading::Other,
            };
        }
    }
    Reading::Other
}

fn port(digits: &[u8], has_host: bool) -> Reading {
    if digits.is_empty() {
        return Reading::Unfinished;
    }
    // As servers print it: in decimal digits, without a sign or a zero in front.
    let is_plain = digits[0] != b'0' && digits.iter().all(u8::is_ascii_digit);
    let number = || std::str::from_utf8(digits).ok()?.parse().ok();
    let number: Option<u16> = is_plain.then(number).flatten();
    number.map_or(Reading::Other, |port| {
        Reading::Whole(Announcement { port, has_host })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::slices::cut;
    use bstr::ByteSlice;
    use proptest::prelude::*;

    /// What the client gets when every address is answered with port 9, and what was learnt.
    fn answered(slices: &[&[u8]]) -> (Vec<u8>, Vec<Announcement>, usize) {
        let (mut machine, mut out, mut announced, mut sockets) =
            (Outbound::new(), Vec::new(), Vec::new(), 0);
        for slice in slices.iter().copied().map(Some).chain([None]) {
            let mut input = slice.unwrap_or_default();
            if slice.is_none() {
                machine.end();
            }
            loop {
                match machine.next(&mut input) {
                    None => break,
                    Some(OutboundPiece::Bytes(bytes)) => out.extend_from_slice(bytes),
                    Some(OutboundPiece::Socket) => sockets += 1,
                    Some(OutboundPiece::Announced(announcement)) => {
                        announced.push(announcement);
                        assert_eq!(machine.next(&mut input), None, "went on without an answer");
                        machine.release(9);
                    }
                }
                assert!(machine.holds() <= HOLD);
            }
            assert!(input.is_empty());
        }
        (out, announced, sockets)
    }

    #[test]
    fn every_recorded_form_is_rewritten_in_its_form() {
        for (line, expected) in [
            ("listeningOn==34713==\n", "listeningOn==9==\n"),
            (
                "listeningOn==127.0.0.1:41673==\n",
                "listeningOn==127.0.0.1:9==\n",
            ),
            (
                "listeningOn==0.0.0.0:41673==\r\n",
                "listeningOn==127.0.0.1:9==\r\n",
            ),
            (
                "listeningOn==[::1]:41673==\n",
                "listeningOn==127.0.0.1:9==\n",
            ),
            ("listeningOn==[::]:80==\n", "listeningOn==127.0.0.1:9==\n"),
            (
                "listeningOn==localhost:65535==\n",
                "listeningOn==127.0.0.1:9==\n",
            ),
            ("listeningOn=34713\n", "listeningOn=9\n"),
            ("listeningOn=localhost:1", "listeningOn=127.0.0.1:9"),
            (
                "multiplexListeningOn==1==\ncodeListeningOn==2==",
                "multiplexListeningOn==9==\ncodeListeningOn==9==",
            ),
            (
                "   x listeningOn==34713==osReleaseId==debian==",
                "   x listeningOn==9==osReleaseId==debian==",
            ),
            ("listeningOn==34713==   ", "listeningOn==9==   "),
            (
                "listeningOn==1==listeningOn==2==",
                "listeningOn==9==listeningOn==9==",
            ),
        ] {
            assert_eq!(
                answered(&[line.as_bytes()]).0.as_bstr(),
                expected,
                "{line:?}"
            );
        }
    }

    #[test]
    fn what_is_no_address_passes() {
        for line in [
            "listeningOn====\n",
            "listeningOn==$LISTENING_ON==\n",
            "listeningOn==${LISTENING_ON}==\n",
            "listeningOn==0==",
            "listeningOn==65536==",
            "listeningOn==034713==",
            "listeningOn==10.0.0.1:80==",
            "listeningOn==127.0.0.1==",
            "listeningOn==127.0.0.1:==",
            "listeningOn==12x",
            "listeningOn: 34713",
            "isteningOn==34713==",
            "glisteningOn",
            "listeningOn==",
            "listeningOn==127.0.0.1:4",
        ] {
            let (out, announced, _) = answered(&[line.as_bytes(), b" "]);
            let whole = line.ends_with(":4");
            assert_eq!(
                (
                    out.ends_with(line.as_bytes()) || out.starts_with(line.as_bytes()),
                    announced.len()
                ),
                (!whole, usize::from(whole)),
                "{line:?}"
            );
        }
    }

    #[test]
    fn what_begins_in_one_slice_has_to_go_on_in_the_next() {
        for (slices, announced) in [
            (["listen", "ingOn==1== "], 1),
            (["list", "ingOn==1== "], 0),
            (["isten", "ningOn==1== "], 0),
            (["x", "isteningOn==1== "], 0),
            (["l", "isteningOn==1== "], 1),
        ] {
            let slices = slices.map(str::as_bytes);
            assert_eq!(answered(&slices).1.len(), announced, "{slices:?}");
        }
    }

    #[test]
    fn what_may_be_an_address_is_held_and_told_so() {
        let mut machine = Outbound::new();
        let offer = |machine: &mut Outbound, text: &str| {
            let mut input = text.as_bytes();
            while machine.next(&mut input).is_some() {}
            machine.holds()
        };
        for (text, held) in [
            ("listeningOn", 0),
            ("==", 1),
            ("127", 4),
            (".0.0.1:65535", 16),
            ("=", 16),
        ] {
            assert_eq!(offer(&mut machine, text), held, "{text}");
        }
        machine.release(9);
        assert_eq!(offer(&mut machine, "= "), 0);
    }

    #[test]
    fn a_socket_is_reported_and_passes() {
        let line = b"listeningOn==/run/user/1000/vscode-sock==\n";
        let (out, announced, sockets) = answered(&[line]);
        assert_eq!(
            (out.as_slice(), announced.len(), sockets),
            (line.as_slice(), 0, 1)
        );
    }

    #[test]
    fn a_prompt_and_a_blank_pass_at_once() {
        for text in ["password: ", " ", "i", "listeningOn", "listeningOn="] {
            let mut machine = Outbound::new();
            let mut input = text.as_bytes();
            assert_eq!(
                machine.next(&mut input),
                Some(OutboundPiece::Bytes(text.as_bytes()))
            );
            assert_eq!(machine.next(&mut input), None);
        }
    }

    #[test]
    fn unchanged_means_unchanged() {
        let mut machine = Outbound::new();
        let mut input: &[u8] = b"listeningOn==[::]:80==";
        let mut out = Vec::new();
        while let Some(piece) = machine.next(&mut input) {
            match piece {
                OutboundPiece::Bytes(bytes) => out.extend_from_slice(bytes),
                OutboundPiece::Announced(_) => machine.release_unchanged(),
                OutboundPiece::Socket => panic!("no socket here"),
            }
        }
        assert_eq!(out.as_bstr(), "listeningOn==[::]:80==");
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(
            parts in proptest::collection::vec(prop_oneof![
                Just("listeningOn=".to_owned()), Just("codeListeningOn==".to_owned()),
                Just("=".to_owned()), Just("127.0.0.1:".to_owned()), Just("[::1]:".to_owned()),
                Just("l".to_owned()), Just("istening".to_owned()), Just("/".to_owned()),
                "[0-9]{1,6}", "[ \n\r$x]{0,3}",
            ], 0..12),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
        ) {
            let text = parts.concat().into_bytes();
            prop_assert_eq!(answered(&cut(&text, &cuts)), answered(&[&text]));
        }
    }
}
