//! What is ours to change in other people's bytes, and nothing else.
//!
//! Streaming machines without I/O. Each is asked for its next piece with the slice that was just
//! read; it takes bytes from the front of the slice and answers with parts of it, or with a few
//! bytes of its own. Whatever the split of the input into slices, the output is the same; what a
//! machine holds back is bounded by a constant in its file.
//!
//! - [`Inbound`] (client to shell) finds the commands that start a server, and changes the option
//!   that binds it to loopback.
//! - [`Probe`] makes the line that the shell gets first, and [`ProbeFilter`] takes its echo and its
//!   answer out of what the shell writes.
//! - [`startup_text`] makes the lines of the site's own commands, which follow the probe, and
//!   [`StartupOutput`] makes lines for the log of what they write.
//! - [`Outbound`] (shell to client) finds announced addresses and holds each until it is told which
//!   port stands for it.
//! - [`AllocationWatch`] reads along in the launch command's stderr: which job Slurm has for it, and
//!   that it was taken away.

mod allocation;
mod command;
mod here_document;
mod inbound;
mod lexer;
mod line;
mod outbound;
mod plain_lines;
mod probe;
mod sets;
mod startup;
mod words;

pub use allocation::{Allocation, AllocationWatch};
pub use inbound::{Inbound, InboundPiece, Notice};
pub use outbound::{Announcement, Outbound, OutboundPiece};
pub use probe::{Probe, ProbeAnswer, ProbeFilter, ProbePiece};
pub use startup::{ENDED as STARTUP_ENDED, StartupOutput, startup_text};
