//! What salloc and srun say on stderr of the job that they ask for: its id and that it was granted,
//! before any shell in it can; and that it was taken away.
//!
//! An observer: it gets a copy of what passes, and changes and holds back nothing of it.

use bstr::ByteSlice;

/// What was said of the allocation with this id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// It waits in the queue.
    Pending(u32),
    /// It is there.
    Granted(u32),
    /// It is there no more.
    Revoked(u32),
}

/// Looks for what Slurm says.
#[derive(Clone, Debug)]
pub struct AllocationWatch {
    /// The line so far, as long as it is no longer than [`AllocationWatch::LIMIT`].
    line: Vec<u8>,
    is_too_long: bool,
    /// The job is there: what is said of another one from now on is somebody else's.
    is_granted: bool,
}

impl Default for AllocationWatch {
    fn default() -> Self {
        Self::new()
    }
}

impl AllocationWatch {
    /// A line that is longer, in bytes, is nobody's that is looked for.
    pub const LIMIT: usize = 96;

    /// One that has seen nothing.
    pub fn new() -> Self {
        Self {
            line: Vec::new(),
            is_too_long: false,
            is_granted: false,
        }
    }

    /// The next thing that was said; `None` when `input` is used up.
    pub fn next(&mut self, input: &mut &[u8]) -> Option<Allocation> {
        while !input.is_empty() {
            let end = input.find_byte(b'\n');
            let (part, rest) = input.split_at(end.unwrap_or(input.len()));
            *input = &rest[rest.len().min(1)..];
            if self.line.len() + part.len() > Self::LIMIT {
                self.is_too_long = true;
            } else if !self.is_too_long {
                self.line.extend_from_slice(part);
            }
            if end.is_some() {
                let said = parse(&self.line).filter(|_| !self.is_too_long);
                self.line.clear();
                self.is_too_long = false;
                match said {
                    Some(Allocation::Revoked(_)) => return said,
                    Some(_) if !self.is_granted => {
                        self.is_granted = matches!(said, Some(Allocation::Granted(_)));
                        return said;
                    }
                    Some(_) | None => {}
                }
            }
        }
        None
    }

    /// The job is there, whoever has told: only its revocation is looked for any more.
    pub fn granted(&mut self) {
        self.is_granted = true;
    }
}

/// The messages of Slurm 20.11 to 25.05: src/salloc/salloc.c, src/srun/allocate.c.
fn parse(line: &[u8]) -> Option<Allocation> {
    let line = line.strip_suffix(b"\r").unwrap_or(line).to_str().ok()?;
    let text = ["salloc: ", "srun: "]
        .iter()
        .find_map(|program| line.strip_prefix(program))?;
    let id = |text: &str| text.parse().ok().filter(|id| *id != 0);
    if let Some(text) = text.strip_prefix("Pending job allocation ") {
        return id(text).map(Allocation::Pending);
    }
    if let Some(text) = text.strip_prefix("Granted job allocation ") {
        return id(text).map(Allocation::Granted);
    }
    if let Some(text) = text.strip_prefix("Job allocation ") {
        let number = text.strip_suffix(" has been revoked.")?;
        return id(number).map(Allocation::Revoked);
    }
    if let Some(text) = text.strip_prefix("Job ") {
        let number =
            text.strip_suffix(" has exceeded its time limit and its allocation has been revoked.")?;
        return id(number).map(Allocation::Revoked);
    }
    let (number, text) = text.strip_prefix("job ")?.split_once(' ')?;
    match text {
        "queued and waiting for resources" => id(number).map(Allocation::Pending),
        "has been allocated resources" => id(number).map(Allocation::Granted),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::slices::cut;
    use proptest::prelude::*;

    const LIMIT: usize = AllocationWatch::LIMIT;

    fn said(slices: &[&[u8]]) -> Vec<Allocation> {
        let mut watch = AllocationWatch::new();
        let mut said = Vec::new();
        for slice in slices {
            let mut input = *slice;
            while let Some(allocation) = watch.next(&mut input) {
                said.push(allocation);
            }
            assert!(input.is_empty() && watch.line.len() <= LIMIT);
        }
        said
    }

    #[test]
    fn a_line_of_the_greatest_length_is_heard_and_a_longer_one_is_not() {
        let said_in = |len: usize| {
            let begun = "salloc: Pending job allocation ";
            said(&[format!("{begun}{:0>1$}\n", 7, len - begun.len()).as_bytes()])
        };
        assert_eq!(said_in(LIMIT), [Allocation::Pending(7)]);
        assert_eq!(said_in(LIMIT + 1), []);
    }

    #[test]
    fn a_job_is_heard_of_from_the_queue_to_the_grant() {
        let text = "salloc: Pending job allocation 12\n\
                    salloc: job 12 queued and waiting for resources\n\
                    salloc: job 12 has been allocated resources\n\
                    salloc: Granted job allocation 12\n";
        assert_eq!(
            said(&[text.as_bytes()]),
            [
                Allocation::Pending(12),
                Allocation::Pending(12),
                Allocation::Granted(12)
            ]
        );
    }

    #[test]
    fn a_job_that_is_there_is_heard_of_again_when_it_is_revoked() {
        let end = " has exceeded its time limit and its allocation has been revoked.";
        let text = format!(
            "salloc: Granted job allocation 12\n\
             salloc: Pending job allocation 13\n\
             salloc: Granted job allocation 13\n\
             salloc: Job allocation 12 has been revoked.\n\
             salloc: Job {}{end}\n",
            u32::MAX
        );
        assert_eq!(
            said(&[text.as_bytes()]),
            [
                Allocation::Granted(12),
                Allocation::Revoked(12),
                Allocation::Revoked(u32::MAX)
            ]
        );
        let mut watch = AllocationWatch::new();
        watch.granted();
        let mut rest = text.as_bytes();
        assert_eq!(watch.next(&mut rest), Some(Allocation::Revoked(12)));
    }

    #[test]
    fn only_slurms_own_lines_count() {
        for text in [
            "Granted job allocation 12\n",
            "echo salloc: Granted job allocation 12\n",
            "salloc: Granted job allocation 12 of 13\n",
            "salloc: Granted job allocation 0\n",
            "salloc: Granted job allocation 99999999999\n",
            "salloc: Granted job allocation \n",
            "salloc: job 12 has been cancelled\n",
            "salloc: Job allocation 12 has been revoked. So it is.\n",
            "salloc: Job allocation x has been revoked.\n",
            "salloc: Job 12 has exceeded its time limit\n",
            "Job allocation 12 has been revoked.\n",
            "salloc: error: Granted job allocation 12\n",
            "salloc: Granted job allocation 12",
        ] {
            assert_eq!(said(&[text.as_bytes()]), [], "{text:?}");
        }
    }

    #[test]
    fn a_line_may_end_as_a_terminals_does() {
        assert_eq!(
            said(&[b"srun: job 7 has been allocated resources\r\n"]),
            [Allocation::Granted(7)]
        );
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(
            parts in proptest::collection::vec(prop_oneof![
                Just("salloc: Pending job allocation 7\n".to_owned()),
                Just("salloc: Granted job allocation 7\n".to_owned()),
                Just("srun: job 8 queued and waiting for resources\n".to_owned()),
                Just("salloc: Job allocation 7 has been revoked.\n".to_owned()),
                Just("salloc: ".to_owned()), Just("\n".to_owned()), Just("x".repeat(LIMIT)),
                "[0-9 \r]{0,4}",
            ], 0..8),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
        ) {
            let text = parts.concat().into_bytes();
            prop_assert_eq!(said(&cut(&text, &cuts)), said(&[&text]));
        }
    }
}
