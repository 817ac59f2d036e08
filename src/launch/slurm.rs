//! Slurm's launch command: `salloc`.

use std::path::Path;

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

fn is(word: &str, program: &str) -> bool {
    Path::new(word)
        .file_name()
        .is_some_and(|name| name == program)
}
