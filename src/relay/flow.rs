//! One direction of bytes: from a source, through at most one block, to a sink.
//!
//! The contract, in the order in which [`Flow::step`] decides it:
//! - a byte that was read is written before another one is read, so what is left over never exceeds
//!   one read, and a reader that does not read stops its writer;
//! - the end of the source is passed on by shutting the sink once, after the last byte;
//! - a broken sink ends the flow: nobody wants the source any more;
//! - a source that was reset is never passed on as an orderly end.

/// What the owner of the descriptors shall do next for this direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read once from the source, then tell [`Flow::read`], [`Flow::source_ended`] or
    /// [`Flow::source_reset`].
    Read,
    /// Write what is left over, then tell [`Flow::wrote`] or [`Flow::sink_broken`].
    Write,
    /// Shut the sink down for writing, then tell [`Flow::sink_shut`].
    Shut,
    /// Nothing is possible until one of the ends becomes ready.
    Wait,
    /// Nothing will ever be to do again.
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Open,
    /// The sibling direction learnt that this end was reset; what it sent before may still be read.
    Dying,
    Ended,
    Reset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sink {
    Open,
    Shut,
    Broken,
}

/// The state of one direction. It counts bytes and holds none.
///
/// Invariants: `left > 0` only while the sink is open; the sink is `Shut` only when the source has
/// `Ended` and `left == 0`.
#[derive(Clone, Debug)]
pub struct Flow {
    source: Source,
    sink: Sink,
    left: usize,
    carried: u64,
}

impl Default for Flow {
    fn default() -> Self {
        Self::new()
    }
}

impl Flow {
    /// A direction whose both ends are open.
    pub fn new() -> Self {
        Self {
            source: Source::Open,
            sink: Sink::Open,
            left: 0,
            carried: 0,
        }
    }

    /// What to do next, given which ends are ready.
    ///
    /// A read is asked for only when the sink is ready too: bytes that nobody can take stay in the
    /// kernel, where they slow their sender down.
    pub fn step(&self, source_ready: bool, sink_ready: bool) -> Step {
        match (self.sink, self.source) {
            (Sink::Shut | Sink::Broken, _) => Step::Done,
            (Sink::Open, _) if self.left > 0 => {
                if sink_ready {
                    Step::Write
                } else {
                    Step::Wait
                }
            }
            (Sink::Open, Source::Reset) => Step::Done,
            (Sink::Open, Source::Ended) => Step::Shut,
            (Sink::Open, Source::Open | Source::Dying) => {
                if source_ready && sink_ready {
                    Step::Read
                } else {
                    Step::Wait
                }
            }
        }
    }

    /// `bytes` more are owed to the sink: read from the source, or put in by the owner.
    pub fn read(&mut self, bytes: usize) {
        if self.sink == Sink::Open {
            self.left += bytes;
        }
    }

    /// The sink took `bytes` of what was left over.
    pub fn wrote(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.left, "more written than was left over");
        self.left = self.left.saturating_sub(bytes);
        self.carried += bytes as u64;
    }

    /// The source has no more bytes.
    pub fn source_ended(&mut self) {
        self.source = match self.source {
            Source::Open | Source::Ended => Source::Ended,
            Source::Dying | Source::Reset => Source::Reset,
        };
    }

    /// The source failed: its end is not orderly.
    pub fn source_reset(&mut self) {
        self.source = Source::Reset;
    }

    /// The source's end is known to have been reset, but what it sent before may still be readable.
    ///
    /// The kernel reports a reset once, to whichever call comes first; this is how a failed write
    /// tells the direction that reads from the same socket.
    pub fn source_dying(&mut self) {
        if self.source == Source::Open {
            self.source = Source::Dying;
        }
    }

    /// The sink was shut down for writing.
    pub fn sink_shut(&mut self) {
        debug_assert!(self.left == 0, "shut with bytes left over");
        if self.sink == Sink::Open {
            self.sink = Sink::Shut;
        }
    }

    /// The sink takes nothing any more; what was left over is lost with its reader.
    pub fn sink_broken(&mut self) {
        if self.sink == Sink::Open {
            self.sink = Sink::Broken;
            self.left = 0;
        }
    }

    /// Bytes owed to the sink.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Bytes that the sink took since the beginning.
    pub fn carried(&self) -> u64 {
        self.carried
    }

    /// Whether nothing will ever be to do again.
    pub fn is_done(&self) -> bool {
        self.step(true, true) == Step::Done
    }

    /// Whether the sink's reader is gone.
    pub fn is_broken(&self) -> bool {
        self.sink == Sink::Broken
    }

    /// Whether the source was reset.
    pub fn is_reset(&self) -> bool {
        self.source == Source::Reset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_only_when_nothing_is_left_over() {
        let mut flow = Flow::new();
        assert_eq!(flow.step(true, true), Step::Read);
        flow.read(10);
        assert_eq!(flow.step(true, true), Step::Write);
        flow.wrote(4);
        assert_eq!(flow.step(true, false), Step::Wait);
        flow.wrote(6);
        assert_eq!(flow.step(true, true), Step::Read);
        flow.read(5);
        flow.wrote(5);
        assert_eq!(flow.carried(), 15);
    }

    #[test]
    fn a_sink_that_cannot_take_anything_stops_the_source() {
        assert_eq!(Flow::new().step(true, false), Step::Wait);
    }

    #[test]
    fn the_end_is_passed_on_once_and_after_the_last_byte() {
        let mut flow = Flow::new();
        flow.read(3);
        flow.source_ended();
        assert_eq!(flow.step(true, true), Step::Write);
        flow.wrote(3);
        assert_eq!(flow.step(false, false), Step::Shut);
        flow.sink_shut();
        assert_eq!(flow.step(true, true), Step::Done);
    }

    #[test]
    fn a_broken_sink_ends_the_flow_and_forgets_what_it_owed() {
        let mut flow = Flow::new();
        flow.read(3);
        assert!(!flow.is_broken());
        flow.sink_broken();
        assert_eq!((flow.left(), flow.step(true, true)), (0, Step::Done));
        assert!(flow.is_broken());
    }

    #[test]
    fn a_reset_source_is_never_an_orderly_end() {
        let mut flow = Flow::new();
        flow.read(3);
        flow.source_reset();
        assert_eq!(flow.step(true, true), Step::Write);
        flow.wrote(3);
        assert_eq!(flow.step(true, true), Step::Done);
        assert!(flow.is_reset());
    }

    #[test]
    fn a_dying_source_is_read_to_its_end_and_then_counts_as_reset() {
        let mut flow = Flow::new();
        flow.source_dying();
        assert_eq!(flow.step(true, true), Step::Read);
        flow.source_ended();
        assert_eq!(flow.step(true, true), Step::Done);
        assert!(flow.is_reset());
    }
}
