//! Connections through the relay inside the job: the server's end is dialled back by it.

use std::io;
use std::time::Instant;

use crate::proxy::in_job::{InJob, State};
use crate::relay::Close;
use crate::transfer::{self, End, Transfer};

use super::{CONNECT_LIMIT, Forward, Forwards, Net, Owner, Source, Stage};

impl Forwards {
    /// Orders the server's end for a parked connection.
    pub(super) fn order(&mut self, index: usize, port: u16, net: &mut Net<'_>) {
        let Some(in_job) = net.in_job.as_mut() else {
            return;
        };
        if in_job.state() == State::Gone {
            let error = io::Error::other("the relay in the job is gone");
            return self.fail(index, &error, net);
        }
        let (number, server) = in_job.connect(index, port, net.reactor);
        let Some(Some(forward)) = self.table.get_mut(index) else {
            return;
        };
        forward.ordered = Some(number);
        if let Stage::Parked { spare, .. } = &mut forward.stage
            && let Some(spare) = spare.take()
        {
            // The descriptor for the other end comes from the listener for what the relay dials.
            self.spare = Some(spare);
        }
        match server {
            Some(server) => self.serve(index, server, net),
            None => {
                self.restage(index, |client| Stage::Ordered { client });
                let at = Instant::now() + CONNECT_LIMIT;
                net.deadlines.set(Owner::Connect(index), Some(at));
            }
        }
    }

    /// The server's end for the connection `index` is here.
    pub(in crate::proxy) fn serve(&mut self, index: usize, server: End, net: &mut Net<'_>) {
        net.deadlines.set(Owner::Connect(index), None);
        let Some(Some(forward)) = self.table.get_mut(index) else {
            // Its books say that there is one.
            return transfer::close(server, Close::Reset, net.reactor);
        };
        log::debug!("#{} goes through the relay in the job", forward.number);
        net.reactor.hand_over(server.1, Source::Server(index));
        let transfer = |client| Stage::Relaying(Transfer::new(client, server));
        self.restage(index, transfer);
        self.turn(index, net);
    }

    /// The relay could not reach the server for the order with this number.
    pub(in crate::proxy) fn refused(&mut self, number: u64, errno: i32, net: &mut Net<'_>) {
        let error = io::Error::from_raw_os_error(errno);
        let Some(in_job) = net.in_job.as_mut() else {
            return;
        };
        match in_job.failed(number) {
            Some(index) => self.fail(index, &error, net),
            // The reset of its connection was quicker.
            None => {
                if let Some(listener) = in_job.listener_of_gone(number) {
                    Self::explain(listener, None, &error, net);
                }
            }
        }
    }

    /// The relay is gone for good: so is every connection through it.
    pub(in crate::proxy) fn lose_relay(&mut self, net: &mut Net<'_>) {
        for index in 0..self.table.len() {
            let is_through = |forward: &Forward| forward.ordered.is_some();
            if self.table[index].as_ref().is_some_and(is_through) {
                self.close(index, Close::Reset, net);
            }
        }
    }

    /// Gives the orders again that were not answered, on a new control connection.
    pub(in crate::proxy) fn order_again(&self, net: &mut Net<'_>) {
        let (listeners, reactor) = (&net.listeners, &mut *net.reactor);
        let port = |index| listeners.get(self.listener_of(index)?)?.backend;
        if let Some(in_job) = net.in_job.as_mut() {
            in_job.repeat_orders(port, reactor);
        }
    }

    /// The relay need not care for the connection `forward` any more.
    pub(super) fn withdraw(forward: &Forward, in_job: Option<&mut InJob>) {
        if let (Some(number), Some(in_job)) = (forward.ordered, in_job) {
            in_job.gone(number, forward.listener);
        }
    }
}
