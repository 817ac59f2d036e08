//! The proxy: one Remote-SSH session, relayed into a scheduler's job.

use std::process::ExitCode;

use vscode_shell_proxy::keeper;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.next_if(|mode| mode == keeper::MODE).is_some() {
        return keeper::run(args);
    }
    println!("vscode-shell-proxy {}", env!("CARGO_PKG_VERSION"));
    ExitCode::SUCCESS
}
