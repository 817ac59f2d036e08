//! The goals that are measured, beside what was measured. Those that are counted are assertions, in
//! `tests/footprint`.

use std::fmt::Write as _;

use super::support::record::{Record, median, short};

/// A bound for a figure.
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

use Bound::{AtLeast, AtMost};

/// What is compared.
enum Figure {
    /// Of the first contestant by that of the second.
    Ratio(&'static str, &'static str),
    /// Of the contestant itself.
    Plain(&'static str),
}

use Figure::{Plain, Ratio};

/// Number, scenarios, figure, what of it, bound.
type Goal = (u8, &'static [&'static str], &'static str, Figure, Bound);

const ONE: &[&str] = &["up, 1 connection", "down, 1 connection"];
const EIGHT: &[&str] = &["up, 8 connections", "down, 8 connections"];
const TOUCHED: &[&str] = &[
    "up, 1 connection, bytes touched",
    "down, 1 connection, bytes touched",
    "up, 8 connections, bytes touched",
];
const ONE_CPU: &[&str] = &["64-byte round trips, 1 connection, one CPU"];
const LINES: &[&str] = &["80-byte lines, down", "80-byte lines, up"];

const GOALS: &[Goal] = &[
    (
        1,
        ONE,
        "cpu",
        Ratio("proxy", "haproxy-splice"),
        AtMost(0.80),
    ),
    (1, ONE, "cpu", Ratio("proxy", "tokio-relay"), AtMost(0.40)),
    (
        2,
        EIGHT,
        "cpu",
        Ratio("proxy", "haproxy-splice"),
        AtMost(0.90),
    ),
    (
        3,
        TOUCHED,
        "cpu",
        Ratio("proxy", "haproxy-splice"),
        AtMost(1.0),
    ),
    (
        4,
        ONE,
        "cpu",
        Ratio("proxy, no splice", "tokio-relay"),
        AtMost(0.85),
    ),
    (
        4,
        ONE,
        "cpu",
        Ratio("proxy, no splice", "haproxy"),
        AtMost(0.55),
    ),
    (5, ONE, "rate", Ratio("proxy", "direct"), AtLeast(1.0)),
    (5, EIGHT, "rate", Ratio("proxy", "direct"), AtLeast(0.65)),
    (
        8,
        ONE_CPU,
        "p50",
        Ratio("proxy", "tokio-relay"),
        AtMost(1.05),
    ),
    (
        8,
        ONE_CPU,
        "cpu",
        Ratio("proxy", "tokio-relay"),
        AtMost(1.05),
    ),
    (8, ONE_CPU, "cpu", Ratio("proxy", "haproxy"), AtMost(0.90)),
    (9, EIGHT, "fair", Plain("proxy"), AtLeast(0.65)),
    (9, EIGHT, "fair", Plain("proxy, no splice"), AtLeast(0.90)),
    (
        10,
        &["connections"],
        "cpu",
        Ratio("proxy", "haproxy"),
        AtMost(1.05),
    ),
    (
        13,
        &["exec to listening"],
        "time",
        Ratio("proxy", "polling-relay"),
        AtMost(1.2),
    ),
    (
        13,
        &["exec to listening"],
        "time",
        Plain("proxy"),
        AtMost(2.0),
    ),
    (15, LINES, "cpu", Ratio("proxy", "cat"), AtMost(1.0)),
    (15, LINES, "cpu", Ratio("proxy", "tee"), AtMost(1.0)),
    (15, LINES, "cpu", Ratio("proxy", "socat"), AtMost(1.0)),
];

/// Writes the table.
pub(super) fn table(text: &mut String, records: &[(&str, Record)]) {
    let _ = writeln!(text, "\n## Goals\n");
    let _ = writeln!(
        text,
        "Numbered as in the project's plan; what is counted and not timed (6, 7, 11, 12, 14, the \
         calls of 10) is asserted by `tests/footprint`.\n"
    );
    let _ = writeln!(text, "| # | scenario | figure | goal | measured | |");
    let _ = writeln!(text, "| --- | --- | --- | --- | ---: | --- |");
    for (number, scenarios, figure, what, bound) in GOALS {
        for scenario in *scenarios {
            let measured = records.iter().find_map(|(_, record)| match what {
                Ratio(ours, theirs) => record.ratio(scenario, figure, ours, theirs),
                Plain(name) => Some(median(&record.find(scenario, name, figure)?.samples)),
            });
            let Some(measured) = measured else { continue };
            let what = match what {
                Ratio(ours, theirs) => format!("{figure}, {ours} by {theirs}"),
                Plain(name) => format!("{figure}, {name}"),
            };
            let (met, bound) = match bound {
                AtMost(bound) => (measured <= *bound, format!("≤ {bound}")),
                AtLeast(bound) => (measured >= *bound, format!("≥ {bound}")),
            };
            let met = if met { "met" } else { "**missed**" };
            let measured = short(measured);
            let _ = writeln!(
                text,
                "| {number} | {scenario} | {what} | {bound} | {measured} | {met} |"
            );
        }
    }
}
