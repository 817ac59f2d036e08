//! `--ssh-config`: what it prints is read by ssh, and its command by every login shell, as it was meant.

#![allow(clippy::unwrap_used)]

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// Stands where the program would: it prints its arguments, a NUL behind each.
const RECORDER: &str = "#!/bin/sh\n[ $# = 0 ] || printf '%s\\0' \"$@\"\n";

/// Login shells, as far as they are here.
const SHELLS: [&str; 8] = ["sh", "bash", "dash", "zsh", "csh", "tcsh", "fish", "mksh"];

struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let place = Self { directory };
        fs::write(place.recorder(), RECORDER).unwrap();
        fs::set_permissions(place.recorder(), fs::Permissions::from_mode(0o755)).unwrap();
        place
    }

    fn recorder(&self) -> PathBuf {
        self.directory.path().join("recorder")
    }

    /// Calls the program as if it were the recorder.
    fn call(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_vscode-shell-proxy"))
            .arg0(self.recorder())
            .args(["--config", "none"])
            .args(args)
            .env("HOME", self.directory.path())
            .env_remove("XDG_CONFIG_HOME")
            .env("USER", "alice")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// What is printed: the stanza, and the settings.
    fn printed(&self, args: &[&str]) -> (String, String) {
        let output = self.call(args);
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        assert_eq!(output.status.code(), Some(0));
        let text = String::from_utf8(output.stdout).unwrap();
        let (stanza, settings) = text.split_once("\n\n").expect(&text);
        (format!("{stanza}\n"), settings.to_owned())
    }

    /// What ssh understands of a stanza, as it prints it itself.
    fn understood(&self, stanza: &str, host: &str) -> Vec<(String, String)> {
        let file = self.directory.path().join("config");
        fs::write(&file, stanza).unwrap();
        let output = Command::new("ssh")
            .arg("-G")
            .arg("-F")
            .args([&file])
            .arg(host)
            .output();
        let output = output.unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{stanza}");
        let text = String::from_utf8(output.stdout).unwrap();
        let pair = |line: &str| {
            let (name, value) = line.split_once(' ').unwrap_or((line, ""));
            (name.to_owned(), value.to_owned())
        };
        text.lines().map(pair).collect()
    }
}

fn value<'a>(understood: &'a [(String, String)], name: &str) -> &'a str {
    let found = understood.iter().find(|(it, _)| it == name);
    &found.unwrap_or_else(|| panic!("ssh prints no {name}")).1
}

/// Whether a program is there; what is left out is said past the capture of test output.
fn is_there(program: &str) -> bool {
    let found = ["/usr/bin", "/bin", "/usr/local/bin"]
        .iter()
        .any(|directory| Path::new(directory).join(program).exists());
    if !found {
        let _ = writeln!(std::io::stderr(), "SKIPPED: {program} is not installed");
    }
    found
}

#[test]
fn ssh_reads_the_stanza_and_every_login_shell_the_command() {
    if !is_there("ssh") {
        return;
    }
    let place = Place::new();
    let awkward = [
        "--comment=two words",
        "it's",
        "a\"b",
        "back\\slash",
        "end\\",
        "$HOME `id` $(id)",
        "*?[x]{a,b}~",
        "!bang it's !!",
        "100%u %h %%",
        "#not; a & comment | < > ( )",
        "=ls",
        "%1",
        "~",
        "ümlaut",
        "",
    ];
    let mut line = vec!["--ssh-config=gpu"];
    let args: Vec<String> = awkward.iter().map(|word| format!("-S={word}")).collect();
    line.extend(args.iter().map(String::as_str));
    line.extend(["-v", "-l", ".log.[PID]"]);
    let (stanza, _) = place.printed(&line);
    let understood = place.understood(&stanza, "gpu");
    assert_eq!(value(&understood, "user"), "alice");
    assert_eq!(value(&understood, "serveraliveinterval"), "60");
    let node = nix::unistd::gethostname().unwrap().into_string().unwrap();
    assert_eq!(value(&understood, "hostname"), node.to_lowercase());

    let mut expected = vec!["--config=none".to_owned()];
    expected.extend(awkward.iter().map(|word| format!("--salloc-arg={word}")));
    expected.extend(["--verbose".to_owned(), "--log-file=.log.[PID]".to_owned()]);
    let command = value(&understood, "remotecommand");
    for shell in SHELLS.into_iter().filter(|shell| is_there(shell)) {
        let output = Command::new(shell)
            .arg("-c")
            .arg(command)
            .env("HOME", place.directory.path())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(errors, "", "{shell} with {command}");
        let words = String::from_utf8(output.stdout).unwrap();
        let words: Vec<&str> = words.split_terminator('\0').collect();
        assert_eq!(words, expected, "{shell} with {command}");
    }
}

#[test]
fn a_command_behind_the_dashes_is_part_of_it() {
    let place = Place::new();
    let (stanza, _) = place.printed(&[
        "--ssh-config",
        "local",
        "--",
        "salloc",
        "srun",
        "--pty",
        "ba sh",
    ]);
    let program = place.recorder().display().to_string();
    assert!(
        stanza.contains("Host local\n    HostName ")
            && stanza.ends_with(&format!(
                "    RemoteCommand {program} --config=none -- salloc srun --pty 'ba sh'\n"
            )),
        "{stanza}"
    );
}

#[test]
fn the_settings_are_those_of_the_readme() {
    let (_, settings) = Place::new().printed(&["--ssh-config", "gpu"]);
    let (comment, json) = settings.split_once('\n').unwrap();
    assert!(comment.starts_with("// "), "{comment}");
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    assert!(readme.contains(&format!("```json\n{json}```\n")), "{json}");
}

#[test]
fn the_sites_name_for_the_login_nodes_counts() {
    let place = Place::new();
    let file = place.directory.path().join("site.conf");
    fs::write(
        &file,
        "ssh-host = login.cluster.example\n[profile gpu]\ndescription = a GPU\n",
    )
    .unwrap();
    let line = [
        "--config",
        file.to_str().unwrap(),
        "--profile",
        "gpu",
        "--ssh-config",
        "gpu",
    ];
    let (stanza, _) = place.printed(&line);
    assert!(
        stanza.contains("\n    HostName login.cluster.example\n"),
        "{stanza}"
    );
    assert!(stanza.contains(" --profile=gpu\n"), "{stanza}");
}

#[test]
fn what_no_stanza_can_hold_is_refused() {
    let place = Place::new();
    let long = OsString::from_vec(b"bytes\xff".to_vec());
    for (line, words) in [
        (vec!["--ssh-config", "two words"], "letters, digits"),
        (vec!["--ssh-config", "*"], "letters, digits"),
        (vec!["--ssh-config=gpu", "-S=a\nb"], "control character"),
        (vec!["--ssh-config=gpu", "--profile=none-such"], "profile"),
    ] {
        let output = place.call(&line);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            errors.contains(words) && errors.lines().count() == 1,
            "{line:?}: {errors}"
        );
        assert_eq!(output.status.code(), Some(2), "{line:?}");
        assert_eq!(output.stdout, b"", "{line:?}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_vscode-shell-proxy"))
        .args(["--ssh-config=gpu", "--"])
        .arg(&long)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not UTF-8"));
}
