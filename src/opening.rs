//! What the job's shell is asked before it gets the client's first byte, and when that may follow.
//!
//! The first question is the probe's, and is asked at once. Where it is the only one, the client's
//! bytes may follow at any time: the shell reads them when it has answered. Where further questions
//! follow, the client's bytes wait, unread, until the last one is settled, so that nothing of the
//! questions' can mix with the client's conversation.
//!
//! A further question is asked when the one before it is settled: only then it is known that a
//! shell is there, so the limit of each runs from the moment in which it is asked. The first one
//! has none of its own, since a job may wait in its queue for hours; but whoever takes what comes
//! from there for a sign of life can give it one ([`Opening::alive`]), and give a further question up
//! before it was asked, so that the client need not wait for it.
//!
//! The machine knows neither streams nor texts' meaning. Its owner takes the answers out of what
//! the shell writes (see [`crate::intercept::ProbeFilter`]), and decides what an answer that does
//! not come in time means: to go on without it, or to end the session.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A question that follows the probe's.
#[derive(Clone, Debug)]
pub struct Step<Q> {
    /// What its owner calls it.
    pub name: Q,
    /// What the shell gets: whole lines, or nothing where it is somebody else who answers.
    pub text: Vec<u8>,
    /// How long the answer may take.
    pub limit: Duration,
}

/// A limit that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue<Q> {
    /// The probe's, for the client waits.
    Probe,
    /// That of the question with this name, which is under way.
    Question(Q),
}

/// The questions of one session, from the probe's on.
#[derive(Debug)]
pub struct Opening<Q> {
    /// Those that are not settled. The first one is under way, once the probe is answered.
    further: VecDeque<Step<Q>>,
    /// Whether the probe is answered.
    has_begun: bool,
    deadline: Option<Instant>,
}

impl<Q: Copy + PartialEq> Opening<Q> {
    /// The probe was asked; the questions `further` follow.
    pub fn new(further: impl IntoIterator<Item = Step<Q>>) -> Self {
        Self {
            further: further.into_iter().collect(),
            has_begun: false,
            deadline: None,
        }
    }

    /// How many answers are to come, the probe's included.
    pub fn answers(&self) -> usize {
        self.further.len() + usize::from(!self.has_begun)
    }

    /// Whether the client's bytes may go to the shell.
    pub fn is_over(&self) -> bool {
        self.further.is_empty()
    }

    /// The probe was answered at `now`: what the shell gets next, if anything.
    pub fn begin(&mut self, now: Instant) -> Option<&[u8]> {
        if std::mem::replace(&mut self.has_begun, true) {
            return None;
        }
        self.ask(now)
    }

    /// The question `name` was settled at `now`, with or without an answer: what the shell gets
    /// next, if anything. One that is not under way, or not any more, changes nothing.
    pub fn settle(&mut self, name: Q, now: Instant) -> Option<&[u8]> {
        if !self.awaits(name) {
            return None;
        }
        self.further.pop_front();
        self.ask(now)
    }

    /// The question `name` is given up at `now`, under way or not asked yet: what the shell gets next,
    /// if anything.
    pub fn give_up(&mut self, name: Q, now: Instant) -> Option<&[u8]> {
        if self.awaits(name) {
            return self.settle(name, now);
        }
        self.further.retain(|step| step.name != name);
        if self.is_over() {
            self.deadline = None;
        }
        None
    }

    /// Something is there that should have answered the probe by `at`, if the client waits for that:
    /// the earliest such moment counts.
    pub fn alive(&mut self, at: Instant) {
        if !self.has_begun && !self.is_over() {
            self.deadline = Some(self.deadline.map_or(at, |before| before.min(at)));
        }
    }

    /// The question `name`, which is under way, was answered at `now` so that another one takes its
    /// place: what the shell gets next, if anything.
    pub fn follow_up(&mut self, name: Q, step: Step<Q>, now: Instant) -> Option<&[u8]> {
        if !self.awaits(name) {
            return None;
        }
        self.further[0] = step;
        self.ask(now)
    }

    /// Whether the question `name` is under way.
    pub fn awaits(&self, name: Q) -> bool {
        let current = self.further.front().filter(|_| self.has_begun);
        current.is_some_and(|step| step.name == name)
    }

    /// The limit that `now` has reached; it is said once, and what it is for is to be settled or given
    /// up by the owner.
    pub fn overdue(&mut self, now: Instant) -> Option<Overdue<Q>> {
        self.deadline.take_if(|at| now >= *at)?;
        if !self.has_begun {
            return Some(Overdue::Probe);
        }
        let current = self.further.front();
        current.map(|step| Overdue::Question(step.name))
    }

    /// The question that is under way, and was overdue, has until `at`.
    pub fn extend(&mut self, at: Instant) {
        if self.has_begun && !self.is_over() {
            self.deadline = Some(at);
        }
    }

    /// When [`Opening::overdue`] is to be asked.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn ask(&mut self, now: Instant) -> Option<&[u8]> {
        let step = self.further.front();
        self.deadline = step.map(|step| now + step.limit);
        step.map(|step| step.text.as_slice())
            .filter(|text| !text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(3);

    fn opening(names: &str) -> Opening<char> {
        Opening::new(names.chars().map(|name| Step {
            name,
            text: format!("{name}\n").into_bytes(),
            limit: LIMIT,
        }))
    }

    #[test]
    fn with_the_probe_alone_the_client_never_waits() {
        let mut opening = opening("");
        assert_eq!((opening.is_over(), opening.answers()), (true, 1));
        assert_eq!(opening.begin(Instant::now()), None);
        assert_eq!(opening.answers(), 0);
        assert_eq!(opening.deadline(), None);
    }

    #[test]
    fn each_question_is_asked_when_the_one_before_is_settled() {
        let now = Instant::now();
        let mut opening = opening("ab");
        assert_eq!((opening.is_over(), opening.deadline()), (false, None));
        assert_eq!(opening.settle('a', now), None, "not asked yet");
        assert_eq!(opening.begin(now), Some(&b"a\n"[..]));
        assert_eq!(opening.deadline(), Some(now + LIMIT));
        assert_eq!(opening.begin(now), None, "a second answer of the probe");
        assert_eq!(opening.settle('b', now), None, "not asked yet");
        assert_eq!(opening.settle('a', now + LIMIT), Some(&b"b\n"[..]));
        assert_eq!(opening.deadline(), Some(now + 2 * LIMIT));
        assert!(!opening.is_over());
        assert_eq!(opening.settle('b', now), None);
        assert_eq!((opening.is_over(), opening.deadline()), (true, None));
    }

    #[test]
    fn an_answer_may_lead_to_another_question_in_its_place() {
        let now = Instant::now();
        let mut opening = opening("ab");
        let step = |name, text: &str| Step {
            name,
            text: text.into(),
            limit: 2 * LIMIT,
        };
        assert_eq!(opening.follow_up('a', step('x', "x\n"), now), None);
        opening.begin(now);
        // One that somebody else answers, and then the first one again.
        assert_eq!(opening.follow_up('a', step('c', ""), now), None);
        assert!(opening.awaits('c') && !opening.awaits('a'));
        assert_eq!(opening.deadline(), Some(now + 2 * LIMIT));
        let now = now + LIMIT;
        let again = opening.follow_up('c', step('a', "again\n"), now);
        assert_eq!(again, Some(&b"again\n"[..]));
        assert_eq!(opening.deadline(), Some(now + 2 * LIMIT));
        assert_eq!(opening.settle('a', now), Some(&b"b\n"[..]));
        assert!(!opening.is_over());
    }

    #[test]
    fn a_sign_of_life_gives_the_probe_a_limit_while_the_client_waits() {
        let now = Instant::now();
        let mut opening = opening("ab");
        assert_eq!(opening.overdue(now + 1000 * LIMIT), None, "a queue");
        opening.alive(now + 2 * LIMIT);
        opening.alive(now + LIMIT);
        opening.alive(now + 3 * LIMIT);
        assert_eq!(opening.deadline(), Some(now + LIMIT), "the earliest");
        assert_eq!(opening.overdue(now + LIMIT), Some(Overdue::Probe));
        assert_eq!(opening.deadline(), None);
        // An answer after all.
        assert_eq!(opening.begin(now), Some(&b"a\n"[..]));
        opening.alive(now);
        assert_eq!(opening.deadline(), Some(now + LIMIT), "the question's own");
    }

    #[test]
    fn with_the_probe_alone_a_sign_of_life_is_nothing_to_wait_for() {
        let mut opening = opening("");
        opening.alive(Instant::now());
        assert_eq!(opening.deadline(), None);
    }

    #[test]
    fn an_answer_in_time_ends_the_probes_limit() {
        let now = Instant::now();
        let mut opening = opening("a");
        opening.alive(now + LIMIT / 2);
        opening.begin(now);
        assert_eq!(opening.overdue(now + LIMIT / 2), None);
        assert_eq!(opening.deadline(), Some(now + LIMIT));
    }

    #[test]
    fn a_question_that_is_given_up_is_never_asked() {
        let now = Instant::now();
        // The last one, before and after the first answer; one between others; the one under way.
        let mut before = opening("a");
        before.alive(now + LIMIT);
        assert_eq!(before.give_up('a', now), None);
        assert_eq!((before.is_over(), before.deadline()), (true, None));
        assert_eq!(before.begin(now), None);

        let mut between = opening("abc");
        assert_eq!(between.give_up('b', now), None);
        assert!(!between.is_over());
        between.begin(now);
        assert_eq!(between.give_up('b', now), None);
        assert_eq!(between.deadline(), Some(now + LIMIT));
        assert_eq!(between.settle('a', now), Some(&b"c\n"[..]));

        let mut current = opening("ab");
        current.begin(now);
        assert_eq!(current.give_up('a', now), Some(&b"b\n"[..]));
        assert_eq!(current.give_up('b', now), None);
        assert!(current.is_over());
    }

    #[test]
    fn only_a_question_that_is_under_way_gets_more_time() {
        let now = Instant::now();
        let mut opening = opening("a");
        opening.extend(now);
        assert_eq!(opening.deadline(), None, "not asked yet");
        opening.begin(now);
        opening.settle('a', now);
        opening.extend(now);
        assert_eq!(opening.deadline(), None, "answered");
    }

    #[test]
    fn a_late_answer_is_told_once_and_the_client_waits_until_it_is_settled() {
        let now = Instant::now();
        let mut opening = opening("a");
        opening.begin(now);
        assert_eq!(opening.overdue(now), None);
        assert_eq!(opening.overdue(now + LIMIT), Some(Overdue::Question('a')));
        assert_eq!(
            (opening.overdue(now + LIMIT), opening.deadline()),
            (None, None)
        );
        assert!(!opening.is_over() && opening.awaits('a'));
        opening.extend(now + 2 * LIMIT);
        assert_eq!(opening.deadline(), Some(now + 2 * LIMIT));
        assert_eq!(
            opening.overdue(now + 2 * LIMIT),
            Some(Overdue::Question('a'))
        );
        opening.settle('a', now + 2 * LIMIT);
        assert!(opening.is_over());
    }
}
