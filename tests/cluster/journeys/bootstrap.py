"""The client's side of the conversation, in words of our own: the steps and the script of each form.

The forms are those of the protocol: how the server is started, with which options, and how its port comes
back.  A script's text around them is ours.
"""
from dataclasses import dataclass
from string import Template

SERVER = "$HOME/.vscode-server/code-standin"

# In steps, each answered before the next.  They have to work in whatever shell the user has, csh too.
STEPS = [
    ("echo ready: @ID", r"ready: @ID\r?\n"),
    ("uname -s", r"Linux\r?\n"),
    ("echo shell: $SHELL", r"shell: (\S+)\r?\n"),
    ("@SUBSHELL -c 'echo pid: $$; exec @SUBSHELL'", r"pid: \d+\r?\n"),
]


@dataclass(frozen=True)
class Form:
    """One way of starting a server.  `keys` are those under which ports are announced, in order."""

    name: str
    subshell: str
    start: str
    keys: tuple = ("listeningOn",)


EXEC = Form(
    "exec server",
    "sh",
    """
CLI_PATH="%(server)s"
CLI_LOG_FILE="$HOME/.vscode-server/.cli.@ID.log"
TOKEN="@TOKEN"
LOG_LEVEL_FLAG="--log=info"
RECONNECTION_FLAG=""
LISTEN_ARGS="--on-host=127.0.0.1 --on-port"
VSCODE_CLI_REQUIRE_TOKEN=${TOKEN} "$CLI_PATH" command-shell ${LOG_LEVEL_FLAG} ${RECONNECTION_FLAG} \
--cli-data-dir "$HOME/.vscode-server/cli" --parent-process-id $$ ${LISTEN_ARGS} > "$CLI_LOG_FILE" 2>&1 < /dev/null &
say "Spawned remote CLI: $!"
say "Waiting for server log..."
listeningOn=$(await_text "$CLI_LOG_FILE" 's/^Listening on //p')
"""
    % {"server": SERVER},
)

# Said the older way: `&>` is what its clients write, and bash is what they write it for.
def legacy(server):
    return Form("legacy server", "bash", LEGACY_START.replace("@SERVER", server))


LEGACY_START = """
VSCH_SERVER_SCRIPT="@SERVER"
VSCH_LOGFILE="$HOME/.vscode-server/.@ID.log"
echo "Starting server with command... \\"$VSCH_SERVER_SCRIPT\\" --start-server --host=127.0.0.1 --port=0"
"$VSCH_SERVER_SCRIPT" --start-server --host=127.0.0.1 --accept-server-license-terms --enable-remote-auto-shutdown \
--port=0 --connection-token=@TOKEN --telemetry-level off &> "$VSCH_LOGFILE" < /dev/null &
say "Waiting for server log..."
listeningOn=$(await_text "$VSCH_LOGFILE" 's/^Extension host agent listening on //p')
"""

LEGACY = legacy(SERVER)


def cursor(multiplex_host):
    """Cursor's two servers: the second one has no option for its host, so that is the server's own choice."""
    return Form(
        "Cursor's two ports",
        "bash",
        Template(
            """
SERVER_SCRIPT="$server"
CODE_LOG="$$HOME/.vscode-server/.code.@ID.log"
MULTIPLEX_LOG="$$HOME/.vscode-server/.multiplex.@ID.log"
STANDIN_HOST=$host "$$HOME/.vscode-server/multiplex-standin" @TOKEN &> "$$MULTIPLEX_LOG" < /dev/null &
"$$SERVER_SCRIPT" --start-server --host=127.0.0.1 --port 0 --connection-token=@TOKEN \
--accept-server-license-terms &> "$$CODE_LOG" < /dev/null &
multiplexListeningOn=$$(await_text "$$MULTIPLEX_LOG" 's/^Extension host agent listening on //p')
codeListeningOn=$$(await_text "$$CODE_LOG" 's/^Extension host agent listening on //p')
"""
        ).substitute(server=SERVER, host=multiplex_host),
        ("multiplexListeningOn", "codeListeningOn"),
    )


SCRIPT = """
say() { printf '%s\\n' "$*"; }
await_text() { # FILE SED: what sed finds in the file, once it is there
    tries=0
    while [ "$tries" -lt 300 ]; do
        found=$(sed -n "$2" "$1" 2>/dev/null | head -n 1)
        [ -n "$found" ] && { say "$found"; return 0; }
        tries=$((tries + 1)); sleep 0.05
    done
    cat "$1" >&2
}
say "@ID: running"
say "Script executing under PID: $$"
say "Found existing installation at $HOME/.vscode-server..."
say "@ID%%1%%"
@START
say "@ID: start"
say "SSH_AUTH_SOCK==$SSH_AUTH_SOCK=="
say "DISPLAY==$DISPLAY=="
@RESULT
say "connectionToken==@TOKEN=="
say "exitCode==0=="
say "osReleaseId==debian=="
say "platform==linux=="
say "arch==x86_64=="
say "@ID: end"
while true; do sleep 180.0@ID; printf ' '; done
"""

# The scripts that were seen have 8 to 12 KiB; ours is filled up with what could stand in one.
FILLER = "# jupyter lab --host=127.0.0.1 --port=8888, ssh -N, rsync --host=127.0.0.1: nothing that starts a server.\n"


def script(form, ident, token, size=10_000):
    """The whole script in one piece, ended by the newline that makes a shell run its last line."""
    result = "\n".join(f'say "{key}==${key}=="' for key in form.keys)
    text = SCRIPT.replace("@START", form.start).replace("@RESULT", result)
    text = text.replace("@ID", ident).replace("@TOKEN", token)
    filler = FILLER * max(0, (size - len(text)) // len(FILLER))
    return (filler + text).encode()
