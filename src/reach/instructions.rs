//! What the relay is told when it starts: one line on its stdin.
//!
//! `MARKER:reach-1:SECRET:GRACE:ADDRESS/PORT,ADDRESS/PORT,…`, one word of characters that no shell
//! treats specially. The secret is in it: it is neither logged nor given as an argument, and the
//! marker stands at its front so that a shell's trace of the line (`set -x`) is taken out of its
//! streams. One word, because dash writes a trace word by word: others may write in between.

use std::fmt::{self, Display};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::VERSION;
use super::handshake::Secret;

/// Most addresses.
pub const ADDRESSES: usize = 16;
/// Most bytes of a line, without its newline: any shell and terminal takes as much.
pub const LINE: usize = 1000;
/// The word by which the relay answers that it is up.
pub const IN_JOB: &str = "in-job";
/// The word by which it answers that it cannot reach the proxy.
pub const UNREACHED: &str = "unreached";
/// How long the relay goes on without a control connection before it ends the job.
pub const GRACE: Duration = Duration::from_secs(30);

/// The longest grace.
const LONGEST: Duration = Duration::from_secs(3600);
/// `@` and 32 hexadecimal digits (see [`crate::intercept::Probe`]).
const MARKER: usize = 33;

/// What the relay is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instructions {
    /// Of this session.
    pub secret: Secret,
    /// How the line begins that answers (see [`crate::intercept::Probe::marker`]): `@` and 32
    /// hexadecimal digits.
    pub marker: String,
    /// How long to go on without a control connection; whole milliseconds, at most an hour.
    pub grace: Duration,
    /// Where the proxy listens, in the order in which it is to be tried; 1 to [`ADDRESSES`].
    pub addresses: Vec<SocketAddr>,
}

/// A line that holds no instructions of this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

impl Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no instructions of this version")
    }
}

impl std::error::Error for Unreadable {}

impl Instructions {
    /// The line, without a newline; at most [`LINE`] bytes. Addresses beyond [`ADDRESSES`] are left
    /// out.
    pub fn to_line(&self) -> String {
        let addresses: Vec<String> = (self.addresses.iter().take(ADDRESSES))
            .map(|at| format!("{}/{}", at.ip(), at.port()))
            .collect();
        format!(
            "{}:reach-{VERSION}:{}:{}:{}",
            self.marker,
            self.secret.to_hex(),
            self.grace.as_millis(),
            addresses.join(",")
        )
    }

    /// The line by which the relay says `word`, newline included.
    pub fn answer(&self, word: &str) -> String {
        format!("{}:{word}:\n", self.marker)
    }

    /// The instructions in `line`, which may end in a newline.
    ///
    /// # Errors
    /// It is of another version, or it is something else.
    pub fn parse(line: &[u8]) -> Result<Self, Unreadable> {
        Self::read(line).ok_or(Unreadable)
    }

    fn read(line: &[u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > LINE {
            return None;
        }
        let mut words = std::str::from_utf8(line).ok()?.splitn(5, ':');
        let marker = words.next().filter(|marker| is_marker(marker))?.to_owned();
        let version = words.next()?.strip_prefix("reach-")?;
        if version != VERSION.to_string() {
            return None;
        }
        let secret = Secret::from_hex(words.next()?)?;
        let grace = Duration::from_millis(number(words.next()?)?);
        let addresses = words.next()?.split(',').map(address);
        let addresses: Vec<SocketAddr> = addresses.collect::<Option<_>>()?;
        (grace <= LONGEST && addresses.len() <= ADDRESSES).then_some(Self {
            secret,
            marker,
            grace,
            addresses,
        })
    }
}

fn is_marker(text: &str) -> bool {
    let digits = text.strip_prefix('@').unwrap_or_default().as_bytes();
    digits.len() == MARKER - 1 && digits.iter().all(u8::is_ascii_hexdigit)
}

fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once('/')?;
    let ip: IpAddr = ip.parse().ok()?;
    let port = u16::try_from(number(port)?).ok()?;
    (port != 0).then_some(SocketAddr::new(ip, port))
}

/// A number in decimal digits, without a sign.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn instructions(addresses: Vec<SocketAddr>) -> Instructions {
        Instructions {
            secret: Secret::new([0xa5; 32]),
            marker: format!("@{}", "0123456789abcdef".repeat(2)),
            grace: GRACE,
            addresses,
        }
    }

    #[test]
    fn the_line_is_plain_to_every_shell() {
        let line = instructions(vec![
            SocketAddr::from(([10, 0, 0, 1], 4711)),
            SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, 1], 4711)),
        ])
        .to_line();
        let secret = "a5".repeat(32);
        let marker = "@0123456789abcdef0123456789abcdef";
        assert_eq!(
            line,
            format!("{marker}:reach-1:{secret}:30000:10.0.0.1/4711,fd00::1/4711")
        );
    }

    #[test]
    fn the_longest_line_is_short_enough() {
        let longest = SocketAddr::from(([0xffff; 8], u16::MAX));
        let mut all = instructions(vec![longest; ADDRESSES + 1]);
        let line = all.to_line();
        assert!(line.len() <= LINE, "{} bytes", line.len());
        all.addresses.pop();
        assert_eq!(Instructions::parse(line.as_bytes()), Ok(all));
    }

    #[test]
    fn a_line_that_is_too_long_is_refused_whatever_is_in_it() {
        let line = instructions(vec![SocketAddr::from(([10, 0, 0, 1], 1))]).to_line();
        for (length, is_read) in [(LINE, true), (LINE + 1, false), (LINE + 2, false)] {
            let zeros = "0".repeat(length - line.len());
            let line = line.replace("30000", &format!("{zeros}30000"));
            assert_eq!(Instructions::parse(line.as_bytes()).is_ok(), is_read);
        }
        assert!(!Unreadable.to_string().is_empty());
    }

    #[test]
    fn the_relay_says_its_word_behind_the_marker() {
        let marker = "@0123456789abcdef0123456789abcdef";
        assert_eq!(instructions(vec![]).answer("up"), format!("{marker}:up:\n"));
    }

    #[test]
    fn the_secret_is_not_shown() {
        let shown = format!("{:?}", instructions(vec![]));
        assert!(!shown.contains("a5a5") && !shown.contains("165"), "{shown}");
        assert!(shown.contains("secret: Secret,"), "{shown}");
    }

    #[test]
    fn what_is_no_instruction_is_refused() {
        let line = instructions(vec![SocketAddr::from(([10, 0, 0, 1], 1))]).to_line();
        for (text, why) in [
            (line.replace("reach-1", "reach-2"), "another version"),
            (line.replace("reach-1", "reach-01"), "another spelling"),
            (line.replace("10.0.0.1/1", ""), "no address"),
            (line.replace("10.0.0.1/1", "10.0.0.1/0"), "no port"),
            (line.replace("10.0.0.1/1", "node/1"), "a name"),
            (line.replace("@0", "!0"), "no marker"),
            (
                line.replace("30000", "3600001"),
                "a grace of more than an hour",
            ),
            (line.replace("30000", "+3"), "a sign"),
            (line.replace("a5a5", "a5"), "a short secret"),
            (format!("{line} x"), "more"),
            (format!("{line}:x"), "more"),
            (line.replace(':', " "), "words"),
            (format!("{line}\n\n"), "more lines"),
            (String::new(), "nothing"),
        ] {
            assert_eq!(
                Instructions::parse(text.as_bytes()),
                Err(Unreadable),
                "{why}"
            );
        }
        assert!(Instructions::parse(format!("{line}\r\n").as_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            secret in any::<[u8; 32]>(),
            marker in "@[0-9a-f]{32}",
            grace in 0..=3_600_000_u64,
            addresses in proptest::collection::vec((any::<IpAddr>(), 1..=u16::MAX), 1..=ADDRESSES),
        ) {
            let instructions = Instructions {
                secret: Secret::new(secret),
                marker,
                grace: Duration::from_millis(grace),
                addresses: addresses.into_iter().map(SocketAddr::from).collect(),
            };
            let line = instructions.to_line();
            prop_assert!(line.len() <= LINE && line.bytes().all(|byte| (b'!'..=b'~').contains(&byte)));
            prop_assert_eq!(Instructions::parse(line.as_bytes()), Ok(instructions));
        }
    }
}
