//! The life of one session: what ends what, with every deadline.
//!
//! The owner tells what happened and when; the session answers with [`Wish`]es, one at a time, and
//! with the moment at which it wants to be asked again. The first [`Cause`] of an end decides the exit
//! status; everything after it only hurries the end.

use std::fmt::{self, Display};
use std::time::{Duration, Instant};

/// How long something other than the launch command may hold the job's output open after its end.
pub const HOLDER_LIMIT: Duration = Duration::from_secs(2);
/// How long the rest of the output waits for a client that does not read.
pub const STALL_LIMIT: Duration = Duration::from_secs(10);
/// How long the rest of the output may take in all, however slowly the client reads.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(60);
/// How long the end of everything below the keeper is awaited. The keeper's own escalation is
/// shorter; past this it goes on without us.
pub const END_LIMIT: Duration = Duration::from_secs(25);
/// How long the answer to the question why the job has ended is awaited.
pub const REASON_LIMIT: Duration = Duration::from_secs(2);
/// How long an announced address waits for the node's name.
pub const ANNOUNCEMENT_LIMIT: Duration = Duration::from_secs(10);

/// Exit status when the client's end of stdout vanished: that of a hang-up.
pub const CLIENT_GONE: u8 = 129;
/// Exit status when the keeper was lost.
pub const KEEPER_LOST: u8 = 1;
/// Exit status when a question of the opening was not answered as it has to be.
pub const OPENING_FAILED: u8 = 1;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An address was announced while the node's name is unknown.
    AnnouncementHeld,
    /// The node's name is known, or the held announcements were released otherwise.
    AnnouncementReleased,
    /// The shell is not what the client may get: a question before its first byte went unanswered.
    OpeningFailed,
    /// The launch command ended, or could not be started, with this exit status.
    LaunchEnded(u8),
    /// It is asked why the job has ended: the client is to read the answer before we leave.
    ReasonAsked,
    /// That was said, or will not be known.
    ReasonKnown,
    /// The client took bytes of the job's output.
    Progress,
    /// Everything that the job wrote was delivered, up to the end of stdout and stderr.
    OutputDrained,
    /// Nobody reads our stdout any more.
    ClientGone,
    /// A signal that asks us to end.
    Signal(u8),
    /// The keeper reports that nothing is left below it.
    KeeperDone,
    /// The keeper is gone without having said so.
    KeeperLost,
    /// After the loss of the keeper: nothing that we adopted from it is left.
    OrphansEnded,
}

/// Why a session ends: what happened first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The launch command ended, or could not be started, with this exit status.
    LaunchEnded(u8),
    /// A question of the opening was not answered as it has to be.
    OpeningFailed,
    /// Nobody reads our stdout any more.
    ClientGone,
    /// A signal asked for the end.
    Signal(u8),
    /// The keeper was lost.
    KeeperLost,
}

impl Cause {
    /// The session's exit status.
    pub fn status(self) -> u8 {
        match self {
            Self::LaunchEnded(status) => status,
            Self::OpeningFailed => OPENING_FAILED,
            Self::ClientGone => CLIENT_GONE,
            Self::Signal(number) => 128 + number,
            Self::KeeperLost => KEEPER_LOST,
        }
    }
}

impl Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LaunchEnded(status) => write!(f, "the launch command ended with status {status}"),
            Self::OpeningFailed => f.write_str("the job's shell could not be prepared"),
            Self::ClientGone => f.write_str("the client is gone"),
            Self::Signal(number) => write!(f, "signal {number} was received"),
            Self::KeeperLost => f.write_str("the keeper was lost"),
        }
    }
}

/// What the session wants of its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Let held announcements go unchanged: the node's name did not come.
    ReleaseAnnouncements,
    /// Read what the job's pipes hold at this moment and take it for their end.
    CutOutput,
    /// Tell the keeper to end everything below it.
    EndJob,
    /// The keeper is lost: end what it left to us.
    EndOrphans,
    /// Leave with this status.
    Leave(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// The launch command has ended; what it wrote is being delivered.
    Draining {
        since: Instant,
        progress: Instant,
        cut: bool,
    },
    /// Everything below the keeper is being ended.
    Ending {
        since: Instant,
    },
    /// Nothing is left but the question why the job has ended.
    Explaining {
        until: Instant,
    },
    Done,
}

/// One run of the proxy, from the start of the launch command to the exit status.
#[derive(Clone, Debug)]
pub struct Session {
    phase: Phase,
    /// `None` exactly while it runs.
    cause: Option<Cause>,
    held_since: Option<Instant>,
    /// Until when the reason of the job's end is awaited.
    reason_until: Option<Instant>,
    keeper_lost: bool,
    /// The keeper has said that nothing is left below it, before it was asked to end anything.
    keeper_done: bool,
    wishes: Wishes,
}

/// The wishes that the owner has not heard yet. Each kind arises a bounded number of times between
/// two questions, so a few places are enough.
#[derive(Clone, Debug, Default)]
struct Wishes {
    release: bool,
    cut: bool,
    end_job: bool,
    end_orphans: bool,
    leave: Option<u8>,
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Session {
    /// A session whose launch command is about to be started.
    pub fn new() -> Self {
        Self {
            phase: Phase::Running,
            cause: None,
            held_since: None,
            reason_until: None,
            keeper_lost: false,
            keeper_done: false,
            wishes: Wishes::default(),
        }
    }

    /// Takes note of `event`, which happened at `now`.
    pub fn tell(&mut self, event: Event, now: Instant) {
        match event {
            Event::AnnouncementHeld => {
                self.held_since.get_or_insert(now);
            }
            Event::AnnouncementReleased => self.held_since = None,
            Event::OpeningFailed => self.stop(Cause::OpeningFailed, now),
            Event::LaunchEnded(status) => {
                if self.phase == Phase::Running {
                    self.cause = Some(Cause::LaunchEnded(status));
                    self.phase = Phase::Draining {
                        since: now,
                        progress: now,
                        cut: false,
                    };
                }
            }
            Event::Progress => {
                if let Phase::Draining { progress, .. } = &mut self.phase {
                    *progress = now;
                }
            }
            Event::OutputDrained => {
                if self.is_draining() {
                    self.end(now);
                }
            }
            Event::ReasonAsked => {
                if self.is_draining() {
                    self.reason_until = Some(now + REASON_LIMIT);
                }
            }
            Event::ReasonKnown => self.need_no_reason(),
            Event::ClientGone => {
                self.need_no_reason();
                self.stop(Cause::ClientGone, now);
            }
            Event::Signal(number) => {
                self.need_no_reason();
                match self.phase {
                    Phase::Ending { .. } => self.leave(),
                    _ => self.stop(Cause::Signal(number), now),
                }
            }
            Event::KeeperDone => match self.phase {
                Phase::Ending { .. } => self.finish(now),
                // Somebody else has told it to end. What was written is still delivered.
                Phase::Draining { .. } => self.keeper_done = true,
                Phase::Running | Phase::Done => self.lose_keeper(now),
                Phase::Explaining { .. } => {}
            },
            Event::KeeperLost => self.lose_keeper(now),
            Event::OrphansEnded => {
                if let Phase::Ending { .. } = self.phase {
                    self.finish(now);
                }
            }
        }
    }

    /// Acts on the deadlines that `now` has reached.
    ///
    /// `undelivered` says whether bytes of the job's output wait for the client.
    pub fn timeout(&mut self, now: Instant, undelivered: bool) {
        if self
            .held_since
            .is_some_and(|since| now >= since + ANNOUNCEMENT_LIMIT)
        {
            self.held_since = None;
            self.wishes.release = true;
        }
        match &mut self.phase {
            Phase::Draining {
                since,
                progress,
                cut,
            } => {
                let stalled = undelivered && now >= *progress + STALL_LIMIT;
                if stalled || now >= *since + DRAIN_LIMIT {
                    self.end(now);
                } else if !*cut && now >= *since + HOLDER_LIMIT {
                    *cut = true;
                    self.wishes.cut = true;
                }
            }
            Phase::Ending { since } if now >= *since + END_LIMIT => self.leave(),
            Phase::Explaining { until } if now >= *until => self.leave(),
            _ => {}
        }
    }

    /// When [`Session::timeout`] is to be called next; `undelivered` as there.
    pub fn deadline(&self, undelivered: bool) -> Option<Instant> {
        let held = self.held_since.map(|since| since + ANNOUNCEMENT_LIMIT);
        let phase = match self.phase {
            Phase::Running | Phase::Done => None,
            Phase::Draining {
                since,
                progress,
                cut,
            } => {
                let holder = (!cut).then_some(since + HOLDER_LIMIT);
                let stall = undelivered.then_some(progress + STALL_LIMIT);
                [holder, stall, Some(since + DRAIN_LIMIT)]
                    .into_iter()
                    .flatten()
                    .min()
            }
            Phase::Ending { since } => Some(since + END_LIMIT),
            Phase::Explaining { until } => Some(until),
        };
        [held, phase].into_iter().flatten().min()
    }

    /// The next thing to do, most urgent first; `None` when there is nothing more.
    pub fn wish(&mut self) -> Option<Wish> {
        let wishes = &mut self.wishes;
        if std::mem::take(&mut wishes.release) {
            Some(Wish::ReleaseAnnouncements)
        } else if std::mem::take(&mut wishes.cut) {
            Some(Wish::CutOutput)
        } else if std::mem::take(&mut wishes.end_job) {
            Some(Wish::EndJob)
        } else if std::mem::take(&mut wishes.end_orphans) {
            Some(Wish::EndOrphans)
        } else {
            wishes.leave.take().map(Wish::Leave)
        }
    }

    /// Why it ends, from the first cause on.
    pub fn cause(&self) -> Option<Cause> {
        self.cause
    }

    /// Whether the end has begun: no new connection is worth taking.
    pub fn is_ending(&self) -> bool {
        matches!(
            self.phase,
            Phase::Ending { .. } | Phase::Explaining { .. } | Phase::Done
        )
    }

    /// Whether the launch command has ended, and what others still have of its output, or hold open,
    /// has its time.
    pub fn awaits_holders(&self) -> bool {
        matches!(self.phase, Phase::Draining { cut: false, .. })
    }

    /// Whether the launch command has ended and its output is being delivered.
    pub fn is_draining(&self) -> bool {
        matches!(self.phase, Phase::Draining { .. })
    }

    /// Something asks for the end; a cause that came before it stays.
    fn stop(&mut self, cause: Cause, now: Instant) {
        self.cause.get_or_insert(cause);
        match self.phase {
            Phase::Running | Phase::Draining { .. } => self.end(now),
            Phase::Ending { .. } | Phase::Explaining { .. } | Phase::Done => {}
        }
    }

    fn end(&mut self, now: Instant) {
        self.phase = Phase::Ending { since: now };
        if self.keeper_done {
            self.finish(now);
        } else if self.keeper_lost {
            self.wishes.end_orphans = true;
        } else {
            self.wishes.end_job = true;
        }
    }

    fn lose_keeper(&mut self, now: Instant) {
        if self.keeper_done || std::mem::replace(&mut self.keeper_lost, true) {
            return;
        }
        match self.phase {
            Phase::Running | Phase::Draining { .. } => self.stop(Cause::KeeperLost, now),
            Phase::Ending { .. } => {
                self.wishes.end_job = false;
                self.wishes.end_orphans = true;
            }
            Phase::Explaining { .. } | Phase::Done => {}
        }
    }

    /// Nobody waits for the reason of the job's end any more.
    fn need_no_reason(&mut self) {
        self.reason_until = None;
        if let Phase::Explaining { .. } = self.phase {
            self.leave();
        }
    }

    /// Nothing is left below the keeper.
    fn finish(&mut self, now: Instant) {
        match self.reason_until.filter(|until| now < *until) {
            Some(until) => self.phase = Phase::Explaining { until },
            None => self.leave(),
        }
    }

    fn leave(&mut self) {
        self.phase = Phase::Done;
        self.held_since = None;
        self.wishes = Wishes {
            leave: self.cause.map(Cause::status),
            ..Wishes::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(session: &mut Session) -> Vec<Wish> {
        std::iter::from_fn(|| session.wish()).collect()
    }

    fn told(events: &[Event]) -> (Session, Vec<Wish>) {
        let now = Instant::now();
        let mut session = Session::new();
        let mut heard = Vec::new();
        for event in events {
            session.tell(*event, now);
            heard.extend(wishes(&mut session));
        }
        (session, heard)
    }

    #[test]
    fn each_cause_of_an_end_has_its_status() {
        use Event::*;
        let table: &[(&[Event], &[Wish])] = &[
            (
                &[LaunchEnded(7), OutputDrained, KeeperDone],
                &[Wish::EndJob, Wish::Leave(7)],
            ),
            (
                &[OpeningFailed, KeeperDone],
                &[Wish::EndJob, Wish::Leave(1)],
            ),
            (&[ClientGone, KeeperDone], &[Wish::EndJob, Wish::Leave(129)]),
            (&[Signal(15), KeeperDone], &[Wish::EndJob, Wish::Leave(143)]),
            (
                &[KeeperLost, OrphansEnded],
                &[Wish::EndOrphans, Wish::Leave(1)],
            ),
            (
                &[Signal(1), KeeperLost, OrphansEnded],
                &[Wish::EndJob, Wish::EndOrphans, Wish::Leave(129)],
            ),
            (
                &[LaunchEnded(3), ClientGone, KeeperDone],
                &[Wish::EndJob, Wish::Leave(3)],
            ),
            (
                &[Signal(2), LaunchEnded(0), KeeperDone],
                &[Wish::EndJob, Wish::Leave(130)],
            ),
            (&[Signal(15), Signal(15)], &[Wish::EndJob, Wish::Leave(143)]),
            (
                &[KeeperDone, OrphansEnded],
                &[Wish::EndOrphans, Wish::Leave(1)],
            ),
            (
                &[LaunchEnded(143), KeeperDone, KeeperLost, OutputDrained],
                &[Wish::Leave(143)],
            ),
        ];
        for (events, expected) in table {
            assert_eq!(told(events).1, *expected, "{events:?}");
        }
    }

    #[test]
    fn the_first_cause_is_kept_and_said() {
        use Event::*;
        let table: &[(&[Event], &str)] = &[
            (&[LaunchEnded(7)], "the launch command ended with status 7"),
            (&[OpeningFailed], "the job's shell could not be prepared"),
            (&[ClientGone], "the client is gone"),
            (&[Signal(15)], "signal 15 was received"),
            (&[KeeperLost], "the keeper was lost"),
            (&[KeeperDone], "the keeper was lost"),
        ];
        assert_eq!(told(&[AnnouncementHeld, Progress]).0.cause(), None);
        for (first, expected) in table {
            let then = [
                ClientGone,
                LaunchEnded(0),
                Signal(1),
                KeeperLost,
                OrphansEnded,
            ];
            let (session, _) = told(&[*first, &then].concat());
            let cause = session.cause().map(|cause| cause.to_string());
            assert_eq!(cause.as_deref(), Some(*expected), "{first:?}");
        }
    }

    #[test]
    fn output_held_open_by_somebody_else_is_cut_after_two_seconds() {
        let now = Instant::now();
        let mut session = Session::new();
        assert!(!session.awaits_holders());
        session.tell(Event::LaunchEnded(0), now);
        assert_eq!(session.deadline(false), Some(now + HOLDER_LIMIT));
        assert!(session.awaits_holders());
        session.timeout(now + HOLDER_LIMIT, false);
        assert_eq!(wishes(&mut session), [Wish::CutOutput]);
        assert!(!session.awaits_holders() && session.is_draining());
        assert_eq!(session.deadline(false), Some(now + DRAIN_LIMIT));
    }

    #[test]
    fn a_client_that_does_not_read_is_given_up_after_ten_seconds_without_progress() {
        let now = Instant::now();
        let mut session = Session::new();
        session.tell(Event::LaunchEnded(4), now);
        session.timeout(now + HOLDER_LIMIT, true);
        session.tell(Event::Progress, now + Duration::from_secs(5));
        session.timeout(now + STALL_LIMIT, true);
        assert!(session.is_draining());
        session.timeout(now + Duration::from_secs(5) + STALL_LIMIT, true);
        assert_eq!(wishes(&mut session), [Wish::CutOutput, Wish::EndJob]);
    }

    #[test]
    fn nothing_is_given_up_before_its_time() {
        let now = Instant::now();
        let just_before = |limit: Duration| now + limit - Duration::from_nanos(1);
        let mut session = Session::new();
        assert!(!session.is_draining() && !session.is_ending());
        session.tell(Event::AnnouncementHeld, now);
        session.timeout(just_before(ANNOUNCEMENT_LIMIT), false);
        assert_eq!(wishes(&mut session), []);

        session.tell(Event::LaunchEnded(4), now);
        session.timeout(just_before(HOLDER_LIMIT), true);
        assert_eq!(wishes(&mut session), []);
        session.timeout(just_before(STALL_LIMIT), true);
        assert_eq!(wishes(&mut session), [Wish::CutOutput]);
        // Nothing waits for the client, so it cannot be the one that stalls.
        session.timeout(just_before(DRAIN_LIMIT), false);
        assert!(session.is_draining() && !session.is_ending());

        session.tell(Event::ClientGone, now);
        assert!(!session.is_draining() && session.is_ending());
        assert_eq!(
            wishes(&mut session),
            [Wish::ReleaseAnnouncements, Wish::EndJob]
        );
        session.timeout(just_before(END_LIMIT), false);
        assert_eq!(wishes(&mut session), []);
        session.timeout(now + END_LIMIT, false);
        assert_eq!(wishes(&mut session), [Wish::Leave(4)]);
        assert!(session.is_ending());
    }

    #[test]
    fn an_announcement_waits_ten_seconds_for_the_node() {
        let now = Instant::now();
        let mut session = Session::new();
        session.tell(Event::AnnouncementHeld, now);
        session.tell(Event::AnnouncementHeld, now + Duration::from_secs(1));
        assert_eq!(session.deadline(false), Some(now + ANNOUNCEMENT_LIMIT));
        session.timeout(now + ANNOUNCEMENT_LIMIT, false);
        assert_eq!(wishes(&mut session), [Wish::ReleaseAnnouncements]);
        assert_eq!(session.deadline(false), None);
    }

    #[test]
    fn the_reason_of_an_end_is_awaited_by_a_client_that_is_there() {
        use Event::*;
        let ended: &[Event] = &[LaunchEnded(1), ReasonAsked, OutputDrained, KeeperDone];
        for (more, left) in [
            (&[][..], false),
            (&[KeeperLost], false),
            (&[ReasonKnown], true),
            (&[ClientGone], true),
            (&[Signal(15)], true),
        ] {
            let wishes = told(&[ended, more].concat()).1;
            let expected = [vec![Wish::EndJob], vec![Wish::Leave(1); usize::from(left)]].concat();
            assert_eq!(wishes, expected, "{more:?}");
        }
        let gone = told(&[LaunchEnded(1), ReasonAsked, ClientGone, KeeperDone]).1;
        assert_eq!(gone, [Wish::EndJob, Wish::Leave(1)]);
    }

    #[test]
    fn the_reason_of_an_end_is_awaited_for_two_seconds() {
        let now = Instant::now();
        let mut session = Session::new();
        session.tell(Event::LaunchEnded(1), now);
        session.tell(Event::ReasonAsked, now);
        session.tell(Event::OutputDrained, now);
        assert_eq!(wishes(&mut session), [Wish::EndJob]);
        let mut late = session.clone();
        late.tell(Event::KeeperDone, now + REASON_LIMIT);
        assert_eq!(wishes(&mut late), [Wish::Leave(1)]);
        session.tell(Event::KeeperDone, now + REASON_LIMIT / 2);
        assert_eq!(session.deadline(false), Some(now + REASON_LIMIT));
        session.timeout(now + REASON_LIMIT - Duration::from_nanos(1), false);
        assert_eq!(wishes(&mut session), []);
        session.timeout(now + REASON_LIMIT, false);
        assert_eq!(wishes(&mut session), [Wish::Leave(1)]);
    }

    #[test]
    fn an_idle_session_has_no_deadline() {
        assert_eq!(Session::new().deadline(false), None);
    }
}
