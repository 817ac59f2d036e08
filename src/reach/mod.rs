//! What the proxy and the relay inside the job say to each other.
//!
//! The relay is this program in another mode, started by the probe's line in the job's shell. It
//! gets [`Instructions`] on its stdin and dials back to the proxy: one *control* connection, and one
//! *data* connection for each client, of which one is always ready ahead of its use.
//!
//! # A connection
//! The relay always dials. Each connection begins with a handshake in messages of fixed sizes, in
//! which both sides prove that they know the session's [`Secret`] ([`Dialler`] in the relay,
//! [`Acceptor`] in the proxy). `wanted` says how many bytes may be read at most, so what follows the
//! handshake stays in the kernel: a data connection can be handed to a transfer as it is.
//!
//! # Control
//! Then come frames ([`Decoder`]): [`Report`]s of the relay, a [`Report::Greeting`] first, and
//! [`Order`]s of the proxy. A control connection that is lost is dialled again; the newest
//! authenticated one counts, and the proxy gives the orders that were not answered once more
//! ([`Pairing::unanswered`]).
//!
//! # Data
//! Data connections are numbered from 0. The relay keeps one *spare* dialled: the one whose number
//! no client has yet. The proxy gives each client the next number ([`Pairing::client`]) and orders
//! [`Order::Open`] for it; the relay binds that number's connection to the target, dials the next
//! spare, and answers [`Report::Opened`] or [`Report::Failed`]. The client's bytes may follow the
//! order at once. A number that is not dialled yet (a burst) is dialled when its order comes. Where
//! the target cannot be reached the data connection is reset; and the proxy resets one that it gives
//! up, since a mere end may be a client's that has said all that it has to say. A number is used once;
//! an order that comes again is answered again and has no other effect ([`Sequence`]).
//!
//! Everything here is pure: no descriptor, no clock, no randomness; what a peer says is bounded.

mod frames;
mod handshake;
mod instructions;
mod launch_line;
mod pairing;

pub use frames::{Decoder, LIMIT, Malformed, Message, Order, Report, TEXT, Target};
pub use handshake::{
    Acceptor, CHALLENGE, Dialler, HELLO, NONCE, Nonce, PROOF, Reached, Refusal, Role, Secret,
};
pub use instructions::{ADDRESSES, GRACE, IN_JOB, Instructions, LINE, UNREACHED, Unreadable};
pub use launch_line::{FAILED, FOREIGN, MISSING, MODE, launch_line};
pub use pairing::{Arrival, Pairing, Sequence, Turn};

/// The version of the protocol. Another one is refused: there is no need to speak two, since the
/// relay is the proxy's own program.
pub const VERSION: u8 = 1;
