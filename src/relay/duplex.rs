//! A connection: two flows that share their two ends.

use super::flow::Flow;

/// One of the two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The end that connected to our listener.
    Client,
    /// The end inside the job.
    Server,
}

impl Side {
    /// The end at the other side.
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// How a finished connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// Both directions came to their own end.
    Orderly,
    /// One end was reset, and the other one shall learn it the same way.
    Reset,
}

/// Two opposite flows. Each half-closes on its own; the connection is over when both are done.
#[derive(Clone, Debug, Default)]
pub struct Duplex {
    /// Client to server.
    pub up: Flow,
    /// Server to client.
    pub down: Flow,
}

impl Duplex {
    /// The flow that reads from `side`.
    pub fn from(&mut self, side: Side) -> &mut Flow {
        match side {
            Side::Client => &mut self.up,
            Side::Server => &mut self.down,
        }
    }

    /// The flow that writes to `side`.
    pub fn to(&self, side: Side) -> &Flow {
        match side {
            Side::Client => &self.down,
            Side::Server => &self.up,
        }
    }

    /// `side` failed while it was read: it is gone in both directions.
    pub fn read_failed(&mut self, side: Side) {
        self.from(side).source_reset();
        self.from(side.other()).sink_broken();
    }

    /// `side` failed while it was written. With `reset` the kernel said that the peer had reset the
    /// connection; otherwise the peer merely does not read any more.
    pub fn write_failed(&mut self, side: Side, reset: bool) {
        self.from(side.other()).sink_broken();
        if reset {
            self.from(side).source_dying();
        }
    }

    /// How to close, once there is nothing left to do in either direction.
    pub fn finished(&self) -> Option<Close> {
        if !(self.up.is_done() && self.down.is_done()) {
            return None;
        }
        let reset = self.up.is_reset() || self.down.is_reset();
        Some(if reset { Close::Reset } else { Close::Orderly })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::Step;

    #[test]
    fn one_direction_goes_on_after_the_other_has_ended() {
        let mut both = Duplex::default();
        both.up.source_ended();
        assert_eq!(both.up.step(false, false), Step::Shut);
        both.up.sink_shut();
        assert_eq!(both.finished(), None);
        assert!(both.to(Side::Server).is_done() && !both.to(Side::Client).is_done());
        assert_eq!(both.down.step(true, true), Step::Read);
        both.down.source_ended();
        both.down.sink_shut();
        assert_eq!(both.finished(), Some(Close::Orderly));
    }

    #[test]
    fn a_reset_end_resets_the_other_after_what_it_sent() {
        let mut both = Duplex::default();
        both.down.read(5);
        both.read_failed(Side::Server);
        assert_eq!(both.finished(), None);
        both.down.wrote(5);
        assert_eq!(both.finished(), Some(Close::Reset));
    }

    #[test]
    fn a_reset_seen_by_a_write_still_lets_the_last_answer_through() {
        let mut both = Duplex::default();
        both.up.read(5);
        both.write_failed(Side::Server, true);
        assert_eq!(both.down.step(true, true), Step::Read);
        both.down.read(2);
        both.down.wrote(2);
        both.down.source_ended();
        assert_eq!(both.finished(), Some(Close::Reset));
    }

    #[test]
    fn a_peer_that_only_stopped_reading_is_no_reset() {
        let mut both = Duplex::default();
        both.write_failed(Side::Server, false);
        both.down.source_ended();
        both.down.sink_shut();
        assert_eq!(both.finished(), Some(Close::Orderly));
    }
}
