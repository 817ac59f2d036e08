//! The line that starts the relay in the job's shell.
//!
//! `\echo INSTRUCTIONS | /bin/sh -c '…' || echo …`: so the instructions, which hold the secret, are
//! in no argument list, and stand behind the marker at the line's front wherever a shell echoes or
//! traces it. What csh might not understand is for sh alone, in whose place the relay then is: its
//! parent is the shell. One word comes back: of the relay, where it could read its instructions;
//! [`FOREIGN`] or [`MISSING`] of sh; else [`FAILED`]. The machine is asked for before the program is
//! tried: some shells read a program that the kernel cannot execute as a script. The line works in
//! sh, dash, bash, zsh, csh, tcsh and the Korn shells (measured).

use super::Instructions;

/// The mode of the program that is the relay: its only argument.
pub const MODE: &str = "--in-job";
/// The word where there is no such program on the node, or none that may be executed there.
pub const MISSING: &str = "missing";
/// The word where the node's machine is of another kind.
pub const FOREIGN: &str = "foreign";
/// The word where the program could not be executed, or did not get so far as to answer itself.
pub const FAILED: &str = "failed";

/// The line, newline included, that starts `program`, by its path on the node, where that is a
/// `machine` (as `uname -m` says). `None` for a path or a machine with characters that a shell might
/// not take literally.
pub fn launch_line(instructions: &Instructions, program: &str, machine: &str) -> Option<Vec<u8>> {
    if !program.starts_with('/') || !is_plain(program) || !is_plain(machine) {
        return None;
    }
    let marker = &instructions.marker;
    let line = instructions.to_line();
    // With quotation marks the trace of sh's arguments is no answer.
    Some(
        format!(
            "\\echo {line} | /bin/sh -c 'test \"`uname -m`\" = {machine} || {{ echo \
             \"{marker}:{FOREIGN}:\"; exit; }}; test -x {program} && exec {program} {MODE}; echo \
             \"{marker}:{MISSING}:\"' || echo {marker}:{FAILED}:\n"
        )
        .into_bytes(),
    )
}

fn is_plain(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"/._+-,=@%".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reach::{GRACE, Secret};

    #[test]
    fn only_plain_paths_stand_in_a_line() {
        let instructions = Instructions {
            secret: Secret::new([1; 32]),
            marker: format!("@{}", "0".repeat(32)),
            grace: GRACE,
            addresses: vec![([10, 0, 0, 1], 1).into()],
        };
        let line = |path| launch_line(&instructions, path, "x86_64");
        assert!(line("/opt/v1.2/bin/vscode-shell-proxy").is_some());
        for path in [
            "", "relative", "/a b", "/a'b", "/a!b", "/$HOME", "/a\nb", "/ü",
        ] {
            assert_eq!(line(path), None, "{path:?}");
        }
        assert_eq!(launch_line(&instructions, "/x", "a b"), None);
    }
}
