//! The keeper's process, driven through its handle as the proxy does it, over real processes.

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use log::Level;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use support::BOUND;
use support::processes::{Mark, Process};
use vscode_shell_proxy::ending::Status;
use vscode_shell_proxy::keeper::{self, Keeper, Report};
use vscode_shell_proxy::launch::Launch;
use vscode_shell_proxy::sys::spawn::Inherited;

/// Waits until `fd` is readable or at its end.
#[track_caller]
fn await_readable(fd: BorrowedFd<'_>, expectation: &str) {
    let mut watched = [PollFd::new(fd, PollFlags::POLLIN)];
    let bound = PollTimeout::try_from(BOUND).expect("a timeout");
    match poll(&mut watched, bound) {
        Ok(1) => {}
        other => panic!("waited {} s for {expectation}: {other:?}", BOUND.as_secs()),
    }
}

/// A keeper and the ends of its launch command's streams. Dropping it kills what is left.
struct Kept {
    keeper: Option<Keeper>,
    stdin: Option<File>,
    stdout: File,
    mark: Mark,
    log: Vec<(Level, String)>,
}

impl Kept {
    fn start(program: &str, args: &[&str]) -> Self {
        Self::start_with(program, args, &[])
    }

    fn shell(script: &str) -> Self {
        Self::start("bash", &["-c", script])
    }

    fn start_with(program: &str, args: &[&str], env: &[(&str, &Path)]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mark = Mark::new(&format!("keeper.{}.{number}", std::process::id()));
        let (name, value) = mark.variable();
        let launch = Launch {
            program: program.into(),
            args: args.iter().map(Into::into).collect(),
            env: [(name.into(), value.into())]
                .into_iter()
                .chain(env.iter().map(|(name, value)| (name.into(), value.into())))
                .collect(),
        };
        let inherited = Inherited::capture().expect("captured");
        let executable = Path::new(env!("CARGO_BIN_EXE_vscode-shell-proxy"));
        let (keeper, ends) = keeper::start_as(executable, &launch, &inherited).expect("a keeper");
        Self {
            keeper: Some(keeper),
            stdin: Some(ends.stdin.into()),
            stdout: ends.stdout.into(),
            mark,
            log: Vec::new(),
        }
    }

    fn keeper(&mut self) -> &mut Keeper {
        self.keeper.as_mut().expect("the handle was not dropped")
    }

    /// The next report but log lines, which are put aside.
    #[track_caller]
    fn report(&mut self) -> Report {
        loop {
            match self.keeper().report().expect("a report") {
                Some(Report::Log { level, text }) => self.log.push((level, text)),
                Some(report) => return report,
                None => await_readable(self.keeper().control(), "a report"),
            }
        }
    }

    #[track_caller]
    fn expect(&mut self, expected: &Report) {
        let report = self.report();
        assert_eq!(report, *expected, "log: {:?}", self.log);
    }

    #[track_caller]
    fn expect_started(&mut self) -> i32 {
        match self.report() {
            Report::Started { pid } => pid,
            other => panic!("{other:?} instead of the start"),
        }
    }

    /// The next line of the launch command's stdout, without its newline.
    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = Vec::new();
        loop {
            let mut byte = [0];
            match self.stdout.read(&mut byte) {
                Ok(0) => panic!("stdout ended after {:?}", String::from_utf8_lossy(&line)),
                Ok(_) if byte == *b"\n" => {
                    return String::from_utf8(line).expect("text");
                }
                Ok(_) => line.extend(byte),
                Err(_) => await_readable(self.stdout.as_fd(), "a line"),
            }
        }
    }

    #[track_caller]
    fn expect_end_of_stdout(&mut self) {
        let mut byte = [0];
        loop {
            match self.stdout.read(&mut byte) {
                Ok(0) => return,
                Ok(_) => {}
                Err(_) => await_readable(self.stdout.as_fd(), "the end of stdout"),
            }
        }
    }

    fn processes(&self) -> Vec<Process> {
        self.mark.processes()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.mark.kill_all();
    }
}

#[test]
fn a_command_runs_over_its_pipes_and_its_status_is_reported() {
    let mut kept = Kept::start("sh", &["-c", "read line; echo \"got $line\"; exit 7"]);
    kept.expect_started();
    kept.stdin.as_mut().unwrap().write_all(b"a line\n").unwrap();
    assert_eq!(kept.line(), "got a line");
    kept.expect(&Report::Ended(Status::Code(7)));
    kept.expect_end_of_stdout();
    kept.keeper().end();
    kept.expect(&Report::Done);
    kept.expect(&Report::Gone);
    kept.expect(&Report::Gone);
}

#[test]
fn what_cannot_be_started_is_reported_with_its_error() {
    for (program, errno, status) in [
        ("no-such-program", nix::errno::Errno::ENOENT, 127),
        ("/no/such/program", nix::errno::Errno::ENOENT, 127),
        ("/dev/null", nix::errno::Errno::EACCES, 126),
        ("/", nix::errno::Errno::EACCES, 126),
    ] {
        let mut kept = Kept::start(program, &[]);
        let errno = errno as i32;
        kept.expect(&Report::NotStarted { errno });
        assert_eq!(keeper::refused_status(errno), status);
        kept.expect_end_of_stdout();
        kept.keeper().end();
        kept.expect(&Report::Done);
    }
}

#[test]
fn told_to_end_it_ends_everything_below_it() {
    let mut kept = Kept::shell("sleep 600 & setsid sleep 600 & echo ready; wait");
    kept.expect_started();
    kept.line();
    kept.keeper().end();
    kept.expect(&Report::Ended(Status::Signal(15)));
    kept.expect(&Report::Done);
    assert_eq!(kept.processes(), []);
}
