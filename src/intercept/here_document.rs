//! Here-documents: where one opens, what its delimiter is, where its body ends.
//!
//! A body is data, whatever it looks like. Several may open on one line; their bodies follow one
//! another from the next line on.

use bstr::ByteSlice;

/// Most here-documents opened on one line, and most bytes of their delimiters together. What goes
/// beyond is not followed: no script comes near.
const MOST: usize = 8;
const DELIMITERS: usize = 512;

/// The here-documents of one stream.
#[derive(Debug)]
pub(super) struct HereDocuments {
    /// The delimiters of the open ones, one behind another, quotes removed.
    /// `used <= DELIMITERS`, and the lengths in `open[..count]` add up to no more than `used`.
    delimiters: [u8; DELIMITERS],
    used: usize,
    open: [Delimiter; MOST],
    count: usize,
    opening: Option<Opening>,
    body: Option<Body>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Delimiter {
    len: usize,
    /// `<<-`: tabs before the delimiter do not count.
    strips_tabs: bool,
    /// Quoted in any part: `\` before a newline does not join lines of the body.
    quoted: bool,
}

/// The word behind `<<`, while it is read.
#[derive(Debug, Clone, Copy)]
struct Opening {
    delimiter: Delimiter,
    begun: bool,
    /// The byte right behind `<<`, which alone may be the `-`.
    first: bool,
    quote: Option<u8>,
    escaped: bool,
    /// A delimiter that cannot be kept or can never match.
    broken: bool,
}

/// A body, while it is read.
#[derive(Debug, Clone, Copy)]
struct Body {
    /// The one of `open` that it belongs to, and where its delimiter begins.
    index: usize,
    start: usize,
    line: Line,
    /// The line ends in an odd number of backslashes so far. Those of the delimiter's own do not
    /// count: with one in it, it is quoted.
    joined: bool,
}

/// A line of a body, so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// So many bytes of the delimiter.
    Delimiter(usize),
    /// Something else.
    Text,
}

impl HereDocuments {
    pub(super) const fn new() -> Self {
        const NONE: Delimiter = Delimiter {
            len: 0,
            strips_tabs: false,
            quoted: false,
        };
        Self {
            delimiters: [0; DELIMITERS],
            used: 0,
            open: [NONE; MOST],
            count: 0,
            opening: None,
            body: None,
        }
    }

    /// `<<` was read, and the next byte is not a third `<`.
    pub(super) fn open(&mut self) {
        self.opening = Some(Opening {
            delimiter: Delimiter::default(),
            begun: false,
            first: true,
            quote: None,
            escaped: false,
            broken: self.count == MOST,
        });
    }

    /// Whether a delimiter is being read: bytes go to [`Self::delimiter`].
    pub(super) fn is_opening(&self) -> bool {
        self.opening.is_some()
    }

    /// Whether a body is being read: bytes go to [`Self::body`].
    pub(super) fn in_body(&self) -> bool {
        self.body.is_some()
    }

    /// Takes a byte of the delimiter; `false` if it stands behind the word.
    pub(super) fn delimiter(&mut self, byte: u8) -> bool {
        let Some(mut opening) = self.opening else {
            return false;
        };
        let first = std::mem::take(&mut opening.first);
        let literal = match (opening.quote, byte) {
            _ if std::mem::take(&mut opening.escaped) => true,
            (None, b'-') if first => {
                opening.delimiter.strips_tabs = true;
                false
            }
            (None, b' ' | b'\t') if !opening.begun => false,
            (None, b' ' | b'\t' | b'\n' | b';' | b'&' | b'|' | b'<' | b'>' | b'(' | b')') => {
                self.opening = None;
                if opening.begun && !opening.broken {
                    self.open[self.count] = opening.delimiter;
                    self.count += 1;
                } else {
                    self.used -= opening.delimiter.len;
                }
                return false;
            }
            (None, b'\\') | (Some(b'"'), b'\\') => {
                opening.escaped = true;
                opening.quoted();
                false
            }
            (None, b'\'' | b'"') => {
                opening.quote = Some(byte);
                opening.quoted();
                false
            }
            (Some(quote), _) if quote == byte => {
                opening.quote = None;
                false
            }
            _ => true,
        };
        if literal {
            opening.begun = true;
            if byte == b'\n' || self.used == DELIMITERS {
                opening.broken = true;
            } else {
                self.delimiters[self.used] = byte;
                self.used += 1;
                opening.delimiter.len += 1;
            }
        }
        self.opening = Some(opening);
        true
    }

    /// The line with the openings is over.
    pub(super) fn line_ended(&mut self) {
        if self.count > 0 {
            self.body = Some(Body::begin(0, 0));
        }
    }

    /// How many of `bytes` belong to the bodies; fewer than all if the last one ends in them.
    pub(super) fn body(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while let Some(mut body) = self.body
            && at < bytes.len()
        {
            at += body.line_in(self, &bytes[at..]);
            self.body = Some(body);
            // `line_in` stops behind a newline or at the end of the bytes.
            if bytes[at - 1] == b'\n' {
                self.body = body.next_line(self);
            }
        }
        at
    }
}

impl Opening {
    fn quoted(&mut self) {
        self.begun = true;
        self.delimiter.quoted = true;
    }
}

impl Body {
    fn begin(index: usize, start: usize) -> Self {
        Self {
            index,
            start,
            line: Line::Delimiter(0),
            joined: false,
        }
    }

    /// Reads on in a line; how many of `bytes` (not empty) belong to it, its newline included.
    fn line_in(&mut self, documents: &HereDocuments, bytes: &[u8]) -> usize {
        let delimiter = documents.open[self.index];
        let word = &documents.delimiters[self.start..self.start + delimiter.len];
        let mut at = 0;
        while let Line::Delimiter(matched) = self.line
            && let Some(&byte) = bytes.get(at)
            && byte != b'\n'
        {
            let stripped = byte == b'\t' && matched == 0 && delimiter.strips_tabs;
            if !stripped && word.get(matched) != Some(&byte) {
                self.line = Line::Text;
                break;
            }
            self.line = Line::Delimiter(matched + usize::from(!stripped));
            at += 1;
        }
        let end = bytes[at..].find_byte(b'\n');
        let text = &bytes[at..end.map_or(bytes.len(), |end| at + end)];
        let run = text.iter().rev().take_while(|&&byte| byte == b'\\').count();
        let whole = run == text.len();
        self.joined = (whole && self.joined) ^ (run % 2 == 1);
        end.map_or(bytes.len(), |end| at + end + 1)
    }

    /// What follows a newline: the next line of this body, the next body, or none.
    fn next_line(self, documents: &mut HereDocuments) -> Option<Self> {
        let delimiter = documents.open[self.index];
        if self.line == Line::Delimiter(delimiter.len) {
            let next = self.index + 1;
            if next < documents.count {
                return Some(Self::begin(next, self.start + delimiter.len));
            }
            documents.count = 0;
            documents.used = 0;
            return None;
        }
        let mut line = Self::begin(self.index, self.start);
        if self.joined && !delimiter.quoted {
            line.line = Line::Text;
        }
        Some(line)
    }
}
