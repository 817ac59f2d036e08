//! What a step of the self-test says when it fails.

use std::fmt;

use nix::sys::signal::Signal;

/// What was expected, what came instead, and what the user can do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    expected: String,
    got: String,
    hint: Option<String>,
    interrupted: bool,
}

impl Failure {
    /// A failure without advice.
    pub(super) fn new(expected: &str, got: &str) -> Self {
        Self {
            expected: expected.to_owned(),
            got: got.to_owned(),
            hint: None,
            interrupted: false,
        }
    }

    /// The user has had enough.
    pub(super) fn interrupted(signal: Signal) -> Self {
        let got = format!("it was interrupted by {signal}");
        Self {
            interrupted: true,
            ..Self::new("the test runs to its end", &got)
        }
    }

    /// Whether it was [`Self::interrupted`], so that nothing is to be judged any more.
    pub(super) fn is_interruption(&self) -> bool {
        self.interrupted
    }

    /// Adds advice where there is none yet. An interruption needs none.
    pub(super) fn hint(mut self, hint: &str) -> Self {
        if !self.interrupted {
            self.hint.get_or_insert_with(|| hint.to_owned());
        }
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "expected: {}", self.expected)?;
        write!(f, "got:      {}", self.got)?;
        self.hint
            .iter()
            .try_for_each(|hint| write!(f, "\nhint:     {hint}"))
    }
}
