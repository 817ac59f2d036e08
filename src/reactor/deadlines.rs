//! The next timeout, by owner: each owner has at most one deadline.

use std::time::Instant;

/// Deadlines of owners named by `K`.
///
/// Every call looks at all of them. There are few: those of connections that are being set up, and
/// one for each thing that waits. A thousand cost it a microsecond or two.
#[derive(Debug)]
pub struct Deadlines<K>(Vec<(Instant, K)>);

impl<K> Default for Deadlines<K> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Copy + Ord> Deadlines<K> {
    /// Sets or, with `None`, clears the deadline of `owner`.
    pub fn set(&mut self, owner: K, at: Option<Instant>) {
        if let Some(before) = self.0.iter().position(|(_, it)| *it == owner) {
            self.0.swap_remove(before);
        }
        self.0.extend(at.map(|at| (at, owner)));
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Instant> {
        self.0.iter().map(|(at, _)| *at).min()
    }

    /// Takes one owner whose deadline is not after `now`, the one with the earliest.
    pub fn expired(&mut self, now: Instant) -> Option<K> {
        let (at, owner) = self.0.iter().min().copied()?;
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
