//! What a session is asked to do: one table of options, and everything that follows from it.
//!
//! [`table`] is the only place that knows an option's letters, value, bounds and default. Each
//! source of options yields a list of [`Settings`]: a row of the table, a value, and where it was
//! said. [`Options`] are made from the whole list, in one place ([`Options::new`]), so that a value is
//! held to the same rules wherever it comes from, and a complaint names the source.

mod command_line;
mod file;
mod help;
mod layers;
mod merge;
mod node;
mod reach;
mod report;
mod settings;
mod stanza;
pub mod table;
mod template;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use bstr::ByteSlice;
use log::LevelFilter;

use crate::admission::{Admit, Cidr, Rules};

pub use command_line::CommandLine;
pub use file::{ConfigFile, Profile, Whose};
pub use help::help;
pub(crate) use help::listing;
use layers::Layers;
pub(crate) use node::short;
pub use node::{NodeAddress, NodeDomain};
pub use reach::{Ports, Reach};
pub use settings::{Origin, Setting, Settings, UsageError};
pub use stanza::Stanza;
pub use template::{CommandTemplate, Filling, Login, Template};

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Print this on stdout and leave with status 0.
    Print(String),
    /// Print this stanza on stdout and leave with status 0.
    Stanza(Stanza),
    /// The site does not want sessions now: say this on stderr and leave with status 1.
    SwitchedOff(String),
    /// Relay a session.
    Run(Box<Options>),
    /// Play a session against a second copy of the program, to be started with these arguments:
    /// the given ones without `--self-test`. It reads the same files.
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
    /// How connections reach the server in the job.
    pub reach: Reach,
    /// The one address, or its name, that a relay in the job dials; `None` offers all.
    pub reach_host: Option<String>,
    /// The ports of which it dials one; `None` lets the kernel pick.
    pub reach_ports: Option<Ports>,
    /// The domain in which the node's short name is looked up too.
    pub node_domain: Option<NodeDomain>,
    /// How a further name of the node is made.
    pub node_address: Option<NodeAddress>,
    /// Seconds up to the first line about a job that waits, 0 for none.
    pub status_interval: u32,
    /// How many sessions the user may run on this machine at a time, 0 for any number.
    pub max_sessions: u32,
    /// Whether the system's log gets a line at the start and at the end.
    pub syslog: bool,
    /// What to launch.
    pub launch: LaunchChoice,
    /// Variables for its environment. A name may occur twice; the later one counts.
    pub env: Vec<Variable>,
    /// What the job's shell runs before the client's first byte: lines of its own language.
    pub startup: Vec<String>,
    /// Variables that its environment shall not have, unless `env` has them.
    pub unset_env: Vec<String>,
}

/// What to launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaunchChoice {
    /// The configured command, with what is added to it.
    Configured(Configured),
    /// This command, never empty: its program and its arguments, any bytes.
    Command(Vec<OsString>),
}

/// The configured command, with what is added to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configured {
    /// The command.
    pub command: CommandTemplate,
    /// The workgroup to submit under.
    pub workgroup: Option<Workgroup>,
    /// The arguments to add, in order.
    pub args: Vec<String>,
    /// What salloc is told to call the job.
    pub job_name: Template,
}

/// A workgroup to submit under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Workgroup {
    /// This one.
    Named(String),
    /// The first that `workgroup -q workgroups` names.
    First,
}

impl LaunchChoice {
    /// The workgroup to submit under.
    pub fn workgroup(&self) -> Option<&Workgroup> {
        match self {
            Self::Configured(configured) => configured.workgroup.as_ref(),
            Self::Command(_) => None,
        }
    }
}

impl fmt::Display for Workgroup {
    /// The value of `--group`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Named(name) => name,
            Self::First => "auto",
        })
    }
}

/// A variable for the launch command's environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Not empty, without `=` and NUL.
    pub name: String,
    /// Without NUL.
    pub value: Template,
}

impl Default for Options {
    /// The options of an empty command line.
    fn default() -> Self {
        Options::new(&Settings::built_in(), None).expect("the table's own values are right")
    }
}

/// Reads a command line, without the program's name at its front, as if there were no file.
///
/// # Errors
/// As [`request`].
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Request, UsageError> {
    request(&CommandLine::read(args)?, &[])
}

/// What a command line asks for where there are these configuration files, those that count more
/// behind those that count less.
///
/// # Errors
/// Wrong use of any kind. A `--` with nothing behind it is wrong use too: the likely cause is an
/// empty variable, and submitting a plain `salloc` job is not what its author meant.
pub fn request(line: &CommandLine, files: &[ConfigFile]) -> Result<Request, UsageError> {
    if let Some(text) = line.information() {
        return Ok(Request::Print(text));
    }
    if line.settings.count("list-profiles") > 0 {
        return Ok(Request::Print(report::profiles(files)));
    }
    let layers = Layers::new(line, files)?;
    let options = Box::new(Options::new(&layers.settings, line.command.as_deref())?);
    if line.settings.count("show-config") > 0 {
        return Ok(Request::Print(report::in_force(&layers)));
    }
    if let Some(name) = line.settings.last("ssh-config")? {
        let asked_for = ["ssh-config", "self-test"];
        let args = asked_for
            .iter()
            .fold(line.clone(), |line, long| line.without(long));
        return Ok(Request::Stanza(Stanza {
            name,
            host: layers.settings.last("ssh-host")?,
            args: args.to_args(),
        }));
    }
    if let Some(text) = layers.switched_off()? {
        return Ok(Request::SwitchedOff(text));
    }
    if line.settings.count("self-test") > 0 {
        return Ok(Request::SelfTest(
            options,
            line.without("self-test").to_args(),
        ));
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

impl Options {
    /// What `--admit` and `--admit-from` mean for a proxy of this user.
    pub fn admission(&self, own_uid: u32) -> Rules {
        Rules::new(self.admit, self.admit_from.clone(), own_uid)
    }
}
