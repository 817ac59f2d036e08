//! The end of everything below a process: an escalation over time.
//!
//! Pure: the owner tells what happened and when, does what the answer says, and asks again at
//! [`Ending::deadline`]. Two things run side by side:
//!
//! * *signals*: SIGTERM to all descendants (a signal on which salloc releases its job), after
//!   [`GRACE`] SIGKILL, repeated as descendants go, since one that forks in between escapes a pass;
//! * *the job's cancellation* (`scancel`), where its id is known: before SIGKILL is used, because a
//!   killed salloc leaves its job running. Where the launch command itself was killed it comes first
//!   of all, and the signals wait for it up to [`HOLD`]: inside the job they end what runs there, and
//!   with it whoever cancels.
//!
//! Slurm's controller may be away for a moment, as it is when it is restarted or another one takes
//! over. `scancel` then asks again each second for some nine, and fails (measured, Slurm 22.05; for
//! a job that is gone it succeeds). So it is let go on beside the signals, and started again where it
//! has failed, as long as the end may last.
//!
//! It always comes to an outcome, at most [`BOUND`] after it began.

use std::fmt::{self, Display};
use std::time::{Duration, Instant};

/// How long descendants have for ending themselves after SIGTERM. salloc needs a second or two for
/// releasing its job (measured); a controller that is busy or fails over needs longer.
pub const GRACE: Duration = Duration::from_secs(10);
/// How much later a salloc whose command still runs gets SIGTERM. One that gets it while its
/// command dies may never learn of that death, and spins (measured, Slurm 22.05); one whose command
/// has ended releases its job and leaves by itself.
pub const SALLOC_DELAY: Duration = Duration::from_secs(1);
/// How long the signals wait for the cancellation of a job whose launch command was killed. What
/// the relay in the job does when the login side is gone has to fit into 75 s, and up to 50 of them
/// have passed before it begins.
pub const HOLD: Duration = Duration::from_secs(5);
/// How long SIGKILL waits for a cancellation that has just begun.
pub const CANCEL_LIMIT: Duration = Duration::from_secs(3);
/// How long after its failure a cancellation is tried again.
pub const CANCEL_PAUSE: Duration = Duration::from_secs(1);
/// How long before the bound a cancellation that hangs is stopped: so long its process may take to
/// go.
const STOP_LIMIT: Duration = Duration::from_secs(1);
/// How long killed descendants may take to go. Only one that the kernel cannot end (a file server
/// that does not answer) reaches it.
pub const KILL_LIMIT: Duration = Duration::from_secs(5);
/// The longest that an end takes.
pub const BOUND: Duration = HOLD.saturating_add(GRACE).saturating_add(KILL_LIMIT);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It exited with this status, 0 to 255.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl Status {
    /// The status that a shell would report: the process's own, or 128 + signal.
    pub fn exit_status(self) -> u8 {
        let status = match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + (signal & 0x7f),
        };
        (status & 0xff) as u8
    }
}

impl Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// A job's id: what `SLURM_JOB_ID` holds, a number. Nothing else is ever given to `scancel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobId(u32);

impl JobId {
    /// The id as a number; there is no job 0.
    pub fn new(number: u32) -> Option<Self> {
        (number != 0).then_some(Self(number))
    }

    /// The id in decimal digits, as the job's environment has it; `None` for anything else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        Self::new(text.parse().ok()?)
    }

    /// The id as a number.
    pub fn number(self) -> u32 {
        self.0
    }
}

impl Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What signals are sent in one pass over the descendants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// SIGTERM to all but a salloc whose command runs, or that was just signalled.
    Terminate,
    /// SIGTERM to the sallocs that were spared.
    TerminateRest,
    /// SIGTERM to those that did not get it yet and whose parent is gone: they were born while the
    /// first pass went by. Others are left alone, such as the commands of a trap that cleans up.
    TerminateOrphans,
    /// SIGKILL to all.
    Kill,
}

/// What is done about the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// Start `scancel` for this job.
    Start(JobId),
    /// It took too long: kill it, with what it has started.
    Stop,
}

/// How an attempt at the cancellation came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The job is cancelled, or was gone already.
    Done,
    /// It is not; later it may be.
    Failed,
    /// There is no `scancel`.
    Impossible,
}

/// What the owner has to do now. The order of the two does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// The signals to send.
    pub pass: Option<Pass>,
    /// What to do about the job.
    pub cancel: Option<Cancel>,
}

/// How an end came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is left.
    Clean,
    /// Something cannot be killed.
    GaveUp,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The signals wait for the cancellation.
    Holding {
        until: Instant,
    },
    Terminating {
        until: Instant,
    },
    /// SIGKILL waits for the cancellation.
    AwaitingCancel {
        until: Instant,
    },
    /// What is left then, and when the cancellation is over, cannot be killed.
    Killing {
        until: Instant,
    },
    Over(Outcome),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cancellation {
    NotStarted,
    Running { since: Instant },
    Failed { again: Instant },
    Stopping,
    Over,
}

/// One end, from SIGTERM to the outcome.
#[derive(Clone, Debug)]
pub struct Ending {
    /// When everything is over.
    bound: Instant,
    phase: Phase,
    cancellation: Cancellation,
    job: Option<JobId>,
    launch_killed: bool,
    /// When those that were spared at first get SIGTERM.
    rest_at: Option<Instant>,
    /// No descendant is left.
    is_empty: bool,
}

impl Ending {
    /// The end begins. `launch` is how the launch command ended, where it has.
    pub fn begin(now: Instant, job: Option<JobId>, launch: Option<Status>) -> (Self, Steps) {
        let mut ending = Self {
            bound: now + BOUND,
            phase: Phase::Holding { until: now + HOLD },
            cancellation: Cancellation::NotStarted,
            job,
            launch_killed: matches!(launch, Some(Status::Signal(_))),
            rest_at: None,
            is_empty: false,
        };
        let cancel = ending.cancel_of_killed_launch(now);
        let pass = cancel.is_none().then(|| ending.terminate(now));
        (ending, Steps { pass, cancel })
    }

    /// The job's id became known.
    pub fn job_known(&mut self, now: Instant, job: JobId) -> Steps {
        self.job = Some(job);
        Steps {
            pass: None,
            cancel: self.cancel_of_killed_launch(now),
        }
    }

    /// The launch command ended.
    pub fn launch_ended(&mut self, now: Instant, status: Status) -> Steps {
        self.launch_killed = matches!(status, Status::Signal(_));
        Steps {
            pass: None,
            cancel: self.cancel_of_killed_launch(now),
        }
    }

    /// Some descendants went, others are left.
    pub fn reaped(&mut self) -> Steps {
        let pass = match self.phase {
            Phase::Terminating { .. } | Phase::AwaitingCancel { .. } => {
                Some(Pass::TerminateOrphans)
            }
            Phase::Killing { .. } => Some(Pass::Kill),
            Phase::Holding { .. } | Phase::Over(_) => None,
        };
        Steps { pass, cancel: None }
    }

    /// `scancel` ended, or could not be started.
    pub fn cancel_ended(&mut self, now: Instant, attempt: Attempt) -> Steps {
        let again = now + CANCEL_PAUSE;
        self.cancellation = match self.cancellation {
            Cancellation::Running { .. }
                if attempt == Attempt::Failed && again < self.bound - STOP_LIMIT =>
            {
                Cancellation::Failed { again }
            }
            Cancellation::Running { .. } | Cancellation::Stopping => Cancellation::Over,
            other => other,
        };
        let pass = match self.phase {
            Phase::Holding { .. } if !self.is_cancelling() => Some(self.terminate(now)),
            Phase::AwaitingCancel { .. } => Some(self.kill(now)),
            _ => None,
        };
        self.conclude();
        Steps { pass, cancel: None }
    }

    /// Whether the job's cancellation goes on, or is tried again.
    pub fn is_cancelling(&self) -> bool {
        use Cancellation::{Failed, Running, Stopping};
        matches!(self.cancellation, Running { .. } | Failed { .. } | Stopping)
    }

    /// No descendant is left, but for `scancel`.
    pub fn emptied(&mut self) {
        self.is_empty = true;
        self.conclude();
    }

    /// Acts on the deadlines that `now` has reached.
    pub fn timeout(&mut self, now: Instant) -> Steps {
        let mut steps = Steps::default();
        match self.cancellation {
            Cancellation::Running { .. } if now >= self.bound - STOP_LIMIT => {
                self.cancellation = Cancellation::Stopping;
                steps.cancel = Some(Cancel::Stop);
                if let Phase::Killing { until } = &mut self.phase {
                    // What it has started is killed with it, and takes its time to go.
                    *until = self.bound;
                }
            }
            Cancellation::Stopping if now >= self.bound => self.cancellation = Cancellation::Over,
            // Whoever asks late has no time left for another attempt.
            Cancellation::Failed { .. } if now >= self.bound - STOP_LIMIT => {
                self.cancellation = Cancellation::Over;
            }
            Cancellation::Failed { again } if now >= again => {
                steps.cancel = self.start_cancel(now);
            }
            _ => {}
        }
        self.conclude();
        if self.rest_at.take_if(|at| now >= *at).is_some()
            && matches!(self.phase, Phase::Terminating { .. })
        {
            steps.pass = Some(Pass::TerminateRest);
        }
        match self.phase {
            Phase::Holding { until } if now >= until => steps.pass = Some(self.terminate(now)),
            Phase::Terminating { until } if now >= until => {
                if self.cancellation == Cancellation::NotStarted {
                    steps.cancel = self.start_cancel(now);
                }
                let awaited = match self.cancellation {
                    Cancellation::Running { since } => since + CANCEL_LIMIT,
                    _ => now,
                };
                let until = awaited.min(self.bound - KILL_LIMIT);
                if now < until {
                    self.phase = Phase::AwaitingCancel { until };
                } else {
                    steps.pass = Some(self.kill(now));
                }
            }
            Phase::AwaitingCancel { until } if now >= until => steps.pass = Some(self.kill(now)),
            Phase::Killing { until } if now >= until && !self.is_cancelling() => {
                self.phase = Phase::Over(Outcome::GaveUp);
            }
            _ => {}
        }
        steps
    }

    /// When [`Ending::timeout`] is to be called next.
    pub fn deadline(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Terminating { until } => self.rest_at.or(Some(until)),
            Phase::Holding { until } | Phase::AwaitingCancel { until } => Some(until),
            Phase::Killing { until } => (!self.is_cancelling()).then_some(until),
            Phase::Over(_) => return None,
        };
        let cancellation = match self.cancellation {
            Cancellation::Running { .. } => Some(self.bound - STOP_LIMIT),
            Cancellation::Failed { again } => Some(again),
            Cancellation::Stopping => Some(self.bound),
            Cancellation::NotStarted | Cancellation::Over => None,
        };
        phase.into_iter().chain(cancellation).min()
    }

    /// How it came out, once it has.
    pub fn outcome(&self) -> Option<Outcome> {
        match self.phase {
            Phase::Over(outcome) => Some(outcome),
            _ => None,
        }
    }

    fn terminate(&mut self, now: Instant) -> Pass {
        self.phase = Phase::Terminating { until: now + GRACE };
        self.rest_at = Some(now + SALLOC_DELAY);
        Pass::Terminate
    }

    fn kill(&mut self, now: Instant) -> Pass {
        self.phase = Phase::Killing {
            until: now + KILL_LIMIT,
        };
        Pass::Kill
    }

    /// It is over when nothing is left, and nothing more can be done about the job.
    fn conclude(&mut self) {
        if self.is_empty && !self.is_cancelling() && self.outcome().is_none() {
            self.phase = Phase::Over(Outcome::Clean);
        }
    }

    /// A launch command that was killed could not release its job.
    fn cancel_of_killed_launch(&mut self, now: Instant) -> Option<Cancel> {
        let is_first = self.cancellation == Cancellation::NotStarted;
        if !is_first || !self.launch_killed || self.outcome().is_some() {
            return None;
        }
        self.start_cancel(now)
    }

    fn start_cancel(&mut self, now: Instant) -> Option<Cancel> {
        let job = self.job?;
        self.cancellation = Cancellation::Running { since: now };
        Some(Cancel::Start(job))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const JOB: JobId = JobId(4711);

    fn pass(pass: Pass) -> Steps {
        Steps {
            pass: Some(pass),
            cancel: None,
        }
    }

    fn cancel(cancel: Cancel) -> Steps {
        Steps {
            pass: None,
            cancel: Some(cancel),
        }
    }

    #[test]
    fn without_a_job_it_is_term_then_kill_then_given_up() {
        let now = Instant::now();
        let (mut ending, steps) = Ending::begin(now, None, None);
        assert_eq!(steps, pass(Pass::Terminate));
        assert_eq!(ending.reaped(), pass(Pass::TerminateOrphans));
        assert_eq!(ending.deadline(), Some(now + SALLOC_DELAY));
        assert_eq!(
            ending.timeout(now + SALLOC_DELAY),
            pass(Pass::TerminateRest)
        );
        assert_eq!(ending.deadline(), Some(now + GRACE));
        assert_eq!(ending.timeout(now + GRACE), pass(Pass::Kill));
        assert_eq!(ending.reaped(), pass(Pass::Kill));
        assert_eq!(ending.deadline(), Some(now + GRACE + KILL_LIMIT));
        assert_eq!(ending.timeout(now + GRACE + KILL_LIMIT), Steps::default());
        assert_eq!(ending.outcome(), Some(Outcome::GaveUp));
        assert_eq!(ending.deadline(), None);
        assert_eq!(ending.reaped(), Steps::default());
    }

    #[test]
    fn a_job_is_cancelled_before_the_kill() {
        let now = Instant::now();
        let (mut ending, _) = Ending::begin(now, Some(JOB), None);
        ending.timeout(now + SALLOC_DELAY);
        let late = now + GRACE;
        assert_eq!(ending.timeout(late), cancel(Cancel::Start(JOB)));
        assert_eq!(ending.deadline(), Some(late + CANCEL_LIMIT));
        assert_eq!(ending.timeout(late + CANCEL_LIMIT / 2), Steps::default());
        assert_eq!(ending.reaped(), pass(Pass::TerminateOrphans));
        assert_eq!(ending.cancel_ended(late, Attempt::Done), pass(Pass::Kill));
        ending.emptied();
        assert_eq!(ending.outcome(), Some(Outcome::Clean));
    }

    #[test]
    fn the_kill_does_not_wait_long_for_a_cancellation_that_hangs_and_the_end_does() {
        let now = Instant::now();
        let (mut ending, _) = Ending::begin(now, Some(JOB), None);
        ending.timeout(now + GRACE);
        let late = now + GRACE + CANCEL_LIMIT;
        assert_eq!(ending.timeout(late), pass(Pass::Kill));
        ending.emptied();
        assert_eq!(ending.outcome(), None);
        assert_eq!(ending.deadline(), Some(now + BOUND - STOP_LIMIT));
        assert_eq!(
            ending.timeout(now + BOUND - STOP_LIMIT),
            cancel(Cancel::Stop)
        );
        assert_eq!(ending.outcome(), None, "its process is still there");
        assert_eq!(ending.deadline(), Some(now + BOUND));
        ending.cancel_ended(now + BOUND - STOP_LIMIT, Attempt::Failed);
        assert_eq!(ending.outcome(), Some(Outcome::Clean));
    }

    #[test]
    fn what_cannot_be_killed_is_given_up_when_the_cancellation_is_over() {
        let now = Instant::now();
        let (mut ending, _) = Ending::begin(now, Some(JOB), None);
        ending.timeout(now + GRACE);
        let killed = now + GRACE + CANCEL_LIMIT;
        ending.timeout(killed);
        ending.timeout(killed + KILL_LIMIT);
        ending.cancel_ended(killed + KILL_LIMIT, Attempt::Done);
        assert_eq!(ending.outcome(), None, "who is left is told now");
        assert_eq!(ending.deadline(), Some(killed + KILL_LIMIT));
        ending.timeout(killed + KILL_LIMIT);
        assert_eq!(ending.outcome(), Some(Outcome::GaveUp));
    }

    #[test]
    fn a_cancellation_that_fails_is_tried_again_up_to_the_bound() {
        let now = Instant::now();
        let (mut ending, _) = Ending::begin(now, Some(JOB), Some(Status::Signal(9)));
        let mut at = now;
        let mut attempts = 1;
        ending.cancel_ended(at, Attempt::Failed);
        ending.emptied();
        while let Some(next) = ending.deadline() {
            at = next;
            if ending.timeout(at).cancel == Some(Cancel::Start(JOB)) {
                attempts += 1;
                ending.cancel_ended(at, Attempt::Failed);
            }
        }
        assert_eq!(ending.outcome(), Some(Outcome::Clean));
        let last = now + BOUND - STOP_LIMIT - CANCEL_PAUSE;
        assert_eq!((at, attempts), (last, 19));
    }

    #[test]
    fn who_asks_early_or_late_gets_no_attempt_more() {
        let now = Instant::now();
        let killed = Some(Status::Signal(9));
        let (mut ending, _) = Ending::begin(now, Some(JOB), killed);
        ending.cancel_ended(now, Attempt::Failed);
        assert_eq!(ending.timeout(now + CANCEL_PAUSE / 2), Steps::default());
        let late = ending.timeout(now + BOUND - STOP_LIMIT);
        assert_eq!((late.cancel, ending.is_cancelling()), (None, false));

        let (mut ending, _) = Ending::begin(now, Some(JOB), killed);
        let late = ending.timeout(now + BOUND - STOP_LIMIT);
        assert_eq!(late.cancel, Some(Cancel::Stop));
        ending.timeout(now + BOUND - STOP_LIMIT / 2);
        assert!(ending.is_cancelling(), "its process is still there");
        ending.timeout(now + BOUND);
        assert!(!ending.is_cancelling());
    }

    #[test]
    fn what_is_killed_late_has_its_time_to_go_whatever_becomes_of_the_cancellation() {
        let now = Instant::now();
        let (mut ending, _) = Ending::begin(now, Some(JOB), Some(Status::Signal(9)));
        assert_eq!(ending.timeout(now + HOLD), pass(Pass::Terminate));
        let kill = now + BOUND - KILL_LIMIT;
        ending.cancel_ended(kill - CANCEL_PAUSE * 2, Attempt::Failed);
        let again = ending.timeout(kill - CANCEL_PAUSE);
        assert_eq!(again.cancel, Some(Cancel::Start(JOB)));
        assert_eq!(ending.timeout(kill), pass(Pass::Kill));
    }

    #[test]
    fn without_the_program_it_is_not_tried_again() {
        let now = Instant::now();
        let (mut ending, _) = Ending::begin(now, Some(JOB), Some(Status::Signal(9)));
        let steps = ending.cancel_ended(now, Attempt::Impossible);
        assert_eq!(steps, pass(Pass::Terminate));
        ending.emptied();
        assert_eq!(ending.outcome(), Some(Outcome::Clean));
    }

    #[test]
    fn a_killed_launch_command_has_its_job_cancelled_at_once() {
        let now = Instant::now();
        let killed = Status::Signal(9);
        let start = Some(Cancel::Start(JOB));
        let (_, steps) = Ending::begin(now, Some(JOB), Some(killed));
        assert_eq!(steps, cancel(Cancel::Start(JOB)), "before any signal");

        let (mut ending, steps) = Ending::begin(now, Some(JOB), None);
        assert_eq!(steps, pass(Pass::Terminate));
        assert_eq!(ending.launch_ended(now, killed).cancel, start);
        assert_eq!(ending.launch_ended(now, killed).cancel, None, "only once");

        let (mut ending, steps) = Ending::begin(now, None, Some(killed));
        assert_eq!(steps, pass(Pass::Terminate));
        assert_eq!(ending.job_known(now, JOB).cancel, start);
    }

    #[test]
    fn a_launch_command_that_left_by_itself_has_released_its_job() {
        let now = Instant::now();
        let (mut ending, steps) = Ending::begin(now, Some(JOB), Some(Status::Code(1)));
        assert_eq!(steps.cancel, None);
        assert_eq!(ending.launch_ended(now, Status::Code(0)).cancel, None);
    }

    #[test]
    fn the_signals_wait_for_the_cancellation_of_a_killed_launch_commands_job() {
        let now = Instant::now();
        let killed = Some(Status::Signal(9));
        let (mut ending, _) = Ending::begin(now, Some(JOB), killed);
        assert_eq!(ending.reaped(), Steps::default());
        let done = now + Duration::from_secs(1);
        let steps = ending.cancel_ended(done, Attempt::Done);
        assert_eq!(steps, pass(Pass::Terminate));
        assert_eq!(ending.deadline(), Some(done + SALLOC_DELAY));
        assert_eq!(
            ending.timeout(done + SALLOC_DELAY),
            pass(Pass::TerminateRest)
        );
        assert_eq!(ending.timeout(done + GRACE), pass(Pass::Kill));

        let (mut ending, _) = Ending::begin(now, Some(JOB), killed);
        let steps = ending.cancel_ended(now, Attempt::Failed);
        assert_eq!(steps, Steps::default(), "it is tried again first");
        assert_eq!(
            ending.timeout(now + CANCEL_PAUSE),
            cancel(Cancel::Start(JOB))
        );
        assert_eq!(ending.deadline(), Some(now + HOLD));
        assert_eq!(ending.timeout(now + HOLD), pass(Pass::Terminate));
        // It has had its time.
        assert_eq!(ending.timeout(now + HOLD + GRACE), pass(Pass::Kill));
        assert_eq!(ending.deadline(), Some(now + BOUND - STOP_LIMIT));
    }

    #[test]
    fn nothing_left_is_the_end_but_not_before_the_cancellation() {
        let now = Instant::now();
        let (mut ending, _) = Ending::begin(now, Some(JOB), Some(Status::Signal(9)));
        ending.emptied();
        assert_eq!(ending.outcome(), None);
        ending.cancel_ended(now, Attempt::Done);
        assert_eq!(ending.outcome(), Some(Outcome::Clean));
    }

    #[test]
    fn only_a_number_is_a_job() {
        for (text, job) in [
            ("4711", Some(JOB)),
            ("4294967295", Some(JobId(u32::MAX))),
            ("", None),
            ("0", None),
            ("+1", None),
            ("-1", None),
            ("4711 --user=root", None),
            ("4294967296", None),
            ("47_1", None),
        ] {
            assert_eq!(JobId::parse(text.as_bytes()), job, "{text:?}");
        }
        assert_eq!(JobId::parse(b"\xff1"), None);
        assert_eq!(
            (JobId(4711).number(), JobId(4711).to_string()),
            (4711, "4711".into())
        );
    }

    #[test]
    fn a_status_is_reported_as_a_shell_does() {
        assert_eq!(Status::Code(7).exit_status(), 7);
        assert_eq!(Status::Signal(15).exit_status(), 143);
        assert_eq!(Status::Code(7).to_string(), "exit status 7");
        assert_eq!(Status::Signal(15).to_string(), "signal 15");
    }

    #[derive(Clone, Copy, Debug)]
    enum Told {
        Job,
        Launch(Status),
        Reaped,
        CancelEnded(Attempt),
        Emptied,
        Time(u64),
    }

    fn status() -> impl Strategy<Value = Status> {
        prop_oneof![
            (0..256).prop_map(Status::Code),
            (1..65).prop_map(Status::Signal)
        ]
    }

    fn attempt() -> impl Strategy<Value = Attempt> {
        prop_oneof![
            Just(Attempt::Done),
            Just(Attempt::Failed),
            Just(Attempt::Impossible)
        ]
    }

    fn told() -> impl Strategy<Value = Told> {
        prop_oneof![
            Just(Told::Job),
            status().prop_map(Told::Launch),
            Just(Told::Reaped),
            attempt().prop_map(Told::CancelEnded),
            Just(Told::Emptied),
            (0u64..4000).prop_map(Told::Time),
        ]
    }

    /// What an owner that does as it is told would have seen.
    #[derive(Default)]
    struct Seen {
        job_known: bool,
        started: u64,
        running: bool,
        killed: bool,
    }

    impl Seen {
        fn steps(&mut self, steps: Steps) {
            match steps.cancel {
                Some(Cancel::Start(_)) => {
                    assert!(self.job_known, "no job to cancel");
                    assert!(!self.running, "cancelled twice at a time");
                    self.started += 1;
                    self.running = true;
                }
                Some(Cancel::Stop) => self.running = false,
                None => {}
            }
            if steps.pass == Some(Pass::Kill) && !self.killed {
                assert!(
                    self.started > 0 || !self.job_known,
                    "killed before any cancellation"
                );
                self.killed = true;
            }
        }
    }

    proptest! {
        /// Whatever is told: the outcome comes within the bound and stays, and the job is cancelled
        /// before anything is killed, where it is known; again only with pauses, and never after
        /// that outcome.
        #[test]
        fn it_always_ends_within_its_bound(
            job in any::<bool>(),
            launch in proptest::option::of(status()),
            story in proptest::collection::vec(told(), 0..60),
        ) {
            let began = Instant::now();
            let mut now = began;
            let mut seen = Seen { job_known: job, ..Seen::default() };
            let (mut ending, steps) = Ending::begin(now, job.then_some(JOB), launch);
            seen.steps(steps);
            for event in story.into_iter().chain([Told::Time(20_000)]) {
                let over = ending.outcome();
                match event {
                    Told::Job => {
                        seen.job_known = true;
                        seen.steps(ending.job_known(now, JOB));
                    }
                    Told::Launch(status) => seen.steps(ending.launch_ended(now, status)),
                    Told::Reaped => seen.steps(ending.reaped()),
                    Told::CancelEnded(attempt) => {
                        seen.running = false;
                        seen.steps(ending.cancel_ended(now, attempt));
                    }
                    Told::Emptied => {
                        ending.emptied();
                        let goes_on = ending.is_cancelling();
                        prop_assert!(over.is_some() || goes_on == ending.outcome().is_none());
                    }
                    Told::Time(millis) => {
                        let until = now + Duration::from_millis(millis);
                        while let Some(at) = ending.deadline().filter(|&at| at <= until) {
                            now = now.max(at);
                            seen.steps(ending.timeout(now));
                            prop_assert!(ending.deadline() > Some(at) || ending.outcome().is_some());
                        }
                        now = until;
                    }
                }
                prop_assert!(ending.deadline().is_none_or(|at| at <= began + BOUND));
                prop_assert!(over.is_none() || ending.outcome() == over);
            }
            prop_assert!(ending.outcome().is_some() && !seen.running);
            prop_assert!(seen.started <= BOUND.as_secs() / CANCEL_PAUSE.as_secs());
        }
    }
}
