//! Every option of the proxy, once: letters, names, value, bounds, default, help.
//!
//! Letters and meanings are those of the Python original, so that an existing `RemoteCommand`
//! line works with the program's name alone.

use std::str::FromStr;

/// What an option's value has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// The option is a flag.
    None,
    /// Anything.
    Any(&'static str),
    /// Not empty, and no `-` at its beginning: that is the next option, after a forgotten value.
    Word(&'static str),
    /// One of these words.
    OneOf(&'static str, &'static [&'static str]),
    /// `yes` or `no`; `true` and `false` are understood too.
    YesNo,
    /// A whole number from `min` to `max`.
    Number {
        /// The least that is accepted.
        min: u32,
        /// The most that is accepted.
        max: u32,
    },
}

impl Value {
    /// The value's name in help and messages; empty for a flag.
    pub fn name(self) -> &'static str {
        match self {
            Value::None => "",
            Value::Any(name) | Value::Word(name) | Value::OneOf(name, _) => name,
            Value::YesNo => "yes|no",
            Value::Number { .. } => "N",
        }
    }

    /// Is `text` of this kind?
    ///
    /// # Errors
    /// What would be right.
    pub fn check(self, text: &str) -> Result<(), String> {
        match self {
            Value::None | Value::Any(_) => Ok(()),
            Value::Word(name) if text.is_empty() || text.contains('\0') => {
                Err(format!("{name} must not be empty"))
            }
            Value::Word(name) if text.starts_with('-') => Err(format!(
                "{name} is expected, and it must not begin with - (a path may begin with ./)"
            )),
            Value::Word(_) => Ok(()),
            Value::OneOf(_, words) if words.contains(&text) => Ok(()),
            Value::OneOf(_, words) => Err(match words {
                [others @ .., last] => format!("{} or {last} is expected", others.join(", ")),
                [] => "no value is right".to_owned(),
            }),
            Value::YesNo => text.parse::<YesNo>().map(drop).map_err(str::to_owned),
            Value::Number { min, max } => match text.parse::<u32>() {
                Ok(number) if (min..=max).contains(&number) => Ok(()),
                _ => Err(format!("a whole number from {min} to {max} is expected")),
            },
        }
    }
}

/// The value of a [`Value::YesNo`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct YesNo(pub bool);

impl FromStr for YesNo {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "yes" | "true" => Ok(Self(true)),
            "no" | "false" => Ok(Self(false)),
            _ => Err("yes or no is expected"),
        }
    }
}

/// Where an option may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On the command line and in every file.
    Anywhere,
    /// On the command line only: it asks for something else than a session, or says which files
    /// are read.
    CommandLine,
    /// In the section of a profile only.
    Profile,
    /// In the site's file only. It counts in any case, with `--config none` too.
    SiteFile,
}

/// One option.
#[derive(Debug, PartialEq, Eq)]
pub struct Spec {
    /// The letter, or empty.
    pub short: &'static str,
    /// The long name, by which the program knows the option.
    pub long: &'static str,
    /// Further long names.
    pub aliases: &'static [&'static str],
    /// What the value has to be.
    pub value: Value,
    /// The value that holds without the option; empty where there is none.
    pub built_in: &'static str,
    /// What holds without the option, in words, where `built_in` alone does not say it.
    pub default: &'static str,
    /// Where it may stand.
    pub place: Place,
    /// Does it add up when repeated? The others take their last value.
    pub repeatable: bool,
    /// The line in `--help`, without bounds and default.
    pub help: &'static str,
    /// What the manual says beyond `help`.
    pub paragraph: &'static str,
}

/// A row to start from, so that a table shows only what an option has.
pub(crate) const PLAIN: Spec = Spec {
    short: "",
    long: "",
    aliases: &[],
    value: Value::None,
    built_in: "",
    default: "",
    place: Place::Anywhere,
    repeatable: false,
    help: "",
    paragraph: "",
};

/// Every option, in the order of the help text.
pub const TABLE: &[Spec] = &[
    Spec {
        short: "h",
        long: "help",
        place: Place::CommandLine,
        help: "print this help and exit",
        ..PLAIN
    },
    Spec {
        short: "V",
        long: "version",
        place: Place::CommandLine,
        help: "print name and version and exit",
        ..PLAIN
    },
    Spec {
        short: "v",
        long: "verbose",
        repeatable: true,
        help: "log one step more: off, error, warn, info, debug, trace",
        default: "warn, or what RUST_LOG says",
        paragraph: "May be given several times, and together with --quiet. RUST_LOG counts only \
                    where neither of the two is given.",
        ..PLAIN
    },
    Spec {
        short: "q",
        long: "quiet",
        repeatable: true,
        help: "log one step less",
        ..PLAIN
    },
    Spec {
        short: "l",
        long: "log-file",
        value: Value::Word("PATH"),
        default: "stderr",
        help: "log to this file; [PID] becomes the process id",
        paragraph: "The file is created with mode 0600 or appended to. It must be a regular file \
                    of the user. Quote [PID] in a RemoteCommand: zsh, csh and tcsh take it for a \
                    pattern.",
        ..PLAIN
    },
    Spec {
        short: "0",
        long: "tee-stdin",
        value: Value::Word("PATH"),
        help: "copy what the shell in the job gets on stdin to this file",
        paragraph: "Byte for byte, as its reader gets it; [PID] and mode as with --log-file. A \
                    copy that fails (disk full) ends, the session goes on. The copy holds the \
                    session's tokens.",
        ..PLAIN
    },
    Spec {
        short: "1",
        long: "tee-stdout",
        value: Value::Word("PATH"),
        help: "copy what the client gets on stdout to this file",
        paragraph: "As --tee-stdin.",
        ..PLAIN
    },
    Spec {
        short: "2",
        long: "tee-stderr",
        value: Value::Word("PATH"),
        help: "copy what the client gets on stderr to this file",
        paragraph: "As --tee-stdin.",
        ..PLAIN
    },
    Spec {
        short: "b",
        long: "backlog",
        value: Value::Number { min: 1, max: 65535 },
        built_in: "8",
        help: "connections that may wait to be accepted, see listen(2)",
        paragraph: "The kernel lowers it to net.core.somaxconn.",
        ..PLAIN
    },
    Spec {
        short: "B",
        long: "byte-limit",
        value: Value::Number {
            min: 512,
            max: 1048576,
        },
        // Measured (`cargo bench --bench relay sweep`): where the relay reads and writes, a GB costs
        // 1.6 s of CPU time with 4 KiB, the original's, 0.5 s with 64 KiB, 0.3 s with 256 KiB and
        // no less with 1 MiB, whose long turns starve other connections. The buffer is the
        // process's only one, and of its pages only those that a read has filled are memory.
        built_in: "262144",
        help: "most bytes read at one time from one stream",
        paragraph: "All streams share one buffer of this size.",
        ..PLAIN
    },
    Spec {
        short: "H",
        long: "listen-host",
        value: Value::Word("HOST"),
        built_in: "127.0.0.1",
        help: "where the client-facing listener binds: a name (IPv4 first) or an address",
        paragraph: "Remote-SSH always dials 127.0.0.1 on the login node; a listener that is not \
                    reached there is warned about.",
        ..PLAIN
    },
    Spec {
        short: "p",
        long: "listen-port",
        value: Value::Number { min: 0, max: 65535 },
        built_in: "0",
        default: "0, which lets the kernel pick",
        help: "the listener's port",
        paragraph: "Further listeners of the same session always get a port from the kernel.",
        ..PLAIN
    },
    Spec {
        long: "admit",
        value: Value::OneOf("WHO", &["self", "root", "any"]),
        built_in: "self",
        help: "whose local connections are relayed: self, root (and self) or any",
        paragraph: "The owner of the connecting socket is looked up before a byte is relayed. \
                    With any, nobody is asked, and peers from other machines are let in too.",
        ..PLAIN
    },
    Spec {
        long: "admit-from",
        value: Value::Word("CIDR"),
        repeatable: true,
        help: "also relay connections from other machines in this network, such as 10.1.0.0/16",
        paragraph: "Only of use with a --listen-host that other machines reach. Their users are \
                    not known, so everybody on them is let in.",
        ..PLAIN
    },
    Spec {
        long: "reach",
        value: Value::Word("HOW"),
        built_in: "auto",
        help: "how the server in the job is reached: auto, in-job (by a relay there) or direct",
        paragraph: "With a relay in the job the server stays on its node's loopback, and the node \
                    connects to the login node. With direct the server listens on all of its \
                    node's addresses, and the login node connects to it. auto takes the relay \
                    where it can be started and reports within 3 s, else goes directly; in-job \
                    ends the session then.",
        ..PLAIN
    },
    Spec {
        long: "reach-host",
        value: Value::Word("HOST"),
        default: "every address of this machine but loopback",
        help: "the name or address of this machine that a relay in the job dials",
        paragraph: "For login nodes of which the compute nodes reach one address only.",
        ..PLAIN
    },
    Spec {
        long: "reach-ports",
        value: Value::Word("A-B"),
        default: "one that the kernel picks",
        help: "the ports of which a relay in the job dials one, such as 50000-50999",
        paragraph: "For sites whose firewall lets compute nodes connect to such ports of the \
                    login nodes. Each session takes one of them.",
        ..PLAIN
    },
    Spec {
        long: "node-domain",
        value: Value::Word("SUFFIX"),
        help: "also look the compute node's short name up in this domain",
        paragraph: "Where connections go directly to the node, and neither what `uname -n` prints \
                    there nor what Slurm calls it leads to it.",
        ..PLAIN
    },
    Spec {
        long: "node-address",
        value: Value::Word("TEMPLATE"),
        help: "also try this name or address of the node, such as %n-ib",
        paragraph: "%n is the node's short name, %N what `uname -n` prints there, %% a percent \
                    sign. It is the last one that is tried.",
        ..PLAIN
    },
    Spec {
        long: "command",
        value: Value::Any("COMMAND"),
        built_in: "salloc",
        help: "the launch command; %a in it is the place of --launch-arg, else its end",
        paragraph: "Split into words as a shell does it, and never given to one. %u is the user, %h \
                    the login node, %p the proxy's process id, %s the user's shell, %e the names \
                    given with --launch-env, comma-separated, %% a percent sign. Its standard \
                    streams have to lead to a shell in the job. salloc gets --kill-command and \
                    --job-name in front of its other arguments.",
        ..PLAIN
    },
    Spec {
        short: "S",
        long: "salloc-arg",
        aliases: &["launch-arg", "srun-arg"],
        value: Value::Any("ARG"),
        repeatable: true,
        help: "an argument for the launch command, such as --salloc-arg=--partition=devel",
        paragraph: "May be given several times; the order is kept.",
        ..PLAIN
    },
    Spec {
        short: "e",
        long: "salloc-env",
        aliases: &["launch-env", "env"],
        value: Value::Any("NAME[=VALUE]"),
        repeatable: true,
        help: "a variable for the launch command's environment, empty without =VALUE",
        paragraph: "In a file %u, %h, %p and $NAME or ${NAME} of the login node's environment are \
                    filled in; %% and $$ stand for the signs themselves.",
        ..PLAIN
    },
    Spec {
        long: "unset-env",
        value: Value::Word("NAME"),
        repeatable: true,
        help: "a variable that the launch command's environment shall not have",
        paragraph: "For what means nothing on another node, such as SSH_AUTH_SOCK.",
        ..PLAIN
    },
    Spec {
        long: "startup",
        value: Value::Any("COMMAND"),
        repeatable: true,
        help: "what the job's shell runs before the client's first byte, in its own language",
        paragraph: "The shell evaluates each in turn, with nothing on its stdin; variables and \
                    functions stay. What they write goes to the log at level info. All together \
                    they may take 60 s; then the session ends with status 1.",
        ..PLAIN
    },
    Spec {
        long: "job-name",
        value: Value::Word("NAME"),
        built_in: "vscode-%u",
        help: "the job's name for salloc; %u, %h and %p as in --command",
        paragraph: "It stands in front of the other arguments, so that theirs counts.",
        ..PLAIN
    },
    Spec {
        short: "g",
        long: "group",
        aliases: &["workgroup"],
        value: Value::Word("NAME"),
        help: "submit under this workgroup: workgroup -g NAME --command @ -- salloc ...",
        paragraph: "auto is the first one that `workgroup -q workgroups` names.",
        ..PLAIN
    },
    Spec {
        long: "status-interval",
        value: Value::Number { min: 0, max: 86400 },
        built_in: "15",
        help: "seconds up to the first line on stderr about a job that waits; 0 for none",
        paragraph: "While no shell has answered, further lines follow at doubling distances, up to \
                    300 s. Where the job is Slurm's, squeue is asked for each.",
        ..PLAIN
    },
    Spec {
        long: "max-sessions",
        value: Value::Number { min: 0, max: 1000 },
        built_in: "0",
        help: "how many sessions a user may run on one login node; 0 for any number",
        paragraph: "One more is refused with a line that names the others, and exit status 1. All of \
                    the user's on the machine count, those of other profiles too.",
        ..PLAIN
    },
    Spec {
        long: "syslog",
        help: "write a line to the system's log when the session starts, and one when it ends",
        paragraph: "With user, job, node, duration in seconds, exit status and the reason of the end, \
                    to /dev/log, with facility user. A log that cannot take it is not waited for.",
        ..PLAIN
    },
    Spec {
        long: "self-test",
        place: Place::CommandLine,
        help: "play a whole session against a second copy of this program and judge it",
        paragraph: "Takes the same options and COMMAND. With no COMMAND and no salloc on PATH, \
                    bash is started right here. Exit status 0 or 1.",
        ..PLAIN
    },
    Spec {
        long: "profile",
        value: Value::Word("NAME"),
        help: "use this profile of the configuration files",
        paragraph: "The lines of each file's section [profile NAME] follow those in front of its \
                    first section. In a file: the profile of those who name none.",
        ..PLAIN
    },
    Spec {
        long: "list-profiles",
        place: Place::CommandLine,
        help: "print the profiles and exit",
        ..PLAIN
    },
    Spec {
        long: "config",
        value: Value::Word("PATH"),
        place: Place::CommandLine,
        repeatable: true,
        help: "read this file too, behind the site's and the user's; none: none of those before it",
        paragraph: "What the site's file locks holds in any case.",
        ..PLAIN
    },
    Spec {
        long: "show-config",
        place: Place::CommandLine,
        help: "print what is in force, each value with where it was said, and exit",
        ..PLAIN
    },
    Spec {
        long: "ssh-config",
        value: Value::Word("NAME"),
        place: Place::CommandLine,
        help: "print the stanza Host NAME with these options, and VS Code's settings, and exit",
        paragraph: "Ready to be pasted on the user's own computer. The RemoteCommand is quoted for \
                    any login shell.",
        ..PLAIN
    },
    Spec {
        long: "ssh-host",
        value: Value::Word("HOST"),
        default: "this host's own name",
        help: "the HostName that --ssh-config prints",
        paragraph: "For a site whose login nodes have one name in common, or another one for the \
                    world.",
        ..PLAIN
    },
    Spec {
        long: "description",
        value: Value::Any("TEXT"),
        place: Place::Profile,
        help: "what --list-profiles says about the profile",
        ..PLAIN
    },
    Spec {
        long: "lock",
        value: Value::Word("NAME"),
        place: Place::SiteFile,
        repeatable: true,
        help: "an option that only this file may set",
        paragraph: "The user's file, --config and the command line are refused with it. Guidance, \
                    not a wall: a user can run a program of their own.",
        ..PLAIN
    },
    Spec {
        long: "enabled",
        value: Value::YesNo,
        built_in: "yes",
        place: Place::SiteFile,
        help: "no: start no session, say why and exit with status 1",
        ..PLAIN
    },
    Spec {
        long: "message",
        value: Value::Any("TEXT"),
        place: Place::SiteFile,
        help: "what is said where enabled = no",
        ..PLAIN
    },
];

impl Spec {
    /// Every long name, the program's own first.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.long).chain(self.aliases.iter().copied())
    }

    /// May it stand on the command line?
    pub fn is_on_command_line(&self) -> bool {
        matches!(self.place, Place::Anywhere | Place::CommandLine)
    }

    /// What holds without the option, in words; empty where there is nothing to say.
    pub fn default_in_words(&self) -> &'static str {
        match self.default {
            "" => self.built_in,
            words => words,
        }
    }
}

/// The table's row for a long name that the program itself wrote down.
pub(super) fn spec(long: &str) -> &'static Spec {
    TABLE
        .iter()
        .find(|spec| spec.long == long)
        .expect("the program asks only for what it lists")
}

/// The row that has this long name, and the name.
pub(super) fn named(name: &str) -> Option<(&'static Spec, &'static str)> {
    let find = |spec: &'static Spec| Some((spec, spec.names().find(|long| *long == name)?));
    TABLE.iter().find_map(find)
}
