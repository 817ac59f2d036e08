//! The proxy's command line: one table of options, and everything that follows from it.
//!
//! [`TABLE`] is the only place that knows an option's letters, value, bounds and default. The
//! parser, the text of `--help` and the printed form of a parsed [`Options`] are derived from it.
//!
//! Letters and meanings are those of the Python original, so that an existing `RemoteCommand`
//! line works with the program's name alone. That includes `-S=--x11`: Python's argparse takes
//! the `=` behind a letter for punctuation, getopts for the value's first character.
//!
//! Two traps of getopts 0.2 are avoided here: it refuses arguments that are not UTF-8 even behind
//! `--`, and it hides a trailing `--`. So the line is split at the first `--` before it gets there.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use bstr::ByteSlice;
use log::LevelFilter;

use crate::admission::{Admit, Cidr, Rules};

/// Most bytes read at one time from one stream, unless `--byte-limit` says otherwise.
///
/// Measured (`cargo bench --bench relay sweep`): where the relay reads and writes, a GB costs 1.6 s
/// of CPU time with 4 KiB, the original's, 0.5 s with 64 KiB, 0.3 s with 256 KiB and no less with
/// 1 MiB, whose long turns starve other connections. The buffer is the process's only one, and of
/// its pages only those that a read has filled are memory.
pub const BYTE_LIMIT_DEFAULT: usize = 262_144;

/// What an option's value has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// The option is a flag.
    None,
    /// Anything.
    Any(&'static str),
    /// Not empty, and no `-` at its beginning: that is the next option, after a forgotten value.
    Word(&'static str),
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
            Value::Any(name) | Value::Word(name) => name,
            Value::Number { .. } => "N",
        }
    }
}

/// One option.
#[derive(Debug)]
pub struct Spec {
    /// The letter, or empty.
    pub short: &'static str,
    /// The long name, by which the program knows the option.
    pub long: &'static str,
    /// A second long name, or empty.
    pub alias: &'static str,
    /// What the value has to be.
    pub value: Value,
    /// What holds without the option, in words; empty where there is nothing to say.
    pub default: &'static str,
    /// Does it add up when repeated? The others take their last value.
    pub repeatable: bool,
    /// The line in `--help`, without bounds and default.
    pub help: &'static str,
    /// What the manual says beyond `help`.
    pub paragraph: &'static str,
}

/// A row to start from, so that the table shows only what an option has.
const PLAIN: Spec = Spec {
    short: "",
    long: "",
    alias: "",
    value: Value::None,
    default: "",
    repeatable: false,
    help: "",
    paragraph: "",
};

/// Every option, in the order of the help text.
pub const TABLE: &[Spec] = &[
    Spec {
        short: "h",
        long: "help",
        help: "print this help and exit",
        ..PLAIN
    },
    Spec {
        short: "V",
        long: "version",
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
        default: "8",
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
        default: "262144",
        help: "most bytes read at one time from one stream",
        paragraph: "All streams share one buffer of this size.",
        ..PLAIN
    },
    Spec {
        short: "H",
        long: "listen-host",
        value: Value::Word("HOST"),
        default: "127.0.0.1",
        help: "where the client-facing listener binds: a name (IPv4 first) or an address",
        paragraph: "Remote-SSH always dials 127.0.0.1 on the login node; a listener that is not \
                    reached there is warned about.",
        ..PLAIN
    },
    Spec {
        short: "p",
        long: "listen-port",
        value: Value::Number { min: 0, max: 65535 },
        default: "0, which lets the kernel pick",
        help: "the listener's port",
        paragraph: "Further listeners of the same session always get a port from the kernel.",
        ..PLAIN
    },
    Spec {
        long: "admit",
        value: Value::Word("WHO"),
        default: "self",
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
        short: "g",
        long: "group",
        alias: "workgroup",
        value: Value::Word("NAME"),
        help: "submit under this workgroup: workgroup -g NAME --command @ -- salloc ...",
        ..PLAIN
    },
    Spec {
        short: "S",
        long: "salloc-arg",
        value: Value::Any("ARG"),
        repeatable: true,
        help: "an argument for salloc, such as --salloc-arg=--partition=devel",
        paragraph: "May be given several times; the order is kept.",
        ..PLAIN
    },
    Spec {
        short: "e",
        long: "salloc-env",
        value: Value::Any("NAME[=VALUE]"),
        repeatable: true,
        help: "a variable for the launch command's environment, empty without =VALUE",
        ..PLAIN
    },
    Spec {
        long: "self-test",
        help: "play a whole session against a second copy of this program and judge it",
        paragraph: "Takes the same options and COMMAND. With no COMMAND and no salloc on PATH, \
                    bash is started right here. Exit status 0 or 1.",
        ..PLAIN
    },
];

const USAGE: &str = "\
Usage: vscode-shell-proxy [OPTIONS] [-- COMMAND [ARG...]]

Runs a VS Code Remote-SSH session inside a scheduler's job instead of on the
login node. Meant as the RemoteCommand of an ssh Host stanza.

COMMAND is launched instead of salloc, verbatim; its standard streams have to
lead to a shell in the job. It cannot be combined with --group or --salloc-arg.

Options:
";

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Print this on stdout and leave with status 0.
    Help(String),
    /// Print this on stdout and leave with status 0.
    Version(String),
    /// Relay a session.
    Run(Box<Options>),
    /// Play a session against a second copy of the program, to be started with these arguments:
    /// the given ones without `--self-test`.
    SelfTest(Box<Options>, Vec<OsString>),
}

/// A session's options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// What is logged; `None` leaves it to `RUST_LOG`, then to the default (warn).
    pub verbosity: Option<LevelFilter>,
    /// Where the log goes instead of stderr; see [`expand_pid`].
    pub log_file: Option<PathBuf>,
    /// Where a copy of the shell's input goes; see [`expand_pid`].
    pub tee_stdin: Option<PathBuf>,
    /// Where a copy of the client's stdout goes; see [`expand_pid`].
    pub tee_stdout: Option<PathBuf>,
    /// Where a copy of the client's stderr goes; see [`expand_pid`].
    pub tee_stderr: Option<PathBuf>,
    /// The listener's backlog, 1 to 65535.
    pub backlog: u32,
    /// Most bytes read at one time from one stream, 512 to 1048576.
    pub byte_limit: usize,
    /// Name or address to bind the listener to; not empty.
    pub listen_host: String,
    /// Its port; 0 lets the kernel pick.
    pub listen_port: u16,
    /// Whose local connections are relayed.
    pub admit: Admit,
    /// From where connections of other machines are relayed.
    pub admit_from: Vec<Cidr>,
    /// What to launch.
    pub launch: LaunchChoice,
    /// Variables for its environment: names not empty and without `=`, no NUL anywhere. A name
    /// may occur twice; the later one counts.
    pub env: Vec<(String, String)>,
}

/// What to launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaunchChoice {
    /// `salloc` with these arguments, under a workgroup or not.
    Salloc {
        /// The workgroup to submit under.
        workgroup: Option<String>,
        /// The arguments, in order.
        args: Vec<String>,
    },
    /// This command, never empty: its program and its arguments, any bytes.
    Command(Vec<OsString>),
}

impl Default for Options {
    /// The options of an empty command line.
    fn default() -> Self {
        Options {
            verbosity: None,
            log_file: None,
            tee_stdin: None,
            tee_stdout: None,
            tee_stderr: None,
            backlog: 8,
            byte_limit: BYTE_LIMIT_DEFAULT,
            listen_host: "127.0.0.1".to_owned(),
            listen_port: 0,
            admit: Admit::Own,
            admit_from: Vec::new(),
            launch: LaunchChoice::Salloc {
                workgroup: None,
                args: Vec::new(),
            },
            env: Vec::new(),
        }
    }
}

/// Wrong use, as one line that names the option, the value, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// Reads a command line, without the program's name at its front.
///
/// # Errors
/// Wrong use of any kind. A `--` with nothing behind it is wrong use too: the likely cause is an
/// empty variable, and submitting a plain `salloc` job is not what its author meant.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Request, UsageError> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    let command = args.iter().position(|arg| arg == "--").map(|at| {
        let command = args.split_off(at + 1);
        args.pop();
        command
    });
    let given = Given::new(&args)?;
    if given.count("help") > 0 {
        return Ok(Request::Help(help()));
    }
    if given.count("version") > 0 {
        return Ok(Request::Version(format!(
            "vscode-shell-proxy {}\n",
            env!("CARGO_PKG_VERSION")
        )));
    }
    let default = Options::default();
    let options = Box::new(Options {
        verbosity: verbosity(given.count("verbose"), given.count("quiet")),
        log_file: given.word("log-file")?.map(PathBuf::from),
        tee_stdin: given.word("tee-stdin")?.map(PathBuf::from),
        tee_stdout: given.word("tee-stdout")?.map(PathBuf::from),
        tee_stderr: given.word("tee-stderr")?.map(PathBuf::from),
        backlog: given.number("backlog")?.unwrap_or(default.backlog),
        byte_limit: given
            .number("byte-limit")?
            .map_or(default.byte_limit, |n| n as usize),
        listen_host: given.word("listen-host")?.unwrap_or(default.listen_host),
        // The table's bound is the type's.
        listen_port: given
            .number("listen-port")?
            .map_or(default.listen_port, |n| n as u16),
        admit: given.parsed("admit")?.pop().unwrap_or(default.admit),
        admit_from: given.parsed("admit-from")?,
        launch: launch(&given, command)?,
        env: given
            .values("salloc-env")
            .iter()
            .map(|v| variable(v))
            .collect::<Result<_, _>>()?,
    });
    if given.count("self-test") > 0 {
        let again = options.to_args();
        return Ok(Request::SelfTest(options, again));
    }
    Ok(Request::Run(options))
}

/// `path` with every `[PID]` replaced by `pid`.
pub fn expand_pid(path: &Path, pid: u32) -> PathBuf {
    let expanded = path
        .as_os_str()
        .as_bytes()
        .replace("[PID]", pid.to_string());
    PathBuf::from(OsString::from_vec(expanded))
}

/// The text of `--help`, at most 80 columns wide.
pub fn help() -> String {
    const COLUMN: usize = 29;
    let mut text = USAGE.to_owned();
    for spec in TABLE {
        let mut left = match spec.short {
            "" => "      ".to_owned(),
            short => format!("  -{short}, "),
        };
        left += &format!("--{}", spec.long);
        if !spec.alias.is_empty() {
            left += &format!(", --{}", spec.alias);
        }
        if spec.value != Value::None {
            left += &format!(" {}", spec.value.name());
        }
        let mut notes = Vec::new();
        if let Value::Number { min, max } = spec.value {
            notes.push(format!("{min} to {max}"));
        }
        if !spec.default.is_empty() {
            notes.push(format!("default: {}", spec.default));
        }
        if spec.repeatable {
            notes.push("repeatable".to_owned());
        }
        let right = match notes.is_empty() {
            true => spec.help.to_owned(),
            false => format!("{} ({})", spec.help, notes.join("; ")),
        };
        let mut column = left.len();
        text += &left;
        if column >= COLUMN {
            text.push('\n');
            column = 0;
        }
        text += &" ".repeat(COLUMN - column);
        column = COLUMN;
        for word in right.split(' ') {
            if column > COLUMN && column + 1 + word.len() > 80 {
                text += &format!("\n{}", " ".repeat(COLUMN));
                column = COLUMN;
            } else if column > COLUMN {
                text.push(' ');
                column += 1;
            }
            text += word;
            column += word.len();
        }
        text.push('\n');
    }
    text
}

impl Options {
    /// The arguments that [`parse`] makes these options from.
    pub fn to_args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = Vec::new();
        let mut value = |name: &str, value: &OsStr| {
            let mut arg = OsString::from(format!("--{name}="));
            arg.push(value);
            args.push(arg);
        };
        let paths = [
            ("log-file", &self.log_file),
            ("tee-stdin", &self.tee_stdin),
            ("tee-stdout", &self.tee_stdout),
            ("tee-stderr", &self.tee_stderr),
        ];
        for (name, path) in paths {
            if let Some(path) = path {
                value(name, path.as_os_str());
            }
        }
        value("backlog", self.backlog.to_string().as_ref());
        value("byte-limit", self.byte_limit.to_string().as_ref());
        value("listen-host", self.listen_host.as_ref());
        value("listen-port", self.listen_port.to_string().as_ref());
        value("admit", self.admit.to_string().as_ref());
        for cidr in &self.admit_from {
            value("admit-from", cidr.to_string().as_ref());
        }
        for (name, content) in &self.env {
            value("salloc-env", format!("{name}={content}").as_ref());
        }
        if let LaunchChoice::Salloc { workgroup, args } = &self.launch {
            if let Some(workgroup) = workgroup {
                value("workgroup", workgroup.as_ref());
            }
            for arg in args {
                value("salloc-arg", arg.as_ref());
            }
        }
        let flags: &[&str] = match self.verbosity {
            None => &[],
            Some(LevelFilter::Off) => &["-q", "-q"],
            Some(LevelFilter::Error) => &["-q"],
            Some(LevelFilter::Warn) => &["-v", "-q"],
            Some(LevelFilter::Info) => &["-v"],
            Some(LevelFilter::Debug) => &["-vv"],
            Some(LevelFilter::Trace) => &["-vvv"],
        };
        args.extend(flags.iter().map(OsString::from));
        if let LaunchChoice::Command(command) = &self.launch {
            args.push("--".into());
            args.extend(command.iter().cloned());
        }
        args
    }

    /// What `--admit` and `--admit-from` mean for a proxy of this user.
    pub fn admission(&self, own_uid: u32) -> Rules {
        Rules::new(self.admit, self.admit_from.clone(), own_uid)
    }
}

/// The level for so many steps up and down from the default; `None` where there are none.
fn verbosity(up: usize, down: usize) -> Option<LevelFilter> {
    const LEVELS: [LevelFilter; 6] = [
        LevelFilter::Off,
        LevelFilter::Error,
        LevelFilter::Warn,
        LevelFilter::Info,
        LevelFilter::Debug,
        LevelFilter::Trace,
    ];
    let level = (LevelFilter::Warn as usize + up).saturating_sub(down);
    (up + down > 0).then(|| LEVELS[level.min(LEVELS.len() - 1)])
}

fn launch(given: &Given, command: Option<Vec<OsString>>) -> Result<LaunchChoice, UsageError> {
    let workgroup = given.word("group")?;
    let args = given.values("salloc-arg");
    let Some(command) = command else {
        return Ok(LaunchChoice::Salloc { workgroup, args });
    };
    match command.first() {
        None => return wrong("nothing after --: a COMMAND is expected there (without --: salloc)"),
        Some(program) if program.is_empty() => {
            return wrong("the COMMAND after -- is an empty word: a program's name is expected");
        }
        Some(program) => {
            let clash = match (&workgroup, args.first()) {
                (Some(name), _) => Some(format!("--group {name:?}")),
                (None, Some(arg)) => Some(format!("--salloc-arg {arg:?}")),
                (None, None) => None,
            };
            if let Some(clash) = clash {
                return wrong(format!(
                    "{clash} cannot be combined with the COMMAND {program:?}: it is for salloc; \
                     put it into the COMMAND"
                ));
            }
        }
    }
    Ok(LaunchChoice::Command(command))
}

/// One `NAME[=VALUE]`.
fn variable(text: &str) -> Result<(String, String), UsageError> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    if name.is_empty() || text.contains('\0') {
        return wrong(format!(
            "--salloc-env {text:?}: NAME or NAME=VALUE is expected, with a NAME that is not empty"
        ));
    }
    Ok((name.to_owned(), value.to_owned()))
}

fn wrong<T>(text: impl Into<String>) -> Result<T, UsageError> {
    Err(UsageError(text.into()))
}

/// The options found on a command line.
struct Given {
    raw: Vec<String>,
    matches: getopts::Matches,
}

impl Given {
    fn new(args: &[OsString]) -> Result<Given, UsageError> {
        let mut raw = Vec::with_capacity(args.len());
        for (i, arg) in args.iter().enumerate() {
            let Some(text) = arg.to_str() else {
                return wrong(format!(
                    "argument {}, {arg:?}, is not UTF-8: only a COMMAND after -- may hold any \
                     bytes",
                    i + 1
                ));
            };
            raw.push(text.to_owned());
        }
        let matches = parser()
            .parse(&raw)
            .map_err(|fail| UsageError(explain(&fail)))?;
        if let Some(word) = matches.free.first() {
            return wrong(format!(
                "unexpected word {word:?}: options begin with -, and a COMMAND goes after --"
            ));
        }
        Ok(Given { raw, matches })
    }

    fn count(&self, long: &str) -> usize {
        self.matches.opt_count(long)
    }

    /// Every value of an option, in order of appearance.
    fn values(&self, long: &str) -> Vec<String> {
        let spec = spec(long);
        let mut found = self.matches.opt_strs_pos(long);
        if !spec.alias.is_empty() {
            found.extend(self.matches.opt_strs_pos(spec.alias));
            found.sort_by_key(|(position, _)| *position);
        }
        found
            .into_iter()
            .map(|(_, value)| match value.strip_prefix('=') {
                // `-S=--x11`, see the module's first paragraphs.
                Some(rest) if self.raw.contains(&format!("-{}{value}", spec.short)) => {
                    rest.to_owned()
                }
                _ => value,
            })
            .collect()
    }

    /// The last value of an option that takes a [`Value::Word`]; all of them are checked.
    fn word(&self, long: &str) -> Result<Option<String>, UsageError> {
        Ok(self.words(long)?.pop())
    }

    fn words(&self, long: &str) -> Result<Vec<String>, UsageError> {
        let values = self.values(long);
        for value in &values {
            let name = spec(long).value.name();
            if value.is_empty() || value.contains('\0') {
                return wrong(format!("--{long} {value:?}: {name} must not be empty"));
            }
            if value.starts_with('-') {
                return wrong(format!(
                    "--{long} {value:?}: {name} is expected, and it must not begin with - \
                     (a path may begin with ./)"
                ));
            }
        }
        Ok(values)
    }

    /// Every value of an option whose words have a form of their own.
    fn parsed<T>(&self, long: &str) -> Result<Vec<T>, UsageError>
    where
        T: std::str::FromStr<Err: fmt::Display>,
    {
        let parse = |value: String| {
            value
                .parse()
                .map_err(|error| UsageError(format!("--{long} {value:?}: {error}")))
        };
        self.words(long)?.into_iter().map(parse).collect()
    }

    /// The last value of an option that takes a [`Value::Number`]; all of them are checked.
    fn number(&self, long: &str) -> Result<Option<u32>, UsageError> {
        let Value::Number { min, max } = spec(long).value else {
            unreachable!("the program asks for a number only where the table has one");
        };
        let mut last = None;
        for value in self.values(long) {
            match value.parse() {
                Ok(number) if (min..=max).contains(&number) => last = Some(number),
                _ => {
                    return wrong(format!(
                        "--{long} {value:?}: a whole number from {min} to {max} is expected"
                    ));
                }
            }
        }
        Ok(last)
    }
}

/// The table's row for a long name that this module wrote down itself.
fn spec(long: &str) -> &'static Spec {
    TABLE
        .iter()
        .find(|spec| spec.long == long)
        .expect("the program asks only for what it lists")
}

fn parser() -> getopts::Options {
    use getopts::{HasArg, Occur};
    let mut options = getopts::Options::new();
    for spec in TABLE {
        let has_arg = match spec.value {
            Value::None => HasArg::No,
            _ => HasArg::Yes,
        };
        // Always `Multi`: what a repetition means is said by `Spec::repeatable`.
        options.opt(
            spec.short,
            spec.long,
            "",
            spec.value.name(),
            has_arg,
            Occur::Multi,
        );
        if !spec.alias.is_empty() {
            options.opt("", spec.alias, "", spec.value.name(), has_arg, Occur::Multi);
        }
    }
    options
}

/// What getopts found wrong, with the remedy.
fn explain(fail: &getopts::Fail) -> String {
    use getopts::Fail;
    match fail {
        Fail::ArgumentMissing(name) => {
            let value = TABLE
                .iter()
                .find(|spec| [spec.short, spec.long, spec.alias].contains(&name.as_str()))
                .map_or("a value", |spec| spec.value.name());
            format!(
                "{} without its value: {value} is expected behind it",
                dashed(name)
            )
        }
        Fail::UnexpectedArgument(name) => {
            format!("{} with a value: it is a flag and takes none", dashed(name))
        }
        Fail::UnrecognizedOption(name) => {
            let mut meant = TABLE
                .iter()
                .flat_map(|spec| [spec.long, spec.alias])
                .filter(|long| name.len() > 1 && long.starts_with(name.as_str()));
            match (meant.next(), meant.next()) {
                (Some(long), None) => {
                    format!(
                        "unknown option {}: --{long} has to be written out",
                        dashed(name)
                    )
                }
                _ => format!("unknown option {}: --help lists the options", dashed(name)),
            }
        }
        // No option is mandatory, and each is `Multi`.
        Fail::OptionMissing(name) | Fail::OptionDuplicated(name) => dashed(name),
    }
}

/// An option's name as a user writes it, on one line whatever it holds.
fn dashed(name: &str) -> String {
    let dashes = if name.chars().count() == 1 { "-" } else { "--" };
    format!("{dashes}{}", name.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::options::check;
    use proptest::prelude::*;

    fn request(line: &[&str]) -> Result<Request, UsageError> {
        parse(line.iter().map(OsString::from))
    }

    #[track_caller]
    fn options(line: &[&str]) -> Options {
        match request(line) {
            Ok(Request::Run(options)) => *options,
            other => panic!("{line:?} gave {other:?}"),
        }
    }

    #[track_caller]
    fn salloc(line: &[&str]) -> (Option<String>, Vec<String>) {
        match options(line).launch {
            LaunchChoice::Salloc { workgroup, args } => (workgroup, args),
            other => panic!("{line:?} launches {other:?}"),
        }
    }

    #[test]
    fn every_wrong_use_is_named_with_its_remedy() {
        for (line, message) in [
            (
                &["--frob"] as &[&str],
                "unknown option --frob: --help lists the options",
            ),
            (&["-x"], "unknown option -x: --help lists the options"),
            (&["-vx"], "unknown option -x: --help lists the options"),
            (
                &["-\u{e9}"],
                "unknown option -\u{e9}: --help lists the options",
            ),
            (
                &["--a\nb"],
                "unknown option --a\\nb: --help lists the options",
            ),
            (
                &["--log"],
                "unknown option --log: --log-file has to be written out",
            ),
            (&["--tee"], "unknown option --tee: --help lists the options"),
            (
                &["--log-file"],
                "--log-file without its value: PATH is expected behind it",
            ),
            (&["-vl"], "-l without its value: PATH is expected behind it"),
            (&["-S"], "-S without its value: ARG is expected behind it"),
            (
                &["-e"],
                "-e without its value: NAME[=VALUE] is expected behind it",
            ),
            (
                &["--workgroup"],
                "--workgroup without its value: NAME is expected behind it",
            ),
            (
                &["-S", "--", "bash"],
                "-S without its value: ARG is expected behind it",
            ),
            (
                &["--verbose=3"],
                "--verbose with a value: it is a flag and takes none",
            ),
            (
                &["--self-test=yes"],
                "--self-test with a value: it is a flag and takes none",
            ),
            (
                &["bash"],
                "unexpected word \"bash\": options begin with -, and a COMMAND goes after --",
            ),
            (
                &["-v", "-", "--", "bash"],
                "unexpected word \"-\": options begin with -, and a COMMAND goes after --",
            ),
            (
                &[""],
                "unexpected word \"\": options begin with -, and a COMMAND goes after --",
            ),
            (
                &["-b", "0"],
                "--backlog \"0\": a whole number from 1 to 65535 is expected",
            ),
            (
                &["--backlog=65536"],
                "--backlog \"65536\": a whole number from 1 to 65535 is expected",
            ),
            (
                &["-b", "-1"],
                "--backlog \"-1\": a whole number from 1 to 65535 is expected",
            ),
            (
                &["-b", "many", "-b", "5"],
                "--backlog \"many\": a whole number from 1 to 65535 is expected",
            ),
            (
                &["-B", "511"],
                "--byte-limit \"511\": a whole number from 512 to 1048576 is expected",
            ),
            (
                &["-B", "1048577"],
                "--byte-limit \"1048577\": a whole number from 512 to 1048576 is expected",
            ),
            (
                &["-B", "64k"],
                "--byte-limit \"64k\": a whole number from 512 to 1048576 is expected",
            ),
            (
                &["-p", "65536"],
                "--listen-port \"65536\": a whole number from 0 to 65535 is expected",
            ),
            (
                &["-p", "99999999999999999999"],
                "--listen-port \"99999999999999999999\": a whole number from 0 to 65535 is expected",
            ),
            (
                &["-p", ""],
                "--listen-port \"\": a whole number from 0 to 65535 is expected",
            ),
            (&["-l", ""], "--log-file \"\": PATH must not be empty"),
            (
                &["-l", "-v"],
                "--log-file \"-v\": PATH is expected, and it must not begin with - \
                 (a path may begin with ./)",
            ),
            (
                &["-1", "--self-test"],
                "--tee-stdout \"--self-test\": PATH is expected, and it must not begin with - \
                 (a path may begin with ./)",
            ),
            (&["-H", ""], "--listen-host \"\": HOST must not be empty"),
            (&["-g="], "--group \"\": NAME must not be empty"),
            (
                &["--admit", "all"],
                "--admit \"all\": self, root or any is expected",
            ),
            (
                &["--admit-from", "10.0.0.0/33"],
                "--admit-from \"10.0.0.0/33\": a prefix from 0 to 32 is expected behind the /",
            ),
            (
                &["--admit-from", "login1"],
                "--admit-from \"login1\": a network such as 10.1.0.0/16 or fd00:1::/32, or an \
                 address, is expected",
            ),
            (
                &["--admit-from", "10.1.2.3/16"],
                "--admit-from \"10.1.2.3/16\": bits are set behind the prefix; 10.1.0.0/16 is the \
                 network",
            ),
            (
                &["-e", "=x"],
                "--salloc-env \"=x\": NAME or NAME=VALUE is expected, with a NAME that is not empty",
            ),
            (
                &["--salloc-env="],
                "--salloc-env \"\": NAME or NAME=VALUE is expected, with a NAME that is not empty",
            ),
            (
                &["-v", "--"],
                "nothing after --: a COMMAND is expected there (without --: salloc)",
            ),
            (
                &["--", "", "x"],
                "the COMMAND after -- is an empty word: a program's name is expected",
            ),
            (
                &["-g", "it", "--", "bash"],
                "--group \"it\" cannot be combined with the COMMAND \"bash\": it is for salloc; put \
                 it into the COMMAND",
            ),
            (
                &["-S", "--x11", "--", "bash"],
                "--salloc-arg \"--x11\" cannot be combined with the COMMAND \"bash\": it is for \
                 salloc; put it into the COMMAND",
            ),
        ] {
            match request(line) {
                Err(error) => assert_eq!(error.to_string(), message, "{line:?}"),
                Ok(request) => panic!("{line:?} gave {request:?}"),
            }
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_pass_only_in_a_command() {
        let raw = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        let error = parse(["-v".into(), raw(b"--log-file=\xff\n")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "argument 2, \"--log-file=\\xFF\\n\", is not UTF-8: only a COMMAND after -- may hold \
             any bytes"
        );
        let command = vec![raw(b"/bin/\xc0"), raw(b"\xff"), "--".into(), raw(b"")];
        let line = [vec!["-q".into(), "--".into()], command.clone()].concat();
        let Ok(Request::Run(options)) = parse(line) else {
            panic!("refused")
        };
        assert_eq!(options.launch, LaunchChoice::Command(command));
        assert_eq!(options.verbosity, Some(LevelFilter::Error));
    }

    #[test]
    fn an_empty_line_gives_the_defaults_of_the_table() {
        assert_eq!(options(&[]), Options::default());
        let said = |long| spec(long).default.split(',').next().unwrap().to_owned();
        let default = Options::default();
        assert_eq!(said("backlog"), default.backlog.to_string());
        assert_eq!(said("byte-limit"), default.byte_limit.to_string());
        assert_eq!(said("listen-host"), default.listen_host);
        assert_eq!(said("listen-port"), default.listen_port.to_string());
        assert_eq!(said("admit"), default.admit.to_string());
        assert_eq!(said("verbose"), "warn");
    }

    #[test]
    fn letters_long_names_and_pythons_equals_sign_mean_the_same() {
        for spec in TABLE
            .iter()
            .filter(|spec| spec.value != Value::None && !spec.short.is_empty())
        {
            let value = match spec.value {
                Value::Number { max, .. } => max.to_string(),
                _ => "A=b".to_owned(),
            };
            let (short, long) = (spec.short, spec.long);
            let expected = options(&[&format!("--{long}"), &value]);
            assert_ne!(expected, Options::default(), "--{long}");
            for line in [
                vec![format!("-{short}"), value.clone()],
                vec![format!("-{short}{value}")],
                vec![format!("-{short}={value}")],
                vec![format!("--{long}={value}")],
            ] {
                let line: Vec<&str> = line.iter().map(String::as_str).collect();
                assert_eq!(options(&line), expected, "{line:?}");
            }
        }
    }

    #[test]
    fn the_originals_remote_command_works() {
        let line = "-vvvv -g it_nss --salloc-arg=--partition=devel -S=--cpus-per-task=4 \
                    -l /home/1001/.log.[PID] --tee-stdin=/home/1001/.in.[PID] -0 in -1 out -2 err";
        let options = options(&line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(options.verbosity, Some(LevelFilter::Trace));
        assert_eq!(options.tee_stdin, Some("in".into()));
        assert_eq!(options.tee_stdout, Some("out".into()));
        assert_eq!(options.tee_stderr, Some("err".into()));
        assert_eq!(
            expand_pid(&options.log_file.unwrap(), 42),
            Path::new("/home/1001/.log.42")
        );
        assert_eq!(
            options.launch,
            LaunchChoice::Salloc {
                workgroup: Some("it_nss".into()),
                args: vec!["--partition=devel".into(), "--cpus-per-task=4".into()],
            }
        );
    }

    #[test]
    fn single_options_take_their_last_value_whatever_they_are_called() {
        assert_eq!(
            options(&["-p1", "--listen-port", "2", "-p=3"]).listen_port,
            3
        );
        assert_eq!(salloc(&["-g", "a", "--workgroup=b"]).0, Some("b".into()));
        assert_eq!(
            salloc(&["--workgroup=b", "--group", "c"]).0,
            Some("c".into())
        );
        assert_eq!(
            salloc(&["--group=c", "--workgroup=b", "-ga"]).0,
            Some("a".into())
        );
        assert_eq!(options(&["--admit=any", "--admit=self"]).admit, Admit::Own);
    }

    #[test]
    fn repeatable_options_keep_their_order() {
        let (_, args) = salloc(&["-S", "-a", "--salloc-arg=", "-S=--b", "-Sc", "-S", "=d"]);
        assert_eq!(args, ["-a", "", "--b", "c", "=d"]);
        let env = options(&["-e", "A", "-e", "B=1=2", "--salloc-env=A=", "-e=C=x"]).env;
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            env,
            [
                pair("A", ""),
                pair("B", "1=2"),
                pair("A", ""),
                pair("C", "x")
            ]
        );
        let from = options(&["--admit-from=10.0.0.0/8", "--admit-from", "fd00::1"]).admit_from;
        assert_eq!(
            from,
            ["10.0.0.0/8".parse().unwrap(), "fd00::1".parse().unwrap()]
        );
    }

    #[test]
    fn verbosity_counts_both_ways() {
        for (line, level) in [
            (&[] as &[&str], None),
            (&["-v"], Some(LevelFilter::Info)),
            (&["-vv"], Some(LevelFilter::Debug)),
            (&["-v", "--verbose", "-v"], Some(LevelFilter::Trace)),
            (&["-vvvvvvvv"], Some(LevelFilter::Trace)),
            (&["-q"], Some(LevelFilter::Error)),
            (&["-qq"], Some(LevelFilter::Off)),
            (&["-qqqqqq"], Some(LevelFilter::Off)),
            (&["-vq"], Some(LevelFilter::Warn)),
            (&["-qvv"], Some(LevelFilter::Info)),
        ] {
            assert_eq!(options(line).verbosity, level, "{line:?}");
        }
    }

    #[test]
    fn help_and_version_come_before_values_and_go_to_stdout() {
        let Ok(Request::Help(text)) = request(&["-V", "-h", "-b", "0"]) else {
            panic!("no help")
        };
        for spec in TABLE {
            let names = [spec.short, spec.long, spec.alias]
                .into_iter()
                .filter(|n| !n.is_empty());
            let all = names.map(dashed).collect::<Vec<_>>().join(", ");
            let line = text
                .lines()
                .find(|line| line.trim_start().starts_with(&all));
            assert!(
                line.is_some_and(|line| line.contains(spec.value.name())),
                "{all}"
            );
        }
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        let untidy = text.lines().find(|line| *line != line.trim_end());
        assert_eq!(untidy, None);
        let version = format!("vscode-shell-proxy {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(request(&["--version"]), Ok(Request::Version(version)));
    }

    #[test]
    fn self_test_hands_on_all_but_itself() {
        let line = ["--self-test", "-v", "-S", "--x11", "-e", "A=b"];
        let Ok(Request::SelfTest(options, again)) = request(&line) else {
            panic!("no self-test")
        };
        assert_eq!(parse(again), Ok(Request::Run(options.clone())));
        assert_eq!(
            parse(line[1..].iter().map(OsString::from)),
            Ok(Request::Run(options))
        );
    }

    #[test]
    fn pid_is_expanded_wherever_it_stands() {
        let expand = |path: &str| expand_pid(Path::new(path), 7);
        assert_eq!(expand("/a/[PID]/b.[PID]"), Path::new("/a/7/b.7"));
        assert_eq!(expand("[pid] [PID"), Path::new("[pid] [PID"));
    }

    fn word() -> impl Strategy<Value = String> {
        "[^\0-][^\0]{0,12}"
    }

    prop_compose! {
        fn any_launch()(
            workgroup in proptest::option::of(word()),
            args in prop::collection::vec("[^\0]{0,12}", 0..4),
            command in prop::collection::vec(prop::collection::vec(1..=255u8, 1..8), 0..4),
        ) -> LaunchChoice {
            match command.is_empty() {
                true => LaunchChoice::Salloc { workgroup, args },
                false => LaunchChoice::Command(command.into_iter().map(OsString::from_vec).collect()),
            }
        }
    }

    prop_compose! {
        fn any_options()(
            level in proptest::option::of(0..6usize),
            paths in prop::collection::vec(proptest::option::of(word()), 4),
            (backlog, byte_limit, listen_port) in (1..=65535u32, 512..=1048576usize, any::<u16>()),
            listen_host in word(),
            admit in prop::sample::select(vec![Admit::Own, Admit::Root, Admit::Any]),
            from in prop::collection::vec(any::<std::net::IpAddr>(), 0..3),
            launch in any_launch(),
            env in prop::collection::vec(("[^\0=]{1,8}", "[^\0]{0,8}"), 0..3),
        ) -> Options {
            let mut paths = paths.into_iter().map(|path| path.map(PathBuf::from));
            let mut path = || paths.next().flatten();
            Options {
                verbosity: level.map(|n| LevelFilter::iter().nth(n).unwrap()),
                log_file: path(),
                tee_stdin: path(),
                tee_stdout: path(),
                tee_stderr: path(),
                backlog,
                byte_limit,
                listen_host,
                listen_port,
                admit,
                admit_from: from.iter().map(|ip| ip.to_string().parse().unwrap()).collect(),
                launch,
                env,
            }
        }
    }

    proptest! {
        #[test]
        fn printed_options_are_read_back(options in any_options()) {
            prop_assert_eq!(parse(options.to_args()), Ok(Request::Run(Box::new(options))));
        }

        #[test]
        fn arbitrary_words_give_options_or_one_line(data: Vec<u8>) {
            check(&data);
        }

        #[test]
        fn likely_words_give_options_or_one_line(words in prop::collection::vec(prop::sample::select(vec![
            "-v", "-q", "-l", "-S", "-S=", "-S=-S==", "-g", "--workgroup=", "-e", "A=", "=", "-",
            "--", "--admit-from=::/0", "-b7", "-B", "600", "--self-test", "-\u{e9}", "--\u{e9}", "\u{fe}",
        ]), 0..8)) {
            check(words.join("\0").as_bytes());
        }
    }
}
