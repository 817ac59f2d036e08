//! From settings to [`Options`]: the one place that knows what each option is for.

use std::ffi::OsString;
use std::str::FromStr;

use log::LevelFilter;

use super::settings::{Settings, UsageError, wrong};
use super::{LaunchChoice, Options};

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
            launch: launch(settings, command)?,
            env: settings
                .all("salloc-env")?
                .into_iter()
                .map(|Variable(name, value)| (name, value))
                .collect(),
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
    let workgroup = settings.last("group")?;
    let args = settings.all("salloc-arg")?;
    let Some(command) = command else {
        return Ok(LaunchChoice::Salloc { workgroup, args });
    };
    match command.first() {
        None => return wrong("nothing after --: a COMMAND is expected there (without --: salloc)"),
        Some(program) if program.is_empty() => {
            return wrong("the COMMAND after -- is an empty word: a program's name is expected");
        }
        Some(program) => {
            let mut clashes = settings.of("group").chain(settings.of("salloc-arg"));
            if let Some(clash) = clashes.next() {
                return wrong(format!(
                    "{clash} cannot be combined with the COMMAND {program:?}: it is for salloc; \
                     put it into the COMMAND"
                ));
            }
        }
    }
    Ok(LaunchChoice::Command(command.to_vec()))
}

/// One `NAME[=VALUE]`.
struct Variable(String, String);

impl FromStr for Variable {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        if name.is_empty() || text.contains('\0') {
            return Err("NAME or NAME=VALUE is expected, with a NAME that is not empty");
        }
        Ok(Self(name.to_owned(), value.to_owned()))
    }
}
