//! What the benchmarks that criterion runs (scanning, cleaning up, admission) have left.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::support::record::short;

/// Writes a table of all medians below `directory`, criterion's own.
pub(super) fn table(text: &mut String, directory: &Path) {
    let mut rows = Vec::new();
    collect(directory, &mut rows);
    if rows.is_empty() {
        return;
    }
    rows.sort();
    let _ = writeln!(text, "\n## Parts\n");
    let _ = writeln!(text, "| benchmark | median | |\n| --- | ---: | ---: |");
    for (name, time, rate) in rows {
        let _ = writeln!(text, "| {name} | {time} | {rate} |");
    }
}

fn collect(directory: &Path, rows: &mut Vec<(String, String, String)>) {
    let entries = fs::read_dir(directory).into_iter().flatten();
    for entry in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        if entry.file_name().is_some_and(|name| name == "new") {
            rows.extend(row(&entry));
        } else if entry.is_dir() {
            collect(&entry, rows);
        }
    }
}

/// Name, median and throughput of one benchmark.
fn row(directory: &Path) -> Option<(String, String, String)> {
    let about = fs::read_to_string(directory.join("benchmark.json")).ok()?;
    let estimates = fs::read_to_string(directory.join("estimates.json")).ok()?;
    let (_, name) = about.split_once("\"full_id\":\"")?;
    let name = name.split('"').next()?.to_owned();
    let (_, median) = estimates.split_once("\"median\":")?;
    let ns = number(median, "\"point_estimate\":")?;
    let rate = number(&about, "\"Bytes\":");
    let rate = rate.map_or_else(String::new, |bytes| format!("{} GB/s", short(bytes / ns)));
    Some((name, format!("{} µs", short(ns / 1e3)), rate))
}

/// The number behind the first `key`.
fn number(json: &str, key: &str) -> Option<f64> {
    let (_, rest) = json.split_once(key)?;
    let end = rest.find([',', '}'])?;
    rest[..end].parse().ok()
}
