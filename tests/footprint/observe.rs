//! What the kernel knows of a process without disturbing it.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::BOUND;
use crate::support::processes::Process;

/// How often a process was put on a CPU and taken off it, and how long it ran. While this stays
/// the same it has not made a single system call: it would have had to run for it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Activity {
    ns: u64,
    switches: u64,
}

impl Activity {
    /// So far.
    pub(crate) fn of(process: &Process) -> Self {
        let path = format!("/proc/{}/schedstat", process.pid);
        let text = fs::read_to_string(path).expect("schedstat");
        let ns = text
            .split_whitespace()
            .next()
            .and_then(|ns| ns.parse().ok());
        let switches = ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"];
        Self {
            ns: ns.expect("the time on a CPU"),
            switches: switches
                .iter()
                .filter_map(|name| process.status_kib(name))
                .sum(),
        }
    }

    /// When what went before has come to rest: nothing has happened for a while.
    pub(crate) fn settled(process: &Process) -> Self {
        let until = Instant::now() + BOUND;
        let mut before = Self::of(process);
        loop {
            std::thread::sleep(Duration::from_millis(200));
            let now = Self::of(process);
            if now == before {
                return now;
            }
            assert!(
                Instant::now() < until,
                "{process} does not come to rest: {now:?}"
            );
            before = now;
        }
    }
}
