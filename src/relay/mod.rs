//! How bytes go from one end to the other, as bookkeeping without I/O.
//!
//! A [`Flow`] is one direction, a [`Duplex`] two of them that share their ends, a [`Pool`] the
//! bounded memory in which what a slow sink did not take waits. They are told what the owner of the
//! descriptors saw and answer what it shall do next; they know no descriptor, no token and no clock.

mod duplex;
mod flow;
mod pool;

pub use duplex::{Close, Duplex, Side};
pub use flow::{Flow, Step};
pub use pool::{Block, Pool};
