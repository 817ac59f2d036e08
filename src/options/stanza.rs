//! What a user pastes to get a session with given options: the `Host` stanza of an ssh
//! configuration, and VS Code's settings.
//!
//! A word of the `RemoteCommand` is read three times. ssh takes `%` for the beginning of a token,
//! and since OpenSSH 8.7 it refuses a line whose quotes, as it reads them, do not match; the user's
//! login shell, whichever it is, splits the line. What is quoted here comes through all of them.

use std::ffi::{OsStr, OsString};

use super::Login;
use super::settings::{UsageError, wrong};

/// The settings of Remote-SSH without which a session does not run through the stanza, or does not
/// last. README.md has the same ones.
const SETTINGS: &str = r#"{
    "remote.SSH.configFile": "~/.ssh/config-vscode",
    "remote.SSH.connectTimeout": 300,
    "remote.SSH.enableRemoteCommand": true,
    "remote.SSH.useLocalServer": true,
    "remote.SSH.enableDynamicForwarding": true,
    "remote.SSH.remoteServerListenOnSocket": false
}
"#;

/// A stanza that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stanza {
    /// What follows `Host`.
    pub(super) name: String,
    /// What follows `HostName`, where the login node's own name is not what users know.
    pub(super) host: Option<String>,
    /// The arguments of the program in the `RemoteCommand`.
    pub(super) args: Vec<OsString>,
}

impl Stanza {
    /// Stanza and settings, for the program that the login shell finds under this name.
    ///
    /// # Errors
    /// A word that no line of an ssh configuration can hold.
    pub fn text(&self, program: &OsStr, login: &Login) -> Result<String, UsageError> {
        let name = &self.name;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if !name.chars().all(is_plain) {
            return wrong(format!(
                "--ssh-config {name:?}: letters, digits, '.', '_' and '-' are expected"
            ));
        }
        let words = [program].into_iter();
        let words = words.chain(self.args.iter().map(OsString::as_os_str));
        let words = words.map(quoted).collect::<Result<Vec<_>, _>>()?;
        Ok(format!(
            "# On your own computer, in ~/.ssh/config-vscode:\n\
             Host {name}\n    \
                 HostName {host}\n    \
                 User {user}\n    \
                 ServerAliveInterval 60\n    \
                 RemoteCommand {command}\n\
             \n\
             // In VS Code's settings.json there:\n\
             {SETTINGS}",
            host = self.host.as_ref().unwrap_or(&login.host),
            user = login.user,
            command = words.join(" "),
        ))
    }
}

/// A word for the line.
fn quoted(word: &OsStr) -> Result<String, UsageError> {
    let text = word
        .to_str()
        .filter(|text| !text.contains(char::is_control));
    let Some(text) = text else {
        return wrong(format!(
            "--ssh-config: {word:?} cannot stand in a configuration of ssh: it is not UTF-8, or has \
             a control character"
        ));
    };
    // No shell takes these for anything else. `=` and `%` at a word's beginning are not among them.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./,:+@=%".contains(c);
    let quoted = if text.is_empty() {
        "''".to_owned()
    } else if text.chars().all(is_plain) && !text.starts_with(['=', '%']) {
        text.to_owned()
    } else if !text.contains(['\'', '\\', '!']) {
        format!("'{text}'")
    } else {
        // In single quotes a backslash means itself for a shell, and not for ssh; csh and tcsh
        // replace `!` there.
        let escape = |c: char| match is_plain(c) || !c.is_ascii() {
            true => c.to_string(),
            false => format!("\\{c}"),
        };
        text.chars().map(escape).collect()
    };
    Ok(quoted.replace('%', "%%"))
}
