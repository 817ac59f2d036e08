//! Writes what the benchmarks have kept as a document: tables, charts, and which goals are met.
//!
//! `cargo bench --bench report` writes it under `target/bench`; with `-- --publish` it becomes
//! `docs/performance.md`. A benchmark that has not run yet is not in it.

#[path = "../support/mod.rs"]
mod support;

mod chart;
mod criterion;
mod goals;

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::record::{Record, median, short, spread};
use support::{installed, results};

/// The benchmarks that keep records, in the order of the document.
const BENCHES: [(&str, &str); 3] = [
    ("relay", "The relay"),
    ("stdio", "The standard streams"),
    ("startup", "The start"),
];

/// A chart's file, its title, the scenario and the figure.
const CHARTS: [(&str, &str, &str, &str); 4] = [
    (
        "bulk-1",
        "CPU seconds for a GB, 1 connection",
        "down, 1 connection",
        "cpu",
    ),
    (
        "bulk-8",
        "CPU seconds for a GB, 8 connections",
        "down, 8 connections",
        "cpu",
    ),
    (
        "trips",
        "CPU time of a 64-byte round trip in µs, one CPU",
        "64-byte round trips, 1 connection, one CPU",
        "cpu",
    ),
    (
        "connections",
        "CPU time of a connection in µs",
        "connections",
        "cpu",
    ),
];

fn main() -> io::Result<()> {
    let publish = std::env::args().any(|arg| arg == "--publish");
    let directory = if publish {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
    } else {
        results()
    };
    let charts = directory.join("performance");
    fs::create_dir_all(&charts)?;
    let records: Vec<(&str, Record)> = BENCHES
        .iter()
        .filter_map(|(name, title)| Some((*title, Record::load(name)?)))
        .collect();

    let mut text = String::from(
        "# Performance\n\n\
         Written by `cargo bench --bench report -- --publish` from what `cargo bench` has kept. \
         Contestants take turns in several rounds; a figure is the median of its rounds, with the \
         least and the greatest in brackets, and a ratio is the median of the rounds' ratios: ours \
         divided by theirs. CPU time is the relaying process's own, from `/proc`. Absolute figures \
         are this machine's; the ratios say more. `proxy, no splice` is the proxy where the kernel \
         refuses splice(2); `proxy, in-job` the proxy with a relay in the job, which would be on \
         another machine: its own CPU time does not count.\n\n",
    );
    machine(&mut text);
    goals::table(&mut text, &records);
    for (title, record) in &records {
        let _ = writeln!(text, "\n## {title}\n");
        for (file, chart_title, scenario, figure) in CHARTS {
            if let Some(svg) = chart::bars(record, chart_title, scenario, figure) {
                let path = charts.join(format!("{file}.svg"));
                fs::write(path, svg)?;
                let _ = writeln!(text, "![{chart_title}](performance/{file}.svg)\n");
            }
        }
        tables(&mut text, record);
        facts(&mut text, record);
    }
    criterion::table(&mut text, &results().with_file_name("criterion"));
    let path: PathBuf = directory.join("performance.md");
    fs::write(&path, text)?;
    println!("written: {}", path.display());
    Ok(())
}

fn machine(text: &mut String) {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models = processors
        .lines()
        .filter(|line| line.starts_with("model name"));
    let models: Vec<&str> = models
        .filter_map(|line| Some(line.split_once(": ")?.1))
        .collect();
    let model = models.first().copied().unwrap_or("unknown");
    let _ = writeln!(text, "| | |\n| --- | --- |");
    let _ = writeln!(text, "| CPUs | {} of {model} |", models.len());
    for (program, args) in [
        ("uname", &["-sr"][..]),
        ("rustc", &["--version"]),
        ("haproxy", &["-v"]),
        ("nginx", &["-v"]),
        ("socat", &["-V"]),
        ("ssh", &["-V"]),
    ] {
        if let Some(version) = version(program, args) {
            let _ = writeln!(text, "| {program} | {version} |");
        }
    }
}

/// The line that tells the version, wherever it is printed.
fn version(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(installed(program)?).args(args).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let mut lines = text
        .lines()
        .filter(|line| line.contains(|c: char| c.is_ascii_digit()));
    Some(lines.next()?.trim().to_owned())
}

fn tables(text: &mut String, record: &Record) {
    for scenario in record.scenarios() {
        let _ = writeln!(text, "### {scenario}\n");
        let _ = writeln!(text, "| | figure | median | | ours by theirs |");
        let _ = writeln!(text, "| --- | --- | ---: | --- | ---: |");
        for series in record
            .series
            .iter()
            .filter(|series| series.scenario == scenario)
        {
            let name = &series.contestant;
            let ratio = record
                .ratio(scenario, &series.figure, "proxy", name)
                .filter(|_| name != "proxy")
                .map_or_else(String::new, short);
            let (least, most) = spread(&series.samples);
            let _ = writeln!(
                text,
                "| {name} | {} | {} {} | ({} to {}) | {ratio} |",
                series.figure,
                short(median(&series.samples)),
                series.unit,
                short(least),
                short(most),
            );
        }
        text.push('\n');
    }
}

fn facts(text: &mut String, record: &Record) {
    if record.facts.is_empty() {
        return;
    }
    let _ = writeln!(text, "As they were run:\n");
    for (name, value) in record.facts.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(text, "- {name}: `{value}`");
    }
}
