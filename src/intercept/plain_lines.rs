//! Whole lines of the script that ask for no change and leave nothing open, whatever stands before
//! and behind them: they are not read closely.
//!
//! What is ours has one of [`ENDS`] in it, perhaps with quotes or a `\` in between.

use super::lexer::Skipped;
use super::sets::{LINES, LINES_IN_QUOTES, is_separator, run};
use super::words::ENDS;
use bstr::{ByteSlice, Finder};

/// So many bytes without a quote or the like, and what ends such text is searched for in all that
/// is there. That is many times faster where there is much of it, and a waste in a script.
const PLAIN: usize = 32;

/// The longest of [`ENDS`] without its last byte: so far before a quote one of them may begin.
const BEGUN: usize = "-start-server".len() - 1;

/// The machine's searches, made once.
#[derive(Debug)]
pub(super) struct PlainLines {
    ends: [Finder<'static>; ENDS.len()],
}

impl PlainLines {
    pub(super) fn new() -> Self {
        Self {
            ends: ENDS.map(Finder::new),
        }
    }

    /// How much at the front of `bytes`, which begin a line, can be skipped: always whole lines.
    pub(super) fn skip(&self, bytes: &[u8]) -> Skipped {
        let mut lines = Skipped::NOTHING;
        let (mut at, mut signs) = (0, 0);
        // Behind the last byte that needed more than a look at its neighbours.
        let mut plain = 0;
        loop {
            at += run(&bytes[at..], LINES);
            if at - plain >= PLAIN {
                let text = self.leap(&bytes[at..]);
                for sign in [b'-', b'$'] {
                    let last = text.rfind_byte(sign).map_or(0, |last| at + last + 1);
                    signs = signs.max(last);
                }
                at += text.len();
                plain = at;
                if text.last() == Some(&b'\n') {
                    lines = Skipped { read: at, signs };
                }
                continue;
            }
            let Some((&byte, rest)) = bytes[at..].split_first() else {
                break;
            };
            let next = rest.first();
            let length = match byte {
                b'\n' => {
                    at += 1;
                    lines = Skipped { read: at, signs };
                    continue;
                }
                b'#' if at > lines.read && !is_separator(bytes[at - 1]) => {
                    at += 1;
                    continue;
                }
                b'#' => match rest.find_byte(b'\n') {
                    // The newline is the comment's end.
                    Some(newline) => {
                        at += newline + 2;
                        (signs, plain) = (at, at);
                        lines = Skipped::inside(at);
                        continue;
                    }
                    None => break,
                },
                b'-' if !may_be_ours(&bytes[at..]) => 0,
                b'$' if next.is_some_and(|next| !b"($'".contains(next)) => 0,
                b'\'' | b'"' => match quotes(byte, rest) {
                    Some(length) => {
                        plain = at + 1 + length;
                        length
                    }
                    None => break,
                },
                _ => break,
            };
            at += 1 + length;
            signs = at;
        }
        lines
    }

    /// As much of `bytes` as is plain: has no quote, comment or the like, and nothing of ours. Up
    /// to its last newline, if it has one.
    fn leap<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        let mut end = bytes.len();
        for set in [b"'\"#", b"\\`<", b"((("] {
            end = bytes[..end].find_byteset(set).unwrap_or(end);
        }
        let mut plain = end.saturating_sub(BEGUN);
        for ours in &self.ends {
            plain = plain.min(ours.find(&bytes[..end]).unwrap_or(plain));
        }
        let plain = &bytes[..plain];
        let line = plain.rfind_byte(b'\n').map(|newline| newline + 1);
        &plain[..line.unwrap_or(plain.len())]
    }
}

/// How long the rest of quoted text is, with the closing `quote`; `None` if it does not close in
/// `rest`, has something nested in it, or has what may be ours.
fn quotes(quote: u8, rest: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += run(&rest[at..], LINES_IN_QUOTES);
        let (&byte, behind) = rest[at..].split_first()?;
        let next = behind.first();
        at += match byte {
            _ if byte == quote => return Some(at + 1),
            b'-' if may_be_ours(&rest[at..]) => return None,
            b'\\' if quote == b'"' => next.map(|_| 2)?,
            b'`' if quote == b'"' => return None,
            b'$' if quote == b'"' && next.is_none_or(|next| b"($".contains(next)) => return None,
            _ => 1,
        }
    }
}

/// Whether `text` may begin with one of [`ENDS`].
#[inline(always)]
fn may_be_ours(text: &[u8]) -> bool {
    ENDS.iter().any(|end| may_be(end, text))
}

/// Whether `text` begins with `end`, or with a part of it and what may join the rest to it.
#[inline(always)]
fn may_be(end: &[u8], text: &[u8]) -> bool {
    for (at, byte) in end.iter().enumerate() {
        match text.get(at) {
            Some(other) if other == byte => {}
            other => return other.is_none_or(|other| matches!(other, b'\'' | b'"' | b'\\')),
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines that nothing is in, more and less than are looked at one byte after another.
    fn plain() -> impl Iterator<Item = String> {
        (0..24).map(|lines| "ls -so $HOME\n".repeat(lines) + "ab\n")
    }

    #[test]
    fn skipping_ends_before_the_line_with_something_of_ours_or_left_open() {
        for line in [
            "a command-shell b\n",
            "a --start-server\n",
            "a --on-port\n",
            "a -on\"-port\"\n",
            "a -\\shell\n",
            "a \"b -start-s'erver'\"\n",
            "a --on-po",
            "a -",
            "a",
            "'b\n",
            "a \"b\n",
            "a \"`b`\"\n",
            "a \"$$b\"\n",
            "a \"$(b)\"\n",
            "a $'b'\n",
            "a $$ b\n",
            "a (\n",
            "a <b\n",
            "a `b`\n",
            "a \\\n",
            "# b",
        ] {
            for before in plain() {
                let text = format!("{before}{line}");
                let lines = PlainLines::new().skip(text.as_bytes());
                assert_eq!(lines.read, before.len(), "{text}");
            }
        }
    }

    #[test]
    fn lines_that_close_what_they_open_are_skipped() {
        for line in [
            "a \"b -c \\\" $d \" 'e \\' f\n",
            "# -shell \" ` $(\n",
            "a b#c d\n",
            "a -she -start-serve -on-por -o -s\n",
            "\n",
        ] {
            for before in plain() {
                let text = format!("{before}{line}{before}");
                let lines = PlainLines::new().skip(text.as_bytes());
                assert_eq!(lines.read, text.len(), "{text}");
            }
        }
    }

    #[test]
    fn the_last_sign_of_shell_text_in_the_lines_is_told() {
        let tell = |text: &str| PlainLines::new().skip(text.as_bytes()).signs;
        for before in plain() {
            let last = before.rfind('$').map_or(0, |at| at + 1);
            assert_eq!(tell(&before), last);
            assert_eq!(tell(&format!("{before}a -b")), last, "the line goes on");
            for (line, sign) in [("a -bc\n", 3), ("'a' b\n", 3), ("# a\n", 4), ("a#\n", 0)] {
                let expected = if sign > 0 { before.len() + sign } else { last };
                assert_eq!(tell(&format!("{before}{line}b\n")), expected, "{line}");
            }
        }
    }
}
