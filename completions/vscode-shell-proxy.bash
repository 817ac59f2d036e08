# Completion of vscode-shell-proxy for bash, generated from its options (cargo run --example documents).
_vscode_shell_proxy() {
    local word=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD-1]}
    # --name=value comes as three words.
    if [[ $word == = ]]; then word=
    elif [[ $option == = ]]; then option=${COMP_WORDS[COMP_CWORD-2]}
    fi
    local at
    for ((at = 1; at < COMP_CWORD; at++)); do
        [[ ${COMP_WORDS[at]} == -- ]] || continue
        if declare -F _command_offset > /dev/null; then _command_offset $((at + 1))
        elif ((at + 1 == COMP_CWORD)); then mapfile -t COMPREPLY < <(compgen -c -- "$word")
        else compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$word")
        fi
        return
    done
    case $option in
    -l | --log-file) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
    -0 | --tee-stdin) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
    -1 | --tee-stdout) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
    -2 | --tee-stderr) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
    --admit) mapfile -t COMPREPLY < <(compgen -W 'self root any' -- "$word") ;;
    --profile) mapfile -t COMPREPLY < <(compgen -W "$(vscode-shell-proxy --list-profiles 2> /dev/null | cut -d ' ' -f 1)" -- "$word") ;;
    --config) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
    -b | --backlog | -B | --byte-limit | -H | --listen-host | -p | --listen-port | --admit-from | --reach | --reach-host | --reach-ports | --node-domain | --node-address | --command | -S | --salloc-arg | --launch-arg | --srun-arg | -e | --salloc-env | --launch-env | --env | --unset-env | --startup | --job-name | -g | --group | --workgroup | --status-interval | --max-sessions | --ssh-config | --ssh-host) COMPREPLY=() ;;
    *) mapfile -t COMPREPLY < <(compgen -W '-h --help -V --version -v --verbose -q --quiet -l --log-file -0 --tee-stdin -1 --tee-stdout -2 --tee-stderr -b --backlog -B --byte-limit -H --listen-host -p --listen-port --admit --admit-from --reach --reach-host --reach-ports --node-domain --node-address --command -S --salloc-arg --launch-arg --srun-arg -e --salloc-env --launch-env --env --unset-env --startup --job-name -g --group --workgroup --status-interval --max-sessions --syslog --self-test --profile --list-profiles --config --show-config --ssh-config --ssh-host --' -- "$word") ;;
    esac
}
complete -F _vscode_shell_proxy vscode-shell-proxy
