//! What is done about a salloc that stays when its allocation has been revoked.
//!
//! One of salloc's threads waits for its command; another one hears of the revocation, and asks for
//! the command's end too (`_job_complete_handler` in Slurm's src/salloc/salloc.c). Where the command
//! ends in that moment, and the second thread is the first to ask, the first one never hears of that
//! end: it asks for ever, in a busy loop (Slurm 22.05; of some 700 jobs that lost their node, three).
//! Nobody would learn that the session is over. SIGHUP is what takes salloc out of that loop.
//!
//! A salloc whose command still runs is right to stay: slurmd gives the job time for its end
//! (`KillWait`), and srun waits for that. But not for ever: without `--kill-command` a command on the
//! login node would outlive its job.
//!
//! Pure: the owner tells what happened and when, and asks again at [`Revocation::deadline`].

use std::time::{Duration, Instant};

use crate::ending::JobId;

/// How long salloc has, from the revocation on, before it is looked at for the first time. One that is
/// about to leave does not mind the signal: there is no job that it could leave behind.
pub const FIRST: Duration = Duration::from_secs(1);
/// How often it is looked at, each time after twice the pause before.
const LOOKS: u32 = 6;
/// How long after the revocation the last look is. Slurm's own patience with what does not end,
/// `UnkillableStepTimeout`, is 60 s where nothing else is said.
pub const LAST: Duration = FIRST.saturating_mul(2_u32.pow(LOOKS) - 1);

/// Which salloc gets SIGHUP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HangUp {
    /// One whose command has ended.
    Bereaved,
    /// Any.
    Any,
}

/// The watch over a salloc whose allocation may be revoked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Revocation {
    looks: u32,
    at: Option<Instant>,
}

impl Revocation {
    /// A salloc says that its allocation has been revoked: this session's, where it is `own` job's;
    /// what runs in the session may have allocations too. That it says so again changes nothing.
    pub fn heard(&mut self, revoked: u32, own: Option<JobId>, now: Instant) {
        if self.looks == 0 && own.is_some_and(|own| own.number() == revoked) {
            self.at.get_or_insert(now + FIRST);
        }
    }

    /// The launch command has ended: nobody is left who could stay.
    pub fn ended(&mut self) {
        self.looks = LOOKS;
        self.at = None;
    }

    /// Which salloc is to be hung up, at the deadlines that `now` has reached.
    pub fn timeout(&mut self, now: Instant) -> Option<HangUp> {
        let at = self.at.take_if(|at| now >= *at)?;
        self.looks += 1;
        if self.looks >= LOOKS {
            return Some(HangUp::Any);
        }
        self.at = Some(at + FIRST * 2_u32.pow(self.looks));
        Some(HangUp::Bereaved)
    }

    /// When [`Revocation::timeout`] is to be called next.
    pub fn deadline(&self) -> Option<Instant> {
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: u32 = 4711;

    fn hear(revocation: &mut Revocation, now: Instant) {
        revocation.heard(JOB, JobId::new(JOB), now);
    }

    /// What was done, and how many seconds after the revocation.
    fn looks(revocation: &mut Revocation, heard: Instant) -> Vec<(u64, HangUp)> {
        let mut looks = Vec::new();
        while let Some(at) = revocation.deadline() {
            assert_eq!(revocation.timeout(at - Duration::from_millis(1)), None);
            let look = revocation.timeout(at).expect("a look");
            looks.push(((at - heard).as_secs(), look));
            // It says it once more, as it does where Slurm's controller repeats itself.
            hear(revocation, at);
        }
        looks
    }

    #[test]
    fn a_salloc_without_a_command_is_hung_up_soon_and_any_other_one_after_a_minute() {
        use HangUp::{Any, Bereaved};
        let heard = Instant::now();
        let mut revocation = Revocation::default();
        assert_eq!(revocation.deadline(), None);
        hear(&mut revocation, heard);
        hear(&mut revocation, heard + FIRST / 2);
        assert_eq!(
            looks(&mut revocation, heard),
            [
                (1, Bereaved),
                (3, Bereaved),
                (7, Bereaved),
                (15, Bereaved),
                (31, Bereaved),
                (LAST.as_secs(), Any)
            ]
        );
    }

    #[test]
    fn one_that_has_ended_is_left_alone() {
        let heard = Instant::now();
        let mut revocation = Revocation::default();
        hear(&mut revocation, heard);
        revocation.timeout(heard + FIRST);
        revocation.ended();
        hear(&mut revocation, heard);
        assert_eq!(looks(&mut revocation, heard), []);
    }

    #[test]
    fn that_another_job_was_revoked_is_nothing_to_this_session() {
        let heard = Instant::now();
        let mut revocation = Revocation::default();
        revocation.heard(JOB + 1, JobId::new(JOB), heard);
        revocation.heard(JOB, None, heard);
        assert_eq!(looks(&mut revocation, heard), []);
    }
}
