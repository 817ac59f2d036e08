//! What `squeue` and `sacct` say of one job.

use std::fmt::Display;
use std::time::Duration;

use super::Query;

/// Most characters of a value that a user is shown.
const WORD: usize = 100;

/// What is known of a job at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its state, such as `PENDING`.
    pub state: String,
    /// How much of its time is left; `None` without a limit.
    pub left: Option<Duration>,
    /// When it has started, or is expected to.
    pub start: Option<String>,
    /// Why it waits or has ended, such as `Priority`.
    pub reason: Option<String>,
}

/// The question for the job `id`, also where it has just ended: the controller knows it for a while
/// (`MinJobAge`), with or without accounting.
pub fn job_query(id: impl Display) -> Query {
    Query {
        program: "squeue",
        args: vec![
            "--noheader".to_owned(),
            "--states=all".to_owned(),
            format!("--jobs={id}"),
            "--format=%T|%L|%S|%r".to_owned(),
        ],
    }
}

/// The question who cancelled the job `id`, for where there is accounting.
pub fn account_query(id: impl Display) -> Query {
    Query {
        program: "sacct",
        args: vec![
            "--noheader".to_owned(),
            "--parsable2".to_owned(),
            "--allocations".to_owned(),
            format!("--jobs={id}"),
            "--format=State".to_owned(),
        ],
    }
}

impl Job {
    /// Reads the answer to [`job_query`]; `None` where it says nothing of a job.
    pub fn parse(answer: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(answer);
        let mut fields = text.lines().next()?.splitn(4, '|');
        let mut field = || fields.next().map(str::trim);
        let (state, left, start, reason) = (field()?, field()?, field()?, field()?);
        let is_state = !state.is_empty() && state.bytes().all(is_state_letter);
        is_state.then(|| Self {
            state: shortened(state),
            left: span(left),
            start: said(start),
            reason: said(reason),
        })
    }

    /// Whether it waits for its turn.
    pub fn is_pending(&self) -> bool {
        self.state == "PENDING"
    }

    /// Whether it has ended, but what became of it is not shown yet.
    pub fn is_completing(&self) -> bool {
        self.state == "COMPLETING"
    }

    /// Whether somebody cancelled it.
    pub fn is_cancelled(&self) -> bool {
        self.state.starts_with("CANCELLED")
    }

    /// Why it has ended, where that is nothing that its own processes did.
    pub fn end(&self) -> Option<&'static str> {
        Some(match self.state.as_str() {
            "TIMEOUT" => {
                "has reached its time limit (a longer one is asked for with \
                 --salloc-arg=--time=HH:MM:SS)"
            }
            "PREEMPTED" => "was preempted: another job has taken its place",
            "OUT_OF_MEMORY" => {
                "has used more memory than it has (more is asked for with --salloc-arg=--mem=SIZE)"
            }
            "NODE_FAIL" => "has lost its node",
            "BOOT_FAIL" => "was given a node that did not start",
            "DEADLINE" => "has reached its deadline",
            "REVOKED" => "was revoked",
            _ if self.is_cancelled() => "was cancelled",
            _ => return None,
        })
    }
}

/// The uid of who cancelled the job, by the answer to [`account_query`].
pub fn cancelled_by(answer: &[u8]) -> Option<u32> {
    let text = String::from_utf8_lossy(answer);
    text.lines()
        .find_map(|line| line.trim().strip_prefix("CANCELLED by "))?
        .parse()
        .ok()
}

fn is_state_letter(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte == b'_'
}

/// A value, unless it says that there is none.
fn said(text: &str) -> Option<String> {
    (!matches!(text, "" | "N/A" | "None" | "Unknown" | "(null)")).then(|| shortened(text))
}

fn shortened(text: &str) -> String {
    text.chars().take(WORD).collect()
}

/// `D-HH:MM:SS`, `HH:MM:SS` or `MM:SS`; `None` for anything else, such as `UNLIMITED`.
fn span(text: &str) -> Option<Duration> {
    let (days, time) = match text.split_once('-') {
        Some((days, time)) => (days.parse::<u64>().ok()?, time),
        None => (0, text),
    };
    let parts: Vec<u64> = time
        .split(':')
        .map(|part| part.parse().ok())
        .collect::<Option<_>>()?;
    if !(2..=3).contains(&parts.len()) {
        return None;
    }
    let seconds = parts
        .iter()
        .try_fold(0_u64, |sum, part| sum.checked_mul(60)?.checked_add(*part))?;
    let seconds = days.checked_mul(86_400)?.checked_add(seconds)?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn job(text: &str) -> Option<Job> {
        Job::parse(text.as_bytes())
    }

    #[test]
    fn a_waiting_job_has_state_reason_and_expected_start() {
        let answer = "PENDING|1:00:00|2026-11-25T14:03:00|Resources\n";
        let job = job(answer).expect("a job");
        assert!(job.is_pending());
        assert_eq!(job.start.as_deref(), Some("2026-11-25T14:03:00"));
        assert_eq!(job.reason.as_deref(), Some("Resources"));
        assert_eq!(job.end(), None);
    }

    #[test]
    fn what_squeue_does_not_know_is_left_out() {
        let job = job("RUNNING|UNLIMITED|N/A|None").expect("a job");
        assert_eq!((job.left, job.start, job.reason), (None, None, None));
    }

    #[test]
    fn a_reason_may_hold_the_separator_and_is_shown_in_part() {
        let reason = format!("a|{}", "b".repeat(10_000));
        let job = job(&format!("PENDING|0:00|N/A|{reason}")).expect("a job");
        assert_eq!(job.reason, Some(format!("a|{}", "b".repeat(98))));
    }

    #[test]
    fn what_is_no_job_is_none() {
        for answer in [
            "",
            "\n",
            "slurm_load_jobs error: Invalid job id specified\n",
            "a|b|c|d",
            "RUNNING|1:00",
            "|||",
        ] {
            assert_eq!(job(answer), None, "{answer:?}");
        }
    }

    #[test]
    fn the_time_that_is_left_has_four_forms() {
        for (text, seconds) in [
            ("0:00", Some(0)),
            ("4:59", Some(299)),
            ("1:00:00", Some(3_600)),
            ("2-03:04:05", Some(183_845)),
            ("INVALID", None),
            ("NOT_SET", None),
            ("1:2:3:4", None),
            ("99999999999999999999:00", None),
            ("999999999999999999-00:00", None),
            ("", None),
        ] {
            assert_eq!(span(text), seconds.map(Duration::from_secs), "{text:?}");
        }
    }

    #[test]
    fn an_end_is_explained_where_it_was_not_the_jobs_own() {
        for (state, word) in [
            ("TIMEOUT", Some("time limit")),
            ("PREEMPTED", Some("preempted")),
            ("OUT_OF_MEMORY", Some("memory")),
            ("NODE_FAIL", Some("lost its node")),
            ("BOOT_FAIL", Some("did not start")),
            ("DEADLINE", Some("deadline")),
            ("REVOKED", Some("revoked")),
            ("CANCELLED", Some("cancelled")),
            ("COMPLETED", None),
            ("FAILED", None),
            ("RUNNING", None),
            ("COMPLETING", None),
        ] {
            let end = job(&format!("{state}|0:00|N/A|None")).expect("a job").end();
            match word {
                Some(word) => assert!(end.is_some_and(|end| end.contains(word)), "{state}"),
                None => assert_eq!(end, None, "{state}"),
            }
        }
    }

    #[test]
    fn who_cancelled_is_a_uid() {
        for (answer, uid) in [
            ("CANCELLED by 1001\n", Some(1001)),
            ("CANCELLED by 0", Some(0)),
            ("CANCELLED\n", None),
            ("RUNNING\nCANCELLED by 5\n", Some(5)),
            ("CANCELLED by bob\n", None),
            ("", None),
        ] {
            assert_eq!(cancelled_by(answer.as_bytes()), uid, "{answer:?}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_harm(answer in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Job::parse(&answer), cancelled_by(&answer));
        }

        #[test]
        fn a_job_is_shown_shortly(reason in ".*", start in "[^|]*") {
            if let Some(job) = Job::parse(format!("PENDING|0:00|{start}|{reason}").as_bytes()) {
                for word in [job.start, job.reason].into_iter().flatten() {
                    prop_assert!(word.chars().count() <= WORD && !word.contains('\n'));
                }
            }
        }
    }
}
