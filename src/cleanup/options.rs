//! The command line of `vscode-cleanup`: one table, from which parser and usage follow.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;

use crate::age::Age;
use crate::options::listing;
use crate::options::table::{PLAIN, Spec, Value};

/// Trees younger than this are left alone, unless `--age` says otherwise.
pub const AGE_DEFAULT: Age = Age::from_secs(5 * 24 * 60 * 60);

/// Time between SIGTERM and SIGKILL, unless `--grace` says otherwise.
pub const GRACE_DEFAULT: Age = Age::from_secs(5);

/// The longest grace time: a clean-up that waits for longer would meet the next one.
pub const GRACE_MAX: Age = Age::from_secs(60 * 60);

/// Every option, in the sequence of the usage text.
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
        short: "q",
        long: "quiet",
        help: "print no line for each process, only the last one",
        ..PLAIN
    },
    Spec {
        short: "k",
        long: "kill",
        help: "end what was found; without it nothing is touched",
        paragraph: "SIGTERM first; after --grace, SIGKILL. The whole tree is stopped and looked at \
                    once more before, and continued if it turns out to be in use.",
        ..PLAIN
    },
    Spec {
        short: "a",
        long: "age",
        value: Value::Word("AGE"),
        built_in: "5d",
        help: "only trees whose root is at least this old",
        ..PLAIN
    },
    Spec {
        short: "u",
        long: "user",
        value: Value::Word("NAME"),
        default: "all",
        repeatable: true,
        help: "only this user's, by name or number",
        paragraph: "For root; others see their own in any case.",
        ..PLAIN
    },
    Spec {
        short: "p",
        long: "pattern",
        value: Value::Word("TEXT"),
        repeatable: true,
        help: "one more name that marks a server, as a whole component of a path",
        paragraph: "The directories of VS Code and its descendants are known.",
        ..PLAIN
    },
    Spec {
        long: "include-attached",
        help: "also trees that may be in use: not orphaned, or connected to",
        ..PLAIN
    },
    Spec {
        long: "include-jobs",
        help: "also trees inside a scheduler's job",
        ..PLAIN
    },
    Spec {
        short: "g",
        long: "grace",
        value: Value::Word("AGE"),
        built_in: "5s",
        help: "time between SIGTERM and SIGKILL, at most 1h; 0 is SIGKILL at once",
        ..PLAIN
    },
    Spec {
        short: "o",
        long: "output",
        value: Value::OneOf("FORM", &["table", "json", "pids"]),
        built_in: "table",
        help: "table, json or pids",
        ..PLAIN
    },
];

/// The form of the listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// One number a line.
    Pids,
}

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `--quiet`
    pub quiet: bool,
    /// `--kill`
    pub kill: bool,
    /// `--age`
    pub age: Age,
    /// `--user`: names, not looked up yet.
    pub users: Vec<String>,
    /// `--pattern`
    pub patterns: Vec<Vec<u8>>,
    /// `--include-attached`
    pub include_attached: bool,
    /// `--include-jobs`
    pub include_jobs: bool,
    /// `--grace`, at most [`GRACE_MAX`].
    pub grace: Age,
    /// `--output`
    pub output: Output,
}

/// A command line that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Print [`usage`].
    Help,
    /// Print [`version`].
    Version,
    /// Do the work.
    Run(Options),
}

/// A command line that was not: what is wrong and what is right, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageError(pub String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A control character of the user's own words is shown, not sent.
        let text = self.0.chars();
        text.flat_map(|c| {
            if c.is_control() {
                c.escape_default().collect()
            } else {
                vec![c]
            }
        })
        .try_for_each(|c| fmt::Write::write_char(f, c))
    }
}

impl std::error::Error for UsageError {}

fn wrong<T>(text: String) -> Result<T, UsageError> {
    Err(UsageError(text))
}

/// Reads the arguments behind the program's name.
///
/// # Errors
/// Wrong use; nothing is guessed.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Request, UsageError> {
    let mut words = Vec::new();
    for arg in args {
        let Ok(word) = arg.clone().into_string() else {
            return wrong(format!(
                "{:?} is not UTF-8",
                arg.into_vec().escape_ascii().to_string()
            ));
        };
        words.push(word);
    }
    let matches = match parser().parse(&words) {
        Ok(matches) => matches,
        Err(error) => return wrong(format!("{}; see --help", explain(&error))),
    };
    if matches.opt_present("help") {
        return Ok(Request::Help);
    }
    if matches.opt_present("version") {
        return Ok(Request::Version);
    }
    if let Some(word) = matches.free.first() {
        return wrong(format!("{word:?} is not an option; see --help"));
    }
    let age = |name: &str, default: Age| match matches.opt_str(name) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|error| {
            UsageError(format!(
                "--{name} {text:?}: {error}; right are 5d6h10m45s, 2h or a number of seconds"
            ))
        }),
    };
    let grace = age("grace", GRACE_DEFAULT)?;
    if grace > GRACE_MAX {
        return wrong(format!("--grace {grace} is too long: at most {GRACE_MAX}"));
    }
    let users = matches.opt_strs("user");
    if users.iter().any(String::is_empty) {
        return wrong("--user needs the name or number of a user".to_owned());
    }
    let patterns = matches.opt_strs("pattern");
    if let Some(pattern) = patterns.iter().find(|pattern| {
        // These would match nothing, or not what was meant.
        let mut components = pattern.split('/').filter(|c| !c.is_empty()).peekable();
        components.peek().is_none() || components.any(|c| c == "." || c == "..")
    }) {
        return wrong(format!(
            "--pattern {pattern:?}: right is a component of a path, such as .my-server"
        ));
    }
    let output = match matches.opt_str("output").as_deref() {
        None | Some("table") => Output::Table,
        Some("json") => Output::Json,
        Some("pids") => Output::Pids,
        Some(other) => {
            return wrong(format!(
                "--output {other:?}: right are table, json and pids"
            ));
        }
    };
    Ok(Request::Run(Options {
        quiet: matches.opt_present("quiet"),
        kill: matches.opt_present("kill"),
        age: age("age", AGE_DEFAULT)?,
        users,
        patterns: patterns.into_iter().map(String::into_bytes).collect(),
        include_attached: matches.opt_present("include-attached"),
        include_jobs: matches.opt_present("include-jobs"),
        grace,
        output,
    }))
}

fn parser() -> getopts::Options {
    let mut parser = getopts::Options::new();
    for spec in TABLE {
        let (short, long, value) = (spec.short, spec.long, spec.value.name());
        match spec.value {
            Value::None => parser.optflag(short, long, ""),
            _ if spec.repeatable => parser.optmulti(short, long, "", value),
            _ => parser.optopt(short, long, "", value),
        };
    }
    parser
}

fn explain(error: &getopts::Fail) -> String {
    use getopts::Fail::*;
    // getopts gives the option's letter or long name without its hyphens.
    let dashed = |name: &str| {
        if name.chars().count() == 1 {
            format!("-{name}")
        } else {
            format!("--{name}")
        }
    };
    match error {
        ArgumentMissing(name) => format!("{} needs a value", dashed(name)),
        UnrecognizedOption(name) => format!("{} is not an option", dashed(name)),
        OptionMissing(name) => format!("{} is missing", dashed(name)),
        OptionDuplicated(name) => format!("{} may be given once only", dashed(name)),
        UnexpectedArgument(name) => format!("{} takes no value", dashed(name)),
    }
}

/// The text of `--help`.
pub fn usage() -> String {
    format!(
        "Usage: vscode-cleanup [OPTION]...\n\
         Finds VS Code servers that were left behind, with all their processes, and\n\
         ends them where --kill is given.\n\n\
         {}\n\
         AGE is a sequence of numbers with units d, h, m or s (5d6h10m45s), or seconds.\n\
         Exit status: 0 done, 1 something could not be ended, 2 wrong use.\n",
        listing(TABLE.iter())
    )
}

/// The text of `--version`.
pub fn version() -> String {
    format!("vscode-cleanup {}\n", env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Request, UsageError> {
        parse(line.split_whitespace().map(OsString::from))
    }

    fn options(line: &str) -> Options {
        match parsed(line) {
            Ok(Request::Run(options)) => options,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn nothing_lists_orphans_of_five_days() {
        assert_eq!(
            options(""),
            Options {
                quiet: false,
                kill: false,
                age: Age::from_secs(432_000),
                users: vec![],
                patterns: vec![],
                include_attached: false,
                include_jobs: false,
                grace: Age::from_secs(5),
                output: Output::Table,
            }
        );
    }

    #[test]
    fn every_option_is_read_in_both_forms() {
        let long = options(
            "--quiet --kill --age=1h --user a --user b --pattern .x --grace 0 --output json \
             --include-attached --include-jobs",
        );
        let short =
            options("-qk -a1h -u a -ub -p .x -g 0 -o json --include-attached --include-jobs");
        assert_eq!(long, short);
        assert_eq!(
            long,
            Options {
                quiet: true,
                kill: true,
                age: Age::from_secs(3600),
                users: vec!["a".into(), "b".into()],
                patterns: vec![b".x".to_vec()],
                include_attached: true,
                include_jobs: true,
                grace: Age::from_secs(0),
                output: Output::Json,
            }
        );
        assert_eq!(parsed("-h"), Ok(Request::Help));
        assert_eq!(parsed("--version -k"), Ok(Request::Version));
    }

    #[test]
    fn wrong_use_is_one_line_that_says_what_is_right() {
        for (line, part) in [
            ("--age 5x", "'x' is out of place"),
            ("--age=", "it is empty"),
            ("--age 99999999999999999999d", "too long"),
            ("--age -5d", "out of place"),
            ("-a", "-a needs a value"),
            ("--age 1d --age 2d", "once only"),
            ("--grace 2h", "at most 1h"),
            ("--grace x", "--grace"),
            ("-o xml", "table, json and pids"),
            ("--user=", "--user needs"),
            ("-p /", "component of a path"),
            ("-p a/../b", "component of a path"),
            ("--kil", "--kil is not an option"),
            ("-x", "-x is not an option"),
            ("--kill=yes", "takes no value"),
            ("4711", "is not an option"),
            ("-- -k", "is not an option"),
        ] {
            let error = parsed(line).expect_err(line).to_string();
            assert!(error.contains(part), "{line}: {error}");
            assert!(!error.contains('\n'), "{line}: {error}");
        }
        let escape = parse([OsString::from("--\x1b[2J\n")]).expect_err("not an option");
        assert!(!escape.to_string().contains(char::is_control));
        let error = parse([OsString::from_vec(b"\xff".to_vec())]).expect_err("not UTF-8");
        assert!(error.to_string().contains("xff"), "{error}");
    }

    #[test]
    fn usage_names_every_option_within_a_terminal() {
        let usage = usage();
        for spec in TABLE {
            let long = format!("--{} {}", spec.long, spec.value.name());
            assert!(usage.contains(long.trim_end()), "{long}");
            let short = format!("-{}, --{}", spec.short, spec.long);
            assert!(spec.short.is_empty() || usage.contains(&short), "{short}");
        }
        assert!(usage.lines().all(|line| line.len() <= 80), "{usage}");
        for default in [AGE_DEFAULT, GRACE_DEFAULT] {
            assert!(usage.contains(&format!("(default: {default})")), "{usage}");
        }
        assert!(usage.contains(&format!("at most {GRACE_MAX}")));
    }
}
