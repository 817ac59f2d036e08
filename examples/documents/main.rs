//! Writes the manual pages and completions, from the tables of options and the prose beside this
//! file: `cargo run --example documents`. They are no part of the programs, so that those stay
//! small; tests/documents.rs fails where they are stale.

mod files;

use std::fs;
use std::path::Path;

fn main() -> std::io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, text) in files::all() {
        fs::write(root.join(name), text)?;
    }
    Ok(())
}
