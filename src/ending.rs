//! The end of everything below a process: an escalation over time.
//!
//! Pure: the owner tells what happened and when, does what the answer says, and asks again at
//! [`Ending::deadline`]. Two things run side by side:
//!
//! * *signals*: SIGTERM to all descendants (a signal on which salloc releases its job), after
//!   [`GRACE`] SIGKILL, repeated as descendants go, since one that forks in between escapes a pass;
//! * *the job's cancellation* (`scancel`), where its id is known: before SIGKILL is used, because a
//!   killed salloc leaves its job running, and at once where the launch command itself was killed.
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
/// How long the job's cancellation may take.
pub const CANCEL_LIMIT: Duration = Duration::from_secs(3);
/// How long killed descendants may take to go. Only one that the kernel cannot end (a file server
/// that does not answer) reaches it.
pub const KILL_LIMIT: Duration = Duration::from_secs(5);
/// The longest that an end takes.
pub const BOUND: Duration = GRACE
    .saturating_add(CANCEL_LIMIT)
    .saturating_add(KILL_LIMIT);

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
    /// It took too long: kill it, and wait for it no longer.
    Stop,
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
    Terminating {
        until: Instant,
    },
    /// SIGKILL waits for the cancellation, which has a limit of its own.
    AwaitingCancel,
    Killing {
        until: Instant,
    },
    Over(Outcome),
}

#[derive(Clone, Copy, Debug)]
enum Cancellation {
    NotStarted,
    Running { until: Instant },
    Over,
}

/// One end, from SIGTERM to the outcome.
#[derive(Clone, Debug)]
pub struct Ending {
    phase: Phase,
    cancellation: Cancellation,
    job: Option<JobId>,
    launch_killed: bool,
    /// When those that were spared at first get SIGTERM.
    rest_at: Option<Instant>,
}

impl Ending {
    /// The end begins. `launch` is how the launch command ended, where it has.
    pub fn begin(now: Instant, job: Option<JobId>, launch: Option<Status>) -> (Self, Steps) {
        let mut ending = Self {
            phase: Phase::Terminating { until: now + GRACE },
            cancellation: Cancellation::NotStarted,
            job,
            launch_killed: matches!(launch, Some(Status::Signal(_))),
            rest_at: Some(now + SALLOC_DELAY),
        };
        let steps = Steps {
            pass: Some(Pass::Terminate),
            cancel: ending.cancel_of_killed_launch(now),
        };
        (ending, steps)
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
            Phase::Terminating { .. } | Phase::AwaitingCancel => Some(Pass::TerminateOrphans),
            Phase::Killing { .. } => Some(Pass::Kill),
            Phase::Over(_) => None,
        };
        Steps { pass, cancel: None }
    }

    /// `scancel` ended, or could not be started.
    pub fn cancel_ended(&mut self, now: Instant) -> Steps {
        if let Cancellation::Running { .. } = self.cancellation {
            self.cancellation = Cancellation::Over;
        }
        match self.phase {
            Phase::AwaitingCancel => self.kill(now),
            _ => Steps::default(),
        }
    }

    /// No descendant is left. While a cancellation runs this says nothing: it has to be told again
    /// after [`Ending::cancel_ended`].
    pub fn emptied(&mut self) {
        let running = matches!(self.cancellation, Cancellation::Running { .. });
        if !running && self.outcome().is_none() {
            self.phase = Phase::Over(Outcome::Clean);
        }
    }

    /// Acts on the deadlines that `now` has reached.
    pub fn timeout(&mut self, now: Instant) -> Steps {
        let mut steps = Steps::default();
        if let Cancellation::Running { until } = self.cancellation
            && now >= until
        {
            steps = self.cancel_ended(now);
            steps.cancel = Some(Cancel::Stop);
        }
        if self.rest_at.take_if(|at| now >= *at).is_some()
            && matches!(self.phase, Phase::Terminating { .. })
        {
            steps.pass = Some(Pass::TerminateRest);
        }
        match self.phase {
            Phase::Terminating { until } if now >= until => {
                let start = self.start_cancel(now);
                match self.cancellation {
                    Cancellation::Running { .. } => {
                        self.phase = Phase::AwaitingCancel;
                        steps.cancel = start.or(steps.cancel);
                    }
                    _ => steps.pass = self.kill(now).pass,
                }
            }
            Phase::Killing { until } if now >= until => {
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
            Phase::Killing { until } => Some(until),
            Phase::AwaitingCancel => None,
            Phase::Over(_) => return None,
        };
        let cancellation = match self.cancellation {
            Cancellation::Running { until } => Some(until),
            _ => None,
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

    fn kill(&mut self, now: Instant) -> Steps {
        self.phase = Phase::Killing {
            until: now + KILL_LIMIT,
        };
        Steps {
            pass: Some(Pass::Kill),
            cancel: None,
        }
    }

    /// A launch command that was killed could not release its job.
    fn cancel_of_killed_launch(&mut self, now: Instant) -> Option<Cancel> {
        if !self.launch_killed || self.outcome().is_some() {
            return None;
        }
        self.start_cancel(now)
    }

    /// Starts the cancellation, at most once.
    fn start_cancel(&mut self, now: Instant) -> Option<Cancel> {
        let (Some(job), Cancellation::NotStarted) = (self.job, self.cancellation) else {
            return None;
        };
        self.cancellation = Cancellation::Running {
            until: now + CANCEL_LIMIT,
        };
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
        assert_eq!(ending.reaped(), pass(Pass::TerminateOrphans));
        assert_eq!(ending.cancel_ended(late), pass(Pass::Kill));
        ending.emptied();
        assert_eq!(ending.outcome(), Some(Outcome::Clean));
    }

    #[test]
    fn a_cancellation_that_hangs_is_stopped_and_the_kill_follows() {
        let now = Instant::now();
        let (mut ending, _) = Ending::begin(now, Some(JOB), None);
        ending.timeout(now + GRACE);
        assert_eq!(
            ending.timeout(now + GRACE + CANCEL_LIMIT),
            Steps {
                pass: Some(Pass::Kill),
                cancel: Some(Cancel::Stop)
            }
        );
        assert_eq!(ending.deadline(), Some(now + BOUND));
    }

    #[test]
    fn a_killed_launch_command_has_its_job_cancelled_at_once() {
        let now = Instant::now();
        let killed = Status::Signal(9);
        let start = Some(Cancel::Start(JOB));
        assert_eq!(Ending::begin(now, Some(JOB), Some(killed)).1.cancel, start);

        let (mut ending, steps) = Ending::begin(now, Some(JOB), None);
        assert_eq!(steps.cancel, None);
        assert_eq!(ending.launch_ended(now, killed).cancel, start);
        assert_eq!(ending.launch_ended(now, killed).cancel, None, "only once");

        let (mut ending, steps) = Ending::begin(now, None, Some(killed));
        assert_eq!(steps.cancel, None);
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
    fn the_grace_goes_on_after_an_early_cancellation() {
        let now = Instant::now();
        let (mut ending, _) = Ending::begin(now, Some(JOB), Some(Status::Signal(9)));
        assert_eq!(ending.deadline(), Some(now + SALLOC_DELAY));
        assert_eq!(ending.cancel_ended(now), Steps::default());
        assert_eq!(
            ending.timeout(now + SALLOC_DELAY),
            pass(Pass::TerminateRest)
        );
        assert_eq!(ending.deadline(), Some(now + GRACE));
        assert_eq!(ending.timeout(now + GRACE), pass(Pass::Kill));
    }

    #[test]
    fn nothing_left_is_the_end_but_not_before_the_cancellation() {
        let now = Instant::now();
        let (mut ending, _) = Ending::begin(now, Some(JOB), Some(Status::Signal(9)));
        ending.emptied();
        assert_eq!(ending.outcome(), None);
        ending.cancel_ended(now);
        ending.emptied();
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
        CancelEnded,
        Emptied,
        Time(u64),
    }

    fn status() -> impl Strategy<Value = Status> {
        prop_oneof![
            (0..256).prop_map(Status::Code),
            (1..65).prop_map(Status::Signal)
        ]
    }

    fn told() -> impl Strategy<Value = Told> {
        prop_oneof![
            Just(Told::Job),
            status().prop_map(Told::Launch),
            Just(Told::Reaped),
            Just(Told::CancelEnded),
            Just(Told::Emptied),
            (0u64..4000).prop_map(Told::Time),
        ]
    }

    /// What an owner that does as it is told would have seen.
    #[derive(Default)]
    struct Seen {
        job_known: bool,
        started: u32,
        running: bool,
        killed: bool,
    }

    impl Seen {
        fn steps(&mut self, steps: Steps) {
            match steps.cancel {
                Some(Cancel::Start(_)) => {
                    assert!(self.job_known, "no job to cancel");
                    self.started += 1;
                    self.running = true;
                }
                Some(Cancel::Stop) => self.running = false,
                None => {}
            }
            assert!(self.started <= 1, "cancelled twice");
            if steps.pass == Some(Pass::Kill) && !self.killed {
                assert!(!self.running, "killed before the cancellation was over");
                assert!(
                    self.started == 1 || !self.job_known,
                    "killed before any cancellation"
                );
                self.killed = true;
            }
        }
    }

    proptest! {
        /// Whatever is told: the outcome comes within the bound and stays, the job is cancelled at
        /// most once, and before anything is killed where it is known.
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
            for event in story.into_iter().chain([Told::Time(18_000)]) {
                let over = ending.outcome();
                match event {
                    Told::Job => {
                        seen.job_known = true;
                        seen.steps(ending.job_known(now, JOB));
                    }
                    Told::Launch(status) => seen.steps(ending.launch_ended(now, status)),
                    Told::Reaped => seen.steps(ending.reaped()),
                    Told::CancelEnded => {
                        seen.running = false;
                        seen.steps(ending.cancel_ended(now));
                    }
                    Told::Emptied => {
                        ending.emptied();
                        prop_assert!(over.is_some() || seen.running == ending.outcome().is_none());
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
            prop_assert!(ending.outcome().is_some());
        }
    }
}
