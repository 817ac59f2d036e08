//! Completion for fish.

use super::{Choice, Program, choice};
use vscode_shell_proxy::options::table::Value;

pub(super) fn text(program: &Program) -> String {
    let name = program.name;
    let mut text = format!(
        "# Completion of {name} for fish, generated from its options (cargo run --example documents).\n\
         complete -c {name} -f\n"
    );
    let condition = if program.command {
        text += &format!(
            "complete -c {name} -n 'contains -- -- (commandline -opc)' -a '(__fish_complete_command)'\n"
        );
        " -n 'not contains -- -- (commandline -opc)'"
    } else {
        ""
    };
    for spec in &program.specs {
        for (index, long) in spec.names().enumerate() {
            text += &format!("complete -c {name}{condition}");
            if index == 0 && !spec.short.is_empty() {
                text += &format!(" -s {}", spec.short);
            }
            text += &format!(" -l {long}");
            if spec.value != Value::None {
                text += &match choice(spec) {
                    Choice::File => " -r -F".to_owned(),
                    Choice::User => " -x -a '(__fish_complete_users)'".to_owned(),
                    Choice::Profile => format!(
                        " -x -a '({name} --list-profiles 2> /dev/null | string replace -r \" +\" \\t)'"
                    ),
                    Choice::Words(words) => format!(" -x -a '{}'", words.join(" ")),
                    Choice::Anything => " -x".to_owned(),
                };
            }
            text += &format!(
                " -d '{}'\n",
                spec.help.replace('\\', "\\\\").replace('\'', "\\'")
            );
        }
    }
    text
}
