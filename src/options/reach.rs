//! How connections reach the server in the job.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// The value of `--reach`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Through a relay in the job; directly where there can be none.
    Auto,
    /// Through a relay in the job, or not at all.
    InJob,
    /// Directly to the node.
    Direct,
}

impl FromStr for Reach {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "in-job" => Ok(Self::InJob),
            "direct" => Ok(Self::Direct),
            _ => Err("auto, in-job or direct is expected"),
        }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::InJob => "in-job",
            Self::Direct => "direct",
        })
    }
}

/// Ports from one to another, both included; never empty, and without 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports(pub RangeInclusive<u16>);

impl FromStr for Ports {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ports = text.split_once('-').and_then(|(first, last)| {
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            (first > 0 && first <= last).then_some(first..=last)
        });
        ports
            .map(Self)
            .ok_or("two ports are expected, the lower one first, such as 50000-50999")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_is_read_as_it_is_written() {
        for reach in [Reach::Auto, Reach::InJob, Reach::Direct] {
            assert_eq!(reach.to_string().parse(), Ok(reach));
        }
        assert!("injob".parse::<Reach>().is_err());
    }

    #[test]
    fn a_range_of_ports_has_two_ends_in_order() {
        for (text, ports) in [
            ("50000-50999", Some(50000..=50999)),
            ("1-65535", Some(1..=65535)),
            ("7-7", Some(7..=7)),
            ("7", None),
            ("8-7", None),
            ("0-7", None),
            ("1-65536", None),
            ("-7", None),
            ("1-2-3", None),
        ] {
            assert_eq!(text.parse().ok(), ports.map(Ports), "{text}");
        }
    }
}
