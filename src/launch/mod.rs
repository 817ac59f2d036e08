//! What the keeper starts: a program, its arguments, and what its environment gets on top.
//!
//! Pure. The scheduler's own words are in `slurm`.

mod slurm;

use std::ffi::{OsStr, OsString};
use std::fmt::{self, Display, Write as _};
use std::os::unix::ffi::OsStrExt;

use crate::options::LaunchChoice;

/// Shells that run each line of a pipe as it comes, so that a conversation is possible. Of these
/// ash and the Korn shells are Bourne shells in all that the probe needs; the others were measured.
const CONVERSING: [&str; 15] = [
    "sh", "dash", "bash", "rbash", "zsh", "csh", "tcsh", "ash", "ksh", "rksh", "mksh", "lksh",
    "oksh", "pdksh", "yash",
];

/// A launch command.
///
/// Its environment is the proxy's own with `env` on top; in `env` the last value of a name counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The program, looked up on `PATH` where it contains no slash.
    pub program: OsString,
    /// Its arguments, without the program's name.
    pub args: Vec<OsString>,
    /// Variables that are added to the environment, or replaced in it.
    pub env: Vec<(OsString, OsString)>,
}

impl Launch {
    /// What was chosen, with these variables on top of its environment.
    pub fn new(choice: &LaunchChoice, env: &[(String, String)]) -> Self {
        let launch = match choice {
            LaunchChoice::Salloc { workgroup, args } => Self::salloc(workgroup.as_deref(), args),
            LaunchChoice::Command(words) => Self::command(words.iter().cloned()),
        };
        let env = env.iter().map(|(name, value)| (name.into(), value.into()));
        Self {
            env: env.collect(),
            ..launch
        }
    }

    /// A command, byte for byte. Without a word its program is the empty string, which is not
    /// found.
    fn command(mut words: impl Iterator<Item = OsString>) -> Self {
        Self {
            program: words.next().unwrap_or_default(),
            args: words.collect(),
            env: Vec::new(),
        }
    }

    /// Sees to a `SHELL` that can converse over a pipe, since the scheduler starts that one in the
    /// job: fish, for one, runs nothing before its input has ended.
    ///
    /// `inherited` is `SHELL` of the proxy's own environment; one in `env` counts before it. A
    /// shell that is not known to converse is replaced by bash where `bash_exists` (as
    /// `/bin/bash`), else by `/bin/sh`. The answer is the value that the job's environment has to
    /// get back, if there is one.
    pub fn settle_shell(
        &mut self,
        inherited: Option<&OsStr>,
        bash_exists: bool,
    ) -> Option<OsString> {
        let given = self.env.iter().rev().find(|(name, _)| name == "SHELL");
        let shell = given
            .map(|(_, value)| value.as_os_str())
            .or(inherited)
            .map(OsStr::to_owned);
        if shell.as_deref().is_some_and(converses) {
            return None;
        }
        let substitute = if bash_exists { "/bin/bash" } else { "/bin/sh" };
        self.env.push(("SHELL".into(), substitute.into()));
        shell.filter(|shell| !shell.is_empty())
    }

    /// The command as a shell would take it, for messages. The environment is not shown: it may
    /// hold secrets.
    pub fn display(&self) -> impl Display + '_ {
        Words(self)
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

struct Words<'a>(&'a Launch);

impl Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        quote(f, &self.0.program)?;
        for word in &self.0.args {
            f.write_char(' ')?;
            quote(f, word)?;
        }
        Ok(())
    }
}

/// One word in single quotes where it needs them. Control characters and bytes that are not UTF-8
/// become visible, so that a message stays one line.
fn quote(f: &mut fmt::Formatter<'_>, word: &OsStr) -> fmt::Result {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_=/.,:+@%^".contains(byte);
    if !word.is_empty() && word.as_bytes().iter().all(plain) {
        return f.write_str(&word.to_string_lossy());
    }
    f.write_char('\'')?;
    for c in word.to_string_lossy().chars() {
        match c {
            '\'' => f.write_str("'\\''")?,
            c if c.is_control() => write!(f, "{}", c.escape_default())?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('\'')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    fn launch(words: &[&str]) -> Launch {
        Launch::command(words.iter().map(OsString::from))
    }

    #[test]
    fn a_command_is_taken_as_it_is() {
        let words = vec![
            OsString::from("srun"),
            OsString::from_vec(vec![0xff, b' ', b'\n']),
        ];
        let env = [("A".to_owned(), String::new())];
        let launch = Launch::new(&LaunchChoice::Command(words.clone()), &env);
        assert_eq!(launch.program, words[0]);
        assert_eq!(launch.args, words[1..]);
        assert_eq!(launch.env, [("A".into(), "".into())]);
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
            let mut launch = launch(&["salloc"]);
            assert_eq!(launch.settle_shell(Some(OsStr::new(shell)), true), None);
            assert_eq!(launch.env, [], "{shell}");
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
                let mut launch = launch(&["salloc"]);
                let own = launch.settle_shell(Some(OsStr::new(shell)), bash_exists);
                assert_eq!(own, Some(shell.into()));
                assert_eq!(launch.env, [("SHELL".into(), substitute.into())]);
            }
        }
    }

    #[test]
    fn no_shell_at_all_is_replaced_and_nothing_given_back() {
        for inherited in [None, Some(OsStr::new(""))] {
            let mut launch = launch(&["salloc"]);
            assert_eq!(launch.settle_shell(inherited, true), None);
            assert_eq!(launch.env, [("SHELL".into(), "/bin/bash".into())]);
        }
    }

    #[test]
    fn a_shell_given_as_an_option_counts_before_the_inherited_one() {
        let mut given = launch(&["salloc"]);
        given.env.push(("SHELL".into(), "/usr/bin/fish".into()));
        let own = given.settle_shell(Some(OsStr::new("/bin/bash")), true);
        assert_eq!(own, Some("/usr/bin/fish".into()));
        assert_eq!(
            given.env.last(),
            Some(&("SHELL".into(), "/bin/bash".into()))
        );

        let mut given = launch(&["salloc"]);
        given.env.push(("SHELL".into(), "/bin/zsh".into()));
        assert_eq!(
            given.settle_shell(Some(OsStr::new("/bin/fish")), true),
            None
        );
        assert_eq!(given.env, [("SHELL".into(), "/bin/zsh".into())]);
    }

    #[test]
    fn a_command_is_shown_as_one_line() {
        let mut launch = launch(&["salloc", "--comment=it's", "-p", "a b", "", "x\ny"]);
        launch.args.push(OsString::from_vec(vec![b'a', 0xff]));
        assert_eq!(
            launch.display().to_string(),
            r"salloc '--comment=it'\''s' -p 'a b' '' 'x\ny' 'a�'"
        );
    }
}
