//! The watch over the job, carried out: [`JobWatch`] decides, this asks Slurm and tells the user.
//!
//! [`JobWatch`]: crate::job_watch::JobWatch

use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::ending::JobId;
use crate::home_copy;
use crate::intercept::Allocation;
use crate::job_watch::Wish;
use crate::launch::Environment;
use crate::logging;
use crate::session::Event;
use crate::slurm::{self, Job, Query};

use super::errand::Errand;
use super::{Owner, Proxy, SILENCE};

/// How long Slurm's controller may take for an answer.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How Slurm's commands are started: in the environment of the launch command.
pub(super) struct SlurmCommands {
    environment: Environment,
}

impl SlurmCommands {
    pub(super) fn new(environment: Environment) -> Self {
        Self { environment }
    }

    pub(super) fn command(&self, query: Query) -> Command {
        let mut command = Command::new(query.program);
        command.args(query.args);
        self.environment.apply(&mut command);
        let own = std::env::vars_os().map(|(name, _)| name);
        let set = self.environment.set.iter().map(|(name, _)| name.clone());
        for name in own.chain(set) {
            if name.as_bytes().starts_with(slurm::FILTERS.as_bytes()) {
                command.env_remove(name);
            }
        }
        let (name, value) = slurm::TIME_FORMAT;
        command.env(name, value);
        command
    }
}

impl Proxy {
    /// Slurm has told of the job.
    pub(super) fn heed_allocation(&mut self, allocation: Allocation, now: Instant) {
        let id = match allocation {
            Allocation::Pending(id) | Allocation::Granted(id) => id,
            Allocation::Revoked(id) => return self.job_revoked(id, now),
        };
        if let Some(job) = JobId::new(id) {
            self.job_known(job);
        }
        self.granted = matches!(allocation, Allocation::Granted(_));
        let silence = self.granted.then(|| now + SILENCE);
        self.deadlines.set(Owner::Silence, silence);
    }

    /// A salloc says that this job is gone.
    fn job_revoked(&mut self, job: u32, now: Instant) {
        self.revocation.heard(job, self.job, now);
        self.deadlines
            .set(Owner::Revocation, self.revocation.deadline());
    }

    /// It is still there.
    pub(super) fn look_at_salloc(&mut self, now: Instant) {
        if let Some(which) = self.revocation.timeout(now) {
            self.keeper.hang_up(which);
        }
        self.deadlines
            .set(Owner::Revocation, self.revocation.deadline());
    }

    /// The launch command has ended.
    pub(super) fn look_at_salloc_no_more(&mut self) {
        self.revocation.ended();
        self.deadlines.set(Owner::Revocation, None);
    }

    /// Whoever has to know the job's id learns it.
    pub(super) fn job_known(&mut self, job: JobId) {
        if self.job.replace(job) != Some(job) {
            self.keeper.set_job(job);
            self.watch.job_known(job);
        }
    }

    /// Does what the watch wants, and sets its deadline.
    pub(super) fn watch_job(&mut self, now: Instant) {
        while let Some(wish) = self.watch.wish() {
            match wish {
                Wish::Say(line) => logging::notice(format_args!("{line}")),
                Wish::Ask(job) => self.ask_slurm(Errand::Job, slurm::job_query(job), now),
                Wish::AskWho(job) => {
                    self.ask_slurm(Errand::Account, slurm::account_query(job), now)
                }
                Wish::StopAsking => {
                    let (errands, mut watch) = self.errands();
                    errands.end(Errand::Job, &mut watch);
                    errands.end(Errand::Account, &mut watch);
                }
                Wish::EndExplained(end) => {
                    if let Some(end) = end {
                        logging::notice(format_args!("{end}"));
                        self.account.job_ended(end);
                    }
                    self.session.tell(Event::ReasonKnown, now);
                    self.fulfil_wishes(now);
                }
            }
        }
        self.deadlines.set(Owner::JobWatch, self.watch.deadline());
    }

    /// An errand has ended, with this answer or, past its limit, without one.
    pub(super) fn errand_ended(&mut self, errand: Errand, answer: Option<&[u8]>, now: Instant) {
        match errand {
            Errand::Job => {
                let job = answer.and_then(Job::parse);
                self.watch.answered(job.as_ref(), now);
            }
            Errand::Account => {
                let uid = answer.and_then(slurm::cancelled_by);
                let own = rustix::process::getuid().as_raw();
                self.watch.cancelled_by(uid, own);
            }
            Errand::Copy => self.copy_made(answer.map(home_copy::parse), now),
            Errand::Lookup => {
                self.backend.looked_up(answer);
                self.look_up();
            }
            Errand::Node => {
                self.backend.slurm_told(answer);
                self.look_up();
            }
        }
    }

    fn ask_slurm(&mut self, errand: Errand, query: Query, now: Instant) {
        let program = query.program;
        let command = self.slurm.command(query);
        let (errands, mut watch) = self.errands();
        if let Err(error) = errands.start(errand, command, ANSWER_LIMIT, &mut watch) {
            log::debug!("cannot start {program}: {error}");
            self.errand_ended(errand, None, now);
        }
    }
}
