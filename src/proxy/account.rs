//! The account of a session for its site: a line in the system's log when it has started, and one when
//! it has ended. The latter also stands in the session's own log.

use std::fmt::{self, Display, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::ending::JobId;
use crate::session::Cause;
use crate::sys::syslog;

/// Most characters of a name in a line.
const NAME: usize = 64;

/// The account of one session.
pub(super) struct Account {
    /// Whether the system's log gets the lines.
    is_kept: bool,
    who: Who,
    began: Instant,
    /// Why the job has ended, as its user was told.
    job_end: Option<String>,
}

/// Whose session it is.
struct Who {
    user: String,
    uid: u32,
}

/// What is known at a session's end.
pub(super) struct Known<'a> {
    pub(super) job: Option<JobId>,
    pub(super) node: Option<&'a str>,
    pub(super) cause: Option<Cause>,
    pub(super) status: u8,
}

impl Account {
    /// That of a session of `user`'s, which starts now.
    pub(super) fn new(is_kept: bool, user: String) -> Self {
        let uid = rustix::process::getuid().as_raw();
        Self {
            is_kept,
            who: Who { user, uid },
            began: Instant::now(),
            job_end: None,
        }
    }

    /// The launch command `program` was started.
    pub(super) fn start(&mut self, program: &str) {
        if self.is_kept {
            let (who, program) = (&self.who, Name(program));
            self.keep(&format!("session started: {who} command={program}"));
        }
    }

    /// The user was told why the job has ended.
    pub(super) fn job_ended(&mut self, why: String) {
        self.job_end = Some(why);
    }

    /// The session has ended.
    pub(super) fn end(&mut self, known: &Known<'_>) {
        let line = self.last_line(known, self.began.elapsed());
        log::info!("{line}");
        if self.is_kept {
            self.keep(&line);
        }
    }

    fn keep(&mut self, line: &str) {
        if let Err(error) = syslog::send(Path::new(syslog::SOCKET), line) {
            log::debug!(
                "cannot write to the system's log, {}: {error}",
                syslog::SOCKET
            );
            self.is_kept = false;
        }
    }

    fn last_line(&self, known: &Known<'_>, lasted: Duration) -> String {
        let job = known.job.map(|job| job.to_string());
        let (job, node) = (job.as_deref().unwrap_or("-"), known.node.unwrap_or("-"));
        let mut line = format!(
            "session ended: {} job={} node={} seconds={} status={} reason=\"",
            self.who,
            Name(job),
            Name(node),
            lasted.as_secs(),
            known.status
        );
        // Writing to a string cannot fail.
        let _ = match (&self.job_end, known.cause) {
            (Some(end), _) => line.write_str(end),
            (None, Some(cause)) => write!(line, "{cause}"),
            (None, None) => line.write_str("the proxy cannot go on"),
        };
        line.push('"');
        line
    }
}

impl Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user={} uid={}", Name(&self.user), self.uid)
    }
}

/// A name of somebody else's making, as one word.
struct Name<'a>(&'a str);

impl Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |c: char| {
            if c.is_ascii_graphic() && c != '"' {
                c
            } else {
                '?'
            }
        };
        let mut name = self.0.chars().take(NAME).map(shown);
        name.try_for_each(|c| f.write_char(c))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(user: &str) -> Account {
        Account {
            who: Who {
                user: user.to_owned(),
                uid: 1000,
            },
            ..Account::new(false, String::new())
        }
    }

    #[test]
    fn the_last_line_says_whose_session_where_how_long_and_why() {
        let mut account = account("alice");
        let mut known = Known {
            job: JobId::new(123),
            node: Some("node1"),
            cause: Some(Cause::ClientGone),
            status: 129,
        };
        let lasted = Duration::from_millis(3_725_900);
        assert_eq!(
            account.last_line(&known, lasted),
            "session ended: user=alice uid=1000 job=123 node=node1 seconds=3725 status=129 \
             reason=\"the client is gone\""
        );
        known.cause = Some(Cause::LaunchEnded(1));
        account.job_ended("job 123 was cancelled by root".to_owned());
        let line = account.last_line(&known, lasted);
        assert!(
            line.ends_with("reason=\"job 123 was cancelled by root\""),
            "{line}"
        );
    }

    #[test]
    fn what_is_not_known_is_a_dash_and_names_are_words() {
        let known = Known {
            job: None,
            node: None,
            cause: None,
            status: 1,
        };
        let user = format!("a b\n\"ü{}", "x".repeat(100));
        let line = account(&user).last_line(&known, Duration::ZERO);
        assert_eq!(
            line,
            format!(
                "session ended: user=a?b???{} uid=1000 job=- node=- seconds=0 status=1 \
                 reason=\"the proxy cannot go on\"",
                "x".repeat(58)
            )
        );
    }
}
