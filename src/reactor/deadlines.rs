//! The next timeout, by owner: each owner has at most one deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Deadlines of owners named by `K`.
#[derive(Debug)]
pub struct Deadlines<K> {
    by_owner: BTreeMap<K, Instant>,
    by_time: BTreeSet<(Instant, K)>,
}

impl<K: Copy + Ord> Default for Deadlines<K> {
    fn default() -> Self {
        Self {
            by_owner: BTreeMap::new(),
            by_time: BTreeSet::new(),
        }
    }
}

impl<K: Copy + Ord> Deadlines<K> {
    /// Sets or, with `None`, clears the deadline of `owner`.
    pub fn set(&mut self, owner: K, at: Option<Instant>) {
        let before = match at {
            Some(at) => self.by_owner.insert(owner, at),
            None => self.by_owner.remove(&owner),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.by_time.remove(&(before, owner));
        }
        if let Some(at) = at {
            self.by_time.insert((at, owner));
        }
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes one owner whose deadline is not after `now`.
    pub fn expired(&mut self, now: Instant) -> Option<K> {
        let (at, owner) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        self.set(owner, None);
        Some(owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn owners_expire_in_the_order_of_their_deadlines() {
        let now = Instant::now();
        let after = |seconds| Some(now + Duration::from_secs(seconds));
        let mut deadlines = Deadlines::default();
        deadlines.set('a', after(3));
        deadlines.set('b', after(1));
        deadlines.set('a', after(2));
        deadlines.set('c', after(1));
        deadlines.set('c', None);
        assert_eq!(deadlines.next(), after(1));
        assert_eq!(deadlines.expired(now), None);
        let late = now + Duration::from_secs(5);
        assert_eq!(deadlines.expired(late), Some('b'));
        assert_eq!(deadlines.expired(late), Some('a'));
        assert_eq!((deadlines.expired(late), deadlines.next()), (None, None));
    }
}
