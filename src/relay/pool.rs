//! The memory in which bytes wait for a slow sink: blocks of one size, lent and taken back.

/// A piece of memory with the bytes that are still to be written. Of its pages only those that bytes
/// have been in are memory: nothing is filled beforehand.
///
/// Invariant: `0 <= start <= data.len() <= size`, and `start == data.len() == 0` when empty.
#[derive(Debug)]
pub struct Block {
    /// Its capacity is at least `size`, and never grows.
    data: Vec<u8>,
    start: usize,
    size: usize,
}

impl Block {
    fn new(size: usize) -> Self {
        Self {
            data: Vec::with_capacity(size),
            start: 0,
            size,
        }
    }

    /// The bytes that wait, first one first.
    pub fn bytes(&self) -> &[u8] {
        &self.data[self.start..]
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.start == self.data.len()
    }

    /// How many bytes fit behind what waits.
    pub fn room(&self) -> usize {
        self.size - self.bytes().len()
    }

    /// Takes `bytes` from the front.
    pub fn consume(&mut self, bytes: usize) {
        self.start = (self.start + bytes).min(self.data.len());
        if self.is_empty() {
            self.clear();
        }
    }

    /// Puts `bytes` behind what waits; `false`, and nothing changed, where they do not fit.
    #[must_use]
    pub fn append(&mut self, bytes: &[u8]) -> bool {
        if self.room() < bytes.len() {
            return false;
        }
        if self.size - self.data.len() < bytes.len() {
            self.data.copy_within(self.start.., 0);
            self.data.truncate(self.data.len() - self.start);
            self.start = 0;
        }
        self.data.extend_from_slice(bytes);
        true
    }

    fn clear(&mut self) {
        self.data.clear();
        self.start = 0;
    }
}

/// Lends blocks of one size, at most `most` at a time; keeps at most `spare` idle ones.
#[derive(Debug)]
pub struct Pool {
    size: usize,
    most: usize,
    spare: usize,
    lent: usize,
    idle: Vec<Block>,
}

impl Pool {
    /// A pool of blocks of `size` bytes.
    pub fn new(size: usize, most: usize, spare: usize) -> Self {
        Self {
            size,
            most,
            spare,
            lent: 0,
            idle: Vec::with_capacity(spare),
        }
    }

    /// An empty block, or none while all are lent.
    pub fn borrow(&mut self) -> Option<Block> {
        if self.lent == self.most {
            return None;
        }
        self.lent += 1;
        let idle = self.idle.pop();
        Some(idle.unwrap_or_else(|| Block::new(self.size)))
    }

    /// Whether [`Pool::borrow`] would give a block.
    pub fn can_lend(&self) -> bool {
        self.lent < self.most
    }

    /// Takes a block back, whatever was in it.
    pub fn give_back(&mut self, mut block: Block) {
        self.lent -= 1;
        if self.idle.len() < self.spare {
            block.clear();
            self.idle.push(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_lends_no_more_than_its_bound_and_reuses_what_comes_back() {
        let mut pool = Pool::new(8, 2, 1);
        let first = pool.borrow().unwrap();
        assert!(pool.can_lend());
        let mut second = pool.borrow().unwrap();
        assert!(!pool.can_lend() && pool.borrow().is_none());
        assert!(second.append(b"unread"));
        pool.give_back(second);
        pool.give_back(first);
        assert_eq!(pool.idle.len(), 1);
        assert!(pool.can_lend() && pool.borrow().unwrap().is_empty());
    }

    #[test]
    fn a_block_keeps_order_and_refuses_what_does_not_fit() {
        let mut block = Pool::new(8, 1, 0).borrow().unwrap();
        assert_eq!((block.is_empty(), block.room()), (true, 8));
        let capacity = block.data.capacity();
        assert!(block.append(b"abcdef"));
        assert_eq!((block.is_empty(), block.room()), (false, 2));
        block.consume(4);
        assert_eq!(block.room(), 6);
        assert!(block.append(b"ghijkl"));
        assert_eq!(block.bytes(), b"efghijkl");
        assert!(!block.append(b"m"));
        block.consume(8);
        assert!(block.is_empty() && block.append(b"12345678"));
        assert_eq!(block.data.capacity(), capacity);
    }
}
