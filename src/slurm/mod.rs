//! What Slurm's commands say, and how they are asked. Pure: texts in, texts out.
//!
//! The output is another program's, for a cluster that is not ours: what is not understood is left
//! out, and what a user is shown of it is short.

mod job;
mod node;

pub use job::{Job, account_query, cancelled_by, job_query};
pub use node::{Node, node_query};

/// A command: the program, looked up on `PATH`, and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The program.
    pub program: &'static str,
    /// Its arguments.
    pub args: Vec<String>,
}

/// Variables that change what the commands of a [`Query`] show begin with this: a user may have
/// set filters for himself.
pub const FILTERS: &str = "SQUEUE_";
/// A variable, and the value with which times look like `2026-11-25T14:03:00`.
pub const TIME_FORMAT: (&str, &str) = ("SLURM_TIME_FORMAT", "standard");
