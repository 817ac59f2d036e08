//! The relay's place and its CPU time.

use std::fs;
use std::io;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

/// Length of a tick of `/proc/PID/stat` in ns: USER_HZ is 100 wherever Linux runs.
const TICK: u64 = 10_000_000;

/// How a relay in the job is called, which would be on another machine than the proxy that is its master.
const IN_JOB: &[u8] = b"--in-job";

/// The process under test; 0 stands for none.
pub struct Relay(u32);

impl Relay {
    pub fn new(pid: u32) -> Self {
        Self(pid)
    }

    /// Puts the load on the CPU `own` and the relay, with all below it, on the CPU `relay`; what would be on
    /// another machine goes with the load.
    pub fn pin(&self, own: usize, relay: usize) -> io::Result<()> {
        let only = |cpu| {
            let mut set = CpuSet::new();
            set.set(cpu);
            set
        };
        sched_setaffinity(None, &only(own))?;
        for pid in self.tree() {
            let cpu = if is_elsewhere(pid) { own } else { relay };
            for thread in threads(pid) {
                // A thread that has just ended needs no place.
                let thread = i32::try_from(thread).ok().and_then(Pid::from_raw);
                let _ = thread.map(|thread| sched_setaffinity(Some(thread), &only(cpu)));
            }
        }
        Ok(())
    }

    /// The CPU time in ns of the relay and of all processes below it on its machine, those that it has
    /// reaped included: to the ns for the living, to a tick for the dead.
    pub fn cpu(&self) -> u64 {
        let of = |pid: u32| -> u64 {
            let living: u64 = threads(pid).map(|thread| on_cpu(pid, thread)).sum();
            living + reaped(pid)
        };
        let here = self.tree().into_iter().filter(|pid| !is_elsewhere(*pid));
        here.map(of).sum()
    }

    fn tree(&self) -> Vec<u32> {
        if self.0 == 0 {
            return Vec::new();
        }
        let mut tree = vec![self.0];
        let mut next = 0;
        while let Some(&pid) = tree.get(next) {
            for thread in threads(pid) {
                let path = format!("/proc/{pid}/task/{thread}/children");
                let children = fs::read_to_string(path).unwrap_or_default();
                tree.extend(
                    children
                        .split_whitespace()
                        .filter_map(|pid| pid.parse::<u32>().ok()),
                );
            }
            next += 1;
        }
        tree
    }
}

fn is_elsewhere(pid: u32) -> bool {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    words.split(|byte| *byte == 0).any(|word| word == IN_JOB)
}

fn threads(pid: u32) -> impl Iterator<Item = u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok())
}

fn on_cpu(pid: u32, thread: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat"));
    let text = text.unwrap_or_default();
    text.split_whitespace()
        .next()
        .and_then(|ns| ns.parse().ok())
        .unwrap_or(0)
}

/// What the children that `pid` has waited for have used.
fn reaped(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name stands in brackets and may hold anything; cutime and cstime are the 14th and 15th
    // words behind it (proc(5)).
    let Some((_, rest)) = stat.rsplit_once(')') else {
        return 0;
    };
    let ticks = |word: &str| word.parse::<u64>().ok();
    rest.split_whitespace()
        .skip(13)
        .take(2)
        .filter_map(ticks)
        .sum::<u64>()
        * TICK
}
