//! The lines of the report: one for each step, with its figure.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

/// A step that went well.
pub(super) fn pass(step: &str, figure: fmt::Arguments<'_>) {
    say(format_args!("{step:<12}{figure}"));
}

/// A step that could not be made, and why that is no failure.
pub(super) fn skip(step: &str, reason: fmt::Arguments<'_>) {
    say(format_args!("{step:<12}skipped: {reason}"));
}

/// One line on stdout, at once. A reader that has gone away ends the lines, not the test.
pub(super) fn say(line: fmt::Arguments<'_>) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// A duration with its unit, as long as a figure may be. (In whole numbers: to print others takes
/// 14 KB of program.)
pub(super) fn time(duration: Duration) -> String {
    match (duration.as_secs(), duration.subsec_micros()) {
        (0, 0..1000) => format!("{} µs", (duration.subsec_nanos() + 500) / 1000),
        (0, micros) => format!("{} ms", Tenths(u64::from(micros + 50) / 100)),
        _ => seconds(duration),
    }
}

/// A duration in seconds.
pub(super) fn seconds(duration: Duration) -> String {
    let rest = u64::from(duration.subsec_millis() + 50) / 100;
    format!("{} s", Tenths(duration.as_secs() * 10 + rest))
}

/// So many tenths of something.
struct Tenths(u64);

impl fmt::Display for Tenths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 / 10, self.0 % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_rounded_and_have_their_unit() {
        for (nanos, text) in [
            (0, "0 µs"),
            (499, "0 µs"),
            (956_400, "956 µs"),
            (999_499, "999 µs"),
            (1_000_000, "1.0 ms"),
            (4_149_000, "4.1 ms"),
            (64_050_000, "64.1 ms"),
            (999_900_000, "999.9 ms"),
            (1_000_000_000, "1.0 s"),
            (61_960_000_000, "62.0 s"),
        ] {
            assert_eq!(time(Duration::from_nanos(nanos)), text);
        }
        assert_eq!(seconds(Duration::from_millis(512)), "0.5 s");
    }
}
