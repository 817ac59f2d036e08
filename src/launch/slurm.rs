//! Slurm's launch command: `salloc`, under a workgroup where one is asked for.

use std::ffi::OsString;

use super::Launch;

impl Launch {
    /// `salloc ARGS…`, submitted under `workgroup` where one is given.
    ///
    /// `--kill-command` makes salloc end its command when the allocation is revoked (cancelled, out
    /// of time, node lost). Without it salloc waits for a shell that it has started on this machine,
    /// for ever (measured, Slurm 22.05); to the interactive step it makes no difference.
    ///
    /// `workgroup -g NAME --command @ -- COMMAND…` runs COMMAND with the group's identity instead
    /// of an interactive shell (the clusters' wrapper of `newgrp`, set-group-id).
    pub(super) fn salloc(workgroup: Option<&str>, args: &[String]) -> Self {
        let salloc: &[&str] = &["salloc", "--kill-command"];
        let wrapper = workgroup.map(|name| ["workgroup", "-g", name, "--command", "@", "--"]);
        let words = wrapper.iter().flatten().chain(salloc).copied();
        Self::command(
            words
                .chain(args.iter().map(String::as_str))
                .map(OsString::from),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn salloc_gets_its_arguments_in_order() {
        let args = ["--x11", "-p", "gpu", "--x11"].map(String::from);
        let launch = Launch::salloc(None, &args);
        assert_eq!(launch.program, "salloc");
        assert_eq!(launch.args[0], "--kill-command");
        assert_eq!(launch.args[1..], args.map(OsString::from));
    }

    #[test]
    fn a_workgroup_wraps_salloc() {
        let launch = Launch::salloc(Some("it_css"), &["-n1".to_owned()]);
        assert_eq!(
            launch.display().to_string(),
            "workgroup -g it_css --command @ -- salloc --kill-command -n1"
        );
    }
}
