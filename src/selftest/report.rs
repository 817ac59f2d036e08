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

/// A duration with its unit, as long as a figure may be.
pub(super) fn time(duration: Duration) -> String {
    match duration.as_secs_f64() {
        seconds if seconds < 0.001 => format!("{:.0} µs", seconds * 1e6),
        seconds if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        seconds => format!("{seconds:.1} s"),
    }
}
