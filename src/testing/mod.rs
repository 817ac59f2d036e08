//! What fuzz targets and property tests check, for any input: one module for each machine.

pub mod options;
pub mod relay;
pub mod session;
pub mod sock_diag;
