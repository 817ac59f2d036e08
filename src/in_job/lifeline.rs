//! Whether the proxy can be reached, and what follows: which address to dial and when, and when to
//! give up.
//!
//! Pure: it is told what happened and when, and answers what to do. At the start each address is
//! tried once, all within [`START_LIMIT`]. Later, when the control connection was lost, they are
//! tried in rounds, the good one first, with growing pauses, until the grace is over.

use std::time::{Duration, Instant};

/// How long the first contact may take, all addresses together: with what comes before and after it
/// less than the 3 s for which the proxy waits.
const START_LIMIT: Duration = Duration::from_millis(2400);

/// How long one attempt may take later. A network that has come back answers the next one.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(4);
/// The first pause between two rounds; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// What the owner has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Dial the address with this index, and give up an attempt that is under way.
    Dial(usize),
    /// The proxy could not be reached from the beginning: leave.
    Leave,
    /// It has been away for too long: end the job.
    EndJob,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Dialling { since: Instant, attempt: Instant },
    Pausing { since: Instant, until: Instant },
    Up,
    Over,
}

/// The life of the control connections.
#[derive(Clone, Debug)]
pub(super) struct Lifeline {
    state: State,
    /// How long to go on without one.
    grace: Duration,
    /// How many addresses there are; at least 1.
    addresses: usize,
    /// The one that is dialled, or was dialled last.
    address: usize,
    /// How many of this round have not been dialled.
    untried: usize,
    pause: Duration,
    /// Whether a connection has ever stood.
    has_begun: bool,
    wish: Option<Wish>,
}

impl Lifeline {
    /// The first contact begins.
    pub(super) fn start(now: Instant, addresses: usize, grace: Duration) -> Self {
        let mut lifeline = Self {
            state: State::Over,
            grace,
            addresses: addresses.max(1),
            address: 0,
            untried: addresses.max(1),
            pause: FIRST_PAUSE,
            has_begun: false,
            wish: None,
        };
        lifeline.dial(now, now);
        lifeline
    }

    /// What is to be done now; each wish is said once.
    pub(super) fn wish(&mut self) -> Option<Wish> {
        self.wish.take()
    }

    /// A control connection stands.
    pub(super) fn up(&mut self) {
        self.state = State::Up;
        self.has_begun = true;
        self.wish = None;
    }

    /// The index of the address that is, or was last, the good one.
    pub(super) fn address(&self) -> usize {
        self.address
    }

    /// Whether a control connection stands.
    pub(super) fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// The control connection was lost, or the one under way has failed.
    pub(super) fn lost(&mut self, now: Instant) {
        match self.state {
            State::Up => {
                self.untried = self.addresses;
                self.pause = FIRST_PAUSE;
                self.dial(now, now);
            }
            State::Dialling { since, .. } if self.untried > 0 => {
                self.address = (self.address + 1) % self.addresses;
                self.dial(now, since);
            }
            State::Dialling { .. } if !self.has_begun => self.over(Wish::Leave),
            State::Dialling { since, .. } => {
                self.state = State::Pausing {
                    since,
                    until: now + self.pause,
                };
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            }
            State::Pausing { .. } | State::Over => {}
        }
    }

    /// Acts on the deadlines that `now` has reached.
    pub(super) fn timeout(&mut self, now: Instant) {
        match self.state {
            State::Dialling { since, .. } | State::Pausing { since, .. }
                if now >= since + self.limit() =>
            {
                let wish = if self.has_begun {
                    Wish::EndJob
                } else {
                    Wish::Leave
                };
                self.over(wish);
            }
            State::Dialling { attempt, .. } if now >= attempt => self.lost(now),
            State::Pausing { since, until } if now >= until => {
                self.untried = self.addresses;
                self.address = (self.address + 1) % self.addresses;
                self.dial(now, since);
            }
            _ => {}
        }
    }

    /// When [`Lifeline::timeout`] is to be called next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Dialling { since, attempt } => Some(attempt.min(since + self.limit())),
            State::Pausing { since, until } => Some(until.min(since + self.limit())),
            State::Up | State::Over => None,
        }
    }

    fn limit(&self) -> Duration {
        match self.has_begun {
            true => self.grace,
            false => START_LIMIT,
        }
    }

    fn dial(&mut self, now: Instant, since: Instant) {
        let attempt = match self.has_begun {
            true => now + ATTEMPT_LIMIT,
            // Each address gets an even share of the time that is left.
            false => {
                let rest = (since + START_LIMIT).saturating_duration_since(now);
                now + rest / u32::try_from(self.untried).unwrap_or(u32::MAX).max(1)
            }
        };
        self.untried = self.untried.saturating_sub(1);
        self.state = State::Dialling { since, attempt };
        self.wish = Some(Wish::Dial(self.address));
    }

    fn over(&mut self, wish: Wish) {
        self.state = State::Over;
        self.wish = Some(wish);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    /// Lets every attempt run into its limit: what was wished, and after how many milliseconds.
    fn fail_all(lifeline: &mut Lifeline, start: Instant) -> Vec<(Wish, u128)> {
        let mut now = start;
        let mut wishes = Vec::new();
        loop {
            if let Some(wish) = lifeline.wish() {
                wishes.push((wish, (now - start).as_millis()));
            }
            let Some(at) = lifeline.deadline() else {
                return wishes;
            };
            now = now.max(at);
            lifeline.timeout(now);
            assert!(wishes.len() < 100, "it does not end");
        }
    }

    #[test]
    fn the_first_contact_tries_each_address_once_and_leaves_in_time() {
        let now = Instant::now();
        let mut lifeline = Lifeline::start(now, 5, GRACE);
        let expected = [
            (Wish::Dial(0), 0),
            (Wish::Dial(1), 480),
            (Wish::Dial(2), 960),
            (Wish::Dial(3), 1440),
            (Wish::Dial(4), 1920),
            (Wish::Leave, 2400),
        ];
        assert_eq!(fail_all(&mut lifeline, now), expected);
    }

    #[test]
    fn a_refusal_leads_to_the_next_address_at_once() {
        let now = Instant::now();
        let mut lifeline = Lifeline::start(now, 2, GRACE);
        assert_eq!(lifeline.wish(), Some(Wish::Dial(0)));
        lifeline.lost(now);
        assert_eq!(lifeline.wish(), Some(Wish::Dial(1)));
        assert_eq!(lifeline.deadline(), Some(now + START_LIMIT));
        lifeline.lost(now);
        assert_eq!(lifeline.wish(), Some(Wish::Leave));
        assert_eq!(lifeline.deadline(), None);
    }

    #[test]
    fn a_lost_connection_is_dialled_again_with_growing_pauses_and_then_the_job_is_ended() {
        let now = Instant::now();
        let mut lifeline = Lifeline::start(now, 1, GRACE);
        lifeline.up();
        assert_eq!((lifeline.wish(), lifeline.deadline()), (None, None));
        lifeline.lost(now);
        let wishes = fail_all(&mut lifeline, now);
        let times: Vec<u128> = wishes.iter().map(|(_, at)| *at).collect();
        assert_eq!(times, [0, 4250, 8750, 13750, 19750, 27750, 30000]);
        assert_eq!(wishes.last(), Some(&(Wish::EndJob, 30000)));
    }

    #[test]
    fn the_good_address_is_dialled_first_and_the_others_follow() {
        let now = Instant::now();
        let mut lifeline = Lifeline::start(now, 3, GRACE);
        lifeline.lost(now);
        lifeline.up();
        assert_eq!(lifeline.address(), 1);
        lifeline.lost(now);
        let mut dialled = Vec::new();
        let mut at = now;
        for _ in 0..6 {
            while let Some(Wish::Dial(address)) = lifeline.wish() {
                dialled.push(address);
                lifeline.lost(at);
            }
            at = lifeline.deadline().expect("it goes on");
            lifeline.timeout(at);
        }
        assert_eq!(dialled[..6], [1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn a_connection_that_comes_back_starts_the_grace_anew() {
        let now = Instant::now();
        let mut lifeline = Lifeline::start(now, 1, GRACE);
        lifeline.up();
        for _ in 0..3 {
            lifeline.lost(now);
            lifeline.timeout(now + GRACE - Duration::from_millis(1));
            lifeline.up();
            assert!(lifeline.is_up());
        }
        lifeline.lost(now + GRACE);
        assert_eq!(lifeline.wish(), Some(Wish::Dial(0)));
    }
}
