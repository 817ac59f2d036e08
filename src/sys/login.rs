//! The login node and the user, as this process sees them.

use std::env;
use std::path::Path;

use nix::unistd::{User, geteuid};

use crate::options::Login;

/// Looks. The user's name is what sshd has put into the environment; the password database is asked
/// only where nothing is there, since that may mean a question to a server.
pub fn login() -> Login {
    Login {
        user: user(),
        host: rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned(),
        pid: std::process::id(),
        shell: env::var_os("SHELL"),
        bash_exists: Path::new("/bin/bash").exists(),
        variable: |name| Some(env::var_os(name)?.to_string_lossy().into_owned()),
    }
}

fn user() -> String {
    let said = |name| env::var(name).ok().filter(|name| !name.is_empty());
    let uid = geteuid();
    said("USER")
        .or_else(|| said("LOGNAME"))
        .or_else(|| Some(User::from_uid(uid).ok()??.name))
        .unwrap_or_else(|| uid.to_string())
}
