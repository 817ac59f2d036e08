//! What the proxy and its keeper say to each other: one message each, a byte for its kind, then its
//! content. Both are the same executable, so there is no version to agree on.

use log::Level;

use crate::ending::{JobId, Status};
use crate::revocation::HangUp;

/// The longest message. Longer log lines are cut.
pub(super) const LIMIT: usize = 512;

/// From the proxy to the keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The job's id became known.
    Job(JobId),
    /// salloc stays behind its job: hang it up.
    HangUp(HangUp),
    /// End everything.
    End,
}

/// From the keeper to the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The launch command runs.
    Started {
        /// Its process id.
        pid: i32,
    },
    /// The launch command could not be started. Nothing else will come, until the end is ordered.
    NotStarted {
        /// The error of the failed call.
        errno: i32,
    },
    /// The launch command ended. What it left behind may live on until the end is ordered.
    Ended(Status),
    /// The end came to its end: nothing is left below the keeper, which leaves now.
    Done,
    /// The end came to its end, but something cannot be killed; the keeper leaves now.
    GaveUp,
    /// A line for the log.
    Log {
        /// Its level.
        level: Level,
        /// Its text, one line.
        text: String,
    },
    /// The keeper is gone. The last report, and it comes again whenever one is asked for.
    Gone,
}

impl Order {
    pub(super) fn encode(self, message: &mut Vec<u8>) {
        message.clear();
        match self {
            Self::Job(job) => {
                message.push(b'J');
                message.extend(job.number().to_le_bytes());
            }
            Self::HangUp(HangUp::Bereaved) => message.push(b'B'),
            Self::HangUp(HangUp::Any) => message.push(b'H'),
            Self::End => message.push(b'X'),
        }
    }

    /// `None` for what no proxy says.
    pub(super) fn decode(message: &[u8]) -> Option<Self> {
        match message.split_first()? {
            (b'J', content) => {
                let number = u32::from_le_bytes(content.try_into().ok()?);
                JobId::new(number).map(Self::Job)
            }
            (b'B', []) => Some(Self::HangUp(HangUp::Bereaved)),
            (b'H', []) => Some(Self::HangUp(HangUp::Any)),
            (b'X', []) => Some(Self::End),
            _ => None,
        }
    }
}

impl Report {
    /// `message` is empty afterwards for [`Report::Gone`], which is no message.
    pub(super) fn encode(&self, message: &mut Vec<u8>) {
        message.clear();
        let mut number = |kind: u8, number: i32| {
            message.push(kind);
            message.extend(number.to_le_bytes());
        };
        match self {
            Self::Started { pid } => number(b'S', *pid),
            Self::NotStarted { errno } => number(b'N', *errno),
            Self::Ended(Status::Code(code)) => number(b'E', *code),
            Self::Ended(Status::Signal(signal)) => number(b'K', *signal),
            Self::Done => message.push(b'D'),
            Self::GaveUp => message.push(b'U'),
            Self::Log { level, text } => {
                message.extend([b'L', *level as u8]);
                let room = LIMIT - message.len();
                message.extend(text.bytes().take(room));
            }
            Self::Gone => {}
        }
    }

    /// `None` for what no keeper says.
    pub(super) fn decode(message: &[u8]) -> Option<Self> {
        let (kind, content) = message.split_first()?;
        let number = || Some(i32::from_le_bytes(content.try_into().ok()?));
        Some(match (kind, content) {
            (b'S', _) => Self::Started { pid: number()? },
            (b'N', _) => Self::NotStarted { errno: number()? },
            (b'E', _) => Self::Ended(Status::Code(number()?)),
            (b'K', _) => Self::Ended(Status::Signal(number()?)),
            (b'D', []) => Self::Done,
            (b'U', []) => Self::GaveUp,
            (b'L', [level, text @ ..]) => Self::Log {
                level: Level::iter().find(|known| *known as u8 == *level)?,
                text: String::from_utf8_lossy(text).into_owned(),
            },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_order_comes_back() {
        let mut message = Vec::new();
        for order in [
            Order::End,
            Order::HangUp(HangUp::Bereaved),
            Order::HangUp(HangUp::Any),
            Order::Job(JobId::new(u32::MAX).expect("an id")),
        ] {
            order.encode(&mut message);
            assert_eq!(Order::decode(&message), Some(order));
        }
    }

    fn reports() -> impl Strategy<Value = Report> {
        let level = prop_oneof![Just(Level::Error), Just(Level::Warn), Just(Level::Debug)];
        prop_oneof![
            any::<i32>().prop_map(|pid| Report::Started { pid }),
            any::<i32>().prop_map(|errno| Report::NotStarted { errno }),
            any::<i32>().prop_map(|code| Report::Ended(Status::Code(code))),
            any::<i32>().prop_map(|signal| Report::Ended(Status::Signal(signal))),
            Just(Report::Done),
            Just(Report::GaveUp),
            (level, ".{0,100}").prop_map(|(level, text)| Report::Log { level, text }),
        ]
    }

    proptest! {
        #[test]
        fn every_report_comes_back(report in reports()) {
            let mut message = Vec::new();
            report.encode(&mut message);
            prop_assert!(message.len() <= LIMIT);
            prop_assert_eq!(Report::decode(&message), Some(report));
        }

        #[test]
        fn any_bytes_are_read_without_harm(message in proptest::collection::vec(any::<u8>(), 0..20)) {
            let _ = Report::decode(&message);
            let _ = Order::decode(&message);
        }
    }

    #[test]
    fn a_long_line_is_cut() {
        let mut message = Vec::new();
        let text = "x".repeat(LIMIT);
        let report = Report::Log {
            level: Level::Warn,
            text,
        };
        report.encode(&mut message);
        assert_eq!(message.len(), LIMIT);
        assert!(Report::decode(&message).is_some());
    }
}
