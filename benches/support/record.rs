//! Figures: kept sample by sample, printed beside their peers'.
//!
//! One file of tab-separated lines for each benchmark, which `report` reads:
//! `@ name value` is a fact about the run, and every other line is
//! `scenario contestant figure unit samples…`.

use std::fmt::Write as _;
use std::fs;

use super::results;

/// All samples of one figure of one contestant in one scenario, a sample a round.
pub struct Series {
    pub scenario: String,
    pub contestant: String,
    pub figure: String,
    pub unit: String,
    pub samples: Vec<f64>,
}

/// What one benchmark has found.
#[derive(Default)]
pub struct Record {
    pub facts: Vec<(String, String)>,
    pub series: Vec<Series>,
}

impl Record {
    /// A fact about the run: a command line, a version.
    pub fn fact(&mut self, name: &str, value: &str) {
        self.facts.push((name.to_owned(), value.to_owned()));
    }

    /// One sample more.
    pub fn sample(&mut self, scenario: &str, contestant: &str, figure: (&str, &str), value: f64) {
        let (figure, unit) = figure;
        let known = self.series.iter_mut().find(|series| {
            series.scenario == scenario
                && series.contestant == contestant
                && series.figure == figure
        });
        match known {
            Some(series) => series.samples.push(value),
            None => self.series.push(Series {
                scenario: scenario.to_owned(),
                contestant: contestant.to_owned(),
                figure: figure.to_owned(),
                unit: unit.to_owned(),
                samples: vec![value],
            }),
        }
    }

    /// The samples of one figure.
    pub fn find(&self, scenario: &str, contestant: &str, figure: &str) -> Option<&Series> {
        self.series.iter().find(|series| {
            series.scenario == scenario
                && series.contestant == contestant
                && series.figure == figure
        })
    }

    /// The ratio of two contestants' figures: the median of the rounds' ratios.
    pub fn ratio(&self, scenario: &str, figure: &str, ours: &str, theirs: &str) -> Option<f64> {
        let ours = self.find(scenario, ours, figure)?;
        let theirs = self.find(scenario, theirs, figure)?;
        let rounds = ours.samples.iter().zip(&theirs.samples);
        let ratios: Vec<f64> = rounds.map(|(ours, theirs)| ours / theirs).collect();
        Some(median(&ratios)).filter(|ratio| ratio.is_finite())
    }

    /// Prints every figure with its spread, and the ratio of `ours` to each other contestant.
    pub fn print(&self, ours: &str) {
        for scenario in self.scenarios() {
            println!("\n{scenario}");
            for series in self
                .series
                .iter()
                .filter(|series| series.scenario == scenario)
            {
                let ratio = self
                    .ratio(scenario, &series.figure, ours, &series.contestant)
                    .filter(|_| series.contestant != ours)
                    .map_or_else(String::new, |ratio| {
                        format!("{ours}: {} of it", short(ratio))
                    });
                let (least, most) = spread(&series.samples);
                println!(
                    "  {:<26} {:<6} {:>10} {:<6} ({} to {})  {ratio}",
                    series.contestant,
                    series.figure,
                    short(median(&series.samples)),
                    series.unit,
                    short(least),
                    short(most),
                );
            }
        }
    }

    /// The names of all scenarios, in the order in which they came.
    pub fn scenarios(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for series in &self.series {
            if !names.contains(&series.scenario.as_str()) {
                names.push(&series.scenario);
            }
        }
        names
    }

    /// Keeps everything as the benchmark `name`.
    pub fn save(&self, name: &str) {
        let mut text = String::new();
        for (name, value) in &self.facts {
            let _ = writeln!(text, "@\t{name}\t{value}");
        }
        for series in &self.series {
            let Series {
                scenario,
                contestant,
                figure,
                unit,
                samples,
            } = series;
            let _ = write!(text, "{scenario}\t{contestant}\t{figure}\t{unit}");
            for sample in samples {
                let _ = write!(text, "\t{sample}");
            }
            text.push('\n');
        }
        let directory = results();
        let path = directory.join(format!("{name}.tsv"));
        fs::create_dir_all(&directory).expect("a directory under target");
        fs::write(&path, text).expect("a file under target");
        println!("\nkept in {}", path.display());
    }

    /// What was kept as `name`, if anything.
    pub fn load(name: &str) -> Option<Self> {
        let text = fs::read_to_string(results().join(format!("{name}.tsv"))).ok()?;
        let mut record = Self::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split('\t').collect();
            match words[..] {
                ["@", name, value] => record.fact(name, value),
                [scenario, contestant, figure, unit, ref samples @ ..] => {
                    for sample in samples.iter().filter_map(|sample| sample.parse().ok()) {
                        record.sample(scenario, contestant, (figure, unit), sample);
                    }
                }
                _ => {}
            }
        }
        Some(record)
    }
}

/// The middle one.
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

/// The least and the greatest one.
pub fn spread(samples: &[f64]) -> (f64, f64) {
    let least = samples.iter().copied().fold(f64::INFINITY, f64::min);
    (
        least,
        samples.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    )
}

/// Three digits that count.
pub fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
