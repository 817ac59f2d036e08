//! The text of `--help`, made from the table.

use super::command_line::on_command_line;
use super::table::{Spec, Value};

const USAGE: &str = "\
Usage: vscode-shell-proxy [OPTIONS] [-- COMMAND [ARG...]]

Runs a VS Code Remote-SSH session inside a scheduler's job instead of on the
login node. Meant as the RemoteCommand of an ssh Host stanza.

COMMAND is launched instead of salloc, verbatim; its standard streams have to
lead to a shell in the job. It cannot be combined with --command, --group,
--salloc-arg and --job-name, and what files say of these does not count.

Options:
";

/// The text of `--help`, at most 80 columns wide.
pub fn help() -> String {
    USAGE.to_owned() + &listing(on_command_line())
}

/// These options as `--help` shows them, at most 80 columns wide.
pub(crate) fn listing(specs: impl Iterator<Item = &'static Spec>) -> String {
    const COLUMN: usize = 29;
    let mut text = String::new();
    for spec in specs {
        let mut left = match spec.short {
            "" => "      ".to_owned(),
            short => format!("  -{short}, "),
        };
        let names: Vec<String> = spec.names().map(|name| format!("--{name}")).collect();
        left += &names.join(", ");
        if spec.value != Value::None {
            left += &format!(" {}", spec.value.name());
        }
        let mut notes = Vec::new();
        if let Value::Number { min, max } = spec.value {
            notes.push(format!("{min} to {max}"));
        }
        if !spec.default_in_words().is_empty() {
            notes.push(format!("default: {}", spec.default_in_words()));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::table::PLAIN;

    #[test]
    fn a_line_is_filled_up_to_its_80th_column() {
        let x = |count| "x".repeat(count);
        for (name, help, lines) in [
            (1, vec![x(25), x(25)], 1),
            (1, vec![x(25), x(26)], 2),
            (1, vec![x(25), x(25), x(51)], 2),
            // What is longer than a line is not broken.
            (1, vec![x(60)], 1),
            // The widest name that has its help beside it: a blank is between them.
            (20, vec![x(9)], 1),
            (21, vec![x(9)], 2),
        ] {
            let spec = Spec {
                long: x(name).leak(),
                help: help.join(" ").leak(),
                ..PLAIN
            };
            let text = listing(std::iter::once(&*Box::leak(Box::new(spec))));
            assert_eq!(text.lines().count(), lines, "{text}");
            let words: Vec<&str> = text.split_whitespace().skip(1).collect();
            assert_eq!(words, help);
            let line = text.lines().last();
            assert_eq!(line.and_then(|line| line.find(" x")), Some(28), "{text}");
        }
    }
}
