//! The command line, read by getopts.
//!
//! `-S=--x11` means `--x11`: Python's argparse takes the `=` behind a letter for punctuation,
//! getopts for the value's first character.
//!
//! Two traps of getopts 0.2 are avoided here: it refuses arguments that are not UTF-8 even behind
//! `--`, and it hides a trailing `--`. So the line is split at the first `--` before it gets there.

use std::ffi::OsString;

use super::help::help;
use super::settings::{Origin, Setting, Settings, UsageError, wrong};
use super::table::{Spec, TABLE, Value};

/// A command line that is well formed: every option is one of the table's, and has a value where
/// it needs one. What the values have to be is not looked at here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// The options, in order of appearance.
    pub settings: Settings,
    /// What stands behind `--`, if that is there.
    pub command: Option<Vec<OsString>>,
}

impl CommandLine {
    /// Reads a command line, without the program's name at its front.
    ///
    /// # Errors
    /// An unknown option, a missing value, a value where none belongs, a word that is no option,
    /// or bytes that are not UTF-8 in front of `--`.
    pub fn read(args: impl IntoIterator<Item = OsString>) -> Result<Self, UsageError> {
        let mut args: Vec<OsString> = args.into_iter().collect();
        let command = args.iter().position(|arg| arg == "--").map(|at| {
            let command = args.split_off(at + 1);
            args.pop();
            command
        });
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
        let matches = parser().parse(&raw).or_else(|fail| wrong(explain(&fail)))?;
        if let Some(word) = matches.free.first() {
            return wrong(format!(
                "unexpected word {word:?}: options begin with -, and a COMMAND goes after --"
            ));
        }
        let mut found: Vec<(usize, Setting)> = Vec::new();
        for spec in on_command_line() {
            let settings = spec.names().flat_map(|name| given(&matches, spec, name));
            for (position, value) in settings {
                let value = match value.strip_prefix('=') {
                    Some(rest) if raw.contains(&format!("-{}{value}", spec.short)) => {
                        rest.to_owned()
                    }
                    _ => value,
                };
                let setting = Setting {
                    spec,
                    name: spec.long,
                    value,
                    origin: Origin::CommandLine,
                };
                // In the order of the line; those of one argument in that of the table.
                let at = found.partition_point(|(before, _)| *before <= position);
                found.insert(at, (position, setting));
            }
        }
        Ok(Self {
            settings: found.into_iter().map(|(_, setting)| setting).collect(),
            command,
        })
    }

    /// What is printed for a line that asks for help or for the version. No file has a say in that.
    pub fn information(&self) -> Option<String> {
        if self.settings.count("help") > 0 {
            return Some(help());
        }
        let version = || format!("vscode-shell-proxy {}\n", env!("CARGO_PKG_VERSION"));
        (self.settings.count("version") > 0).then(version)
    }

    /// The same line without every mention of one option.
    pub fn without(&self, long: &str) -> Self {
        let kept = |setting: &&Setting| setting.spec.long != long;
        Self {
            settings: self.settings.iter().filter(kept).cloned().collect(),
            command: self.command.clone(),
        }
    }

    /// The arguments that [`CommandLine::read`] makes this line from.
    pub fn to_args(&self) -> Vec<OsString> {
        let print = |setting: &Setting| match setting.spec.value {
            Value::None => format!("--{}", setting.spec.long).into(),
            _ => format!("--{}={}", setting.spec.long, setting.value).into(),
        };
        let mut args: Vec<OsString> = self.settings.iter().map(print).collect();
        if let Some(command) = &self.command {
            args.push("--".into());
            args.extend(command.iter().cloned());
        }
        args
    }
}

/// Where an option stands under one of its names, and with which value.
fn given(matches: &getopts::Matches, spec: &Spec, name: &str) -> Vec<(usize, String)> {
    match spec.value {
        Value::None => {
            let positions = matches.opt_positions(name).into_iter();
            positions.map(|at| (at, Setting::SET.to_owned())).collect()
        }
        _ => matches.opt_strs_pos(name),
    }
}

/// The rows of the table that a command line may hold.
pub(super) fn on_command_line() -> impl Iterator<Item = &'static Spec> {
    TABLE.iter().filter(|spec| spec.is_on_command_line())
}

fn parser() -> getopts::Options {
    use getopts::{HasArg, Occur};
    let mut options = getopts::Options::new();
    for spec in on_command_line() {
        let has_arg = match spec.value {
            Value::None => HasArg::No,
            _ => HasArg::Yes,
        };
        // Always `Multi`: what a repetition means is said by `Spec::repeatable`.
        let mut opt = |short, long| {
            options.opt(short, long, "", spec.value.name(), has_arg, Occur::Multi);
        };
        opt(spec.short, spec.long);
        for alias in spec.aliases {
            opt("", alias);
        }
    }
    options
}

/// What getopts found wrong, with the remedy.
fn explain(fail: &getopts::Fail) -> String {
    use getopts::Fail;
    match fail {
        Fail::ArgumentMissing(name) => {
            let value = on_command_line()
                .find(|spec| spec.short == name || spec.names().any(|long| long == name))
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
            let mut meant = on_command_line()
                .flat_map(Spec::names)
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
