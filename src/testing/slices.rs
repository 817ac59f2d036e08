//! Ways to cut a stream into slices.

/// Lengths, used in turn.
pub(super) struct Slices<'a>(&'a [u8]);

impl<'a> Slices<'a> {
    /// Splits `data` into the lengths of slices, taken from its end, and a text.
    pub(super) fn take(data: &'a [u8]) -> (Self, &'a [u8]) {
        let Some((count, rest)) = data.split_last() else {
            return (Self(&[]), data);
        };
        let count = usize::from(count % 8).min(rest.len());
        let (text, lengths) = rest.split_at(rest.len() - count);
        (Self(lengths), text)
    }

    /// The slices of `text`; single bytes if there are no lengths. Some may be empty.
    pub(super) fn of<'t>(&self, mut text: &'t [u8]) -> impl Iterator<Item = &'t [u8]> {
        let mut lengths = self.0.iter().cycle();
        std::iter::from_fn(move || {
            if text.is_empty() {
                return None;
            }
            // At least one that is not empty in each round.
            let length = lengths.next().map_or(1, |&length| usize::from(length));
            let length = if self.0.iter().all(|&length| length == 0) {
                1
            } else {
                length
            };
            let (slice, rest) = text.split_at(length.min(text.len()));
            text = rest;
            Some(slice)
        })
    }
}

/// The slices of `text` between these places, in their order. Some may be empty.
#[cfg(test)]
pub(crate) fn cut<'t>(text: &'t [u8], places: &[proptest::sample::Index]) -> Vec<&'t [u8]> {
    let mut ends: Vec<usize> = places
        .iter()
        .map(|place| place.index(text.len() + 1))
        .collect();
    ends.sort_unstable();
    let mut start = 0;
    let mut slices = Vec::new();
    for end in ends.into_iter().chain([text.len()]) {
        slices.push(&text[start..end]);
        start = end;
    }
    slices
}
