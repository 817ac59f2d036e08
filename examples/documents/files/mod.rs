//! What the generated files are, and what is in them.

mod bash;
mod fish;
mod manual;
mod zsh;

use vscode_shell_proxy::cleanup;
use vscode_shell_proxy::options::table::{self, Spec, Value};

/// A program as its completions see it.
struct Program {
    /// Its name.
    name: &'static str,
    /// Its options.
    specs: Vec<&'static Spec>,
    /// Does a command follow behind `--`?
    command: bool,
}

/// How a value is completed.
enum Choice {
    /// The name of a file.
    File,
    /// A user's name.
    User,
    /// A profile's name; the program itself lists them.
    Profile,
    /// One of these words.
    Words(&'static [&'static str]),
    /// Nobody knows.
    Anything,
}

impl Program {
    fn proxy() -> Self {
        let on_command_line = |spec: &&Spec| spec.is_on_command_line();
        Self {
            name: "vscode-shell-proxy",
            specs: table::TABLE.iter().filter(on_command_line).collect(),
            command: true,
        }
    }

    fn cleanup() -> Self {
        Self {
            name: "vscode-cleanup",
            specs: cleanup::options::TABLE.iter().collect(),
            command: false,
        }
    }

    /// A name for functions of a shell.
    fn function(&self) -> String {
        format!("_{}", self.name.replace('-', "_"))
    }
}

/// What is known about the value of an option.
fn choice(spec: &Spec) -> Choice {
    match (spec.long, spec.value) {
        ("profile", _) => Choice::Profile,
        ("user", _) => Choice::User,
        (_, Value::OneOf(_, words)) => Choice::Words(words),
        (_, Value::YesNo) => Choice::Words(&["yes", "no"]),
        (_, Value::Word("PATH")) => Choice::File,
        _ => Choice::Anything,
    }
}

/// An option's names as they are written.
fn dashed(spec: &Spec) -> Vec<String> {
    let short = (!spec.short.is_empty()).then(|| format!("-{}", spec.short));
    let long = spec.names().map(|name| format!("--{name}"));
    short.into_iter().chain(long).collect()
}

/// Every generated file: its path in the project, its text.
pub(crate) fn all() -> Vec<(String, String)> {
    let mut files = vec![
        ("man/vscode-shell-proxy.1".to_owned(), manual::proxy()),
        ("man/vscode-cleanup.8".to_owned(), manual::cleanup()),
        (
            "man/vscode-shell-proxy.conf.5".to_owned(),
            manual::configuration(),
        ),
    ];
    for program in [Program::proxy(), Program::cleanup()] {
        let name = program.name;
        files.push((format!("completions/{name}.bash"), bash::text(&program)));
        files.push((format!("completions/_{name}"), zsh::text(&program)));
        files.push((format!("completions/{name}.fish"), fish::text(&program)));
    }
    files
}
