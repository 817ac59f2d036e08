//! What the user is told of the job: that it still waits, that it is there, that its time is up, and
//! why it ended.
//!
//! Pure: the owner tells what happened and when, fulfils the [`Wish`]es, and asks again at
//! [`JobWatch::deadline`]. A scheduler serves hundreds of users, so it is asked as rarely as that can
//! be told: at growing distances while the job waits; once when its shell has answered, for the time
//! limit; once more before that is reached; and when it has ended, a few times within two seconds.

use std::collections::VecDeque;
use std::fmt::{self, Display};
use std::time::{Duration, Instant};

use crate::ending::JobId;
use crate::slurm::Job;

/// The longest time from one line about a waiting job to the next, unless even the first one is
/// asked for later.
pub const STATUS_MOST: Duration = Duration::from_secs(300);
/// How long before its time limit a job's user is warned.
pub const WARNING: Duration = Duration::from_secs(300);
/// A limit that has moved by less than this is taken for the same.
const SLACK: Duration = Duration::from_secs(15);
/// The pause before a job that is still being completed is asked for again.
const COMPLETING: Duration = Duration::from_millis(500);
/// How often at most a job's end is asked for.
const END_QUESTIONS: u32 = 4;

/// What the watch wants of its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Tell the user: one line.
    Say(String),
    /// Ask what is known of this job, in place of what is being asked. [`JobWatch::answered`]
    /// follows.
    Ask(JobId),
    /// Ask who cancelled this job. [`JobWatch::cancelled_by`] follows.
    AskWho(JobId),
    /// No answer is wanted any more.
    StopAsking,
    /// Why the job has ended, where that is known: tell the user, one line. Nothing follows.
    EndExplained(Option<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// For a shell's answer.
    Waiting,
    Running,
    /// The launch command has ended; its job's end was asked for so often.
    Ended {
        asked: u32,
    },
    Over,
}

/// The watch over the job of one session.
#[derive(Clone, Debug)]
pub struct JobWatch {
    began: Instant,
    job: Option<JobId>,
    phase: Phase,
    /// The time from the next line about the waiting job to the one behind it.
    distance: Duration,
    /// The longest one.
    most: Duration,
    /// What happens next: a line, a warning, or another question.
    at: Option<Instant>,
    /// Whether an answer is awaited.
    asking: bool,
    /// Whether a line about the waiting job was said.
    told: bool,
    wishes: VecDeque<Wish>,
}

impl JobWatch {
    /// The launch command is about to be started. The first line about a waiting job comes after
    /// `interval`, none if that is zero.
    pub fn new(began: Instant, interval: Duration) -> Self {
        Self {
            began,
            job: None,
            phase: Phase::Waiting,
            distance: interval,
            most: interval.max(STATUS_MOST),
            at: (!interval.is_zero()).then(|| began + interval),
            asking: false,
            told: false,
            wishes: VecDeque::new(),
        }
    }

    /// The job's id became known.
    pub fn job_known(&mut self, job: JobId) {
        self.job = Some(job);
    }

    /// A shell has answered, on `node`.
    pub fn runs(&mut self, node: impl Display, now: Instant) {
        if self.phase != Phase::Waiting {
            return;
        }
        self.phase = Phase::Running;
        self.at = None;
        if self.told {
            let waited = Span(now.saturating_duration_since(self.began));
            let what = Subject(self.job);
            self.say(format!("{what} runs on {node}, after {waited}"));
        }
        self.stop_asking();
        self.ask();
    }

    /// The launch command has ended by itself. `true` where it is asked why:
    /// [`Wish::EndExplained`] follows.
    pub fn ended(&mut self) -> bool {
        if !matches!(self.phase, Phase::Waiting | Phase::Running) {
            return false;
        }
        self.at = None;
        self.stop_asking();
        self.phase = Phase::Ended { asked: 1 };
        self.ask();
        self.asking
    }

    /// The session ends, for a reason of its own: nothing more is asked or said.
    pub fn stop(&mut self) {
        if !matches!(self.phase, Phase::Ended { .. }) {
            self.phase = Phase::Over;
            self.at = None;
            self.stop_asking();
        }
    }

    /// The answer to [`Wish::Ask`], as far as there is one.
    pub fn answered(&mut self, job: Option<&Job>, now: Instant) {
        if !self.takes_answer() {
            return;
        }
        match self.phase {
            Phase::Waiting => self.say_waiting(job, now),
            Phase::Running => {
                if let Some(left) = job.and_then(|job| job.left) {
                    self.heed_limit(left, now);
                }
            }
            Phase::Ended { asked } => self.explain(job, asked, now),
            Phase::Over => {}
        }
    }

    /// The answer to [`Wish::AskWho`]: the uid of who cancelled the job, where it is known, and ours.
    pub fn cancelled_by(&mut self, uid: Option<u32>, own: u32) {
        if !self.takes_answer() {
            return;
        }
        let by = match uid {
            None => String::new(),
            Some(uid) if uid == own => " by yourself".to_owned(),
            Some(0) => " by root".to_owned(),
            Some(uid) => format!(" by the user with the uid {uid}"),
        };
        let what = Subject(self.job);
        self.explained(Some(format!("{what} was cancelled{by}")));
    }

    /// Acts on the deadline that `now` has reached.
    pub fn timeout(&mut self, now: Instant) {
        if self.at.take_if(|at| now >= *at).is_none() {
            return;
        }
        match self.phase {
            Phase::Waiting => {
                self.distance = (self.distance * 2).min(self.most);
                self.at = Some(now + self.distance);
                // An answer that is still awaited will make the line.
                if !self.asking {
                    self.ask();
                    if !self.asking {
                        self.say_waiting(None, now);
                    }
                }
            }
            // The limit may have been moved meanwhile.
            Phase::Running => self.ask(),
            Phase::Ended { asked } => {
                self.phase = Phase::Ended { asked: asked + 1 };
                self.ask();
            }
            Phase::Over => {}
        }
    }

    /// When [`JobWatch::timeout`] is to be called next.
    pub fn deadline(&self) -> Option<Instant> {
        self.at
    }

    /// The next thing to do.
    pub fn wish(&mut self) -> Option<Wish> {
        self.wishes.pop_front()
    }

    fn ask(&mut self) {
        if let Some(job) = self.job {
            self.asking = true;
            self.wishes.push_back(Wish::Ask(job));
        }
    }

    /// Whether an answer is awaited, from now on no more. While the owner has not heard the question,
    /// what comes is an answer to an earlier one.
    fn takes_answer(&mut self) -> bool {
        let is_question = |wish: &Wish| matches!(wish, Wish::Ask(_) | Wish::AskWho(_));
        !self.wishes.iter().any(is_question) && std::mem::take(&mut self.asking)
    }

    fn stop_asking(&mut self) {
        if std::mem::take(&mut self.asking) {
            self.wishes.push_back(Wish::StopAsking);
        }
    }

    fn say(&mut self, line: String) {
        self.wishes.push_back(Wish::Say(line));
    }

    fn say_waiting(&mut self, job: Option<&Job>, now: Instant) {
        self.told = true;
        let waited = Span(now.saturating_duration_since(self.began));
        let mut line = format!("waiting for {waited}: ");
        match (self.job, job) {
            (None, _) => line += "no shell has answered yet",
            (Some(id), None) => line += &format!("no shell of job {id} has answered yet"),
            (Some(id), Some(job)) => {
                line += &format!("job {id} is {}", job.state);
                if let Some(reason) = &job.reason {
                    line += &format!(" ({reason})");
                }
                match &job.start {
                    Some(start) if job.is_pending() => {
                        line += &format!(", expected to start {start}");
                    }
                    _ if job.is_pending() => {}
                    _ => line += ", its shell has not answered yet",
                }
            }
        }
        self.say(line);
    }

    fn heed_limit(&mut self, left: Duration, now: Instant) {
        if left > WARNING + SLACK {
            self.at = now.checked_add(left - WARNING);
            return;
        }
        let what = Subject(self.job);
        let left = Span(left);
        self.say(format!("{what} reaches its time limit in {left}"));
    }

    fn explain(&mut self, job: Option<&Job>, asked: u32, now: Instant) {
        match (self.job, job) {
            (Some(_), Some(job)) if job.is_completing() && asked < END_QUESTIONS => {
                self.at = Some(now + COMPLETING);
            }
            (Some(id), Some(job)) if job.is_cancelled() => {
                self.asking = true;
                self.wishes.push_back(Wish::AskWho(id));
            }
            (id, Some(job)) => {
                let end = job.end();
                self.explained(end.map(|end| format!("{} {end}", Subject(id))));
            }
            (_, None) => self.explained(None),
        }
    }

    fn explained(&mut self, end: Option<String>) {
        self.phase = Phase::Over;
        self.wishes.push_back(Wish::EndExplained(end));
    }
}

/// What a line is about.
struct Subject(Option<JobId>);

impl Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(job) => write!(f, "job {job}"),
            None => f.write_str("the shell"),
        }
    }
}

/// A span of time as a user reads it: its two largest parts.
struct Span(Duration);

impl Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (large, unit, small, small_unit) = match seconds {
            0..=119 => return write!(f, "{seconds} s"),
            120..=7_199 => (seconds / 60, "min", seconds % 60, "s"),
            _ => (seconds / 3_600, "h", seconds / 60 % 60, "min"),
        };
        write!(f, "{large} {unit}")?;
        match small {
            0 => Ok(()),
            _ => write!(f, " {small} {small_unit}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INTERVAL: Duration = Duration::from_secs(15);

    fn id() -> JobId {
        JobId::new(123).expect("an id")
    }

    fn job(text: &str) -> Job {
        Job::parse(text.as_bytes()).expect("a job")
    }

    fn wishes(watch: &mut JobWatch) -> Vec<Wish> {
        std::iter::from_fn(|| watch.wish()).collect()
    }

    fn say(line: &str) -> Wish {
        Wish::Say(line.to_owned())
    }

    /// A watch whose shell has answered at once; what it has asked for is still to be answered.
    fn running(began: Instant) -> JobWatch {
        let mut watch = JobWatch::new(began, INTERVAL);
        watch.job_known(id());
        watch.runs("node1", began);
        assert_eq!(wishes(&mut watch), [Wish::Ask(id())]);
        watch
    }

    #[test]
    fn lines_come_at_doubling_distances_up_to_five_minutes() {
        let began = Instant::now();
        let mut watch = JobWatch::new(began, INTERVAL);
        let mut said = Vec::new();
        for _ in 0..7 {
            let at = watch.deadline().expect("a next line");
            watch.timeout(at);
            said.push((at - began).as_secs());
            assert_eq!(wishes(&mut watch).len(), 1);
        }
        assert_eq!(said, [15, 45, 105, 225, 465, 765, 1065]);
    }

    #[test]
    fn an_interval_of_zero_asks_and_says_nothing() {
        let began = Instant::now();
        let mut watch = JobWatch::new(began, Duration::ZERO);
        assert_eq!(watch.deadline(), None);
        watch.runs("node1", began);
        assert_eq!(wishes(&mut watch), []);
    }

    #[test]
    fn a_line_says_how_long_and_what_slurm_knows() {
        for (known, answer, line) in [
            (false, None, "waiting for 15 s: no shell has answered yet"),
            (
                true,
                None,
                "waiting for 15 s: no shell of job 123 has answered yet",
            ),
            (
                true,
                Some("PENDING|1:00:00|2026-11-25T14:03:00|Priority"),
                "waiting for 15 s: job 123 is PENDING (Priority), expected to start \
                 2026-11-25T14:03:00",
            ),
            (
                true,
                Some("PENDING|1:00:00|N/A|None"),
                "waiting for 15 s: job 123 is PENDING",
            ),
            (
                true,
                Some("RUNNING|59:01|2026-11-25T14:03:00|None"),
                "waiting for 15 s: job 123 is RUNNING, its shell has not answered yet",
            ),
        ] {
            let began = Instant::now();
            let mut watch = JobWatch::new(began, INTERVAL);
            if known {
                watch.job_known(id());
            }
            watch.timeout(began + INTERVAL);
            if known {
                assert_eq!(wishes(&mut watch), [Wish::Ask(id())]);
                watch.answered(answer.map(job).as_ref(), began + INTERVAL);
            }
            assert_eq!(wishes(&mut watch), [say(line)]);
        }
    }

    #[test]
    fn an_answer_that_takes_long_is_awaited_and_not_asked_for_again() {
        let began = Instant::now();
        let mut watch = JobWatch::new(began, INTERVAL);
        watch.job_known(id());
        watch.timeout(began + INTERVAL);
        assert_eq!(wishes(&mut watch), [Wish::Ask(id())]);
        watch.timeout(began + 3 * INTERVAL);
        assert_eq!(wishes(&mut watch), []);
    }

    #[test]
    fn the_summary_comes_only_behind_a_line() {
        let began = Instant::now();
        let mut watch = JobWatch::new(began, INTERVAL);
        watch.timeout(began + INTERVAL);
        watch.job_known(id());
        wishes(&mut watch);
        watch.runs("node1", began + Duration::from_secs(62));
        assert_eq!(
            wishes(&mut watch),
            [say("job 123 runs on node1, after 62 s"), Wish::Ask(id())]
        );
        assert_eq!(watch.deadline(), None);
    }

    #[test]
    fn a_question_about_the_queue_ends_with_the_shells_answer() {
        let began = Instant::now();
        let mut watch = JobWatch::new(began, INTERVAL);
        watch.job_known(id());
        watch.timeout(began + INTERVAL);
        watch.runs("node1", began + INTERVAL);
        assert_eq!(
            wishes(&mut watch),
            [Wish::Ask(id()), Wish::StopAsking, Wish::Ask(id())]
        );
    }

    #[test]
    fn a_time_limit_is_warned_of_five_minutes_before_it() {
        let began = Instant::now();
        let mut watch = running(began);
        watch.answered(Some(&job("RUNNING|1:00:00|N/A|None")), began);
        let at = began + Duration::from_secs(55 * 60);
        assert_eq!(watch.deadline(), Some(at));
        watch.timeout(at);
        assert_eq!(wishes(&mut watch), [Wish::Ask(id())]);
        watch.answered(Some(&job("RUNNING|5:01|N/A|None")), at);
        assert_eq!(
            wishes(&mut watch),
            [say("job 123 reaches its time limit in 5 min 1 s")]
        );
        assert_eq!(watch.deadline(), None);
    }

    #[test]
    fn a_limit_is_warned_of_a_little_earlier_rather_than_asked_for_again() {
        let began = Instant::now();
        for (left, warns) in [("5:15", true), ("5:16", false)] {
            let mut watch = running(began);
            watch.answered(Some(&job(&format!("RUNNING|{left}|N/A|None"))), began);
            assert_eq!(
                (watch.deadline().is_none(), !wishes(&mut watch).is_empty()),
                (warns, warns)
            );
        }
    }

    #[test]
    fn a_limit_that_was_moved_is_warned_of_later() {
        let began = Instant::now();
        let mut watch = running(began);
        watch.answered(Some(&job("RUNNING|10:00|N/A|None")), began);
        let at = began + Duration::from_secs(300);
        watch.timeout(at);
        wishes(&mut watch);
        watch.answered(Some(&job("RUNNING|1-00:00:00|N/A|None")), at);
        assert_eq!(wishes(&mut watch), []);
        assert_eq!(
            watch.deadline(),
            Some(at + Duration::from_secs(86_400 - 300))
        );
    }

    #[test]
    fn a_short_job_is_warned_at_once_and_one_without_a_limit_never() {
        let began = Instant::now();
        let mut watch = running(began);
        watch.answered(Some(&job("RUNNING|0:58|N/A|None")), began);
        assert_eq!(
            wishes(&mut watch),
            [say("job 123 reaches its time limit in 58 s")]
        );
        for answer in [None, Some(job("RUNNING|UNLIMITED|N/A|None"))] {
            let mut watch = running(began);
            watch.answered(answer.as_ref(), began);
            assert_eq!((wishes(&mut watch), watch.deadline()), (vec![], None));
        }
    }

    #[test]
    fn an_end_is_explained() {
        let began = Instant::now();
        for (answer, expected) in [
            (Some("COMPLETED|0:00|N/A|None"), None),
            (Some("FAILED|0:00|N/A|NonZeroExitCode"), None),
            (None, None),
            (
                Some("PREEMPTED|0:00|N/A|None"),
                Some("job 123 was preempted: another job has taken its place"),
            ),
        ] {
            let mut watch = running(began);
            assert!(watch.ended());
            assert_eq!(wishes(&mut watch), [Wish::StopAsking, Wish::Ask(id())]);
            watch.answered(answer.map(job).as_ref(), began);
            let expected = Wish::EndExplained(expected.map(str::to_owned));
            assert_eq!(wishes(&mut watch), [expected], "{answer:?}");
        }
    }

    #[test]
    fn a_cancelled_jobs_user_learns_by_whom_where_that_is_known() {
        let began = Instant::now();
        for (uid, by) in [
            (None, ""),
            (Some(0), " by root"),
            (Some(1000), " by yourself"),
            (Some(1001), " by the user with the uid 1001"),
        ] {
            let mut watch = running(began);
            watch.ended();
            wishes(&mut watch);
            watch.answered(Some(&job("CANCELLED|0:00|N/A|None")), began);
            assert_eq!(wishes(&mut watch), [Wish::AskWho(id())]);
            watch.cancelled_by(uid, 1000);
            let expected = format!("job 123 was cancelled{by}");
            assert_eq!(wishes(&mut watch), [Wish::EndExplained(Some(expected))]);
        }
    }

    #[test]
    fn a_job_that_completes_is_asked_for_a_few_times() {
        let began = Instant::now();
        let mut watch = running(began);
        watch.ended();
        let mut now = began;
        let mut asked = 1;
        wishes(&mut watch);
        loop {
            watch.answered(Some(&job("COMPLETING|0:00|N/A|None")), now);
            let Some(at) = watch.deadline() else { break };
            now = at;
            watch.timeout(now);
            assert_eq!(wishes(&mut watch), [Wish::Ask(id())]);
            asked += 1;
        }
        assert_eq!(asked, END_QUESTIONS);
        assert_eq!(wishes(&mut watch), [Wish::EndExplained(None)]);
    }

    #[test]
    fn an_answer_to_an_earlier_question_is_none_to_this_one() {
        let began = Instant::now();
        let mut watch = JobWatch::new(began, INTERVAL);
        watch.job_known(id());
        watch.runs("node1", began);
        assert_eq!(wishes(&mut watch), [Wish::Ask(id())]);
        assert!(watch.ended());
        // It was there before the owner has heard that another one is asked for.
        watch.answered(Some(&job("RUNNING|8:00:00|N/A|None")), began);
        assert_eq!(wishes(&mut watch), [Wish::StopAsking, Wish::Ask(id())]);
        watch.answered(Some(&job("NODE_FAIL|0:00|N/A|None")), began);
        let told = Wish::EndExplained(Some("job 123 has lost its node".to_owned()));
        assert_eq!(wishes(&mut watch), [told]);
    }

    #[test]
    fn without_a_job_nothing_is_asked_about_its_end() {
        let began = Instant::now();
        let mut watch = JobWatch::new(began, INTERVAL);
        assert!(!watch.ended());
        assert_eq!((wishes(&mut watch), watch.deadline()), (vec![], None));
    }

    #[test]
    fn a_session_that_ends_by_itself_says_nothing_more() {
        let began = Instant::now();
        let mut watch = running(began);
        watch.stop();
        assert_eq!(wishes(&mut watch), [Wish::StopAsking]);
        watch.answered(Some(&job("CANCELLED|0:00|N/A|None")), began);
        assert_eq!((wishes(&mut watch), watch.deadline()), (vec![], None));
    }

    #[test]
    fn spans_are_read_at_a_glance() {
        for (seconds, text) in [
            (0, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (225, "3 min 45 s"),
            (7_200, "2 h"),
            (100_000, "27 h 46 min"),
        ] {
            assert_eq!(Span(Duration::from_secs(seconds)).to_string(), text);
        }
    }

    #[derive(Clone, Debug)]
    enum Happening {
        Known,
        Runs,
        Ended,
        Stopped,
        Answered(Option<&'static str>),
        Who(Option<u32>),
        Waits,
    }

    fn happening() -> impl Strategy<Value = Happening> {
        let answer = prop_oneof![
            Just(None),
            Just(Some("PENDING|1:00:00|N/A|Priority")),
            Just(Some("RUNNING|1:00:00|N/A|None")),
            Just(Some("RUNNING|0:10|N/A|None")),
            Just(Some("COMPLETING|0:00|N/A|None")),
            Just(Some("CANCELLED|0:00|N/A|None")),
            Just(Some("TIMEOUT|0:00|N/A|TimeLimit")),
        ];
        prop_oneof![
            Just(Happening::Known),
            Just(Happening::Runs),
            Just(Happening::Ended),
            Just(Happening::Stopped),
            answer.prop_map(Happening::Answered),
            proptest::option::of(0..2_u32).prop_map(Happening::Who),
            Just(Happening::Waits),
            Just(Happening::Waits),
        ]
    }

    proptest! {
        /// Whatever happens: at most one question is open, an end that is being asked for is
        /// explained exactly once, and nothing is said or asked behind the end.
        #[test]
        fn questions_are_few_and_an_end_has_an_end(happenings in proptest::collection::vec(happening(), 0..40)) {
            let mut now = Instant::now();
            let mut watch = JobWatch::new(now, INTERVAL);
            let (mut open, mut is_owed, mut is_over) = (0, false, false);
            for happening in happenings {
                match happening {
                    Happening::Known => watch.job_known(id()),
                    Happening::Runs => watch.runs("node1", now),
                    Happening::Ended => {
                        is_owed |= watch.ended();
                        is_over = true;
                    }
                    Happening::Stopped => {
                        watch.stop();
                        is_over = true;
                    }
                    Happening::Answered(answer) if open == 1 => {
                        open = 0;
                        watch.answered(answer.map(job).as_ref(), now);
                    }
                    Happening::Who(uid) if open == 2 => {
                        open = 0;
                        watch.cancelled_by(uid, 1);
                    }
                    Happening::Answered(_) | Happening::Who(_) => {}
                    Happening::Waits => {
                        if let Some(at) = watch.deadline() {
                            prop_assert!(at > now);
                            now = at;
                            watch.timeout(now);
                        }
                    }
                }
                for wish in wishes(&mut watch) {
                    match wish {
                        Wish::Say(_) => prop_assert!(!is_over),
                        Wish::Ask(_) | Wish::AskWho(_) => {
                            prop_assert_eq!(open, 0);
                            prop_assert!(!is_over || is_owed);
                            open = if matches!(wish, Wish::Ask(_)) { 1 } else { 2 };
                        }
                        Wish::StopAsking => open = 0,
                        Wish::EndExplained(_) => {
                            prop_assert!(is_owed && open == 0);
                            is_owed = false;
                        }
                    }
                }
            }
        }
    }
}
