//! The words of the protocol, as public session logs of Remote-SSH 0.70 to 0.128, a captured
//! exec-server script and Cursor's logs show them.

/// Where an announced address begins: behind `listeningOn=`, `multiplexListeningOn=`,
/// `codeListeningOn=`. A second `=` may follow.
pub(super) const ANNOUNCEMENT: &[u8] = b"isteningOn=";

/// The hosts that an announced address may have.
pub(super) const ANNOUNCED_HOSTS: [&[u8]; 5] =
    [b"127.0.0.1", b"0.0.0.0", b"[::1]", b"[::]", b"localhost"];

/// The host that the client connects to, whatever it is told.
pub(super) const CLIENT_HOST: &str = "127.0.0.1";

/// What binds a server to loopback, and what it becomes.
pub(super) const LOOPBACK: &[u8] = b"127.0.0.1";
pub(super) const EVERYWHERE: &[u8] = b"0.0.0.0";

/// The exec server's subcommand (VS Code CLI, since 2023), and its options.
pub(super) const COMMAND_SHELL: &[u8] = b"command-shell";
pub(super) const ON_HOST: &[u8] = b"--on-host";
pub(super) const ON_PORT: &[u8] = b"--on-port";
/// The variable that carries these options from one line of the script to another (since 2024).
pub(super) const LISTEN_ARGS: &[u8] = b"LISTEN_ARGS";
/// The variable that carries the exec server's token.
pub(super) const REQUIRE_TOKEN: &[u8] = b"VSCODE_CLI_REQUIRE_TOKEN";

/// The node server's first argument, and its option.
pub(super) const START_SERVER: &[u8] = b"--start-server";
pub(super) const HOST: &[u8] = b"--host";
/// The variable that carries the node server's arguments in older scripts.
pub(super) const ARGS: &[u8] = b"args";

/// The options that leave a server without a token.
pub(super) const NO_TOKEN: &[u8] = b"--without-connection-token";
pub(super) const TOKEN: &[u8] = b"--connection-token";
