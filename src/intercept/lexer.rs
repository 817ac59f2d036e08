//! Shell text, byte by byte: where words and commands begin and end, what is quoted, a comment, a
//! substitution or a here-document.
//!
//! It follows the POSIX shell grammar as far as that is needed to know whether a byte is part of a
//! command's word; csh reads the same in everything that a Remote-SSH script contains. Nothing is
//! expanded, and nothing within a substitution is told to the caller: no recorded form has a
//! server's start in one. Known gap: a `)` of a `case` pattern within `$(…)` ends the
//! substitution early (bash before 4.0 had the same).

use super::here_document::HereDocuments;
use super::sets::{
    DOUBLE, SCRIPT, TEXT, TEXT_IN_DOUBLE, TEXT_IN_SINGLE, is_blank, is_separator, run,
};
use bstr::ByteSlice;

/// Deepest nesting of quotes and substitutions; a line that goes deeper is skipped to its end.
const DEPTH: usize = 24;

/// What a byte means to the command that it stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// Nothing: a blank between words, a comment, a here-document, something nested.
    None,
    /// The byte is literal text of a word.
    Text(u8),
    /// The byte is a blank or newline within quotes.
    Space,
    /// A quote opens: there is a word, even if it stays empty.
    Quote,
    /// Part of the word is not literal: a substitution.
    Opaque,
    /// `<` or `>`: the next word is a file.
    Redirection,
    /// That file is a here-document after all, and its delimiter begins.
    Delimiter,
    /// `&`, which ends the command unless `>` follows.
    Ampersand,
    /// Before this byte a word has ended. The byte is to be given again.
    WordEnd,
    /// Before this byte (before the `&` in front of it) the command has ended. To be given again.
    CommandEnd,
}

impl Event {
    /// Whether the byte is done with.
    pub(super) fn is_consumed(self) -> bool {
        !matches!(self, Self::WordEnd | Self::CommandEnd)
    }
}

/// Bytes that need no step each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Skipped {
    pub(super) read: usize,
    /// The bytes up to here show that this is shell text.
    pub(super) signs: usize,
}

impl Skipped {
    pub(super) const NOTHING: Self = Self::inside(0);

    /// All of it within something.
    pub(super) const fn inside(read: usize) -> Self {
        Self { read, signs: read }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frame {
    /// The commands of the script itself: the bottom of the stack, and only there.
    Script,
    /// `$(…)`, with so many parentheses open within.
    Substitution(u32),
    /// `$((…))` or `((…))`, with so many open altogether.
    Arithmetic(u32),
    Backquote,
    Double,
    Single,
    /// `$'…'`: single quotes with escapes.
    Ansi,
    Comment,
}

/// The state between two bytes.
#[derive(Debug)]
pub(super) struct Lexer {
    /// `frames[..=depth]` is what the next byte stands in.
    frames: [Frame; DEPTH],
    depth: usize,
    /// The byte before was an unquoted `\`.
    escaped: bool,
    /// The byte before was a `$` that may begin something.
    dollar: bool,
    /// The byte before opened a parenthesis that a second one makes arithmetic.
    opened: bool,
    /// The byte before was `<` or `>`, so `&` and `|` belong to it.
    redirection: bool,
    /// So many `<` in a row.
    less: u8,
    /// The byte before was `&`.
    ampersand: bool,
    /// The next byte begins a word, so `#` begins a comment.
    at_word_start: bool,
    /// The byte before ended a line of the script, and nothing is pending.
    line_begins: bool,
    /// The script's own word and command are open.
    in_word: bool,
    in_command: bool,
    here: HereDocuments,
}

impl Lexer {
    pub(super) const fn new() -> Self {
        Self {
            frames: [Frame::Script; DEPTH],
            depth: 0,
            escaped: false,
            dollar: false,
            opened: false,
            redirection: false,
            less: 0,
            ampersand: false,
            at_word_start: true,
            line_begins: true,
            in_word: false,
            in_command: false,
            here: HereDocuments::new(),
        }
    }

    /// Whether the next byte begins a line of the script itself.
    pub(super) fn at_line_start(&self) -> bool {
        self.in_script() && !self.in_command && !self.ampersand && !self.escaped
    }

    /// Whether the next byte stands in no quotes, substitution, comment or here-document.
    pub(super) fn in_script(&self) -> bool {
        self.depth == 0 && !self.here.in_body()
    }

    /// How many bytes at the front of `bytes` mean nothing: to nobody or, where the command is of
    /// no interest (`indifferent`), to nobody who listens. Call it before [`Self::step`].
    pub(super) fn skip(&mut self, bytes: &[u8], indifferent: bool) -> Skipped {
        if self.here.in_body() {
            return Skipped::inside(self.here.body(bytes));
        }
        if self.escaped || self.here.is_opening() {
            return Skipped::NOTHING;
        }
        let unheard = indifferent || self.depth > 1;
        let up_to = |found: Option<usize>| Skipped::inside(found.unwrap_or(bytes.len()));
        match self.frames[self.depth] {
            Frame::Script if indifferent && self.in_command && self.is_plain() => {
                self.skip_commands(bytes)
            }
            // Not so deep that a quote in it would be too deep.
            Frame::Substitution(_) | Frame::Arithmetic(_) | Frame::Backquote
                if self.is_plain() && self.depth < DEPTH - 2 =>
            {
                Skipped::inside(self.skip_commands(bytes).read)
            }
            Frame::Comment if self.frames[self.depth - 1] != Frame::Backquote => {
                up_to(bytes.find_byte(b'\n'))
            }
            Frame::Single if unheard => up_to(bytes.find_byte(b'\'')),
            Frame::Double if unheard && !self.dollar => Skipped::inside(run(bytes, DOUBLE)),
            _ => Skipped::NOTHING,
        }
    }

    /// Whether the next byte begins a line of the script, with nothing pending.
    pub(super) fn line_begins(&self) -> bool {
        self.line_begins && self.in_script()
    }

    /// Lines were skipped, and then another begins (`line_begins`) or goes on.
    pub(super) fn skipped_lines(&mut self, line_begins: bool) {
        self.line_begins = line_begins;
    }

    /// How much of a command that nobody listens to is at the front of `bytes`: its words, and
    /// quotes that close in `bytes` and have nothing nested in them.
    fn skip_commands(&mut self, bytes: &[u8]) -> Skipped {
        let mut skipped = Skipped::NOTHING;
        let mut at_word_start = self.at_word_start;
        loop {
            let from = skipped.read;
            skipped.read += run(&bytes[from..], SCRIPT);
            let at = skipped.read;
            if at > from {
                at_word_start = is_blank(bytes[at - 1]);
            }
            let Some((&byte, rest)) = bytes[at..].split_first() else {
                break;
            };
            let next = rest.first();
            let length = match byte {
                b'-' => 0,
                b'#' if !at_word_start => 0,
                b'$' if next.is_some_and(|next| !b"($'".contains(next)) => 0,
                b'\'' => match rest.find_byte(b'\'') {
                    Some(closing) => closing + 1,
                    None => break,
                },
                b'"' => match run(rest, DOUBLE) {
                    closing if rest.get(closing) == Some(&b'"') => closing + 1,
                    _ => break,
                },
                _ => break,
            };
            at_word_start = false;
            skipped.read += 1 + length;
            if byte != b'#' {
                skipped.signs = skipped.read;
            }
        }
        self.at_word_start = at_word_start;
        skipped
    }

    /// How many bytes at the front of `bytes` are literal text of the script's word, each for
    /// itself, without a `=`. Call it where [`Self::skip`] has found nothing, and if they are taken,
    /// [`Self::took`].
    pub(super) fn plain_text(&self, bytes: &[u8]) -> usize {
        let ends = match self.frames[self.depth] {
            Frame::Script if self.is_plain() => TEXT,
            Frame::Single if self.depth == 1 => TEXT_IN_SINGLE,
            Frame::Double if self.depth == 1 && !self.dollar => TEXT_IN_DOUBLE,
            _ => return 0,
        };
        match self.escaped || self.here.is_opening() {
            true => 0,
            false => run(bytes, ends),
        }
    }

    /// What [`Self::plain_text`] has found was taken.
    pub(super) fn took(&mut self) {
        self.line_begins = false;
        if self.depth == 0 {
            self.at_word_start = false;
            self.in_word = true;
            self.in_command = true;
        }
    }

    /// The script's commands, with nothing pending from the byte before.
    fn is_plain(&self) -> bool {
        !(self.dollar || self.opened || self.redirection || self.ampersand || self.less > 0)
    }

    /// What `byte`, the next one of the stream, means.
    pub(super) fn step(&mut self, byte: u8) -> Event {
        self.line_begins = false;
        if self.escaped {
            return self.escaped(byte);
        }
        match self.frames[self.depth] {
            Frame::Comment => match byte {
                b'\n' => {
                    self.depth -= 1;
                    self.command_byte(byte)
                }
                b'`' if self.frames[self.depth - 1] == Frame::Backquote => {
                    self.depth -= 1;
                    self.command_byte(byte)
                }
                _ => Event::None,
            },
            Frame::Single if byte == b'\'' => self.close(),
            Frame::Ansi if byte == b'\'' => self.close(),
            Frame::Ansi if byte == b'\\' => self.escape(),
            Frame::Single | Frame::Ansi => self.literal(byte),
            Frame::Double => {
                let dollar = self.dollar;
                self.dollar = byte == b'$' && !dollar;
                match byte {
                    b'"' => self.close(),
                    b'\\' => self.escape(),
                    b'`' => self.push(Frame::Backquote, Event::Opaque),
                    b'(' if dollar => {
                        self.opened = true;
                        self.push(Frame::Substitution(0), Event::Opaque)
                    }
                    _ => self.literal(byte),
                }
            }
            _ => self.command_byte(byte),
        }
    }

    /// The stream has ended: what a newline would say.
    pub(super) fn end(&mut self) -> Event {
        if self.depth == 0 && std::mem::take(&mut self.in_word) {
            Event::WordEnd
        } else if self.depth == 0 && std::mem::take(&mut self.in_command) {
            Event::CommandEnd
        } else {
            Event::None
        }
    }

    fn escaped(&mut self, byte: u8) -> Event {
        self.escaped = false;
        if byte == b'\n' {
            // The line goes on, and with it the word, if there is one.
            return Event::None;
        }
        match self.frames[self.depth] {
            Frame::Script => self.text(byte),
            Frame::Double | Frame::Ansi => self.literal(byte),
            _ => {
                self.at_word_start = false;
                Event::None
            }
        }
    }

    fn escape(&mut self) -> Event {
        self.escaped = true;
        Event::None
    }

    /// A byte of a command: of the script's, or of a substitution's.
    fn command_byte(&mut self, byte: u8) -> Event {
        if self.here.is_opening() && self.here.delimiter(byte) {
            return Event::None;
        }
        if self.ampersand && byte != b'>' {
            self.ampersand = false;
            if std::mem::take(&mut self.in_command) {
                return Event::CommandEnd;
            }
        }
        let frame = self.frames[self.depth];
        let script = frame == Frame::Script;
        let arithmetic = matches!(frame, Frame::Arithmetic(_));
        if script {
            // A word, and then the command, end before the byte that ends them.
            let separates = match byte {
                b'\n' | b';' | b')' => true,
                b'(' => !self.dollar && self.less == 0 && !self.redirection,
                b'|' => !self.redirection,
                b'#' => self.at_word_start && self.less != 2,
                _ => false,
            };
            let ends_word = separates || is_blank(byte) || matches!(byte, b'<' | b'>' | b'&');
            if ends_word && std::mem::take(&mut self.in_word) {
                return Event::WordEnd;
            }
            if separates && std::mem::take(&mut self.in_command) {
                return Event::CommandEnd;
            }
        }
        let dollar = self.dollar;
        // `$$` is whole.
        self.dollar = byte == b'$' && !dollar;
        let opened = std::mem::take(&mut self.opened);
        let redirection = std::mem::take(&mut self.redirection);
        let less = std::mem::take(&mut self.less);
        // Before a `>` it is part of the redirection.
        self.ampersand = false;
        let at_word_start = std::mem::replace(&mut self.at_word_start, is_separator(byte));
        if less == 2 && byte != b'<' && !arithmetic {
            self.here.open();
            if self.here.delimiter(byte) {
                self.dollar = false;
                return if script {
                    Event::Delimiter
                } else {
                    Event::None
                };
            }
        }
        match byte {
            b'\\' => {
                // Whether a word begins is for the next byte to say: a newline is no part of one.
                self.at_word_start = at_word_start;
                self.escape()
            }
            b'\'' if dollar => self.push(Frame::Ansi, Event::Quote),
            b'\'' => self.push(Frame::Single, Event::Quote),
            b'"' => self.push(Frame::Double, Event::Quote),
            b'`' if frame == Frame::Backquote => self.close(),
            b'`' => self.push(Frame::Backquote, Event::Opaque),
            b'(' => self.parenthesis(frame, dollar, opened, redirection),
            b')' => self.closing_parenthesis(frame),
            b'#' if at_word_start && !arithmetic => self.push(Frame::Comment, Event::None),
            b'\n' => {
                self.here.line_ended();
                self.line_begins = script;
                Event::None
            }
            b'<' | b'>' if arithmetic => Event::None,
            b'<' => {
                self.redirection = true;
                self.less = (less + 1).min(3);
                self.redirect()
            }
            b'>' => {
                self.redirection = true;
                self.redirect()
            }
            b'&' if script && !redirection => {
                self.ampersand = true;
                Event::Ampersand
            }
            b';' | b'|' | b'&' => Event::None,
            _ if is_blank(byte) => Event::None,
            _ if script => self.text(byte),
            _ => Event::None,
        }
    }

    fn parenthesis(
        &mut self,
        frame: Frame,
        dollar: bool,
        opened: bool,
        redirection: bool,
    ) -> Event {
        if dollar || redirection {
            // `$(…)`, `<(…)`, `>(…)`; a second one at once makes the first arithmetic.
            self.opened = dollar;
            return self.push(Frame::Substitution(0), Event::Opaque);
        }
        match frame {
            Frame::Substitution(0) if opened => {
                self.frames[self.depth] = Frame::Arithmetic(2);
            }
            Frame::Substitution(open) => {
                self.frames[self.depth] = Frame::Substitution(open.saturating_add(1));
            }
            Frame::Arithmetic(open) => {
                self.frames[self.depth] = Frame::Arithmetic(open.saturating_add(1));
            }
            Frame::Script if opened => return self.push(Frame::Arithmetic(2), Event::None),
            Frame::Script => self.opened = true,
            _ => {}
        }
        Event::None
    }

    fn closing_parenthesis(&mut self, frame: Frame) -> Event {
        match frame {
            Frame::Substitution(0) | Frame::Arithmetic(0 | 1) => return self.close(),
            Frame::Substitution(open) => {
                self.frames[self.depth] = Frame::Substitution(open - 1);
            }
            Frame::Arithmetic(open) => self.frames[self.depth] = Frame::Arithmetic(open - 1),
            _ => {}
        }
        Event::None
    }

    fn redirect(&mut self) -> Event {
        if self.frames[self.depth] == Frame::Script {
            self.in_command = true;
            return Event::Redirection;
        }
        Event::None
    }

    /// Literal text of the script's word.
    fn text(&mut self, byte: u8) -> Event {
        self.at_word_start = false;
        self.in_word = true;
        self.in_command = true;
        Event::Text(byte)
    }

    /// A byte within quotes: it counts if they stand in the script itself.
    fn literal(&mut self, byte: u8) -> Event {
        match byte {
            _ if self.depth > 1 => Event::None,
            b'\n' => Event::Space,
            _ if is_blank(byte) => Event::Space,
            _ => Event::Text(byte),
        }
    }

    fn close(&mut self) -> Event {
        self.depth -= 1;
        self.at_word_start = false;
        self.dollar = false;
        Event::None
    }

    fn push(&mut self, frame: Frame, event: Event) -> Event {
        if self.depth == 0 && frame != Frame::Comment && !matches!(frame, Frame::Arithmetic(_)) {
            self.in_word = true;
            self.in_command = true;
        }
        self.dollar = false;
        self.at_word_start = !matches!(frame, Frame::Single | Frame::Double | Frame::Ansi);
        let (depth, frame, event) = match self.depth + 1 {
            // Nobody writes this: forget it with the end of the line.
            DEPTH => (1, Frame::Comment, Event::Opaque),
            depth => (depth, frame, event),
        };
        self.depth = depth;
        self.frames[depth] = frame;
        // In `((…))` there is no word that it could be part of.
        if self.in_word { event } else { Event::None }
    }
}
