//! Slurm's launch command: `salloc`.

use std::ffi::OsStr;
use std::path::Path;

use super::Launch;

/// Programs that run the command in their arguments, on this machine.
const WRAPPERS: [&str; 6] = ["workgroup", "env", "nice", "ionice", "setsid", "timeout"];

impl Launch {
    /// Whether this asks the Slurm of this machine for a job, so that what salloc or srun say of a
    /// job's id is about one of this cluster. `ssh elsewhere salloc` does not.
    pub fn is_slurm(&self) -> bool {
        let asks = |word: &OsStr| is(word, "salloc") || is(word, "srun");
        let is_wrapped = WRAPPERS.iter().any(|wrapper| is(&self.program, wrapper));
        asks(&self.program) || (is_wrapped && self.args.iter().any(|word| asks(word)))
    }
}

/// Whether these words start `salloc`.
pub(super) fn is_salloc(words: &[String]) -> bool {
    words.first().is_some_and(|program| is(program, "salloc"))
}

/// Whether this word is `srun`, which starts the shell inside the job.
pub(super) fn is_srun(word: &str) -> bool {
    is(word, "srun")
}

/// What `salloc` gets in front of its other arguments, so that those count more.
///
/// `--kill-command` makes salloc end its command when the allocation is revoked (cancelled, out of
/// time, node lost). Without it salloc waits for a shell that it has started on this machine, for
/// ever (measured, Slurm 22.05); to the interactive step it makes no difference.
pub(super) fn salloc_arguments(job_name: &str) -> [String; 2] {
    [
        "--kill-command".to_owned(),
        format!("--job-name={job_name}"),
    ]
}

fn is(word: impl AsRef<OsStr>, program: &str) -> bool {
    Path::new(word.as_ref())
        .file_name()
        .is_some_and(|name| name == program)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    #[test]
    fn slurm_is_known_by_its_programs_on_this_machine() {
        for (words, is_slurm) in [
            (&["salloc", "-n1"][..], true),
            (&["/opt/slurm/bin/srun", "--pty", "bash"], true),
            (&["workgroup", "-g", "x", "--", "salloc"], true),
            (&["env", "A=1", "/usr/bin/salloc"], true),
            (&["ssh", "other", "salloc"], false),
            (&["bash"], false),
            (&["qrsh", "-now", "no"], false),
            (&["sallocate"], false),
        ] {
            let launch = Launch::command(words.iter().map(OsString::from));
            assert_eq!(launch.is_slurm(), is_slurm, "{words:?}");
        }
    }
}
