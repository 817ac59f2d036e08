//! The manual pages: prose from the files beside this one, options from the tables.

use std::fmt::Write as _;

use vscode_shell_proxy::cleanup::options::TABLE as CLEANUP;
use vscode_shell_proxy::options::table::{Place, Spec, TABLE, Value};

use super::dashed;

pub(super) fn proxy() -> String {
    let specs = TABLE.iter().filter(|spec| spec.is_on_command_line());
    let text = include_str!("vscode-shell-proxy.1");
    page(text, &[("options", options(specs))])
}

pub(super) fn cleanup() -> String {
    let text = include_str!("vscode-cleanup.8");
    page(text, &[("options", options(CLEANUP.iter()))])
}

pub(super) fn configuration() -> String {
    let of = |place: Place| keys(TABLE.iter().filter(move |spec| spec.place == place));
    page(
        include_str!("vscode-shell-proxy.conf.5"),
        &[
            ("keys", of(Place::Anywhere)),
            ("keys of a profile", of(Place::Profile)),
            ("keys of the site", of(Place::SiteFile)),
        ],
    )
}

/// The prose with every line `.\" @NAME@` replaced, and `@VERSION@`.
fn page(prose: &str, parts: &[(&str, String)]) -> String {
    let mut text = ".\\\" Generated (cargo run --example documents): do not edit.\n".to_owned();
    for line in prose.lines() {
        let name = line
            .strip_prefix(".\\\" @")
            .and_then(|l| l.strip_suffix('@'));
        match name {
            Some(name) => {
                let part = parts.iter().find(|(part, _)| *part == name);
                text += &part.expect("every part that the prose names is there").1;
            }
            None => {
                text += &line.replace("@VERSION@", env!("CARGO_PKG_VERSION"));
                text.push('\n');
            }
        }
    }
    text
}

fn options(specs: impl Iterator<Item = &'static Spec>) -> String {
    specs.fold(String::new(), |mut text, spec| {
        let names: Vec<String> = dashed(spec).iter().map(|name| bold(name)).collect();
        let value = match spec.value {
            Value::None => String::new(),
            value => format!(" \\fI{}\\fR", plain(value.name())),
        };
        let _ = write!(text, ".TP\n{}{value}\n{}", names.join(", "), body(spec));
        text
    })
}

fn keys(specs: impl Iterator<Item = &'static Spec>) -> String {
    specs.fold(String::new(), |mut text, spec| {
        let names: Vec<String> = spec.names().map(bold).collect();
        let value = match spec.value {
            Value::None => Value::YesNo.name(),
            value => value.name(),
        };
        let names = names.join(", ");
        let _ = write!(
            text,
            ".TP\n{names} = \\fI{}\\fR\n{}",
            plain(value),
            body(spec)
        );
        text
    })
}

/// What is said about an option below its names.
fn body(spec: &Spec) -> String {
    let mut sentences = vec![sentence(spec.help)];
    if let Value::Number { min, max } = spec.value {
        sentences.push(format!("{min} to {max}."));
    }
    if !spec.default_in_words().is_empty() {
        sentences.push(format!("The default is {}.", spec.default_in_words()));
    }
    if spec.repeatable {
        sentences.push("May be repeated.".to_owned());
    }
    if !spec.paragraph.is_empty() {
        sentences.push(spec.paragraph.to_owned());
    }
    let text = plain(&sentences.join("\n"));
    // A line that begins like a request is none.
    let guard = |line: &str| match line.starts_with(['.', '\'']) {
        true => format!("\\&{line}\n"),
        false => format!("{line}\n"),
    };
    text.lines().map(guard).collect()
}

/// With a capital at its beginning, if that is a word, and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|c| c.to_ascii_uppercase());
    let stop = if text.ends_with("...") { "" } else { "." };
    first.into_iter().chain(letters).collect::<String>() + stop
}

/// Text that means itself: a hyphen can be copied, a backslash is one.
fn plain(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

fn bold(text: &str) -> String {
    format!("\\fB{}\\fR", plain(text))
}
