//! The clean-up: finds and ends orphaned VS Code server trees.

fn main() {
    println!("vscode-cleanup {}", env!("CARGO_PKG_VERSION"));
}
