//! System calls, counted by `strace -f -c`, where there is one that may attach.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::processes::Process;
use crate::support::{BOUND, Session};

/// How often a count is repeated at the most until it is within its bound.
const ATTEMPTS: usize = 5;

/// Counts the system calls of a process of a session.
pub(crate) struct Counter<'a> {
    /// The process.
    pub(crate) process: Process,
    /// Whose directory takes what is counted.
    pub(crate) session: &'a Session,
}

impl Counter<'_> {
    /// Fails where `work`, which is `count` units, makes the process do more than `bound` system
    /// calls for each.
    pub(crate) fn assert_calls(&self, bound: f64, count: f64, unit: &str, work: impl FnMut()) {
        self.assert_best(ATTEMPTS, bound, count, unit, work);
    }

    /// The same for `work` that carries so many bytes, by the MB. Pieces are small here and attempts
    /// many: beside busy processes the relay is woken for less, and a large piece always meets some.
    pub(crate) fn assert_bulk_calls(&self, bound: f64, bytes: usize, work: impl FnMut()) {
        self.assert_best(4 * ATTEMPTS, bound, bytes as f64 / 1e6, "MB", work);
    }

    /// A process that is woken before the far ends have sent much makes as many calls for less, and
    /// how often that happens is the machine's; so only one test counts at a time, and the best of
    /// its attempts decides.
    fn assert_best(
        &self,
        attempts: usize,
        bound: f64,
        count: f64,
        unit: &str,
        mut work: impl FnMut(),
    ) {
        static TURN: Mutex<()> = Mutex::new(());
        // A test that has failed in its turn has left nothing behind.
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut least: Option<(f64, String)> = None;
        for _ in 0..attempts {
            let Some(trace) = Trace::attach(&self.process, self.session) else {
                return;
            };
            work();
            let calls = trace.end();
            let each = calls.total() as f64 / count;
            println!("{each:.3} for a {unit}: {}", calls.parts(count));
            if each <= bound {
                return;
            }
            if least.as_ref().is_none_or(|(least, _)| each < *least) {
                least = Some((each, calls.parts(count)));
            }
        }
        let (least, parts) = least.expect("an attempt");
        panic!("at least {least:.3} system calls for a {unit}, not {bound}: {parts}");
    }
}

/// A process whose system calls are being counted.
struct Trace {
    strace: Child,
    summary: PathBuf,
}

/// What was counted: calls by name, most frequent first.
struct Calls(Vec<(String, u64)>);

impl Trace {
    /// Counts from now on. `None`, and said aloud, where that cannot be done here.
    fn attach(process: &Process, session: &Session) -> Option<Self> {
        let summary = session.path("strace");
        let strace = Command::new("strace")
            .args(["-f", "-c", "-p", &process.pid.to_string(), "-o"])
            .arg(&summary)
            .stderr(Stdio::null())
            .spawn();
        let mut strace = match strace {
            Ok(strace) => strace,
            Err(error) => return skip(&format!("strace: {error}")),
        };
        let until = Instant::now() + BOUND;
        while tracer(process) != strace.id() {
            if strace.try_wait().is_ok_and(|ended| ended.is_some()) {
                return skip("strace may not attach to a process here");
            }
            assert!(Instant::now() < until, "strace does not attach");
            std::thread::yield_now();
        }
        Some(Self { strace, summary })
    }

    /// The count up to now.
    fn end(mut self) -> Calls {
        let pid = Pid::from_raw(self.strace.id().cast_signed());
        kill(pid, Signal::SIGINT).expect("strace is our child");
        self.strace.wait().expect("strace is our child");
        let text = fs::read_to_string(&self.summary).expect("the summary of strace");
        let calls = text.lines().filter_map(|line| {
            // % time, seconds, usecs/call, calls, errors where there are any, name
            let words: Vec<&str> = line.split_whitespace().collect();
            let name = words.last().filter(|name| **name != "total")?;
            words[0].parse::<f64>().ok()?;
            Some(((*name).to_owned(), words.get(3)?.parse().ok()?))
        });
        let mut calls: Vec<(String, u64)> = calls.collect();
        calls.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        assert!(!calls.is_empty(), "strace has seen nothing:\n{text}");
        Calls(calls)
    }
}

impl Calls {
    /// How many there were.
    fn total(&self) -> u64 {
        self.0.iter().map(|(_, calls)| calls).sum()
    }

    /// What they were, for each of `count` units.
    fn parts(&self, count: f64) -> String {
        let parts = self.0.iter();
        let parts = parts.map(|(name, calls)| format!("{name} {:.3}", *calls as f64 / count));
        parts.collect::<Vec<_>>().join(", ")
    }
}

fn tracer(process: &Process) -> u32 {
    process
        .status_kib("TracerPid")
        .and_then(|pid| u32::try_from(pid).ok())
        .unwrap_or(0)
}

fn skip(reason: &str) -> Option<Trace> {
    // Past the test harness, which shows what a test has printed only when it fails.
    let _ = writeln!(
        std::io::stderr(),
        "left out: system calls are not counted: {reason}"
    );
    None
}
