//! The documents say what the program does.

#![allow(clippy::unwrap_used)]

#[path = "../examples/documents/files/mod.rs"]
mod files;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

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

/// The files of a module, with the text of each that is no test.
fn files_of(module: &Path, files: &mut Vec<(String, String)>) {
    let path = module.with_extension("rs");
    if let Ok(text) = fs::read_to_string(&path) {
        let program = text.split("#[cfg(test)]").next().unwrap();
        files.push((path.display().to_string(), program.to_owned()));
    }
    for entry in fs::read_dir(module).into_iter().flatten() {
        let path = entry.unwrap().path().with_extension("");
        if !path.ends_with("tests") {
            files_of(&path, files);
        }
    }
}

#[test]
fn a_module_uses_only_the_rows_below_its_own() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let text = read("src/lib.rs");
    let modules: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .filter(|module| *module != "testing")
        .collect();
    let picture = text.split("```").nth(1).unwrap();
    let rows: Vec<Vec<&str>> = picture
        .lines()
        .map(|line| line.split_ascii_whitespace().collect())
        .collect();
    let row = |module: &str| {
        let row = rows.iter().position(|row| row.contains(&module));
        row.unwrap_or_else(|| panic!("src/lib.rs shows no row with {module}"))
    };
    let mut uses = 0;
    for module in &modules {
        let mut files = Vec::new();
        files_of(&root.join(module), &mut files);
        for (path, text) in files {
            let code = text.lines().filter(|line| !line.trim().starts_with("//"));
            for line in code {
                let used = line.split("crate::").skip(1);
                for used in used.filter_map(|it| it.split(|c: char| !is_of_a_name(c)).next()) {
                    if used != *module && modules.contains(&used) {
                        uses += 1;
                        assert!(row(used) > row(module), "{path} uses {used}: {line}");
                    }
                }
            }
        }
    }
    assert!(uses > 100, "the sources were not understood: {uses}");
}

fn is_of_a_name(c: char) -> bool {
    c == '_' || c.is_ascii_alphanumeric()
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

#[test]
fn manual_pages_and_completions_are_those_of_the_present_options() {
    let stale: Vec<String> = files::all()
        .into_iter()
        .filter(|(name, text)| read(name) != *text)
        .map(|(name, _)| name)
        .collect();
    assert!(
        stale.is_empty(),
        "stale: {stale:?}; write them with: cargo run --example documents"
    );
}

/// Whether a program is there; a test says aloud what it leaves out.
fn is_there(program: &str) -> bool {
    let is_there = Command::new(program).arg("--version").output().is_ok();
    if !is_there {
        // Past the capture of test output.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {program} is not installed");
    }
    is_there
}

/// What a command prints, on stdout and stderr.
fn output(program: &str, args: &[&str]) -> (String, String) {
    let output = Command::new(program)
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr))
}

const PAGES: [&str; 3] = [
    "man/vscode-shell-proxy.1",
    "man/vscode-cleanup.8",
    "man/vscode-shell-proxy.conf.5",
];

#[test]
fn manual_pages_are_set_without_a_warning() {
    for page in PAGES {
        if is_there("groff") {
            let (text, warnings) = output("groff", &["-ww", "-mandoc", "-Tutf8", page]);
            assert_eq!(warnings, "", "{page}");
            assert!(text.len() > 1000, "{page}: {text}");
        }
        if is_there("man") {
            let (_, warnings) = output("man", &["--warnings", "--local-file", page]);
            assert_eq!(warnings, "", "{page}");
        }
    }
}

#[test]
fn manual_pages_have_the_sections_of_their_kind() {
    for page in PAGES {
        let text = read(page);
        let sections: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix(".SH "))
            .collect();
        assert_eq!(
            sections,
            [
                "NAME",
                "SYNOPSIS",
                "DESCRIPTION",
                "OPTIONS",
                "EXIT STATUS",
                "FILES",
                "ENVIRONMENT",
                "DIAGNOSTICS",
                "EXAMPLES",
                "SEE ALSO"
            ],
            "{page}"
        );
    }
}

const PROGRAMS: [&str; 2] = ["vscode-shell-proxy", "vscode-cleanup"];

#[test]
fn bash_completes_options_and_values() {
    if !is_there("bash") {
        return;
    }
    let complete = |program: &str, words: &str| {
        let function = format!("_{}", program.replace('-', "_"));
        let script = format!(
            "source completions/{program}.bash; COMP_WORDS=({program} {words}); \
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); {function}; echo \"${{COMPREPLY[@]}}\""
        );
        let (text, errors) = output("bash", &["--norc", "-c", &script]);
        assert_eq!(errors, "", "{words}");
        text
    };
    for program in PROGRAMS {
        assert_eq!(complete(program, "--vers"), "--version\n");
    }
    assert_eq!(complete("vscode-cleanup", "--output j"), "json\n");
    // As readline splits it.
    assert_eq!(complete("vscode-shell-proxy", "--admit = r"), "root\n");
    assert_eq!(
        complete("vscode-shell-proxy", "--admit ="),
        "self root any\n"
    );
    let commands = complete("vscode-shell-proxy", "-v -- prin");
    assert!(commands.contains("printf"), "{commands}");
}

#[test]
fn fish_completes_options_and_values() {
    if !is_there("fish") {
        return;
    }
    let complete = |program: &str, words: &str| {
        let script = format!("source completions/{program}.fish; complete -C '{program} {words}'");
        let (text, errors) = output("fish", &["--no-config", "-c", &script]);
        assert_eq!(errors, "", "{words}");
        text
    };
    for program in PROGRAMS {
        let text = complete(program, "--vers");
        assert!(text.starts_with("--version\t"), "{text}");
    }
    assert!(complete("vscode-cleanup", "--output j").starts_with("json"));
    assert!(complete("vscode-shell-proxy", "--admit=r").starts_with("--admit=root"));
    let commands = complete("vscode-shell-proxy", "-v -- prin");
    assert!(commands.contains("printf"), "{commands}");
    let options = complete("vscode-shell-proxy", "-v -- --vers");
    assert!(!options.contains("--version"), "{options}");
}

/// zsh completes in its line editor only: one is brought up on a terminal, and asked what stands in
/// its line behind the Tab key.
#[test]
fn zsh_completes_options_and_values() {
    if !is_there("zsh") {
        return;
    }
    let complete = |words: &str| {
        let script = format!(
            r#"
            zmodload zsh/zpty
            zpty line 'TERM=dumb zsh -f -i'
            zpty -w line 'PS1= PS2= RPS1=; fpath=($PWD/completions $fpath); autoload -U compinit; compinit -u -D'
            zpty -w line 'told() {{ print -r -- "<$BUFFER>"; BUFFER=; zle send-break }}; zle -N told; bindkey "^T" told'
            zpty -w line 'print -r -- "<"ready">"'
            zpty -r line text '*<ready>*'
            zpty -n -w line $'{words}\t\C-t'
            zpty -r line text '*<*>*'
            print -r -- "$text"
            zpty -d line
            "#
        );
        let (text, errors) = output("zsh", &["-f", "-c", &script]);
        assert_eq!(errors, "", "{words}");
        let told = text.rsplit('<').next().unwrap();
        told.split('>').next().unwrap().trim_end().to_owned()
    };
    for program in PROGRAMS {
        assert_eq!(
            complete(&format!("{program} --vers")),
            format!("{program} --version")
        );
    }
    assert_eq!(
        complete("vscode-cleanup --output j"),
        "vscode-cleanup --output json"
    );
    assert_eq!(
        complete("vscode-shell-proxy --admit=r"),
        "vscode-shell-proxy --admit=root"
    );
}

/// What the proxy says about a file, without those of this machine.
fn show_config(path: &str, more: &[&str]) -> (String, String) {
    let mut args = vec!["--config", "none", "--config", path, "--show-config"];
    args.extend(more);
    output(env!("CARGO_BIN_EXE_vscode-shell-proxy"), &args)
}

#[test]
fn ready_files_for_sites_are_accepted_with_each_of_their_profiles() {
    let sites = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/sites");
    let documentation = read("contrib/sites/README.md");
    let mut files = 0;
    for entry in fs::read_dir(sites).unwrap() {
        let path = entry.unwrap().path();
        let (path, name) = (path.to_str().unwrap(), path.file_name().unwrap());
        if name == "README.md" {
            continue;
        }
        let name = name.to_str().unwrap();
        assert!(documentation.contains(&format!("| `{name}` |")), "{name}");
        let profiles: Vec<&str> = ["--config", "none", "--config", path, "--list-profiles"].into();
        let (profiles, _) = output(env!("CARGO_BIN_EXE_vscode-shell-proxy"), &profiles);
        assert!(!profiles.is_empty(), "{name} has no profile");
        for line in profiles.lines() {
            let (profile, description) = line.split_once("  ").expect(line);
            assert!(!description.is_empty(), "{name}: {profile}");
            let (shown, errors) = show_config(path, &["--profile", profile]);
            assert_eq!(errors, "", "{name}");
            assert!(shown.contains("command = "), "{name}: {shown}");
        }
        files += 1;
    }
    assert_eq!(
        files,
        documentation
            .lines()
            .filter(|l| l.starts_with("| `"))
            .count()
    );
}

#[test]
fn the_packages_file_sets_nothing_and_each_of_its_lines_can_be_set() {
    let text = read("contrib/vscode-shell-proxy.conf");
    let is_set = |line: &&str| !line.is_empty() && !line.starts_with('#');
    assert_eq!(text.lines().find(is_set), None);
    // `#NAME = VALUE` is such a line, `# text` is none.
    let uncommented = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
        _ => String::new(),
    };
    let text: String = text.lines().map(uncommented).collect();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("all.conf");
    fs::write(&path, &text).unwrap();
    let (shown, errors) = show_config(path.to_str().unwrap(), &["--profile", "gpu"]);
    assert_eq!(errors, "");
    assert!(shown.contains("salloc-arg = --gres=gpu:1"), "{shown}");
}
