//! What one side of a connection has yet to send.

use std::io::{self, ErrorKind, Write};

use super::wire::Pattern;

/// Most bytes handed to one write(2).
const BLOCK: usize = 64 * 1024;

/// Bytes, then a pattern, then bytes: whatever is pushed goes out behind all that was there.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    block: Vec<u8>,
    /// How much of `block` has been sent; `sent <= block.len()`.
    sent: usize,
    pattern: Option<Pattern>,
    /// What was pushed while the pattern was not yet made.
    tail: Vec<u8>,
}

impl Outgoing {
    /// Adds bytes at the end.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        match self.pattern {
            Some(_) => self.tail.extend_from_slice(bytes),
            None => self.block.extend_from_slice(bytes),
        }
    }

    /// Adds a pattern at the end. There is room for one at a time.
    pub(super) fn then(&mut self, pattern: Pattern) {
        debug_assert!(
            self.pattern.is_none() && self.tail.is_empty(),
            "one pattern at a time"
        );
        self.pattern = Some(pattern);
    }

    /// Whether everything has been sent.
    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.block.len() && self.pattern.is_none()
    }

    /// Sends until the sink takes no more or nothing is left; the count that was sent.
    ///
    /// # Errors
    /// What the sink says, save that it would block.
    pub(super) fn send(&mut self, sink: &mut impl Write) -> io::Result<u64> {
        let mut count = 0;
        loop {
            if self.sent == self.block.len() {
                self.refill();
            }
            if self.block.is_empty() {
                return Ok(count);
            }
            match sink.write(&self.block[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.sent += n;
                    count += n as u64;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn refill(&mut self) {
        self.block.clear();
        self.sent = 0;
        if let Some(pattern) = &mut self.pattern {
            pattern.append(&mut self.block, BLOCK);
            if pattern.is_empty() {
                self.pattern = None;
                self.block.append(&mut self.tail);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::{Tally, Way};
    use super::*;

    /// Takes so many bytes a call, and blocks at every second one.
    struct Reluctant {
        taken: Vec<u8>,
        most: usize,
        blocks: bool,
    }

    impl Write for Reluctant {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.blocks = !self.blocks;
            if self.blocks {
                return Err(ErrorKind::WouldBlock.into());
            }
            let count = bytes.len().min(self.most);
            self.taken.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn everything_goes_out_in_the_order_of_its_coming() {
        let length = 3 * BLOCK as u64 + 5;
        let mut outgoing = Outgoing::default();
        outgoing.push(b"head");
        outgoing.then(Pattern::new(1, Way::Up, length));
        outgoing.push(b"tail");
        let mut sink = Reluctant {
            taken: Vec::new(),
            most: 1000,
            blocks: false,
        };
        let mut count = 0;
        while !outgoing.is_empty() {
            count += outgoing.send(&mut sink).unwrap();
        }
        assert_eq!(count, sink.taken.len() as u64);
        let middle = sink
            .taken
            .strip_prefix(b"head")
            .unwrap()
            .strip_suffix(b"tail")
            .unwrap();
        let mut tally = Tally::default();
        tally.take(middle);
        assert_eq!(tally.totals(), Pattern::new(1, Way::Up, length).totals());
        assert_eq!(outgoing.send(&mut sink).unwrap(), 0);
    }
}
