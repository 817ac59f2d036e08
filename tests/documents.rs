//! The documents say what the program does.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

/// Every Rust source below a directory of the project, and shell scripts beside them.
fn sources(directory: &Path, text: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if let Ok(content) = fs::read_to_string(&path) {
            text.push_str(&content);
        }
    }
}

/// What stands between backquotes in the last column of a table's row.
fn named_tests(row: &str) -> Vec<&str> {
    let last = row.trim_end_matches('|').rsplit('|').next().unwrap();
    last.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_test_that_security_md_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    sources(&root.join("src"), &mut text);
    sources(&root.join("tests"), &mut text);
    let security = read("SECURITY.md");
    let rows = security.lines().filter(|line| line.starts_with("| "));
    let named: Vec<&str> = rows.flat_map(named_tests).collect();
    assert!(named.len() > 10, "the table was not understood: {named:?}");
    for name in named {
        assert!(
            text.contains(&format!("fn {name}(")),
            "SECURITY.md names the test {name}, which does not exist"
        );
    }
}

#[test]
fn readme_shows_the_help_text_as_it_is() {
    let help = vscode_shell_proxy::options::help();
    assert!(
        read("README.md").contains(&format!("```text\n{help}```\n")),
        "put this into README.md, section Options:\n{help}"
    );
}

#[test]
fn readme_shows_the_help_text_of_vscode_cleanup_as_it_is() {
    let cleanup = Command::new(env!("CARGO_BIN_EXE_vscode-cleanup"))
        .arg("--help")
        .output()
        .unwrap();
    let help = String::from_utf8(cleanup.stdout).unwrap();
    assert!(
        read("README.md").contains(&format!("```text\n{help}```\n")),
        "put this into README.md, section vscode-cleanup:\n{help}"
    );
}

/// A heading's anchor, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    heading
        .to_lowercase()
        .chars()
        .filter(kept)
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn links_lead_somewhere() {
    for document in ["README.md", "SECURITY.md"] {
        let text = read(document);
        let anchors: Vec<String> = text
            .lines()
            .filter(|line| line.starts_with('#'))
            .map(|line| anchor(line.trim_start_matches(['#', ' '])))
            .collect();
        for target in text.split("](").skip(1) {
            let target = target.split(')').next().unwrap();
            match target.strip_prefix('#') {
                Some(name) => {
                    assert!(anchors.iter().any(|a| a == name), "{document}: {target}");
                }
                None if target.starts_with("https://") => {}
                None => {
                    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(target);
                    assert!(path.exists(), "{document}: {target}");
                }
            }
        }
    }
}

#[test]
fn readme_has_the_two_commands_and_they_exist() {
    let readme = read("README.md");
    assert!(readme.contains("\n    cargo run --release -- --self-test -- bash\n"));
    assert!(readme.contains("\n    tests/run\n"));
    assert!(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/run")
            .exists()
    );
}
