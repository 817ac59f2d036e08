//! `--self-test`: a whole session, seen working.
//!
//! The test plays Remote-SSH against a second copy of this program with the same launch options,
//! over real pipes: the client's stepwise opening, a bootstrap script that starts a stand-in server
//! inside the job, the connection in the instant in which the address is read, the bytes, the
//! hang-up. Then it looks whether anything is left. Each step is one line on stdout with its
//! figure; the last line is the verdict.
//!
//! Everything that is waited for has a limit, and whatever fails, the session is hung up and its
//! remains are looked for.

mod end;
mod failure;
mod leftovers;
mod outgoing;
mod place;
mod player;
mod report;
mod script;
pub mod server;
mod session;
mod transfer;
mod wire;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::process::ExitCode;
use std::time::Instant;

use bstr::ByteSlice;

use crate::launch::Launch;
use crate::options::{Options, Workgroup, expand_pid};
use crate::sys::login::login;
use failure::Failure;
use player::Player;
use report::{say, seconds};
use session::JOB_LIMIT;

/// How much of the log a failure shows.
const LOG_TAIL: u64 = 8 * 1024;

/// Plays the session and judges it; the exit status.
///
/// `launch_args` are the arguments of the second copy, made from the same command line as
/// `options`.
pub fn run(options: &Options, mut launch_args: Vec<OsString>) -> ExitCode {
    let begin = Instant::now();
    let launch = launch(options, &mut launch_args);
    say(format_args!(
        "{} {}",
        env!("CARGO_PKG_NAME"),
        env!("CARGO_PKG_VERSION")
    ));
    say(format_args!(
        "launch      {launch}; a shell within {} s",
        JOB_LIMIT.as_secs()
    ));
    let mut player = match Player::start(&launch_args) {
        Ok(player) => player,
        Err(error) => {
            say(format_args!(
                "FAILED: cannot start a second copy of this program: {error}"
            ));
            return ExitCode::FAILURE;
        }
    };
    let mut started = None;
    let played = session::play(&mut player, options.reach, &mut started);
    let ended = match &played {
        Err(failure) if failure.is_interruption() => Ok(()),
        _ => end::hang_up(&mut player, started.as_ref()),
    };
    let failures: Vec<Failure> = [played.err(), ended.err()].into_iter().flatten().collect();
    end::clear(&mut player);
    if failures.is_empty() {
        // Warnings, such as that of a shell which is not on a compute node.
        show_log("stderr of the session", player.stderr_tail());
        say(format_args!("PASSED in {}", seconds(begin.elapsed())));
        return ExitCode::SUCCESS;
    }
    for failure in &failures {
        say(format_args!("\n{failure}"));
    }
    show_log("stderr of the session", player.stderr_tail());
    if let Some(path) = &options.log_file {
        let path = expand_pid(path, player.pid());
        show_log(&path.to_string_lossy(), &tail_of(&path).unwrap_or_default());
    }
    say(format_args!("\nFAILED"));
    ExitCode::FAILURE
}

/// The launch in words. Where there is neither a COMMAND nor a `salloc` nor an option for it, it
/// becomes a `bash` right here.
fn launch(options: &Options, args: &mut Vec<OsString>) -> String {
    if options.launch == Options::default().launch && !is_on_path("salloc") {
        args.extend(["--".into(), "bash".into()]);
        return "bash, here (no COMMAND is given, and no salloc is on PATH)".to_owned();
    }
    let workgroup = options.launch.workgroup().map(Workgroup::to_string);
    let launch = Launch::new(options, &login(), workgroup.as_deref());
    launch.display().to_string()
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

fn tail_of(path: &std::path::Path) -> io::Result<Vec<u8>> {
    let mut file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn show_log(name: &str, bytes: &[u8]) {
    if !bytes.is_empty() {
        say(format_args!("{name}:"));
    }
    for line in bytes.lines() {
        say(format_args!("    {}", line.to_str_lossy()));
    }
}
