//! Spans of time as users write them: `5d6h10m45s`, in whole seconds.
//!
//! Parts may stand in any sequence, in either case, and add up; a bare number is seconds. Whatever
//! is not such a span is an error, since a mistyped age that became 0 would end young processes.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Units with their length in seconds, longest first.
const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// A span of time in whole seconds, `0 ..= u64::MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Age(u64);

impl Age {
    /// The span of `seconds`.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds)
    }

    /// Its length in seconds.
    pub const fn as_secs(self) -> u64 {
        self.0
    }
}

impl From<Age> for Duration {
    fn from(age: Age) -> Self {
        Self::from_secs(age.0)
    }
}

/// Why a text is no [`Age`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgeError {
    /// There is nothing.
    Empty,
    /// A unit without a number before it, or a character that is neither digit nor unit.
    Unexpected(char),
    /// Digits without a unit behind others that have one, as in `5d6`.
    NoUnit,
    /// More than [`u64::MAX`] seconds.
    Overflow,
}

impl fmt::Display for AgeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            // Debug escapes what a terminal would act on.
            Self::Unexpected(character) => write!(f, "{character:?} is out of place"),
            Self::NoUnit => f.write_str("the last number has no unit"),
            Self::Overflow => f.write_str("it is too long"),
        }
    }
}

impl std::error::Error for AgeError {}

impl FromStr for Age {
    type Err = AgeError;

    fn from_str(text: &str) -> Result<Self, AgeError> {
        if text.is_empty() {
            return Err(AgeError::Empty);
        }
        let mut total: u64 = 0;
        let mut number: Option<u64> = None;
        let mut has_units = false;
        for character in text.chars() {
            if let Some(digit) = character.to_digit(10) {
                let longer = number
                    .unwrap_or(0)
                    .checked_mul(10)
                    .and_then(|n| n.checked_add(u64::from(digit)));
                number = Some(longer.ok_or(AgeError::Overflow)?);
                continue;
            }
            let (_, length) = UNITS
                .into_iter()
                .find(|(unit, _)| character.eq_ignore_ascii_case(unit))
                .ok_or(AgeError::Unexpected(character))?;
            let count = number.take().ok_or(AgeError::Unexpected(character))?;
            total = count
                .checked_mul(length)
                .and_then(|part| total.checked_add(part))
                .ok_or(AgeError::Overflow)?;
            has_units = true;
        }
        match number {
            Some(_) if has_units => Err(AgeError::NoUnit),
            Some(seconds) => Ok(Self(seconds)),
            None => Ok(Self(total)),
        }
    }
}

impl fmt::Display for Age {
    /// The longest units first, without those that are 0: `5d6h10m45s`, `1h`, `0s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.pad("0s");
        }
        let mut text = String::new();
        let mut rest = self.0;
        for (unit, length) in UNITS {
            if rest >= length {
                text.push_str(&(rest / length).to_string());
                text.push(unit);
                rest %= length;
            }
        }
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spans_are_read() {
        for (text, seconds) in [
            ("5d6h10m45s", 5 * 86_400 + 6 * 3_600 + 10 * 60 + 45),
            ("45s10m6h5d", 5 * 86_400 + 6 * 3_600 + 10 * 60 + 45),
            ("5D6H", 5 * 86_400 + 6 * 3_600),
            ("90", 90),
            ("0", 0),
            ("0d", 0),
            ("007m", 420),
            ("1h1h", 7_200),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(text.parse(), Ok(Age(seconds)), "{text}");
        }
    }

    #[test]
    fn what_is_no_span_is_refused() {
        for (text, error) in [
            ("", AgeError::Empty),
            ("5x", AgeError::Unexpected('x')),
            ("d", AgeError::Unexpected('d')),
            ("5dd", AgeError::Unexpected('d')),
            ("-5d", AgeError::Unexpected('-')),
            ("+5d", AgeError::Unexpected('+')),
            (" 5d", AgeError::Unexpected(' ')),
            ("5d ", AgeError::Unexpected(' ')),
            ("1.5h", AgeError::Unexpected('.')),
            ("٥d", AgeError::Unexpected('٥')),
            ("5d6", AgeError::NoUnit),
            ("18446744073709551616", AgeError::Overflow),
            ("213503982334602d", AgeError::Overflow),
            ("18446744073709551615s1s", AgeError::Overflow),
        ] {
            assert_eq!(text.parse::<Age>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn spans_are_printed() {
        assert_eq!(Age(0).to_string(), "0s");
        assert_eq!(Age(86_400).to_string(), "1d");
        assert_eq!(Age(454_245).to_string(), "5d6h10m45s");
        assert_eq!(format!("{:>5}", Age(61)), " 1m1s");
        assert_eq!(Duration::from(Age(61)), Duration::from_secs(61));
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(seconds: u64) {
            prop_assert_eq!(Age(seconds).to_string().parse(), Ok(Age(seconds)));
        }

        #[test]
        fn parts_add_up_in_any_sequence(
            parts in prop::collection::vec((0_u64..1_000_000, 0_usize..4, any::<bool>()), 1..8)
        ) {
            let text: String = parts.iter().map(|&(count, unit, upper)| {
                let unit = UNITS[unit].0;
                format!("{count}{}", if upper { unit.to_ascii_uppercase() } else { unit })
            }).collect();
            let sum = parts.iter().map(|&(count, unit, _)| count * UNITS[unit].1).sum();
            prop_assert_eq!(text.parse(), Ok(Age(sum)));
        }

        #[test]
        fn any_text_is_checked(text in "[0-9dhmsDHMS x\\PC]{0,24}") {
            crate::testing::age::check(text.as_bytes());
        }
    }
}
