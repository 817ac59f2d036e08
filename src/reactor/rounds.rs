//! One round of a loop, the same for everybody who has one.

use std::io;
use std::time::Instant;

use super::{Deadlines, Reactor};

/// Who waits, in one place, for descriptors and deadlines.
pub(crate) trait Rounds {
    /// Names descriptors.
    type Source: Copy;
    /// Names deadlines.
    type Owner: Copy + Ord;

    /// What is waited for.
    fn awaited(&mut self) -> (&mut Reactor<Self::Source>, &mut Deadlines<Self::Owner>);

    /// The deadline of `owner` has come.
    fn expire(&mut self, owner: Self::Owner, now: Instant);

    /// The descriptor of `source` can go on.
    fn turn(&mut self, source: Self::Source, now: Instant);

    /// Waits, tells of the deadlines that have come, and gives everybody who can go on one turn;
    /// whoever can through that has to wait for the next round.
    ///
    /// # Errors
    /// Of the wait; nothing was told then.
    fn round(&mut self) -> io::Result<()> {
        let (reactor, deadlines) = self.awaited();
        let next = deadlines.next();
        reactor.wait(next.map(|at| at.saturating_duration_since(Instant::now())))?;
        let now = Instant::now();
        while let Some(owner) = self.awaited().1.expired(now) {
            self.expire(owner, now);
        }
        for _ in 0..self.awaited().0.queued() {
            let Some((_, source)) = self.awaited().0.pop() else {
                break;
            };
            self.turn(source, now);
        }
        Ok(())
    }
}
