//! Spans of time in any text.

use crate::age::Age;

/// Reads `data` as a span. What is accepted equals a sum in wide numbers and reads the same when
/// printed; what is refused has a reason of one line.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match text.parse::<Age>() {
        Ok(age) => {
            assert_eq!(naive(text), Some(u128::from(age.as_secs())), "{text:?}");
            assert_eq!(age.to_string().parse(), Ok(age), "{text:?}");
        }
        Err(error) => {
            let sum = naive(text);
            assert!(
                sum.is_none_or(|sum| sum > u128::from(u64::MAX)),
                "{text:?} is {sum:?}"
            );
            let reason = error.to_string();
            assert!(!reason.is_empty() && !reason.contains(char::is_control));
        }
    }
}

/// The same rules word by word. Numbers too long even for `u128` count as its maximum.
fn naive(text: &str) -> Option<u128> {
    let number = |digits: &str| {
        let valid = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        valid.then(|| digits.parse::<u128>().unwrap_or(u128::MAX))
    };
    if let Some(seconds) = number(text) {
        return Some(seconds);
    }
    let mut sum: u128 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let length = match rest.as_bytes()[end].to_ascii_lowercase() {
            b'd' => 86_400,
            b'h' => 3_600,
            b'm' => 60,
            b's' => 1,
            _ => return None,
        };
        sum = sum.saturating_add(number(&rest[..end])?.saturating_mul(length));
        rest = &rest[end + 1..];
    }
    (!text.is_empty()).then_some(sum)
}
