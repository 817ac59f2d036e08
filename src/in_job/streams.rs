//! The streams: each a data connection that this relay has dialled, and the target that it leads to.
//!
//! One of them, the spare, is dialled before anybody wants it and has no target yet.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use log::Level;

use crate::reach::{Report, Role, Secret, Sequence, Target, Turn};
use crate::reactor::{Deadlines, Reactor};
use crate::relay::{Close, Pool, Side};
use crate::sys::{tcp, unix_socket};
use crate::transfer::{self, End, Means, Pipes, Transfer};

use super::dial::Dial;
use super::{Owner, Source};

/// Most streams at a time.
const MOST: usize = 4096;
/// Descriptors that are not for streams: signals, shell, poller, control, the spare, pipes, scancel.
const RESERVED: usize = 64;
/// How long a stream may take to be dialled, and to reach its target. A burst of dials waits for its
/// turn at the proxy.
const SETUP_LIMIT: Duration = Duration::from_secs(10);
/// The first pause before a spare that has failed is dialled again; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Doublings of it: 32 s.
const DOUBLINGS: u32 = 7;

#[derive(Debug)]
struct Stream {
    number: u64,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    SettingUp {
        data: Dial,
        /// A spare has none.
        target: Option<Approach>,
    },
    Relaying(Transfer),
}

/// A target that is being reached.
#[derive(Debug)]
struct Approach {
    end: End,
    reached: bool,
}

/// All streams. One is named by its index, which is reused after its end.
#[derive(Debug)]
pub(super) struct Streams {
    table: Vec<Option<Stream>>,
    vacant: Vec<usize>,
    most: usize,
    sequence: Sequence,
    spare: Option<usize>,
    /// Spares that have failed in a row.
    failures: u32,
    /// None begins any more, and each ends with the last byte that its target has sent.
    is_finishing: bool,
}

/// What the streams need of the relay.
#[derive(Debug)]
pub(super) struct Net<'a> {
    pub(super) reactor: &'a mut Reactor<Source>,
    pub(super) deadlines: &'a mut Deadlines<Owner>,
    pub(super) pool: &'a mut Pool,
    pub(super) pipes: &'a mut Pipes,
    pub(super) scratch: &'a mut [u8],
    pub(super) secret: &'a Secret,
    /// Where the proxy was reached.
    pub(super) proxy: SocketAddr,
    pub(super) reports: &'a mut Vec<Report>,
}

impl Streams {
    /// Room for as many streams as `descriptors`, the limit of open files, has room for.
    pub(super) fn new(descriptors: u64) -> Self {
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        Self {
            table: Vec::new(),
            vacant: Vec::new(),
            most: (descriptors.saturating_sub(RESERVED) / 2).clamp(1, MOST),
            sequence: Sequence::default(),
            spare: None,
            failures: 0,
            is_finishing: false,
        }
    }

    /// Lets no stream begin, and each end once what its target has sent is passed on.
    pub(super) fn finish(&mut self, net: &mut Net<'_>) {
        self.is_finishing = true;
        self.spare = None;
        net.deadlines.set(Owner::Spare, None);
        for index in 0..self.table.len() {
            match self.table[index].as_ref().map(|stream| &stream.stage) {
                Some(Stage::Relaying(_)) => self.turn(index, net),
                Some(Stage::SettingUp { .. }) => self.close(index, Close::Reset, net),
                None => {}
            }
        }
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.table.len() == self.vacant.len()
    }

    /// The proxy wants the stream `number` to lead to `target`.
    pub(super) fn open(&mut self, number: u64, target: &Target, net: &mut Net<'_>) {
        if self.sequence.order(number) == Turn::Again {
            return self.answer_again(number, net);
        }
        if self.is_finishing {
            let ending = io::Error::from_raw_os_error(nix::libc::ESHUTDOWN);
            return net.reports.push(failed(number, &ending));
        }
        let spare = self.spare.take();
        let dialled = spare.filter(|spare| self.number(*spare) == Some(number));
        if let Some(other) = spare
            && dialled.is_none()
        {
            // Its client was gone before the order came through.
            self.close(other, Close::Reset, net);
        }
        let others = self.table.len() - self.vacant.len() - usize::from(dialled.is_some());
        let opened = match others >= self.most {
            true => Err(io::Error::from_raw_os_error(nix::libc::EMFILE)),
            false => match dialled {
                Some(index) => Ok(index),
                None => self.dial(number, net),
            },
        };
        match opened {
            Ok(index) => self.connect(index, target, net),
            Err(error) => {
                net.reports.push(failed(number, &error));
                if let Some(index) = dialled {
                    self.close(index, Close::Reset, net);
                }
            }
        }
        self.see_to_spare(net);
    }

    /// Dials a spare, where there is none.
    pub(super) fn see_to_spare(&mut self, net: &mut Net<'_>) {
        net.deadlines.set(Owner::Spare, None);
        if self.spare.is_some() || self.is_finishing {
            return;
        }
        match self.dial(self.sequence.next(), net) {
            Ok(index) => self.spare = Some(index),
            Err(error) => self.spare_failed(&error, net),
        }
    }

    /// One turn of the stream `index`.
    pub(super) fn turn(&mut self, index: usize, net: &mut Net<'_>) {
        let Some(Some(stream)) = self.table.get_mut(index) else {
            return;
        };
        let number = stream.number;
        match &mut stream.stage {
            Stage::Relaying(transfer) => {
                let mut means = Means {
                    reactor: net.reactor,
                    pool: net.pool,
                    pipes: net.pipes,
                    scratch: net.scratch,
                };
                let close = transfer.turn(&mut means);
                let is_over = self.is_finishing && !transfer.owes(Side::Client, means.reactor);
                if let Some(close) = close.or(is_over.then_some(Close::Orderly)) {
                    self.close(index, close, net);
                }
            }
            Stage::SettingUp { data, target } => {
                let set_up = data.turn(net.secret, net.reactor).and_then(|data| {
                    let target = match target {
                        Some(target) => target.turn(number, net.reports)?,
                        None => false,
                    };
                    Ok((data, target))
                });
                match set_up {
                    Ok((true, true)) => self.relay(index, net),
                    Ok((true, false)) if self.spare == Some(index) => {
                        self.failures = 0;
                        net.deadlines.set(Owner::Stream(index), None);
                    }
                    Ok(_) => {}
                    Err(error) => self.fail(index, &error, net),
                }
            }
        }
    }

    /// The stream `index` took too long.
    pub(super) fn timeout(&mut self, index: usize, net: &mut Net<'_>) {
        self.fail(index, &ErrorKind::TimedOut.into(), net);
    }

    fn number(&self, index: usize) -> Option<u64> {
        let stream = self.table.get(index)?.as_ref();
        stream.map(|stream| stream.number)
    }

    /// An order came again, over a new control connection: its answer may have been lost.
    fn answer_again(&self, number: u64, net: &mut Net<'_>) {
        let stream = self.table.iter().flatten().find(|it| it.number == number);
        match stream.map(|stream| &stream.stage) {
            Some(Stage::Relaying(_)) => net.reports.push(Report::Opened { number }),
            // Its answer is still to come, unless it is set up from this side.
            Some(Stage::SettingUp { target, .. }) => {
                if target.as_ref().is_some_and(|target| target.reached) {
                    net.reports.push(Report::Opened { number });
                }
            }
            None => {
                let gone = ErrorKind::ConnectionAborted.into();
                net.reports.push(failed(number, &gone));
            }
        }
    }

    /// Dials a data connection; the index of its stream.
    fn dial(&mut self, number: u64, net: &mut Net<'_>) -> io::Result<usize> {
        let index = self.vacant.last().copied().unwrap_or(self.table.len());
        let role = Role::Data { number };
        let data = Dial::begin(net.proxy, role, Source::Data(index), net.reactor)?;
        let stage = Stage::SettingUp { data, target: None };
        let stream = Some(Stream { number, stage });
        match self.table.get_mut(index) {
            Some(place) => {
                self.vacant.pop();
                *place = stream;
            }
            None => self.table.push(stream),
        }
        let at = Instant::now() + SETUP_LIMIT;
        net.deadlines.set(Owner::Stream(index), Some(at));
        Ok(index)
    }

    /// Begins to connect the stream `index` to `target`.
    fn connect(&mut self, index: usize, target: &Target, net: &mut Net<'_>) {
        let at = Instant::now() + SETUP_LIMIT;
        net.deadlines.set(Owner::Stream(index), Some(at));
        let connecting = match target {
            Target::Port(port) => tcp::connect_to((Ipv4Addr::LOCALHOST, *port).into(), None),
            Target::Socket(path) => unix_socket::connect_to(path),
        };
        let approach = connecting.and_then(|stream| {
            let source = Source::Target(index);
            let token = net.reactor.register(stream.as_fd(), source)?;
            Ok(Approach {
                end: (stream, token),
                reached: false,
            })
        });
        match (approach, self.table.get_mut(index)) {
            (Ok(approach), Some(Some(stream))) => {
                if let Stage::SettingUp { target, .. } = &mut stream.stage {
                    *target = Some(approach);
                }
                self.turn(index, net);
            }
            (Ok(_), _) => {}
            (Err(error), _) => self.fail(index, &error, net),
        }
    }

    /// Both ends of the stream `index` stand.
    fn relay(&mut self, index: usize, net: &mut Net<'_>) {
        net.deadlines.set(Owner::Stream(index), None);
        let Some(Stream { number, stage }) = self.table[index].take() else {
            return;
        };
        let stage = match stage {
            Stage::SettingUp {
                data,
                target: Some(target),
            } => Stage::Relaying(Transfer::new(data.into_end(), target.end)),
            other => other,
        };
        self.table[index] = Some(Stream { number, stage });
        self.turn(index, net);
    }

    /// The stream `index` cannot be set up.
    fn fail(&mut self, index: usize, error: &io::Error, net: &mut Net<'_>) {
        let Some(number) = self.number(index) else {
            return;
        };
        self.close(index, Close::Reset, net);
        if self.spare.take_if(|spare| *spare == index).is_some() {
            self.spare_failed(error, net);
        } else {
            net.reports.push(failed(number, error));
        }
    }

    /// The spare has failed. One failure of a row is told: the next client waits for a round trip,
    /// which is no reason for a line every few seconds.
    fn spare_failed(&mut self, error: &io::Error, net: &mut Net<'_>) {
        if self.failures == 0 {
            let text = format!(
                "the connection that is kept ready for the next client has failed: {error}; it is \
                 dialled again"
            );
            let level = Level::Warn;
            net.reports.push(Report::Note { level, text });
        }
        let pause = FIRST_PAUSE * 2_u32.pow(self.failures.min(DOUBLINGS));
        self.failures = self.failures.saturating_add(1);
        net.deadlines
            .set(Owner::Spare, Some(Instant::now() + pause));
    }

    fn close(&mut self, index: usize, close: Close, net: &mut Net<'_>) {
        let Some(stream) = self.table.get_mut(index).and_then(Option::take) else {
            return;
        };
        self.vacant.push(index);
        net.deadlines.set(Owner::Stream(index), None);
        let ends = match stream.stage {
            Stage::Relaying(transfer) => transfer.into_ends(net.pool, net.pipes).map(Some),
            Stage::SettingUp { data, target } => {
                [Some(data.into_end()), target.map(|target| target.end)]
            }
        };
        for end in ends.into_iter().flatten() {
            transfer::close(end, close, net.reactor);
        }
    }
}

impl Approach {
    /// Goes on as far as possible; whether the target is reached.
    fn turn(&mut self, number: u64, reports: &mut Vec<Report>) -> io::Result<bool> {
        if !self.reached && tcp::connected(&self.end.0)?.is_some() {
            self.reached = true;
            reports.push(Report::Opened { number });
        }
        Ok(self.reached)
    }
}

fn failed(number: u64, error: &io::Error) -> Report {
    let errno = error.raw_os_error().unwrap_or(match error.kind() {
        ErrorKind::TimedOut => nix::libc::ETIMEDOUT,
        ErrorKind::PermissionDenied => nix::libc::EACCES,
        _ => nix::libc::ECONNABORTED,
    });
    Report::Failed { number, errno }
}
