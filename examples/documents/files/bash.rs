//! Completion for bash, without the help of the package bash-completion where that is missing.

use super::{Choice, Program, choice, dashed};
use vscode_shell_proxy::options::table::Value;

pub(super) fn text(program: &Program) -> String {
    let (name, function) = (program.name, program.function());
    let mut text = format!(
        "# Completion of {name} for bash, generated from its options (cargo run --example documents).\n\
         {function}() {{\n    \
             local word=${{COMP_WORDS[COMP_CWORD]}} option=${{COMP_WORDS[COMP_CWORD-1]}}\n    \
             # --name=value comes as three words.\n    \
             if [[ $word == = ]]; then word=\n    \
             elif [[ $option == = ]]; then option=${{COMP_WORDS[COMP_CWORD-2]}}\n    \
             fi\n"
    );
    if program.command {
        text += "    local at\n    \
                 for ((at = 1; at < COMP_CWORD; at++)); do\n        \
                     [[ ${COMP_WORDS[at]} == -- ]] || continue\n        \
                     if declare -F _command_offset > /dev/null; then _command_offset $((at + 1))\n        \
                     elif ((at + 1 == COMP_CWORD)); then mapfile -t COMPREPLY < <(compgen -c -- \"$word\")\n        \
                     else compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- \"$word\")\n        \
                     fi\n        \
                     return\n    \
                 done\n";
    }
    text += "    case $option in\n";
    let with_value = || {
        let specs = program.specs.iter();
        specs.filter(|spec| spec.value != Value::None)
    };
    let known = with_value().filter(|spec| !matches!(choice(spec), Choice::Anything));
    for spec in known {
        let (options, generate) = match choice(spec) {
            Choice::File => ("compopt -o filenames; ", "compgen -f".to_owned()),
            Choice::User => ("", "compgen -u".to_owned()),
            Choice::Profile => (
                "",
                format!("compgen -W \"$({name} --list-profiles 2> /dev/null | cut -d ' ' -f 1)\""),
            ),
            Choice::Words(words) => ("", format!("compgen -W '{}'", words.join(" "))),
            Choice::Anything => unreachable!("they are left out above"),
        };
        text += &format!(
            "    {}) {options}mapfile -t COMPREPLY < <({generate} -- \"$word\") ;;\n",
            dashed(spec).join(" | ")
        );
    }
    let anything = with_value().filter(|spec| matches!(choice(spec), Choice::Anything));
    let names: Vec<String> = anything.flat_map(|spec| dashed(spec)).collect();
    text += &format!("    {}) COMPREPLY=() ;;\n", names.join(" | "));
    let names: Vec<String> = program.specs.iter().flat_map(|spec| dashed(spec)).collect();
    let end = if program.command { " --" } else { "" };
    text + &format!(
        "    *) mapfile -t COMPREPLY < <(compgen -W '{}{end}' -- \"$word\") ;;\n    \
             esac\n\
         }}\n\
         complete -F {function} {name}\n",
        names.join(" ")
    )
}
