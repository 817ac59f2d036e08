//! The proxy: one Remote-SSH session, relayed into a scheduler's job.

fn main() {
    println!("vscode-shell-proxy {}", env!("CARGO_PKG_VERSION"));
}
