//! Programs that run others with another identity, as the clusters' `workgroup` does.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A copy of `env` that changes the group of what it runs, as `workgroup`, `sg` and `newgrp` do.
/// `None`, said past the capture of test output, where that cannot be made.
pub fn set_gid(directory: &Path) -> Option<PathBuf> {
    let own = nix::unistd::getegid();
    let other = match nix::unistd::geteuid().is_root() {
        true => Some(65534),
        false => nix::unistd::getgroups()
            .unwrap_or_default()
            .iter()
            .find(|group| **group != own)
            .map(|group| group.as_raw()),
    };
    let path = directory.join("wrapper");
    fs::copy("/usr/bin/env", &path).expect("a copy of env");
    let made = other.is_some_and(|group| {
        chown(&path, None, Some(group)).is_ok()
            && fs::set_permissions(&path, fs::Permissions::from_mode(0o2755)).is_ok()
            && Command::new(&path)
                .args(["id", "-g"])
                .output()
                .is_ok_and(|output| output.stdout == format!("{group}\n").into_bytes())
    });
    if !made {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: no set-gid program can be made here"
        );
    }
    made.then_some(path)
}
