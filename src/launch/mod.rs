//! What the keeper starts: a program, its arguments, and how its environment differs from ours.
//!
//! Pure. A scheduler's own words are in `slurm`.

mod environment;
mod slurm;

use std::ffi::{OsStr, OsString};
use std::fmt::{self, Display, Write as _};
use std::os::unix::ffi::OsStrExt;

use crate::options::{Configured, Filling, LaunchChoice, Login, Options};

pub use environment::Environment;

/// A launch command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launch {
    /// The program, looked up on `PATH` where it contains no slash.
    pub program: OsString,
    /// Its arguments, without the program's name.
    pub args: Vec<OsString>,
    /// How its environment differs from the proxy's own.
    pub environment: Environment,
    /// The user's own `SHELL`, where the job has to get that back.
    pub own_shell: Option<OsString>,
    /// Is it left to salloc where the shell runs? That is a matter of the cluster's settings.
    pub is_left_to_salloc: bool,
}

impl Launch {
    /// What the options ask for. `workgroup` is the one to submit under, if they ask for one.
    pub fn new(options: &Options, login: &Login, workgroup: Option<&str>) -> Self {
        let (environment, own_shell) = Environment::new(options, login);
        let launch = match &options.launch {
            LaunchChoice::Command(words) => Self::command(words.iter().cloned()),
            LaunchChoice::Configured(configured) => {
                let shell = environment.shell(login).unwrap_or_default();
                let filling = Filling {
                    login,
                    shell: &shell.to_string_lossy(),
                    names: &names(options),
                };
                Self::configured(configured, &filling, workgroup)
            }
        };
        Self {
            environment,
            own_shell,
            ..launch
        }
    }

    /// A command, byte for byte. Without a word its program is the empty string, which is not
    /// found.
    fn command(mut words: impl Iterator<Item = OsString>) -> Self {
        Self {
            program: words.next().unwrap_or_default(),
            args: words.collect(),
            ..Self::default()
        }
    }

    /// The configured command with what is added to it.
    ///
    /// `workgroup -g NAME --command @ -- COMMAND…` runs COMMAND with the group's identity instead
    /// of an interactive shell (the clusters' wrapper of `newgrp`, set-group-id).
    fn configured(configured: &Configured, filling: &Filling<'_>, workgroup: Option<&str>) -> Self {
        let command = &configured.command;
        let fill = |words: &[_]| -> Vec<String> {
            let words: &[crate::options::Template] = words;
            words.iter().map(|word| word.fill(filling)).collect()
        };
        let (mut words, back) = (fill(&command.front), fill(&command.back));
        let added = configured.args.iter().cloned().chain(back);
        words.extend(added);
        let is_salloc = slurm::is_salloc(&words);
        if is_salloc {
            let job_name = configured.job_name.fill(filling);
            words.splice(1..1, slurm::salloc_arguments(&job_name));
        }
        let wrapper = workgroup.map(|name| ["workgroup", "-g", name, "--command", "@", "--"]);
        let wrapper = wrapper.iter().flatten().map(OsString::from);
        Self {
            is_left_to_salloc: is_salloc && !words.iter().any(|word| slurm::is_srun(word)),
            ..Self::command(wrapper.chain(words.iter().map(OsString::from)))
        }
    }

    /// The command as a shell would take it, for messages. The environment is not shown: it may
    /// hold secrets.
    pub fn display(&self) -> impl Display + '_ {
        Words(self)
    }
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

/// The names of the options' variables, each once, comma-separated.
fn names(options: &Options) -> String {
    let mut names: Vec<&str> = Vec::new();
    for variable in &options.env {
        if !names.contains(&variable.name.as_str()) {
            names.push(&variable.name);
        }
    }
    names.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{CommandTemplate, Template, Variable, Workgroup};
    use std::os::unix::ffi::OsStringExt;

    fn login() -> Login {
        Login {
            user: "alice".to_owned(),
            host: "login1".to_owned(),
            pid: 42,
            shell: Some("/usr/bin/fish".into()),
            bash_exists: true,
            variable: |name| (name == "HOME").then(|| "/home/alice".to_owned()),
        }
    }

    fn configured(command: &str, args: &[&str]) -> Options {
        let LaunchChoice::Configured(built_in) = Options::default().launch else {
            panic!("no command is built in")
        };
        let command: CommandTemplate = command.parse().unwrap();
        Options {
            launch: LaunchChoice::Configured(Configured {
                command,
                args: args.iter().map(|&arg| arg.to_owned()).collect(),
                ..built_in
            }),
            ..Options::default()
        }
    }

    #[track_caller]
    fn shown(command: &str, args: &[&str], workgroup: Option<&str>) -> String {
        let launch = Launch::new(&configured(command, args), &login(), workgroup);
        launch.display().to_string()
    }

    #[test]
    fn a_command_is_taken_as_it_is() {
        let words = vec![
            OsString::from("srun"),
            OsString::from_vec(vec![0xff, b' ', b'\n']),
        ];
        let options = Options {
            launch: LaunchChoice::Command(words.clone()),
            env: vec![Variable {
                name: "A".to_owned(),
                value: Template::verbatim("$HOME"),
            }],
            unset_env: vec!["B".to_owned()],
            ..Options::default()
        };
        let launch = Launch::new(&options, &login(), None);
        assert_eq!(launch.program, words[0]);
        assert_eq!(launch.args, words[1..]);
        let set = [("A", "$HOME"), ("SHELL", "/bin/bash")];
        assert_eq!(
            launch.environment.set,
            set.map(|(n, v)| (n.into(), v.into()))
        );
        assert_eq!(launch.environment.unset, ["B"]);
        assert_eq!(launch.own_shell, Some("/usr/bin/fish".into()));
        assert!(!launch.is_left_to_salloc);
    }

    #[test]
    fn salloc_gets_its_arguments_in_order_behind_what_they_may_overrule() {
        assert_eq!(
            shown("salloc", &["--x11", "-p", "gpu", "--job-name=mine"], None),
            "salloc --kill-command --job-name=vscode-alice --x11 -p gpu --job-name=mine"
        );
        assert_eq!(
            shown("/opt/slurm/bin/salloc -p %u", &["-n1"], None),
            "/opt/slurm/bin/salloc --kill-command --job-name=vscode-alice -p alice -n1"
        );
    }

    #[test]
    fn arguments_go_where_the_command_wants_them() {
        assert_eq!(
            shown("qsub -I %a -- %s", &["-l", "walltime=1"], None),
            "qsub -I -l walltime=1 -- /bin/bash"
        );
        assert_eq!(shown("bsub -Is", &["-q", "x"], None), "bsub -Is -q x");
    }

    #[test]
    fn a_workgroup_wraps_whatever_the_command_is() {
        assert_eq!(
            shown("srun --pty bash", &["-n1"], Some("it_css")),
            "workgroup -g it_css --command @ -- srun --pty bash -n1"
        );
    }

    #[test]
    fn only_salloc_alone_leaves_open_where_the_shell_runs() {
        for (command, is_left) in [
            ("salloc", true),
            ("/usr/bin/salloc -p devel", true),
            ("salloc %a srun --pty %s", false),
            ("srun --pty bash", false),
            ("qrsh", false),
        ] {
            let launch = Launch::new(&configured(command, &[]), &login(), Some("g"));
            assert_eq!(launch.is_left_to_salloc, is_left, "{command}");
        }
    }

    #[test]
    fn names_of_variables_are_listed_once() {
        let variable = |name: &str| Variable {
            name: name.to_owned(),
            value: Template::with_variables("$HOME").unwrap(),
        };
        let options = Options {
            env: ["A", "B", "A"].map(variable).to_vec(),
            ..configured("flux alloc --env=%e", &[])
        };
        let launch = Launch::new(&options, &login(), None);
        assert_eq!(launch.display().to_string(), "flux alloc --env=A,B");
        assert_eq!(launch.environment.set[0].1, "/home/alice");
        let workgroup: Workgroup = "auto".parse().unwrap();
        assert_eq!(workgroup, Workgroup::First);
    }

    #[test]
    fn a_command_is_shown_as_one_line() {
        let words = ["salloc", "--comment=it's", "-p", "a b", "", "x\ny"];
        let mut launch = Launch::command(words.map(OsString::from).into_iter());
        launch.args.push(OsString::from_vec(vec![b'a', 0xff]));
        assert_eq!(
            launch.display().to_string(),
            r"salloc '--comment=it'\''s' -p 'a b' '' 'x\ny' 'a�'"
        );
    }
}
