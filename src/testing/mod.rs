//! What fuzz targets and property tests check, for any input: one module for each machine.

pub mod options;
pub mod sock_diag;
