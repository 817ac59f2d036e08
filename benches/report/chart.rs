//! A bar for each contestant, shorter is better.

use std::fmt::Write as _;

use super::support::record::{Record, median, short};

const ROW: usize = 24;
const LABELS: usize = 140;
const BARS: f64 = 400.0;

/// The chart of one figure; `None` where the record does not have it.
pub(super) fn bars(record: &Record, title: &str, scenario: &str, figure: &str) -> Option<String> {
    let series = record.series.iter();
    let series = series.filter(|series| series.scenario == scenario && series.figure == figure);
    let rows: Vec<(&str, f64)> = series
        .map(|series| (series.contestant.as_str(), median(&series.samples)))
        .collect();
    // A bar that would leave no room for the others is cut off; its figure stands beside it.
    let values = || rows.iter().map(|(_, value)| *value);
    let least = values().reduce(f64::min)?;
    let shown = values().filter(|value| *value <= 10.0 * least);
    let most = shown.reduce(f64::max).unwrap_or(least);
    let (width, height) = (LABELS + BARS as usize + 60, ROW * (rows.len() + 2));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"8\" y=\"{ROW}\" font-weight=\"bold\">{title}</text>\n"
    );
    for (index, (name, value)) in rows.iter().enumerate() {
        let top = ROW * (index + 1) + ROW / 2;
        let text = top + ROW / 2 + 2;
        let length = BARS * (value / most).min(1.0);
        let colour = if name.starts_with("proxy") {
            "#2563a8"
        } else {
            "#9aa4ae"
        };
        let end = LABELS as f64 + length + 6.0;
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{text}\" text-anchor=\"end\">{name}</text>\n\
             <rect x=\"{LABELS}\" y=\"{}\" width=\"{length:.1}\" height=\"{}\" fill=\"{colour}\"/>\n\
             <text x=\"{end:.1}\" y=\"{text}\">{}</text>",
            LABELS - 8,
            top + 2,
            ROW - 6,
            short(*value),
        );
    }
    svg.push_str("</svg>\n");
    Some(svg)
}
