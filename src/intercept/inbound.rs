//! Client to shell: finds the commands that start a server, and makes the server listen where
//! another node can reach it.
//!
//! Everything passes at once but what may have to change: from a loopback address in a command
//! that so far is a server's start, bytes are held until that command ends (it may turn out to
//! have no token), and an `&` in front of which an option may have to be put is held until the
//! byte behind it is known. Data is left alone: other commands, quotes over many lines, comments,
//! here-documents.
//!
//! # Three gaits
//! Reading shell text byte by byte is slow; most text has nothing for us. So there are three:
//! - *Attentive*: [`Lexer`] reads every byte, but steps over whole lines that ask for no change and
//!   leave nothing open.
//! - *Dozing*: after [`QUIET`] bytes of commands without any byte that quotes, escapes, opens a
//!   here-document or begins an option, only the next `-`, `<` or `'` is looked for, which every
//!   recorded form has in time. There the line is read from its beginning. What this cannot see
//!   is a `"` in quiet text that stays open to a later line.
//! - *Skipping*: a line with [`LIMIT`] quiet bytes is no command; the next line is looked for.
//!
//! All three are functions of the stream, never of how it was cut.

use super::command::{Command, Decision, Kind, MOST_PLACES};
use super::lexer::{Lexer, Skipped};
use super::line::Line;
use super::plain_lines::PlainLines;
use super::sets::is_sign;
use super::words::{
    ADDED_ON_HOST, ADDED_ON_HOST_BEFORE_COMMENT, EVERYWHERE, LISTEN_ARGS_UNCHANGED,
};
use bstr::ByteSlice;

/// Most bytes held, and most bytes of a line remembered; a longer command passes as it is.
pub(super) const LIMIT: usize = 16 * 1024;

/// So many bytes without a sign of shell syntax, and only rare bytes are looked for. Far more
/// than any script has, whose lines are full of options and quotes.
pub(super) const QUIET: u64 = 4 * 1024;

/// What was learnt. Carries nothing of the script, which contains tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// A command that starts a server, or sets the options for one, was recognised and now
    /// listens where it can be reached.
    ServerStart,
    /// A server is started without a token; the command was left as it is.
    WithoutToken,
    /// A command that may start a server is longer than 16 KiB; it was left as it is.
    TooLong,
}

impl Notice {
    /// Whether it says that a server's start was recognised.
    pub fn is_server_start(self) -> bool {
        self == Self::ServerStart
    }
}

impl std::fmt::Display for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ServerStart => "recognised the start of a server",
            Self::WithoutToken => {
                "a server is started without a token; it stays on its node's loopback, where it \
                 cannot be reached from here: on all interfaces it would be an open shell for the \
                 cluster"
            }
            Self::TooLong => {
                "a command that may start a server is longer than 16 KiB; it is passed on unchanged"
            }
        })
    }
}

/// A piece of the stream, or what was learnt from it.
#[derive(Debug, PartialEq, Eq)]
pub enum InboundPiece<'a> {
    /// To be forwarded.
    Bytes(&'a [u8]),
    /// To be logged.
    Notice(Notice),
}

/// The machine for the client's stream.
#[derive(Debug)]
pub struct Inbound {
    gait: Gait,
    plain_lines: PlainLines,
    lexer: Lexer,
    command: Command,
    /// The offset in the stream of the next byte of input.
    position: u64,
    /// The offset behind the last byte that was a sign of shell syntax.
    busy: u64,
    /// Dozing: the line so far, as it came in earlier slices.
    line: Line,
    /// Bytes not forwarded yet. `held.len() <= LIMIT`
    held: Vec<u8>,
    holding: bool,
    /// What is on its way out.
    release: Option<Release>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gait {
    Attentive,
    Dozing,
    Skipping,
    /// Nothing is ours any more.
    PassingAll,
}

/// A decision that is being carried out: the held bytes with edits, then a notice.
#[derive(Debug)]
struct Release {
    edits: [Edit; MOST_EDITS],
    /// The edits still to come are `edits[done..count]`.
    done: usize,
    count: usize,
    /// Held bytes up to here are out.
    at: usize,
    notice: Option<Notice>,
}

/// The places of one command and the option added to it.
const MOST_EDITS: usize = MOST_PLACES + 1;

/// In place of so many held bytes from `at` on, `with` goes out.
#[derive(Debug, Clone, Copy, Default)]
struct Edit {
    at: usize,
    len: usize,
    with: &'static [u8],
}

/// What goes out next.
enum Out {
    Held(std::ops::Range<usize>),
    Constant(&'static [u8]),
    Notice(Notice),
}

impl Default for Inbound {
    fn default() -> Self {
        Self::new()
    }
}

impl Inbound {
    /// A machine at the beginning of its stream.
    pub fn new() -> Self {
        Self {
            gait: Gait::Attentive,
            plain_lines: PlainLines::new(),
            lexer: Lexer::new(),
            command: Command::new(),
            position: 0,
            busy: 0,
            line: Line::new(),
            held: Vec::with_capacity(LIMIT),
            holding: false,
            release: None,
        }
    }

    /// The next piece; `None` when all input is used up.
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Option<InboundPiece<'s>> {
        loop {
            if let Some(out) = self.leaving() {
                return Some(match out {
                    Out::Held(range) => InboundPiece::Bytes(&self.held[range]),
                    Out::Constant(bytes) => InboundPiece::Bytes(bytes),
                    Out::Notice(notice) => InboundPiece::Notice(notice),
                });
            }
            if input.is_empty() {
                return None;
            }
            if self.gait == Gait::PassingAll {
                return Some(InboundPiece::Bytes(std::mem::take(input)));
            }
            if self.holding {
                let held = self.hold(input);
                *input = &input[held..];
                continue;
            }
            let (bytes, rest) = input.split_at(self.pass(input));
            // The byte that begins a hold is held already.
            *input = &rest[self.held.len()..];
            if !bytes.is_empty() {
                return Some(InboundPiece::Bytes(bytes));
            }
        }
    }

    /// The stream has ended, and with it the last command: what is held is decided on, and comes
    /// out by further calls of [`Self::next`].
    pub fn end(&mut self) {
        while self.gait == Gait::Attentive && self.release.is_none() {
            let event = self.lexer.end();
            if event.is_consumed() {
                break;
            }
            if let Some(decision) = self.command.take(event, self.position) {
                self.decide(decision, b'\n');
            }
        }
        if self.holding {
            self.let_go(None);
        }
    }

    /// The session was announced: what is held comes out unchanged, and from then on everything
    /// passes.
    pub fn pass_all(&mut self) {
        if self.holding {
            self.let_go(None);
        }
        self.gait = Gait::PassingAll;
        self.line = Line::new();
    }

    /// How many bytes are held.
    pub fn holds(&self) -> usize {
        self.held.len()
    }

    /// How many bytes at the front of `input` pass. The byte behind them begins a hold, or
    /// something has to leave before it, or there is none.
    fn pass(&mut self, input: &[u8]) -> usize {
        let mut at = 0;
        while at < input.len() {
            let rest = &input[at..];
            at += match self.gait {
                Gait::Attentive => {
                    let read = self.attend(rest);
                    if self.command.holds() {
                        self.holding = true;
                        // Only a single byte can have begun it.
                        self.held.extend_from_slice(&rest[..read]);
                        return at;
                    }
                    read
                }
                Gait::Dozing => self.doze(rest),
                Gait::Skipping | Gait::PassingAll => self.skip_line(rest),
            };
            if self.release.is_some() {
                break;
            }
        }
        at
    }

    /// How many bytes at the front of `input` are held, up to the command's end or to where they
    /// are seen to be nothing.
    fn hold(&mut self, input: &[u8]) -> usize {
        let mut at = 0;
        while at < input.len() && self.release.is_none() {
            let room = LIMIT - self.held.len();
            if room == 0 {
                self.command.give_up();
                self.let_go(Some(Notice::TooLong));
                break;
            }
            let rest = &input[at..input.len().min(at + room)];
            let read = self.attend(rest);
            self.held.extend_from_slice(&rest[..read]);
            at += read;
            if self.release.is_none() && !self.command.holds() {
                let too_long = self.gait == Gait::Skipping;
                self.let_go(too_long.then_some(Notice::TooLong));
            }
        }
        at
    }

    /// Reads on in `bytes`, attentively; how many were read, none if a word or a command has
    /// ended before them.
    fn attend(&mut self, bytes: &[u8]) -> usize {
        let quiet = self.position.saturating_sub(self.busy) as usize;
        // Up to where text becomes so quiet that something changes, unless it just became so with a
        // byte that opened something.
        let until = |limit: usize| &bytes[..bytes.len().min(limit.saturating_sub(quiet).max(1))];
        let (lines, bytes) = (until(QUIET as usize), until(LIMIT + 1));
        let inside = !self.lexer.in_script();
        let mut skipped = Skipped::NOTHING;
        if self.lexer.line_begins() {
            skipped = self.plain_lines.skip(lines);
            self.lexer.skipped_lines(skipped.read == lines.len());
        }
        if skipped.read == 0 {
            skipped = self.lexer.skip(bytes, self.command.is_other());
        }
        if skipped.read == 0 {
            skipped.read = self.lexer.plain_text(bytes);
            if skipped.read > 0 && self.command.take_text(&bytes[..skipped.read]) {
                self.lexer.took();
                let last = bytes[..skipped.read].iter().rposition(|&byte| byte == b'-');
                skipped.signs = last.map_or(0, |last| last + 1);
            } else if self.step(bytes[0]) {
                skipped.read = 1;
                skipped.signs = usize::from(is_sign(bytes[0]));
            } else {
                return 0;
            }
            if inside {
                skipped.signs = skipped.read;
            }
        }
        let read = skipped.read;
        if skipped.signs > 0 {
            self.busy = self.busy.max(self.position + skipped.signs as u64);
        }
        self.position += read as u64;
        let quiet = self.position.saturating_sub(self.busy);
        if quiet >= QUIET && bytes[read - 1] == b'\n' && self.lexer.at_line_start() {
            self.fall_asleep();
        } else if quiet > LIMIT as u64 && self.lexer.in_script() {
            self.command.give_up();
            self.gait = Gait::Skipping;
        }
        read
    }

    /// Reads `byte`; `false` if that has to wait, because something goes out in front of it.
    fn step(&mut self, byte: u8) -> bool {
        loop {
            let event = self.lexer.step(byte);
            if let Some(decision) = self.command.take(event, self.position) {
                self.decide(decision, byte);
            }
            if event.is_consumed() {
                return true;
            }
            if self.holding || self.release.is_some() {
                return false;
            }
        }
    }

    /// Reads on in `bytes`, dozing: up to their end, or to the line in which it wakes.
    fn doze(&mut self, bytes: &[u8]) -> usize {
        let Some(sign) = bytes.find_byteset(b"-<'") else {
            self.line.push(bytes);
            self.position += bytes.len() as u64;
            return bytes.len();
        };
        let start = self.line.start_in(&bytes[..sign]);
        let length = match start {
            Some(start) => sign - start,
            None => self.line.len() + sign,
        };
        if length > LIMIT {
            self.gait = Gait::Skipping;
            self.position += sign as u64;
            return sign;
        }
        self.gait = Gait::Attentive;
        self.busy = self.position + sign as u64;
        if start.is_none() {
            self.read_again();
        }
        let passed = start.unwrap_or(0);
        self.position += passed as u64;
        passed
    }

    /// Reads the part of the line that has passed already. Without a `-` nothing in it can ask
    /// for a change.
    fn read_again(&mut self) {
        for &byte in self.line.text() {
            loop {
                let event = self.lexer.step(byte);
                let decision = self.command.take(event, 0);
                debug_assert!(decision.is_none() && !self.command.holds());
                if event.is_consumed() {
                    break;
                }
            }
        }
    }

    /// Reads on in `bytes`, up to the end of the line.
    fn skip_line(&mut self, bytes: &[u8]) -> usize {
        let end = bytes.find_byte(b'\n');
        let read = end.map_or(bytes.len(), |end| end + 1);
        self.position += read as u64;
        if end.is_some() {
            self.fall_asleep();
        }
        read
    }

    /// At the beginning of a line, with nothing open.
    fn fall_asleep(&mut self) {
        self.gait = Gait::Dozing;
        self.line.clear();
        self.lexer = Lexer::new();
        self.command.renew();
    }

    /// Carries a decision out, before `byte`.
    fn decide(&mut self, decision: Decision, byte: u8) {
        let mut release = Release::new(decision.notice.into());
        let start = self.position - self.held.len() as u64;
        for place in decision.places.iter() {
            release.edit(Edit {
                // Places are held, so the difference is an index of the held bytes.
                at: (place.at - start) as usize,
                len: place.len,
                with: match place.kind {
                    Kind::Loopback => EVERYWHERE,
                    Kind::ListenArgs => LISTEN_ARGS_UNCHANGED,
                },
            });
        }
        if decision.add_host {
            // Nothing is held but the `&` in front of which the option goes, if it is one.
            release.edit(Edit {
                at: 0,
                len: 0,
                with: match byte {
                    b'#' if self.held.is_empty() => ADDED_ON_HOST_BEFORE_COMMENT,
                    _ => ADDED_ON_HOST,
                },
            });
        }
        self.holding = false;
        self.release = Some(release);
    }

    /// What is held goes as it is.
    fn let_go(&mut self, notice: Option<Notice>) {
        self.holding = false;
        self.release = Some(Release::new(notice));
    }

    fn leaving(&mut self) -> Option<Out> {
        let release = self.release.as_mut()?;
        let edit = release.edits[..release.count].get(release.done).copied();
        let end = edit.map_or(self.held.len(), |edit| edit.at);
        if release.at < end {
            return Some(Out::Held(std::mem::replace(&mut release.at, end)..end));
        }
        if let Some(edit) = edit {
            release.done += 1;
            release.at += edit.len;
            return Some(Out::Constant(edit.with));
        }
        let notice = release.notice;
        self.release = None;
        self.held.clear();
        notice.map(Out::Notice)
    }
}

impl Release {
    fn new(notice: Option<Notice>) -> Self {
        Self {
            edits: [Edit::default(); MOST_EDITS],
            done: 0,
            count: 0,
            at: 0,
            notice,
        }
    }

    fn edit(&mut self, edit: Edit) {
        self.edits[self.count] = edit;
        self.count += 1;
    }
}

#[cfg(test)]
mod tests;
