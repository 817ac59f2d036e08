//! The relay inside the job as the proxy sees it: where it dials back to, its control connection,
//! and the data connections that are to become the servers' ends.

use std::collections::VecDeque;

use crate::reach::{Arrival, Order, Pairing, Report, Role, Target};
use crate::reactor::{Deadlines, Reactor};
use crate::relay::Close;
use crate::sys::tcp;
use crate::transfer::{self, End};

use super::control::{Control, Line};
use super::dial_back::DialBack;
use super::{Owner, Source};

/// Descriptors that the relay takes beside those of clients: listener, spare, and two control
/// connections while one replaces the other.
pub(super) const DESCRIPTORS: usize = 4 + super::dial_back::MOST;
/// How many clients that were gone before their connection's failure came are remembered.
const UNEXPLAINED: usize = 16;

/// What is known of the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It has not reported yet.
    Awaited,
    /// It serves.
    Up,
    /// Its control connection is gone, and may come back.
    Lost,
    /// It is gone for good.
    Gone,
}

/// The relay inside the job.
pub(super) struct InJob {
    door: DialBack,
    control: Option<Control>,
    state: State,
    /// Clients by their index among the connections.
    pairing: Pairing<usize, End>,
    /// Numbers of connections that ended before their order was answered, and their listeners'.
    unexplained: VecDeque<(u64, usize)>,
    reports: Vec<Report>,
}

/// What an authenticated connection brings.
pub(super) enum Dialled {
    /// A new control connection.
    Control,
    /// The server's end for the client with this index.
    ServerFor(usize, End),
    /// Nothing that somebody waits for.
    Nothing,
}

impl InJob {
    pub(super) fn new(door: DialBack) -> Self {
        Self {
            door,
            control: None,
            state: State::Awaited,
            pairing: Pairing::default(),
            unexplained: VecDeque::new(),
            reports: Vec::new(),
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    pub(super) fn set_state(&mut self, state: State) {
        self.state = state;
    }

    /// The listener for what the relay dials, and who has not proved to be the relay.
    pub(super) fn door(&mut self) -> &mut DialBack {
        &mut self.door
    }

    /// Whether the relay may be about to report: it has proved itself, or somebody is at it.
    pub(super) fn may_have_come(&mut self) -> bool {
        self.control.is_some() || self.door.has_speaker()
    }

    /// A visitor has proved to be the relay: its connection goes where it belongs. A control
    /// connection replaces the one before.
    pub(super) fn dialled(
        &mut self,
        role: Role,
        end: End,
        reactor: &mut Reactor<Source>,
    ) -> Dialled {
        match role {
            Role::Control => {
                // A network that is cut is noticed by this one; what is under way on a data
                // connection is given the kernel's own time.
                tcp::watch_peer(&end.0);
                tcp::limit_silence(&end.0, crate::reach::GRACE);
                let control = Control::new(end, reactor);
                if let Some(before) = self.control.replace(control) {
                    before.close(reactor);
                }
                Dialled::Control
            }
            Role::Data { number } => match self.pairing.arrived(number, end) {
                Arrival::Spare(before) => {
                    if let Some(before) = before {
                        transfer::close(before, Close::Reset, reactor);
                    }
                    if let Some((_, token)) = self.pairing.spare() {
                        reactor.hand_over(*token, Source::Spare);
                    }
                    Dialled::Nothing
                }
                Arrival::For(client, end) => Dialled::ServerFor(client, end),
                Arrival::Unwanted(end) => {
                    transfer::close(end, Close::Reset, reactor);
                    Dialled::Nothing
                }
            },
        }
    }

    /// One turn of the control connection, if there is one; the reports are taken with
    /// [`InJob::report`].
    pub(super) fn turn(
        &mut self,
        reactor: &mut Reactor<Source>,
        scratch: &mut [u8],
    ) -> Option<Line> {
        let control = self.control.as_mut()?;
        let mut reports = std::mem::take(&mut self.reports);
        let line = control.turn(reactor, scratch, &mut reports);
        reports.reverse();
        self.reports = reports;
        if !matches!(line, Line::Up)
            && let Some(control) = self.control.take()
        {
            control.close(reactor);
        }
        Some(line)
    }

    /// The next thing that the last turn has brought.
    pub(super) fn report(&mut self) -> Option<Report> {
        self.reports.pop()
    }

    /// The spare is ready for something: the relay has given it up, or nothing is to be done.
    pub(super) fn turn_spare(&mut self, reactor: &mut Reactor<Source>) {
        let has_ended = self.pairing.spare().is_some_and(|(_, token)| {
            let ready = reactor.ready(*token);
            ready.read_closed || ready.write_closed
        });
        if has_ended && let Some(spare) = self.pairing.take_spare() {
            transfer::close(spare, Close::Reset, reactor);
        }
    }

    /// Orders a connection to `port` for the client with this index: its number, and the server's
    /// end where that is there already.
    pub(super) fn connect(
        &mut self,
        client: usize,
        port: u16,
        reactor: &mut Reactor<Source>,
    ) -> (u64, Option<End>) {
        let (number, end) = self.pairing.client(client);
        self.order(number, port, reactor);
        (number, end)
    }

    /// Gives every order again that was not answered; `port` tells where a client's leads.
    pub(super) fn repeat_orders(
        &mut self,
        port: impl Fn(usize) -> Option<u16>,
        reactor: &mut Reactor<Source>,
    ) {
        let unanswered: Vec<(u64, usize)> = self.pairing.unanswered().collect();
        for (number, client) in unanswered {
            if let Some(port) = port(client) {
                self.order(number, port, reactor);
            }
        }
    }

    /// The relay has reached the server for this number.
    pub(super) fn opened(&mut self, number: u64) {
        self.pairing.opened(number);
    }

    /// It has not; the client whose it is.
    pub(super) fn failed(&mut self, number: u64) -> Option<usize> {
        self.pairing.failed(number)
    }

    /// The client with this number is gone, which came through this listener.
    pub(super) fn gone(&mut self, number: u64, listener: usize) {
        if self.pairing.gone(number).is_some() {
            if self.unexplained.len() == UNEXPLAINED {
                self.unexplained.pop_front();
            }
            self.unexplained.push_back((number, listener));
        }
    }

    /// The listener of a client that was gone before the failure of this number came.
    pub(super) fn listener_of_gone(&mut self, number: u64) -> Option<usize> {
        let at = self
            .unexplained
            .iter()
            .position(|(gone, _)| *gone == number)?;
        self.unexplained.remove(at).map(|(_, listener)| listener)
    }

    /// Tells the relay that all is over, as far as it can be told: its connections end with the last
    /// byte that it has.
    pub(super) fn dismiss(&mut self, reactor: &mut Reactor<Source>) {
        if let Some(control) = &mut self.control {
            control.dismiss(reactor);
        }
    }

    /// Dismisses the relay, and closes everything.
    pub(super) fn close(mut self, reactor: &mut Reactor<Source>, deadlines: &mut Deadlines<Owner>) {
        self.dismiss(reactor);
        if let Some(control) = self.control.take() {
            control.close(reactor);
        }
        if let Some(spare) = self.pairing.take_spare() {
            transfer::close(spare, Close::Reset, reactor);
        }
        deadlines.set(Owner::Control, None);
        self.door.close(reactor, deadlines);
    }

    fn order(&mut self, number: u64, port: u16, reactor: &mut Reactor<Source>) {
        let target = Target::Port(port);
        if let Some(control) = &mut self.control {
            control.order(&Order::Open { number, target }, reactor);
        }
    }
}
