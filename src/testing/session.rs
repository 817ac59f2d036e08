//! A session that is told any sequence of events, beside a model of what it promises: it ends
//! within its limits, once, with the status of the first cause, having asked for the end of the job.

use std::time::{Duration, Instant};

use crate::session::{Event, Session, Wish};

/// The longest that an end may take after its cause: the rest of the output, then the keeper.
const LONGEST: Duration = Duration::from_secs(60 + 25);

struct Observer {
    session: Session,
    now: Instant,
    /// The status that the first cause decides, and when it came.
    cause: Option<(u8, Instant)>,
    asked: bool,
    left: Option<u8>,
}

impl Observer {
    fn tell(&mut self, event: Event) {
        let status = match event {
            Event::LaunchEnded(status) => Some(status),
            Event::ClientGone => Some(129),
            Event::Signal(number) => Some(128 + number),
            Event::KeeperLost | Event::KeeperDone | Event::OpeningFailed => Some(1),
            _ => None,
        };
        // A keeper that says that nothing is left has done what it would be asked for.
        self.asked |= event == Event::KeeperDone;
        if let Some(status) = status {
            self.cause.get_or_insert((status, self.now));
        }
        self.session.tell(event, self.now);
        self.listen();
    }

    fn listen(&mut self) {
        while let Some(wish) = self.session.wish() {
            match wish {
                Wish::EndJob | Wish::EndOrphans => self.asked = true,
                Wish::Leave(status) => {
                    assert!(self.asked, "left without asking for the end of the job");
                    assert!(self.left.replace(status).is_none(), "left twice");
                    let (expected, since) = self.cause.expect("left without a cause");
                    assert_eq!(status, expected, "not the status of the first cause");
                    assert!(self.now <= since + LONGEST, "left too late");
                }
                Wish::ReleaseAnnouncements | Wish::CutOutput => {}
            }
        }
    }

    /// Lets time pass up to `until`, deadline by deadline.
    fn wait(&mut self, until: Instant, undelivered: bool) {
        let mut rounds = 0;
        while let Some(at) = self.session.deadline(undelivered).filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.session.timeout(self.now, undelivered);
            self.listen();
            rounds += 1;
            assert!(rounds < 100, "a deadline that never goes away");
        }
        self.now = self.now.max(until);
    }
}

fn event(kind: u8, amount: u8) -> Event {
    match kind % 13 {
        0 => Event::AnnouncementHeld,
        1 => Event::AnnouncementReleased,
        2 => Event::LaunchEnded(amount),
        3 => Event::Progress,
        4 => Event::OutputDrained,
        5 => Event::ClientGone,
        6 => Event::Signal(1 + amount % 64),
        7 => Event::KeeperDone,
        8 => Event::KeeperLost,
        9 => Event::OpeningFailed,
        10 => Event::ReasonAsked,
        11 => Event::ReasonKnown,
        _ => Event::OrphansEnded,
    }
}

/// Runs the events that `data` stands for. Panics where a promise is broken.
pub fn check(data: &[u8]) {
    let now = Instant::now();
    let session = Session::new();
    let mut observer = Observer {
        session,
        now,
        cause: None,
        asked: false,
        left: None,
    };
    for step in data.chunks(3) {
        let amount = step.get(1).copied().unwrap_or(0);
        let pause = step.get(2).copied().unwrap_or(0);
        if step[0] & 0x80 == 0 {
            observer.tell(event(step[0], amount));
        }
        // Up to 25 s, with bytes that wait for the client or without.
        let until = observer.now + Duration::from_millis(u64::from(pause) * 100);
        observer.wait(until, amount & 1 == 1);
    }
    if observer.cause.is_none() {
        assert_eq!(observer.left, None, "left without a cause");
        observer.tell(Event::Signal(15));
    }
    observer.wait(observer.now + LONGEST, true);
    assert!(observer.left.is_some(), "never left");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn no_sequence_of_events_breaks_a_promise(
            data in proptest::collection::vec(any::<u8>(), 0..120),
        ) {
            super::check(&data);
        }
    }
}
