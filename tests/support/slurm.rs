//! A cluster of one node: stand-ins for `salloc` and Slurm's other commands, which `slurm/salloc`
//! describes, over a directory that holds the jobs.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use super::Program;

/// One cluster. Each test has its own.
pub struct Slurm {
    directory: TempDir,
}

impl Slurm {
    /// A cluster without jobs.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(directory.path().join("jobs")).expect("a directory of the test's own");
        Self { directory }
    }

    /// Puts the cluster's commands first on the program's `PATH`.
    pub fn serve(&self, program: Program) -> Program {
        program
            .stand_in("salloc", include_str!("slurm/salloc"))
            .stand_in("scancel", include_str!("slurm/scancel"))
            .stand_in("squeue", include_str!("slurm/squeue"))
            .stand_in("sacct", include_str!("slurm/sacct"))
            .stand_in("scontrol", include_str!("slurm/scontrol"))
            .env("SLURM_STANDIN", self.directory.path())
    }

    /// The variables that make the cluster's commands known to any other program.
    pub fn variables(&self) -> [(&'static str, OsString); 2] {
        let mut path = OsString::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/slurm:"));
        path.push(std::env::var_os("PATH").unwrap_or_default());
        [
            ("PATH", path),
            ("SLURM_STANDIN", self.directory.path().into()),
        ]
    }

    /// All jobs that there ever were, by ascending id, each with its state.
    pub fn jobs(&self) -> Vec<(u32, String)> {
        let entries = fs::read_dir(self.path("jobs")).expect("the cluster's directory");
        let mut jobs: Vec<_> = entries
            .map(|entry| entry.expect("an entry").path())
            // One that is just being submitted has no state yet.
            .filter_map(|job| Some((id(&job), fs::read_to_string(job.join("state")).ok()?)))
            .map(|(id, state)| (id, state.trim_end().to_owned()))
            .collect();
        jobs.sort();
        jobs
    }

    /// The state of the only job.
    #[track_caller]
    pub fn state(&self) -> String {
        match self.jobs().as_slice() {
            [(_, state)] => state.clone(),
            jobs => panic!("one job expected, found {jobs:?}"),
        }
    }

    /// The only job's salloc.
    pub fn salloc(&self) -> i32 {
        let [(id, _)] = self.jobs()[..] else {
            panic!("one job expected");
        };
        let text = fs::read_to_string(self.path(format!("jobs/{id}/salloc")));
        text.expect("salloc's id")
            .trim_end()
            .parse()
            .expect("a number")
    }

    /// From now on jobs wait in the queue, until [`Self::grant`].
    pub fn fill_queue(&self) {
        mkfifo(&self.path("queue"), Mode::S_IRWXU).expect("a named pipe");
    }

    /// Lets one waiting job start.
    pub fn grant(&self) {
        // Blocks until salloc reads.
        let mut queue = File::options()
            .write(true)
            .open(self.path("queue"))
            .expect("the queue");
        queue.write_all(b"\n").expect("a reader");
    }

    /// From now on `scancel` hangs.
    pub fn hang_scancel(&self) {
        mkfifo(&self.path("stuck"), Mode::S_IRWXU).expect("a named pipe");
    }

    /// From now on `scancel` fails, until [`Self::come_back`].
    pub fn go_away(&self) {
        File::create(self.path("away")).expect("created");
    }

    /// From now on a salloc whose job is cancelled overlooks the end of its command.
    pub fn overlook(&self) {
        File::create(self.path("overlook")).expect("created");
    }

    /// Cancels the only job, as somebody else.
    #[track_caller]
    pub fn cancel(&self) {
        let [(id, _)] = self.jobs()[..] else {
            panic!("one job expected");
        };
        let mut command = Command::new("scancel");
        command.arg(id.to_string()).envs(self.variables());
        assert!(command.status().expect("bash").success());
    }

    /// The cluster's controller is there again.
    pub fn come_back(&self) {
        fs::remove_file(self.path("away")).expect("removed");
    }

    /// What Slurm says of the only job beside its state: `left`, `start` or `reason`.
    pub fn tell(&self, what: &str, text: &str) {
        let [(id, _)] = self.jobs()[..] else {
            panic!("one job expected");
        };
        fs::write(self.path(format!("jobs/{id}/{what}")), text).expect("written");
    }

    /// Ends the only job in this state: what runs in it is killed.
    pub fn end_job(&self, state: &str) {
        self.tell("state", state);
        let [(id, _)] = self.jobs()[..] else {
            panic!("one job expected");
        };
        let status = Command::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/support/slurm/scancel"
        ))
        .arg("--step")
        .arg(self.path(format!("jobs/{id}")))
        .env("SLURM_STANDIN", self.directory.path())
        .status();
        assert!(status.expect("bash").success());
    }

    /// What `sacct` says.
    pub fn account(&self, text: &str) {
        fs::write(self.path("account"), text).expect("written");
    }

    /// What `scontrol show node NAME` says.
    pub fn describe_node(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path("nodes")).expect("a directory of the test's own");
        fs::write(self.path(format!("nodes/{name}")), text).expect("written");
    }

    /// From now on `squeue` and `scontrol` hang.
    pub fn fall_silent(&self) {
        mkfifo(&self.path("silent"), Mode::S_IRWXU).expect("a named pipe");
    }

    /// From now on `squeue` has no end.
    pub fn flood(&self) {
        File::create(self.path("flood")).expect("created");
    }

    /// The commands that only ask, in the order in which they were called.
    pub fn questions(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("asked")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn id(job: &Path) -> u32 {
    let name = job.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.parse().ok()).expect("a job's id")
}
