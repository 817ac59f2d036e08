//! The proxy: one Remote-SSH session, relayed into a scheduler's job.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::process::ExitCode;

use vscode_shell_proxy::options::{self, CommandLine, Request, UsageError};
use vscode_shell_proxy::sys::login::login;
use vscode_shell_proxy::{
    configuration, home_copy, in_job, keeper, logging, proxy, resolve, selftest,
};

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let called = args.next();
    let mut args = args.peekable();
    if args.next_if(|mode| mode == keeper::MODE).is_some() {
        return keeper::run(args);
    }
    if args.next_if(|mode| mode == in_job::MODE).is_some() {
        return in_job::run(args);
    }
    if args.next_if(|mode| mode == resolve::MODE).is_some() {
        return resolve::run(args).into();
    }
    if args.next_if(|mode| mode == home_copy::MODE).is_some() {
        return home_copy::run().into();
    }
    if args
        .next_if(|mode| mode == selftest::server::MODE)
        .is_some()
    {
        return selftest::server::run(args);
    }
    run(args, called.as_deref())
}

/// What a user asks for. (Not inlined: what it needs of the stack would be the modes' memory too.)
#[inline(never)]
fn run(args: impl Iterator<Item = OsString>, called: Option<&OsStr>) -> ExitCode {
    match request(args, called) {
        Ok(Request::Print(text)) => print(&text),
        Ok(Request::Stanza(stanza)) => {
            let program = configuration::remote_command(called);
            match stanza.text(&program, &login()) {
                Ok(text) => print(&text),
                Err(error) => complain(&error, 2),
            }
        }
        Ok(Request::SwitchedOff(text)) => complain(&text, 1),
        Ok(Request::Run(options)) => match proxy::start(&options) {
            Ok(proxy) => proxy.run().into(),
            Err(error) => {
                logging::record(&error);
                complain(&error, 1)
            }
        },
        Ok(Request::SelfTest(options, args)) => selftest::run(&options, args),
        Err(error) => complain(&error, 2),
    }
}

fn request(
    args: impl Iterator<Item = OsString>,
    called: Option<&OsStr>,
) -> Result<Request, UsageError> {
    let line = CommandLine::read(args)?;
    if let Some(text) = line.information() {
        return Ok(Request::Print(text));
    }
    options::request(&line, &configuration::files(&line, called)?)
}

fn print(text: &str) -> ExitCode {
    // A reader who has seen enough is no failure.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn complain(error: &dyn std::fmt::Display, status: u8) -> ExitCode {
    // Without a stderr there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "vscode-shell-proxy: {error}");
    status.into()
}
