//! Here-documents: text that a shell hands on unread, up to a line that holds its delimiter alone.

use std::collections::VecDeque;

/// More than so many here-documents of one line, or a longer delimiter, are not followed.
const MOST: usize = 16;
const LONGEST: usize = 128;

/// What ends a here-document.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Delimiter {
    word: Vec<u8>,
    /// `<<-`: leading tabs do not count.
    strips_tabs: bool,
}

/// The here-documents whose bodies are still to come, the first one first.
#[derive(Clone, Debug, Default)]
pub(super) struct Heredocs(VecDeque<Delimiter>);

impl Heredocs {
    /// Whether the next line belongs to a body.
    pub(super) fn is_open(&self) -> bool {
        !self.0.is_empty()
    }

    /// A `<<` ends at `at` in `line`.
    pub(super) fn open(&mut self, line: &[u8], at: usize) {
        let rest = &line[at..];
        let strips_tabs = rest.first() == Some(&b'-');
        let rest = &rest[usize::from(strips_tabs)..];
        let blanks = rest
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b'\t'))
            .count();
        if let Some(word) = delimiter(&rest[blanks..])
            && self.0.len() < MOST
        {
            self.0.push_back(Delimiter { word, strips_tabs });
        }
    }

    /// `line`, with its newline, is over; where it is the first body's delimiter, that one ends.
    pub(super) fn line(&mut self, line: &[u8]) {
        let Some(delimiter) = self.0.front() else {
            return;
        };
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let tabs = line
            .iter()
            .take_while(|byte| delimiter.strips_tabs && **byte == b'\t')
            .count();
        if line[tabs..] == delimiter.word {
            self.0.pop_front();
        }
    }

    /// How much of a body's line has to be known to see whether it is the delimiter.
    pub(super) const LINE: usize = LONGEST * 2;
}

/// The delimiter at the beginning of `text`, quotes removed; a shift's operand is none.
fn delimiter(text: &[u8]) -> Option<Vec<u8>> {
    let mut word = Vec::new();
    let mut quote = None;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match (quote, byte) {
            (None, b'\'' | b'"') => quote = Some(byte),
            (Some(open), _) if open == byte => quote = None,
            (None, b'\\') => {
                at += 1;
                word.extend(text.get(at));
            }
            (
                None,
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'&' | b'|' | b'<' | b'>' | b'(' | b')',
            ) => {
                break;
            }
            _ => word.push(byte),
        }
        at += 1;
    }
    let is_word = word
        .first()
        .is_some_and(|first| !first.is_ascii_digit() && *first != b'$');
    (is_word && word.len() <= LONGEST).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_end_with_their_delimiters_in_order() {
        let line = b"cat <<'A B' <<-\\C";
        let mut heredocs = Heredocs::default();
        heredocs.open(line, 6);
        heredocs.open(line, 14);
        for (line, open) in [
            ("\tA B\n", true),
            ("A B \n", true),
            ("A B\n", true),
            ("C x\n", true),
            ("\t\tC\r\n", false),
        ] {
            heredocs.line(line.as_bytes());
            assert_eq!(heredocs.is_open(), open, "{line:?}");
        }
    }
}
