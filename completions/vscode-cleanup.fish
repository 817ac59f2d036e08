# Completion of vscode-cleanup for fish, generated from its options (cargo run --example documents).
complete -c vscode-cleanup -f
complete -c vscode-cleanup -s h -l help -d 'print this help and exit'
complete -c vscode-cleanup -s V -l version -d 'print name and version and exit'
complete -c vscode-cleanup -s q -l quiet -d 'print no line for each process, only the last one'
complete -c vscode-cleanup -s k -l kill -d 'end what was found; without it nothing is touched'
complete -c vscode-cleanup -s a -l age -x -d 'only trees whose root is at least this old'
complete -c vscode-cleanup -s u -l user -x -a '(__fish_complete_users)' -d 'only this user\'s, by name or number'
complete -c vscode-cleanup -s p -l pattern -x -d 'one more name that marks a server, as a whole component of a path'
complete -c vscode-cleanup -l include-attached -d 'also trees that may be in use: not orphaned, or connected to'
complete -c vscode-cleanup -l include-jobs -d 'also trees inside a scheduler\'s job'
complete -c vscode-cleanup -s g -l grace -x -d 'time between SIGTERM and SIGKILL, at most 1h; 0 is SIGKILL at once'
complete -c vscode-cleanup -s o -l output -x -a 'table json pids' -d 'table, json or pids'
