//! The log: one line for each event, in one write, to a file or to stderr.
//!
//! A line in a file begins with the time (UTC) and the process id, since sessions append to one
//! another; a line on stderr begins with the program's name, since it stands among the job's own.
//! Control characters in a message are escaped: a record is one line, and cannot move a cursor.
//!
//! # stderr
//! The loop shares stderr with the job. While it runs ([`queue`]), lines wait in a bounded queue
//! of the process, from where the loop takes them whole ([`take`]) and sends them through the
//! same flow as the job's bytes, so that a client that does not read stderr stalls neither of
//! the two. Before and after ([`direct`]) they are written to descriptor 2 at once.
//!
//! Secrets (script text, tokens) do not come here at any level; that is up to the callers.

use std::env;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use env_logger::fmt::Formatter;
use log::{LevelFilter, Record};

/// Most bytes of log lines that wait for stderr.
pub const QUEUE_LIMIT: usize = 64 * 1024;

/// Where the log goes.
#[derive(Debug)]
pub enum Target {
    /// To this file, opened for appending.
    File(File),
    /// To stderr.
    Stderr,
}

/// Starts the log of this process, once. Without a `level`, `RUST_LOG` decides, in the form that
/// `env_logger` documents (without regular expressions); without that, it is warn.
///
/// # Errors
/// The log has been started before.
pub fn init(level: Option<LevelFilter>, target: Target) -> Result<(), log::SetLoggerError> {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(level.unwrap_or(LevelFilter::Warn));
    if let (None, Ok(spec)) = (level, env::var("RUST_LOG")) {
        builder.parse_filters(&spec);
    }
    lines().has_file = matches!(target, Target::File(_));
    match target {
        Target::File(file) => builder.format(file_line).target(pipe(file)),
        Target::Stderr => builder.format(stderr_line).target(pipe(Stderr)),
    };
    builder.try_init()
}

/// A line for the user, on stderr whatever the log's level; it also stands in a log that is a file,
/// at level info.
pub fn notice(text: fmt::Arguments<'_>) {
    if lines().has_file {
        log::info!("{text}");
    }
    let line = format!("{PROGRAM}: {}\n", OneLine(&text));
    // Never fails: see there.
    let _ = Stderr.write(line.as_bytes());
}

/// An error that the caller says on stderr, whatever the log's level; it also stands in a log that is
/// a file.
pub fn record(error: &dyn fmt::Display) {
    if lines().has_file {
        log::error!("{error}");
    }
}

/// From now on lines for stderr wait for [`take`].
pub fn queue() {
    lines().queueing = true;
}

/// From now on lines for stderr are written at once, those that wait before all.
pub fn direct() {
    let mut waiting = Vec::new();
    let mut lines = lines();
    lines.take(&mut waiting);
    lines.queueing = false;
    write_stderr(&waiting);
}

/// Do lines wait for [`take`]?
pub fn queued() -> bool {
    lines().is_waiting()
}

/// Appends the lines that wait to `buffer`, whole, at most [`QUEUE_LIMIT`] bytes and a line about
/// lost ones. Given an empty buffer it changes places with the queue's, so that two buffers serve
/// for ever.
pub fn take(buffer: &mut Vec<u8>) {
    lines().take(buffer);
}

/// The lines that wait for stderr.
struct Lines {
    queueing: bool,
    /// The log itself goes to a file.
    has_file: bool,
    /// Whole lines; `bytes.len() <= QUEUE_LIMIT`.
    bytes: Vec<u8>,
    /// Lines that found no room since the last `take`.
    lost: u64,
}

static LINES: Mutex<Lines> = Mutex::new(Lines {
    queueing: false,
    has_file: false,
    bytes: Vec::new(),
    lost: 0,
});

/// No method leaves the lines in a state that another thread's panic could spoil.
fn lines() -> MutexGuard<'static, Lines> {
    LINES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lines {
    fn push(&mut self, line: &[u8]) {
        if self.lost > 0 || self.bytes.len() + line.len() > QUEUE_LIMIT {
            // Once one is lost, so are the shorter ones behind it: no gap in the middle.
            self.lost += 1;
        } else {
            self.bytes.extend_from_slice(line);
        }
    }

    fn is_waiting(&self) -> bool {
        !self.bytes.is_empty() || self.lost > 0
    }

    fn take(&mut self, buffer: &mut Vec<u8>) {
        if buffer.is_empty() {
            std::mem::swap(buffer, &mut self.bytes);
        } else {
            buffer.append(&mut self.bytes);
        }
        let lost = std::mem::take(&mut self.lost);
        if lost > 0 {
            // Cannot fail: a Vec takes everything.
            let _ = writeln!(
                buffer,
                "{PROGRAM}: warn: {lost} lines of the log are lost, since stderr was not read"
            );
        }
    }
}

/// Lines for stderr, as a stream: each `write` is one line.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut lines = lines();
        match lines.queueing {
            true => lines.push(line),
            false => write_stderr(line),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One write(2) where the kernel takes all. A stderr that cannot be written has no reader who
/// could be told.
fn write_stderr(bytes: &[u8]) {
    let _ = io::stderr().lock().write_all(bytes);
}

fn pipe(sink: impl Write + Send + 'static) -> env_logger::Target {
    env_logger::Target::Pipe(Box::new(sink))
}

const PROGRAM: &str = env!("CARGO_PKG_NAME");

fn stderr_line(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    writeln!(
        out,
        "{PROGRAM}: {}: {}",
        level(record),
        OneLine(record.args())
    )
}

fn file_line(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (time, pid) = (Utc(now), std::process::id());
    writeln!(
        out,
        "{time} [{pid}] {}: {}",
        level(record),
        OneLine(record.args())
    )
}

/// The level by the word that `RUST_LOG` has for it.
fn level(record: &Record<'_>) -> &'static str {
    match record.level() {
        log::Level::Error => "error",
        log::Level::Warn => "warn",
        log::Level::Info => "info",
        log::Level::Debug => "debug",
        log::Level::Trace => "trace",
    }
}

/// A message with its control characters escaped.
struct OneLine<'a>(&'a fmt::Arguments<'a>);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Escape<'a, 'b>(&'a mut fmt::Formatter<'b>);
        impl fmt::Write for Escape<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                let mut rest = text;
                while let Some(at) = rest.find(char::is_control) {
                    let (clean, from) = rest.split_at(at);
                    self.0.write_str(clean)?;
                    let mut chars = from.chars();
                    if let Some(control) = chars.next() {
                        write!(self.0, "{}", control.escape_default())?;
                    }
                    rest = chars.as_str();
                }
                self.0.write_str(rest)
            }
        }
        Escape(f).write_fmt(*self.0)
    }
}

/// Seconds since 1970, as `2026-01-31T23:59:59Z`. Leap seconds do not exist in this count.
struct Utc(u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, second) = (self.0 / 86_400, self.0 % 86_400);
        // Years that begin in March have their leap day at the end, and the lengths of their
        // months follow one formula. Day 0 of this count is 1 March of the year 0.
        let day = days + 719_468;
        let (era, day) = (day / 146_097, day % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (year, month) = match month {
            0..=9 => (era * 400 + year, month + 3),
            _ => (era * 400 + year + 1, month - 9),
        };
        let (hour, minute) = (second / 3_600, second / 60 % 60);
        let second = second % 60;
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn time_is_the_calendars() {
        // By date -u -d @N.
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (1_735_689_600, "2025-01-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(Utc(seconds).to_string(), text);
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for n in 0..200_000 {
            let expected = format!("{year:04}-{month:02}-{day:02}T00:00:00Z");
            assert_eq!(Utc(n * 86_400).to_string(), expected);
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 if leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            (year, month, day) = match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                _ if day == length => (year, month + 1, 1),
                _ => (year, month, day + 1),
            };
        }
    }

    #[test]
    fn a_record_is_one_line() {
        let text = OneLine(&format_args!("node \"{}\" é\x1b[2J", "a\nb\r\0")).to_string();
        assert_eq!(text, "node \"a\\nb\\r\\u{0}\" é\\u{1b}[2J");
    }

    proptest! {
        #[test]
        fn a_clean_message_is_itself_and_no_control_character_survives(text in ".*") {
            let line = OneLine(&format_args!("{text}")).to_string();
            prop_assert!(!line.contains(char::is_control));
            if !text.contains(char::is_control) {
                prop_assert_eq!(line, text);
            }
        }
    }

    fn empty() -> Lines {
        Lines {
            queueing: true,
            has_file: false,
            bytes: Vec::new(),
            lost: 0,
        }
    }

    #[test]
    fn lines_come_out_whole_and_in_order() {
        let mut lines = empty();
        lines.push(b"one\n");
        lines.push(b"two\n");
        let mut taken = b"before\n".to_vec();
        lines.take(&mut taken);
        assert_eq!(taken, b"before\none\ntwo\n");
        lines.take(&mut taken);
        assert_eq!(taken, b"before\none\ntwo\n");
    }

    #[test]
    fn the_queue_is_bounded_and_says_what_is_lost() {
        let mut lines = empty();
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        for _ in 0..100 {
            lines.push(&line);
        }
        lines.push(b"short\n");
        assert_eq!(lines.bytes.len(), QUEUE_LIMIT);
        let mut taken = Vec::new();
        lines.take(&mut taken);
        let tail = &taken[QUEUE_LIMIT..];
        assert_eq!(
            String::from_utf8_lossy(tail),
            "vscode-shell-proxy: warn: 37 lines of the log are lost, since stderr was not read\n"
        );
        lines.push(b"again\n");
        taken.clear();
        lines.take(&mut taken);
        assert_eq!(taken, b"again\n");
    }

    #[test]
    fn a_line_longer_than_the_queue_is_lost_and_said_to_be() {
        let mut lines = empty();
        lines.push(&[b'x'; QUEUE_LIMIT + 1]);
        assert!(lines.is_waiting());
        let mut taken = Vec::new();
        lines.take(&mut taken);
        assert!(taken.starts_with(b"vscode-shell-proxy: warn: 1 lines"));
        assert!(!lines.is_waiting());
    }

    #[test]
    fn steady_state_allocates_nothing() {
        let mut lines = empty();
        let mut taken = Vec::new();
        for _ in 0..2 {
            lines.push(&[b'x'; 1000]);
            lines.take(&mut taken);
            taken.clear();
        }
        let buffers = |lines: &Lines, taken: &Vec<u8>| {
            let mut at = [lines.bytes.as_ptr(), taken.as_ptr()];
            at.sort();
            at
        };
        let before = buffers(&lines, &taken);
        for _ in 0..10 {
            lines.push(&[b'y'; 1000]);
            lines.take(&mut taken);
            assert_eq!(taken, [b'y'; 1000]);
            taken.clear();
        }
        assert_eq!(buffers(&lines, &taken), before);
    }
}
