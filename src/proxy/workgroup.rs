//! `--group auto`: the user's first workgroup, as the cluster's own command lists them.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How long the command may take. It asks a directory service, and the user waits meanwhile.
const LIMIT: Duration = Duration::from_secs(10);
/// More of its answer than this many bytes is not read.
const ANSWER_LIMIT: usize = 64 * 1024;

/// The first workgroup that `workgroup -q workgroups` names.
///
/// # Errors
/// Why there is none.
pub(super) fn first() -> Result<String, String> {
    let failed = |error: io::Error| format!("`workgroup -q workgroups`: {error}");
    let answer = ask(Command::new("workgroup").args(["-q", "workgroups"])).map_err(failed)?;
    let named = first_named(&String::from_utf8_lossy(&answer)).map(str::to_owned);
    named.ok_or_else(|| "`workgroup -q workgroups` names none for this user".to_owned())
}

/// The first name in a list of numbers and names, each group's number in front of its name.
fn first_named(list: &str) -> Option<&str> {
    list.split_whitespace()
        .find(|word| !word.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What a command writes to its stdout until it ends.
fn ask(command: &mut Command) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + LIMIT;
    let command = command.stdin(Stdio::null()).stderr(Stdio::inherit());
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut answer = Vec::new();
    let mut taken = Ok(());
    if let Some(mut stdout) = child.stdout.take() {
        let mut block = [0; 4096];
        while answer.len() < ANSWER_LIMIT {
            taken = wait(stdout.as_fd(), deadline);
            match taken.is_ok().then(|| stdout.read(&mut block)) {
                None | Some(Ok(0)) => break,
                Some(Ok(n)) => answer.extend_from_slice(&block[..n]),
                Some(Err(error)) => return Err(error),
            }
        }
    }
    // One that has closed its stdout is not waited for any longer.
    let _ = child.kill();
    child.wait()?;
    taken.map(|()| answer)
}

fn wait(fd: impl AsFd, deadline: Instant) -> io::Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_counts_with_or_without_its_number() {
        assert_eq!(first_named("1002 it_nss\n1003 it_css\n"), Some("it_nss"));
        assert_eq!(first_named("physics\n"), Some("physics"));
        assert_eq!(first_named(" 4711x 1\n"), Some("4711x"));
        assert_eq!(first_named("\n1002\n"), None);
    }
}
