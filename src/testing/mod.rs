//! What fuzz targets and property tests check, for any input: one module for each machine.
//!
//! `fuzz/` calls these bodies, and the test below feeds them the inputs that are committed there,
//! so that a machine without a fuzzer sees at least those.

pub mod age;
pub mod allocation;
pub mod bootstrap;
pub mod config;
pub mod inbound;
mod inbound_reference;
pub mod names;
pub mod options;
pub mod outbound;
pub mod reach;
pub mod relay;
pub mod session;
mod shell_reference;
pub(crate) mod slices;
pub mod sock_diag;
pub mod stat;

/// The body of a fuzz target; it panics where something does not hold.
pub type Check = fn(&[u8]);

/// Every fuzz target: its name in `fuzz/`, and its body.
pub const TARGETS: &[(&str, Check)] = &[
    ("age", age::check),
    ("allocation", allocation::check),
    ("bootstrap", bootstrap::check),
    ("config", config::check),
    ("inbound", inbound::check),
    ("options", options::check),
    ("names", names::check),
    ("outbound", outbound::check),
    ("reach", reach::check),
    ("relay", relay::check),
    ("session", session::check),
    ("sock_diag", sock_diag::check),
    ("stat", stat::check),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn every_committed_input_of_every_fuzz_target_passes() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        for (name, check) in TARGETS {
            assert!(
                fuzz.join("fuzz_targets")
                    .join(name)
                    .with_extension("rs")
                    .exists(),
                "{name}"
            );
            let corpus = std::fs::read_dir(fuzz.join("corpus").join(name)).unwrap();
            let mut inputs = 0;
            for input in corpus {
                let input = input.unwrap().path();
                println!("{}", input.display());
                check(&std::fs::read(&input).unwrap());
                inputs += 1;
            }
            assert!(inputs > 0, "{name} has no committed input");
        }
    }
}
