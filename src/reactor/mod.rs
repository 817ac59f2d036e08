//! The readiness loop: who can go on, and when the next deadline is.
//!
//! It knows descriptors, tokens and tags; what a tag means is its owner's business.

mod deadlines;
mod poller;
mod rounds;

pub use deadlines::Deadlines;
pub use poller::{Reactor, Ready, Token};
pub(crate) use rounds::Rounds;
