//! The proxy: one Remote-SSH session, relayed into a scheduler's job.

use std::io::Write;
use std::process::ExitCode;

use vscode_shell_proxy::options::{self, Request};
use vscode_shell_proxy::{keeper, proxy, resolve, selftest};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.next_if(|mode| mode == keeper::MODE).is_some() {
        return keeper::run(args);
    }
    if args.next_if(|mode| mode == resolve::MODE).is_some() {
        return resolve::run(args).into();
    }
    if args
        .next_if(|mode| mode == selftest::server::MODE)
        .is_some()
    {
        return selftest::server::run(args);
    }
    match options::parse(args) {
        Ok(Request::Help(text) | Request::Version(text)) => {
            // A reader who has seen enough is no failure.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Ok(Request::Run(options)) => match proxy::start(&options) {
            Ok(proxy) => proxy.run().into(),
            Err(error) => complain(&error, 1),
        },
        Ok(Request::SelfTest(options, args)) => selftest::run(&options, args),
        Err(error) => complain(&error, 2),
    }
}

fn complain(error: &dyn std::fmt::Display, status: u8) -> ExitCode {
    // Without a stderr there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "vscode-shell-proxy: {error}");
    status.into()
}
