//! Every word of the protocol that the interceptor knows.
//!
//! Sources: session logs of Remote-SSH 0.70 (2021) to 0.128 (2026), a captured exec-server
//! script, Cursor's logs, and the source of the VS Code CLI (`cli/src/commands/args.rs`).

/// Where an announced address begins: behind `listeningOn=`, `multiplexListeningOn=`,
/// `codeListeningOn=`. A second `=` may follow.
pub(super) const ANNOUNCEMENT: &[u8] = b"isteningOn=";

/// The hosts that an announced address may have.
pub(super) const ANNOUNCED_HOSTS: [&[u8]; 5] =
    [b"127.0.0.1", b"0.0.0.0", b"[::1]", b"[::]", b"localhost"];

/// The host that the client connects to, whatever it is told.
pub(super) const CLIENT_HOST: &str = "127.0.0.1";

/// Loopback as an option's value. Recorded is the first; the others mean the same.
pub(super) const LOOPBACK: [&[u8]; 4] = [b"127.0.0.1", b"localhost", b"::1", b"[::1]"];

/// What it becomes. IPv4: a cluster's nodes reach each other by it, and every version takes it.
pub(super) const EVERYWHERE: &[u8] = b"0.0.0.0";

/// The CLI's subcommand that serves a Remote-SSH client (exec server, since 2023).
pub(super) const COMMAND_SHELL: &[u8] = b"command-shell";
/// Its option for the interface; without it and with [`ON_PORT`] it binds loopback.
pub(super) const ON_HOST: &[u8] = b"--on-host";
/// Its option that asks for a TCP port in place of a socket.
pub(super) const ON_PORT: &[u8] = b"--on-port";
/// What is added to a `command-shell` that would bind loopback by default.
pub(super) const ADDED_ON_HOST: &[u8] = b" --on-host=0.0.0.0";
/// The same in front of a `#` that begins a comment.
pub(super) const ADDED_ON_HOST_BEFORE_COMMENT: &[u8] = b" --on-host=0.0.0.0 ";

/// The variable that carries both options from one line of the script to another (since 2024).
pub(super) const LISTEN_ARGS: &[u8] = b"LISTEN_ARGS";
/// Its use in the command.
pub(super) const LISTEN_ARGS_USES: [&[u8]; 2] = [b"${LISTEN_ARGS}", b"$LISTEN_ARGS"];
/// What it says before we change it.
pub(super) const LISTEN_ARGS_UNCHANGED: &[u8] = b"--on-host=127.0.0.1 --on-port";
/// The variable that carries the exec server's token.
pub(super) const REQUIRE_TOKEN: &[u8] = b"VSCODE_CLI_REQUIRE_TOKEN";

/// The node server's option that makes it serve (legacy servers and the descendants).
pub(super) const START_SERVER: &[u8] = b"--start-server";
/// Its option for the interface.
pub(super) const HOST: &[u8] = b"--host";
/// The variable that carries the node server's options in older scripts.
pub(super) const ARGS: &[u8] = b"$args";
/// Its assignment in a POSIX shell.
pub(super) const ARGS_NAME: &[u8] = b"args";
/// A server that lets everybody in.
pub(super) const WITHOUT_TOKEN: &[u8] = b"--without-connection-token";
/// Its token; an empty one lets everybody in too.
pub(super) const TOKEN: &[u8] = b"--connection-token";

/// What no command or assignment of ours is without: the ends of [`COMMAND_SHELL`],
/// [`START_SERVER`] and, for [`LISTEN_ARGS`], of [`ON_PORT`].
pub(super) const ENDS: [&[u8]; 3] = [b"-shell", b"-start-server", b"-on-port"];

/// The products, as their executables are called: `code`, `code-<commit>`, `code-server`,
/// `cursor-server`, … (also with `-insiders` or `-oss` behind).
pub(super) const PRODUCTS: [&[u8]; 9] = [
    b"code",
    b"codium",
    b"cursor",
    b"windsurf",
    b"positron",
    b"antigravity",
    b"antigravity-ide",
    b"trae",
    b"void",
];

/// Words that may stand before a command without making it another one: the shell's own, and
/// wrappers that run their arguments.
pub(super) const BEFORE_COMMAND: [&[u8]; 18] = [
    b"if", b"then", b"elif", b"else", b"while", b"until", b"do", b"!", b"{", b"time", b"exec",
    b"nohup", b"setsid", b"env", b"command", b"eval", b"export", b"local",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_searched_for_is_the_end_of_a_word() {
        for (word, end) in [COMMAND_SHELL, START_SERVER, ON_PORT].iter().zip(ENDS) {
            assert!(word.ends_with(end) && word.len() > end.len());
        }
    }
}
