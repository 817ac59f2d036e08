//! The control connection to the relay inside the job: orders out, reports in.

use std::io::{self, ErrorKind, Read, Write};

use crate::reach::{Decoder, Message, Order, Report};
use crate::reactor::Reactor;
use crate::transfer::End;

use super::Source;

/// Reads of one turn.
const READS: usize = 4;

/// One control connection.
pub(super) struct Control {
    end: End,
    decoder: Decoder<Report>,
    /// Orders that the kernel has not taken: at most one for each client.
    out: Vec<u8>,
    /// The last order was given.
    is_last: bool,
}

/// What a turn has brought.
#[derive(Debug)]
pub(super) enum Line {
    /// It stands.
    Up,
    /// The relay has closed it, orderly.
    Ended,
    /// It is good for nothing any more.
    Broken(io::Error),
}

impl Control {
    pub(super) fn new(end: End, reactor: &mut Reactor<Source>) -> Self {
        reactor.hand_over(end.1, Source::Control);
        Self {
            end,
            decoder: Decoder::default(),
            out: Vec::new(),
            is_last: false,
        }
    }

    /// Gives the last order, once.
    pub(super) fn dismiss(&mut self, reactor: &mut Reactor<Source>) {
        if !std::mem::replace(&mut self.is_last, true) {
            self.order(&Order::End, reactor);
        }
    }

    /// Gives an order; what the kernel does not take now goes with a later turn.
    pub(super) fn order(&mut self, order: &Order, reactor: &mut Reactor<Source>) {
        order.encode(&mut self.out);
        // A failure shows in the next turn too.
        let _ = self.flush(reactor);
    }

    /// Writes what is left, and reads what has come into `reports`.
    pub(super) fn turn(
        &mut self,
        reactor: &mut Reactor<Source>,
        scratch: &mut [u8],
        reports: &mut Vec<Report>,
    ) -> Line {
        let flushed = self.flush(reactor);
        for _ in 0..READS {
            let mut input = match (&self.end.0).read(scratch) {
                Ok(0) => return Line::Ended,
                Ok(bytes) => &scratch[..bytes],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    reactor.read_blocked(self.end.1);
                    return flushed.map_or_else(Line::Broken, |()| Line::Up);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Line::Broken(error),
            };
            loop {
                match self.decoder.next(&mut input) {
                    Ok(Some(report)) => reports.push(report),
                    Ok(None) => break,
                    Err(error) => {
                        return Line::Broken(io::Error::new(ErrorKind::InvalidData, error));
                    }
                }
            }
        }
        reactor.wake(self.end.1);
        Line::Up
    }

    /// Closes it.
    pub(super) fn close(self, reactor: &mut Reactor<Source>) {
        reactor.forget(self.end.1);
    }

    fn flush(&mut self, reactor: &mut Reactor<Source>) -> io::Result<()> {
        while !self.out.is_empty() {
            match (&self.end.0).write(&self.out) {
                Ok(taken) => drop(self.out.drain(..taken)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    reactor.write_blocked(self.end.1);
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
