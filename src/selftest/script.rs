//! What a Remote-SSH client writes to the shell: the steps of its opening and a bootstrap script of
//! the exec-server form, in words of our own. Pure text.
//!
//! The steps up to [`SUBSHELL`] are read by the user's shell, whichever that is, so they keep to
//! what all shells have in common. Everything after it is read by `sh`.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bstr::ByteSlice;

use super::server;

/// The second step: which kernel.
pub(super) const KERNEL: &str = "uname -s\n";
/// The third step: which shell.
pub(super) const SHELL: &str = "echo $SHELL\n";
/// The fourth step: a shell that is known, and its process id. One line that hands over by itself:
/// dash reads ahead, and would keep what follows in the same write for itself.
pub(super) const SUBSHELL: &str = "sh -c 'echo $$; exec sh'\n";
/// Where the job runs: node, architecture, job.
pub(super) const PLACE: &str = "echo \"$(uname -n) $(uname -m) \
     ${SLURM_JOB_ID:-${PBS_JOBID:-${LSB_JOBID:-${JOB_ID:-none}}}}\"\n";

/// The first step.
pub(super) fn ready(id: &str) -> String {
    format!("echo \"ready: {id}\"\n")
}

/// Does the job see an executable file there? Answered by `yes` or `no`.
pub(super) fn sees(program: &Path) -> Vec<u8> {
    let program = quoted(program);
    [
        b"test -x ",
        program.as_slice(),
        b" && echo yes || echo no\n",
    ]
    .concat()
}

/// Can the job's node run it? Answered by the exit status, a blank, and one line of what it says.
pub(super) fn runs(program: &Path) -> Vec<u8> {
    let program = quoted(program);
    let said = b"out=$(";
    let rest = b" --version 2>&1); echo $? $out\n";
    [said, program.as_slice(), rest].concat()
}

/// The bootstrap script. It starts `program` as the server, waits for its address, prints the
/// result block, and stays in the foreground, sending a blank now and then.
///
/// The command that the server is started with has to have the shape of the original's. So there
/// is a script named `command-shell` in a directory of the job's own, and the CLI is `sh`; this
/// works where nothing in `/tmp` may be executed.
pub(super) fn bootstrap(id: &str, token: &str, program: &Path) -> Vec<u8> {
    const TEMPLATE: &str = r#"# Bootstrap of the self-test, exec-server form.
SERVER=@PROGRAM@
export SERVER
TOKEN=@TOKEN@
CLI_PATH=sh
CLI_DATA_DIR=$(mktemp -d "${TMPDIR:-/tmp}/vscode-shell-proxy.XXXXXX") && cd "$CLI_DATA_DIR" || exit 1
trap 'cd /; rm -rf "$CLI_DATA_DIR"' EXIT
trap 'exit 1' HUP INT TERM
CLI_LOG_FILE=$CLI_DATA_DIR/.cli.log
: > "$CLI_LOG_FILE"
cat > command-shell <<'END'
exec "$SERVER" --internal-server "$@"
END
echo "@ID@: running"
echo "Script executing under PID: $$"
LISTEN_ARGS="--on-host=127.0.0.1 --on-port"
VSCODE_CLI_REQUIRE_TOKEN=${TOKEN} "$CLI_PATH" command-shell --cli-data-dir "$CLI_DATA_DIR" --parent-process-id $$ ${LISTEN_ARGS} > "$CLI_LOG_FILE" 2>&1 < /dev/null &
CLI_PID=$!
echo "Spawned remote CLI: $CLI_PID"
echo "Waiting for server log..."
LISTENING_ON=
tries=0
while [ -z "$LISTENING_ON" ] && [ $tries -lt 400 ]; do
  LISTENING_ON=$(sed -n 's/^@LISTENING@//p' "$CLI_LOG_FILE")
  kill -0 $CLI_PID 2> /dev/null || break
  [ -n "$LISTENING_ON" ] || sleep 0.05
  tries=$((tries + 1))
done
[ -n "$LISTENING_ON" ] || sed 's/^/server: /' "$CLI_LOG_FILE" >&2
cd /
rm -rf "$CLI_DATA_DIR"
trap - EXIT HUP INT TERM
echo "@ID@: start"
echo "arch==$(uname -m)=="
echo "boundTo==$(echo "$LISTENING_ON" | tr : ' ')=="
echo "listeningOn==$LISTENING_ON=="
echo "platform==linux=="
echo "execServerToken==$TOKEN=="
echo "@ID@: end"
while true; do
  printf ' '
  sleep 180
done
"#;
    let program = quoted(program);
    let mut text = TEMPLATE
        .replace("@ID@", id)
        .replace("@TOKEN@", token)
        .replace("@LISTENING@", server::LISTENING)
        .into_bytes();
    // Last, for a path may hold anything.
    if let Some(at) = text.find(b"@PROGRAM@") {
        text.splice(at..at + b"@PROGRAM@".len(), program);
    }
    text
}

/// The value in a result line `key==value==`.
pub(super) fn value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let (value, _) = line
        .strip_prefix(key)?
        .strip_prefix("==")?
        .split_once("==")?;
    Some(value)
}

/// The path as one word of `sh`, whatever bytes it has.
fn quoted(path: &Path) -> Vec<u8> {
    let inner = path.as_os_str().as_bytes().replace(b"'", br"'\''");
    [b"'", inner.as_slice(), b"'"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    #[test]
    fn a_path_of_any_bytes_is_one_word() {
        let path = Path::new(OsStr::from_bytes(b"/a b/it's $HOME \"\\\xff"));
        assert_eq!(quoted(path), b"'/a b/it'\\''s $HOME \"\\\xff'");
        assert!(bootstrap("id", "token", path).contains_str(quoted(path)));
    }

    #[test]
    fn no_placeholder_is_left() {
        let text = bootstrap("id", "token", Path::new("/bin/true"));
        let placeholders = ["@ID@", "@TOKEN@", "@LISTENING@", "@PROGRAM@"];
        assert!(
            !placeholders.iter().any(|name| text.contains_str(name)),
            "{}",
            text.as_bstr()
        );
        assert!(text.contains_str("\nSERVER='/bin/true'\n"));
    }

    #[test]
    fn values_end_at_the_second_mark() {
        assert_eq!(
            value("listeningOn==127.0.0.1:80==  ", "listeningOn"),
            Some("127.0.0.1:80")
        );
        assert_eq!(value("listeningOn====", "listeningOn"), Some(""));
        assert_eq!(value("listeningOn==", "listeningOn"), None);
        assert_eq!(value("codeListeningOn==1==", "listeningOn"), None);
    }
}
