//! System calls, wrapped: what the kernel offers, in the words of this program.
//!
//! Nothing here decides anything. `unsafe` stands in the submodules that say so, and nowhere else
//! in the crate.

pub mod adopter;
pub mod background;
pub mod channel;
pub mod descendants;
pub mod exits;
pub mod interfaces;
pub mod login;
pub mod own_sessions;
pub mod peer;
pub mod private_directory;
pub mod private_file;
pub mod private_path;
pub mod reap;
pub mod signals;
pub mod spawn;
pub mod splice;
pub mod stdio;
pub mod syslog;
pub mod tcp;
pub mod unix_socket;
// Tests and benchmarks unwind, whatever the profile says.
#[cfg(panic = "abort")]
mod unwinder;
