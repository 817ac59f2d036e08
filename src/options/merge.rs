//! From settings to [`Options`]: the one place that knows what each option is for.

use std::convert::Infallible;
use std::ffi::OsString;
use std::str::FromStr;

use log::LevelFilter;

use super::layers::REPLACED;
use super::settings::{Origin, Setting, Settings, UsageError, wrong};
use super::{Configured, LaunchChoice, Options, Template, Variable, Workgroup};

/// Most bytes of all startup commands together: the shell's pipe has to take them at once.
const STARTUP_LIMIT: usize = 8 * 1024;

impl Options {
    /// What these settings ask for, the built-in ones at their front, together with what stands
    /// behind `--` on the command line.
    ///
    /// # Errors
    /// The first value that is not right, or options that contradict each other.
    pub fn new(settings: &Settings, command: Option<&[OsString]>) -> Result<Self, UsageError> {
        Ok(Self {
            verbosity: verbosity(settings.count("verbose"), settings.count("quiet")),
            log_file: settings.last("log-file")?,
            tee_stdin: settings.last("tee-stdin")?,
            tee_stdout: settings.last("tee-stdout")?,
            tee_stderr: settings.last("tee-stderr")?,
            backlog: settings.one("backlog")?,
            byte_limit: settings.one("byte-limit")?,
            listen_host: settings.one("listen-host")?,
            listen_port: settings.one("listen-port")?,
            admit: settings.one("admit")?,
            admit_from: settings.all("admit-from")?,
            reach: settings.one("reach")?,
            reach_host: settings.last("reach-host")?,
            reach_ports: settings.last("reach-ports")?,
            node_domain: settings.last("node-domain")?,
            node_address: settings.last("node-address")?,
            status_interval: settings.one("status-interval")?,
            max_sessions: settings.one("max-sessions")?,
            syslog: settings.count("syslog") > 0,
            launch: launch(settings, command)?,
            env: settings
                .of("salloc-env")
                .map(variable)
                .collect::<Result<_, _>>()?,
            unset_env: unset(settings)?,
            startup: startup(settings)?,
        })
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

fn launch(settings: &Settings, command: Option<&[OsString]>) -> Result<LaunchChoice, UsageError> {
    let configured = Configured {
        command: settings.one("command")?,
        workgroup: settings.last("group")?,
        args: settings.all("salloc-arg")?,
        job_name: settings.one("job-name")?,
    };
    let Some(command) = command else {
        return Ok(LaunchChoice::Configured(configured));
    };
    match command.first() {
        None => return wrong("nothing after --: a COMMAND is expected there (without --: salloc)"),
        Some(program) if program.is_empty() => {
            return wrong("the COMMAND after -- is an empty word: a program's name is expected");
        }
        Some(program) => {
            // What files say is dropped. On the same line it is a contradiction.
            let mut clashes = REPLACED.into_iter().flat_map(|long| settings.of(long));
            if let Some(clash) = clashes.find(|clash| clash.origin == Origin::CommandLine) {
                return wrong(format!(
                    "{clash} cannot be combined with the COMMAND {program:?}: it is for the \
                     configured command (salloc); put it into the COMMAND"
                ));
            }
        }
    }
    Ok(LaunchChoice::Command(command.to_vec()))
}

impl FromStr for Workgroup {
    type Err = Infallible;

    fn from_str(name: &str) -> Result<Self, Infallible> {
        Ok(match name {
            "auto" => Self::First,
            name => Self::Named(name.to_owned()),
        })
    }
}

/// One `NAME[=VALUE]`. A shell has expanded what stands on the command line; a file has none.
fn variable(setting: &Setting) -> Result<Variable, UsageError> {
    let (name, value) = setting
        .value
        .split_once('=')
        .unwrap_or((&setting.value, ""));
    if name.is_empty() || setting.value.contains('\0') {
        return Err(setting.wrong("NAME or NAME=VALUE is expected, with a NAME that is not empty"));
    }
    let value = match setting.origin {
        Origin::File { .. } => {
            Template::with_variables(value).map_err(|error| setting.wrong(error))?
        }
        _ => Template::verbatim(value),
    };
    Ok(Variable {
        name: name.to_owned(),
        value,
    })
}

fn unset(settings: &Settings) -> Result<Vec<String>, UsageError> {
    let with_value = |setting: &&Setting| setting.value.contains('=');
    match settings.of("unset-env").find(with_value) {
        Some(setting) => Err(setting.wrong("a NAME alone is expected")),
        None => settings.all("unset-env"),
    }
}

fn startup(settings: &Settings) -> Result<Vec<String>, UsageError> {
    let mut bytes = 0;
    for setting in settings.of("startup") {
        bytes += setting.value.len();
        if setting.value.contains(['\n', '\r', '\0']) {
            return Err(setting.wrong("one line is expected"));
        }
        if bytes > STARTUP_LIMIT {
            return Err(setting.wrong(format_args!(
                "all of them together may have {STARTUP_LIMIT} bytes; put them into a file"
            )));
        }
    }
    settings.all("startup")
}
