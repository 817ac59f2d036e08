//! What the benchmarks of programs share: contestants that take turns, and figures that are kept.
//!
//! Wall-clock time means little on a machine that does other things too, and drifts. So the figure
//! is the CPU time of the program under test wherever there is a choice, contestants take turns in
//! several rounds, and a ratio is the median of the rounds' ratios.

#![allow(dead_code, unreachable_pub, reason = "each benchmark uses a part")]

pub mod contestant;
pub mod load;
pub mod network;
pub mod record;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How much to measure, from the command line: `cargo bench -- [--quick] [FILTER]`.
pub struct Plan {
    /// Rounds in which all contestants take their turn.
    pub rounds: usize,
    /// Length of one measurement in ms.
    pub ms: u64,
    /// Only what has this in its name.
    pub filter: String,
    /// One short round: to see that everything runs.
    pub quick: bool,
}

impl Plan {
    /// Everything that cargo and the user have said.
    pub fn from_args() -> Self {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let quick = args.iter().any(|arg| arg == "--quick");
        let filter = args.iter().find(|arg| !arg.starts_with('-'));
        Self {
            rounds: if quick { 1 } else { 5 },
            ms: if quick { 50 } else { 300 },
            filter: filter.cloned().unwrap_or_default(),
            quick,
        }
    }

    /// Whether `name` is asked for.
    pub fn wants(&self, name: &str) -> bool {
        name.contains(&self.filter)
    }
}

/// The program under test, as `cargo bench` has built it.
pub fn proxy() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_vscode-shell-proxy"))
}

/// Where figures are kept.
pub fn results() -> PathBuf {
    target().join("bench")
}

fn target() -> PathBuf {
    // target/release/vscode-shell-proxy
    let target = proxy().ancestors().nth(2);
    target.unwrap_or(Path::new("target")).to_path_buf()
}

/// The programs of `benches/peers`, built where they are not up to date.
pub struct Peers(PathBuf);

impl Peers {
    /// Builds them.
    pub fn build() -> Self {
        let target = target().join("peers");
        let status = Command::new(env!("CARGO"))
            .args([
                "build",
                "--quiet",
                "--release",
                "--locked",
                "--manifest-path",
            ])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/Cargo.toml"))
            .arg("--target-dir")
            .arg(&target)
            .status()
            .expect("cargo runs");
        assert!(status.success(), "benches/peers does not build");
        Self(target.join("release"))
    }

    /// The path of one of them.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// A program of the system, where it is installed.
pub fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut directories = std::env::split_paths(&path).chain(system);
    directories.find_map(|directory| Some(directory.join(name)).filter(|path| path.is_file()))
}

/// The CPU time in ns of the single-threaded process `pid`, without its children's.
pub fn cpu(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    let word = text.split_whitespace().next();
    word.and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

/// Runs the process or thread `pid` on `cpu` alone; on a machine that has fewer, anywhere.
pub fn pin(pid: u32, cpu: usize) {
    let words = ["-c", "-p", &cpu.to_string(), &pid.to_string()].map(str::to_owned);
    let pinned = Command::new("taskset").args(words).output();
    if !pinned.is_ok_and(|output| output.status.success()) {
        eprintln!("cannot run process {pid} on CPU {cpu} alone");
    }
}
