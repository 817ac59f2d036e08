//! What fuzz targets and property tests check, for any input: one module for each machine.

pub mod age;
pub mod options;
pub mod relay;
pub mod session;
pub mod sock_diag;
pub mod stat;
