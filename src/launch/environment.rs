//! What the launch command's environment gets and loses, and which shell it names.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use crate::options::{Filling, Login, Options};

/// Shells that run each line of a pipe as it comes, so that a conversation is possible. Of these
/// ash and the Korn shells are Bourne shells in all that the probe needs; the others were measured.
const CONVERSING: [&str; 15] = [
    "sh", "dash", "bash", "rbash", "zsh", "csh", "tcsh", "ash", "ksh", "rksh", "mksh", "lksh",
    "oksh", "pdksh", "yash",
];

/// How the launch command's environment differs from the proxy's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// Variables that are added, or replaced. The last value of a name counts.
    pub set: Vec<(OsString, OsString)>,
    /// Variables that are taken out, before others are added.
    pub unset: Vec<OsString>,
}

impl Environment {
    /// What the options say, with a `SHELL` that converses; and the user's own `SHELL`, if the job
    /// has to get that back.
    pub(super) fn new(options: &Options, login: &Login) -> (Self, Option<OsString>) {
        let filling = Filling {
            login,
            shell: "",
            names: "",
        };
        let set = options.env.iter().map(|variable| {
            let value = variable.value.fill(&filling);
            ((&variable.name).into(), value.into())
        });
        let mut environment = Self {
            set: set.collect(),
            unset: options.unset_env.iter().map(OsString::from).collect(),
        };
        let own = environment.settle_shell(login);
        (environment, own)
    }

    /// Gives `command` this environment.
    pub fn apply(&self, command: &mut Command) {
        for name in &self.unset {
            command.env_remove(name);
        }
        command.envs(self.set.iter().map(|(name, value)| (name, value)));
    }

    /// `SHELL`, as the launch command sees it.
    pub(super) fn shell<'a>(&'a self, login: &'a Login) -> Option<&'a OsStr> {
        let given = self.set.iter().rev().find(|(name, _)| name == "SHELL");
        let is_unset = self.unset.iter().any(|name| name == "SHELL");
        let inherited = login.shell.as_deref().filter(|_| !is_unset);
        given.map(|(_, value)| value.as_os_str()).or(inherited)
    }

    /// Sees to a `SHELL` that can converse over a pipe, since the scheduler starts that one in the
    /// job: fish, for one, runs nothing before its input has ended.
    ///
    /// A shell that is not known to converse is replaced by bash where that exists (as
    /// `/bin/bash`), else by `/bin/sh`. The answer is the value that the job's environment has to
    /// get back, if there is one.
    fn settle_shell(&mut self, login: &Login) -> Option<OsString> {
        let shell = self.shell(login).map(OsStr::to_owned);
        if shell.as_deref().is_some_and(converses) {
            return None;
        }
        let substitute = match login.bash_exists {
            true => "/bin/bash",
            false => "/bin/sh",
        };
        self.set.push(("SHELL".into(), substitute.into()));
        shell.filter(|shell| !shell.is_empty())
    }
}

/// Whether a shell of this path runs each line as it comes. A version behind the name (`zsh-5.9`,
/// `ksh93`) makes no difference.
fn converses(shell: &OsStr) -> bool {
    let name = shell.as_bytes().rsplit(|&byte| byte == b'/').next();
    name.and_then(|name| std::str::from_utf8(name).ok())
        .map(|name| name.trim_end_matches(|c: char| c.is_ascii_digit() || "-._".contains(c)))
        .is_some_and(|name| CONVERSING.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(shell: Option<&str>, bash_exists: bool) -> Login {
        Login {
            user: String::new(),
            host: String::new(),
            pid: 1,
            shell: shell.map(OsString::from),
            bash_exists,
            variable: |_| None,
        }
    }

    fn given(shell: &str) -> Environment {
        Environment {
            set: vec![("SHELL".into(), shell.into())],
            unset: Vec::new(),
        }
    }

    #[test]
    fn a_shell_that_converses_stays() {
        for shell in [
            "/bin/sh",
            "/bin/bash",
            "bash",
            "/usr/local/bin/zsh-5.9",
            "/bin/csh",
            "/usr/bin/tcsh",
            "/bin/ksh93",
            "/bin/mksh",
            "/bin/dash",
        ] {
            let mut environment = Environment::default();
            assert_eq!(environment.settle_shell(&login(Some(shell), true)), None);
            assert_eq!(environment, Environment::default(), "{shell}");
        }
    }

    #[test]
    fn any_other_shell_is_replaced_and_given_back() {
        for shell in [
            "/usr/bin/fish",
            "nu",
            "/opt/pwsh",
            "/bin/bash/",
            "/bin/false",
        ] {
            for (bash_exists, substitute) in [(true, "/bin/bash"), (false, "/bin/sh")] {
                let mut environment = Environment::default();
                let own = environment.settle_shell(&login(Some(shell), bash_exists));
                assert_eq!(own, Some(shell.into()));
                assert_eq!(environment, given(substitute));
            }
        }
    }

    #[test]
    fn no_shell_at_all_is_replaced_and_nothing_given_back() {
        for inherited in [None, Some("")] {
            let mut environment = Environment::default();
            assert_eq!(environment.settle_shell(&login(inherited, true)), None);
            assert_eq!(environment, given("/bin/bash"));
        }
        let mut environment = Environment {
            set: Vec::new(),
            unset: vec!["SHELL".into()],
        };
        assert_eq!(
            environment.settle_shell(&login(Some("/bin/zsh"), true)),
            None
        );
        assert_eq!(environment.set, given("/bin/bash").set);
    }

    #[test]
    fn a_shell_given_as_an_option_counts_before_the_inherited_one() {
        let mut environment = given("/usr/bin/fish");
        let own = environment.settle_shell(&login(Some("/bin/bash"), true));
        assert_eq!(own, Some("/usr/bin/fish".into()));
        assert_eq!(
            environment.set.last(),
            Some(&("SHELL".into(), "/bin/bash".into()))
        );

        let mut environment = given("/bin/zsh");
        let own = environment.settle_shell(&login(Some("/bin/fish"), true));
        assert_eq!((own, environment), (None, given("/bin/zsh")));
    }
}
