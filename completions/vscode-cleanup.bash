# Completion of vscode-cleanup for bash, generated from its options (cargo run --example documents).
_vscode_cleanup() {
    local word=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD-1]}
    # --name=value comes as three words.
    if [[ $word == = ]]; then word=
    elif [[ $option == = ]]; then option=${COMP_WORDS[COMP_CWORD-2]}
    fi
    case $option in
    -u | --user) mapfile -t COMPREPLY < <(compgen -u -- "$word") ;;
    -o | --output) mapfile -t COMPREPLY < <(compgen -W 'table json pids' -- "$word") ;;
    -a | --age | -p | --pattern | -g | --grace) COMPREPLY=() ;;
    *) mapfile -t COMPREPLY < <(compgen -W '-h --help -V --version -q --quiet -k --kill -a --age -u --user -p --pattern --include-attached --include-jobs -g --grace -o --output' -- "$word") ;;
    esac
}
complete -F _vscode_cleanup vscode-cleanup
