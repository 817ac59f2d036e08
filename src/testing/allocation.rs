//! What Slurm says of its job, among any other output.

use bstr::ByteSlice;

use super::slices::Slices;
use crate::intercept::{Allocation, AllocationWatch};

/// A text that `data` chooses says the same in any slices, and what its lines say word by word.
pub fn check(data: &[u8]) {
    let (slices, text) = Slices::take(data);
    let mut watch = AllocationWatch::new();
    let mut said = Vec::new();
    for slice in slices.of(text) {
        let mut input = slice;
        said.extend(std::iter::from_fn(|| watch.next(&mut input)));
        assert!(input.is_empty());
    }
    assert_eq!(said, naive(text), "{}", text.as_bstr());
}

/// The same, of the whole text and with as much memory as it wants.
fn naive(text: &[u8]) -> Vec<Allocation> {
    let end = text.rfind_byte(b'\n').unwrap_or(0);
    let mut is_granted = false;
    let mut heard = |said: &Allocation| match said {
        Allocation::Revoked(_) => true,
        Allocation::Pending(_) => !is_granted,
        Allocation::Granted(_) => !std::mem::replace(&mut is_granted, true),
    };
    text[..end]
        .split_str("\n")
        .filter_map(line_says)
        .filter(|said| heard(said))
        .collect()
}

fn line_says(line: &[u8]) -> Option<Allocation> {
    if line.len() > AllocationWatch::LIMIT {
        return None;
    }
    let line = line.strip_suffix(b"\r").unwrap_or(line).to_str().ok()?;
    let id = |word: &str| word.parse().ok().filter(|id| *id != 0);
    let words: Vec<&str> = line.split(' ').collect();
    let ["salloc:" | "srun:", words @ ..] = words.as_slice() else {
        return None;
    };
    match words {
        ["Pending", "job", "allocation", number] => id(number).map(Allocation::Pending),
        ["Granted", "job", "allocation", number] => id(number).map(Allocation::Granted),
        [
            "job",
            number,
            "queued",
            "and",
            "waiting",
            "for",
            "resources",
        ] => id(number).map(Allocation::Pending),
        ["job", number, "has", "been", "allocated", "resources"] => {
            id(number).map(Allocation::Granted)
        }
        ["Job", "allocation", number, "has", "been", "revoked."] => {
            id(number).map(Allocation::Revoked)
        }
        ["Job", number, rest @ ..]
            if rest.join(" ")
                == "has exceeded its time limit and its allocation has been revoked." =>
        {
            id(number).map(Allocation::Revoked)
        }
        _ => None,
    }
}
