//! Runs a VS Code Remote-SSH session inside a scheduler's job instead of on the login node.
//!
//! Two programs stand on this library: `vscode-shell-proxy`, which relays a session, and
//! `vscode-cleanup`, which ends orphaned VS Code servers.
//!
//! # Layers
//! A row uses only the rows below it; within a row the modules do not know each other.
//!
//! ```text
//! bin/*
//! proxy   in_job   selftest   cleanup   configuration
//! keeper   transfer
//! launch   home_copy   resolve
//! reactor   logging   sys                       system calls live here and above
//! job_watch   revocation   node_names   session_limit     pure
//! session   opening   intercept   relay   ending   process_tree   options   age   pure
//! admission   reach   slurm                               pure
//! ```
//!
//! The pure rows do no I/O, read no clock and hold no descriptor: they are told what happened and
//! answer what shall be done.

pub mod admission;
pub mod age;
pub mod cleanup;
pub mod configuration;
pub mod ending;
pub mod home_copy;
pub mod in_job;
pub mod intercept;
pub mod job_watch;
pub mod keeper;
pub mod launch;
pub mod logging;
pub mod node_names;
pub mod opening;
pub mod options;
pub mod process_tree;
pub mod proxy;
pub mod reach;
pub mod reactor;
pub mod relay;
pub mod resolve;
pub mod revocation;
pub mod selftest;
pub mod session;
pub mod session_limit;
pub mod slurm;
pub mod sys;
#[cfg(any(test, feature = "fuzzing"))]
pub mod testing;
pub mod transfer;
