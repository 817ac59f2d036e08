//! A control connection that stands: orders come in, reports go out.

use std::io::{ErrorKind, Read, Write};

use crate::reach::{Decoder, Message, Order, Report};
use crate::reactor::Reactor;
use crate::transfer::End;

use super::Source;

/// Most bytes of reports that wait for a proxy that does not read. Each stream owes one of 15 bytes.
const WAITING: usize = 128 * 1024;

/// A control connection.
#[derive(Debug)]
pub(super) struct Link {
    end: End,
    decoder: Decoder<Order>,
    /// Reports that are not sent.
    waiting: Vec<u8>,
}

/// The connection is good for nothing any more.
#[derive(Debug)]
pub(super) struct Lost;

impl Link {
    pub(super) fn new(end: End) -> Self {
        Self {
            end,
            decoder: Decoder::default(),
            waiting: Vec::new(),
        }
    }

    /// Takes the orders that have come.
    pub(super) fn read(
        &mut self,
        orders: &mut Vec<Order>,
        scratch: &mut [u8],
        reactor: &mut Reactor<Source>,
    ) -> Result<(), Lost> {
        let (stream, token) = &mut self.end;
        while reactor.ready(*token).read {
            let mut input = match stream.read(scratch) {
                Ok(0) => return Err(Lost),
                Ok(bytes) => {
                    if bytes < scratch.len() {
                        reactor.read_short(*token);
                    }
                    &scratch[..bytes]
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    reactor.read_blocked(*token);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Err(Lost),
            };
            while let Some(order) = self.decoder.next(&mut input).map_err(|_| Lost)? {
                orders.push(order);
            }
        }
        match reactor.ready(*token).write_closed {
            true => Err(Lost),
            false => Ok(()),
        }
    }

    /// Puts `report` behind those that wait.
    pub(super) fn tell(&mut self, report: &Report) {
        report.encode(&mut self.waiting);
    }

    /// Sends what waits, as far as the proxy takes it.
    pub(super) fn flush(&mut self, reactor: &mut Reactor<Source>) -> Result<(), Lost> {
        let (stream, token) = &mut self.end;
        while !self.waiting.is_empty() && reactor.ready(*token).write {
            match stream.write(&self.waiting) {
                Ok(sent) => drop(self.waiting.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    reactor.write_blocked(*token);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Lost),
            }
        }
        match self.waiting.len() > WAITING {
            true => Err(Lost),
            false => Ok(()),
        }
    }

    /// The socket.
    pub(super) fn into_end(self) -> End {
        self.end
    }
}
