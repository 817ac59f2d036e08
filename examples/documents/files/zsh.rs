//! Completion for zsh.

use super::{Choice, Program, choice, dashed};
use vscode_shell_proxy::options::table::{Spec, Value};

pub(super) fn text(program: &Program) -> String {
    let name = program.name;
    let mut text = format!(
        "#compdef {name}\n\
         # Completion of {name} for zsh, generated from its options (cargo run --example documents).\n\n"
    );
    if program.command {
        text += &format!(
            "{function}_profiles() {{\n    \
                 local -a profiles\n    \
                 profiles=(${{${{(f)\"$({name} --list-profiles 2> /dev/null)\"}}/ ##/:}})\n    \
                 _describe profile profiles\n\
             }}\n\n\
             local -i at=${{words[(i)--]}}\n\
             if ((at < CURRENT)); then\n    \
                 shift $at words\n    \
                 ((CURRENT -= at))\n    \
                 _normal\n    \
                 return\n\
             fi\n",
            function = program.function()
        );
    }
    text += "_arguments -s -S";
    for spec in &program.specs {
        text += &format!(" \\\n    {}", argument(program, spec));
    }
    text + "\n"
}

fn argument(program: &Program, spec: &Spec) -> String {
    let names = dashed(spec);
    let takes_value = spec.value != Value::None;
    // -b64 and -b 64; --backlog=64 and --backlog 64.
    let name = |name: &String| match (takes_value, name.starts_with("--")) {
        (false, _) => name.clone(),
        (true, false) => format!("{name}+"),
        (true, true) => format!("{name}="),
    };
    let written: Vec<String> = names.iter().map(name).collect();
    // What may be given once is not offered again under another of its names.
    let before = match (spec.repeatable, names.len()) {
        (true, _) => "*".to_owned(),
        (false, 1) => String::new(),
        (false, _) => format!("({})", names.join(" ")),
    };
    let help = spec.help.replace('[', "\\[").replace(']', "\\]");
    let value = match choice(spec) {
        _ if !takes_value => String::new(),
        Choice::File => ":file:_files".to_owned(),
        Choice::User => ":user:_users".to_owned(),
        Choice::Profile => format!(":profile:{}_profiles", program.function()),
        Choice::Words(words) => format!(":{}:({})", spec.value.name(), words.join(" ")),
        Choice::Anything => format!(":{}: ", spec.value.name()),
    };
    let behind = format!("[{help}]{value}").replace('\'', "'\\''");
    match &written[..] {
        [one] => format!("'{before}{one}{behind}'"),
        several => format!("'{before}'{{{}}}'{behind}'", several.join(",")),
    }
}
