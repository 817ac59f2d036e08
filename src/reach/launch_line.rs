//! The line that starts the relay in the job's shell.
//!
//! `\echo INSTRUCTIONS | /bin/sh -c '…'`: so the instructions, which hold the secret, are in no
//! argument list, and stand behind the marker at the line's front wherever a shell echoes or traces
//! it. The rest is for sh alone, so that it need not be understood by csh. On success the relay
//! answers the probe once more; else sh answers with the status: [`MISSING`], [`NOT_EXECUTABLE`], or
//! the program's own. The line works in sh, dash, bash, zsh, csh, tcsh and the Korn shells
//! (measured).

use super::Instructions;

/// The mode of the program that is the relay: its only argument.
pub const MODE: &str = "--in-job";
/// The status where there is no such program on the node, or none that may be executed there.
pub const MISSING: &[u8] = b"127";
/// The status where the node's kernel cannot execute it.
pub const NOT_EXECUTABLE: &[u8] = b"126";

/// The line, newline included, that starts `program`, by its path on the node. `None` for a path with
/// characters that a shell might not take literally.
pub fn launch_line(instructions: &Instructions, program: &str) -> Option<Vec<u8>> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._+-,=@%".contains(&byte);
    if !program.starts_with('/') || !program.bytes().all(is_plain) {
        return None;
    }
    let marker = &instructions.marker;
    let line = instructions.to_line();
    Some(
        format!(
            "\\echo {line} | /bin/sh -c 'if test -x {program}; then {program} {MODE}; r=$?; else \
             r=127; fi; test $r = 0 || echo {marker}:$r:'\n"
        )
        .into_bytes(),
    )
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
        assert!(launch_line(&instructions, "/opt/v1.2/bin/vscode-shell-proxy").is_some());
        for path in [
            "", "relative", "/a b", "/a'b", "/a!b", "/$HOME", "/a\nb", "/ü",
        ] {
            assert_eq!(launch_line(&instructions, path), None, "{path:?}");
        }
    }
}
