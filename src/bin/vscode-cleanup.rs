//! The clean-up: finds and ends orphaned VS Code server trees.

use std::io::{self, Write};
use std::process::ExitCode;

use vscode_shell_proxy::cleanup::end::Identity;
use vscode_shell_proxy::cleanup::options::{self, Request};
use vscode_shell_proxy::cleanup::{self, Error};

fn main() -> ExitCode {
    // The level is RUST_LOG's. A second logger cannot be there.
    let _ = env_logger::try_init();
    let options = match options::parse(std::env::args_os().skip(1)) {
        Ok(Request::Run(options)) => options,
        Ok(Request::Help) => return print(&options::usage()),
        Ok(Request::Version) => return print(&options::version()),
        Err(error) => return fail(2, &error),
    };
    match cleanup::run(&options, Identity::probe(), &mut io::stdout().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error @ Error::NoSuchUser(_)) => fail(2, &error),
        Err(error @ Error::System(..)) => fail(1, &error),
    }
}

/// A reader that went away is no error.
fn print(text: &str) -> ExitCode {
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn fail(code: u8, error: &dyn std::error::Error) -> ExitCode {
    let _ = writeln!(io::stderr(), "vscode-cleanup: {error}");
    ExitCode::from(code)
}
