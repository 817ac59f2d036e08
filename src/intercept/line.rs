//! The line that is passed without being read, so that it can be read after all when something
//! turns up in it.

use super::inbound::LIMIT;
use bstr::ByteSlice;

/// The part of the current line that came in earlier slices. A line goes on behind a newline that
/// a `\` escapes.
#[derive(Debug)]
pub(super) struct Line {
    /// Empty once the line is longer than [`LIMIT`], never longer itself.
    text: Vec<u8>,
    len: usize,
    /// It ends in an odd number of backslashes.
    joined: bool,
}

impl Line {
    pub(super) const fn new() -> Self {
        Self {
            text: Vec::new(),
            len: 0,
            joined: false,
        }
    }

    /// The whole part, if [`Self::len`] is at most [`LIMIT`].
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// How long the part is, in bytes.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.len = 0;
        self.joined = false;
    }

    /// Where in `bytes`, which follow, the last line begins; `None` if they belong to this one.
    pub(super) fn start_in(&self, bytes: &[u8]) -> Option<usize> {
        let mut end = bytes.len();
        while let Some(newline) = bytes[..end].rfind_byte(b'\n') {
            if !self.joins(&bytes[..newline]) {
                return Some(newline + 1);
            }
            end = newline;
        }
        None
    }

    /// `bytes` follow.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let joined = self.joins(bytes);
        let start = self.start_in(bytes);
        if start.is_some() {
            self.clear();
        }
        let rest = &bytes[start.unwrap_or(0)..];
        self.len = self.len.saturating_add(rest.len());
        self.joined = joined;
        if self.len > LIMIT {
            self.text.clear();
        } else {
            self.text.reserve_exact(LIMIT - self.text.len());
            self.text.extend_from_slice(rest);
        }
    }

    /// Whether a newline behind `bytes`, which follow, is escaped.
    fn joins(&self, bytes: &[u8]) -> bool {
        let run = bytes
            .iter()
            .rev()
            .take_while(|&&byte| byte == b'\\')
            .count();
        (run == bytes.len() && self.joined) ^ (run % 2 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_limit_is_remembered() {
        for slice in [1, 7, 1000] {
            let mut line = Line::new();
            for pushed in (slice..3 * LIMIT).step_by(slice) {
                line.push(&vec![b'a'; slice]);
                assert_eq!(line.len(), pushed);
                assert!(line.text.capacity() <= LIMIT);
                assert_eq!(line.text().len(), if pushed <= LIMIT { pushed } else { 0 });
            }
        }
    }
}
