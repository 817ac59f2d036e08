//! Whether a process is a VS Code server: by what it executes, never by what it was told to open.
//!
//! Paths count by whole components. The executable is the kernel's word (`/proc/PID/exe`); the
//! script is the word of the process itself, taken only where the executable is an interpreter.

/// The servers' directories in a user's home, by client.
pub const DIRECTORIES: [&str; 17] = [
    ".vscode-server",
    ".vscode-server-insiders",
    ".vscode-server-oss",
    ".vscode-server-exploration",
    ".vscodium-server",
    ".vscodium-server-insiders",
    ".cursor-server",
    ".windsurf-server",
    ".windsurf-server-next",
    ".positron-server",
    ".antigravity-server",
    ".antigravity-ide-server",
    ".trae-server",
    ".trae-cn-server",
    ".kiro-server",
    ".void-server",
    ".pearai-server",
];

/// Does the process that executes `exe` with the arguments `cmdline` (each ended by NUL) belong to
/// a server? `patterns` are further names, each one or more components of a path.
pub(super) fn is_server(exe: &[u8], cmdline: &[u8], patterns: &[Vec<u8>]) -> bool {
    let exe = exe.strip_suffix(b" (deleted)").unwrap_or(exe);
    let args: Vec<&[u8]> = cmdline
        .strip_suffix(b"\0")
        .map(|words| words.split(|&byte| byte == 0).collect())
        .unwrap_or_default();
    runs_server(exe, &args, patterns)
}

/// The last component of a path, without the kernel's mark of a deleted file.
pub(super) fn file_name(path: &[u8]) -> &[u8] {
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    let start = path.iter().rposition(|&byte| byte == b'/');
    start.map_or(path, |slash| &path[slash + 1..])
}

/// `args` begin with the program's name for itself.
fn runs_server(exe: &[u8], args: &[&[u8]], patterns: &[Vec<u8>]) -> bool {
    if is_in_server(exe, patterns) || is_exec_server(exe, args) {
        return true;
    }
    let name = file_name(exe);
    // The dynamic loader given a program to run, for servers whose C library is not the system's.
    if name.starts_with(b"ld-linux") || name.starts_with(b"ld-2.") || name == b"ld.so" {
        return LOADER.operand(args).is_some_and(|program| {
            let rest = &args[program..];
            // One loader does not run another.
            !file_name(rest[0]).starts_with(b"ld-") && runs_server(rest[0], rest, patterns)
        });
    }
    let (name, args) = if name == b"busybox" {
        applet(args)
    } else {
        (name, args)
    };
    Interpreter::named(name)
        .and_then(|interpreter| interpreter.operand(args))
        .is_some_and(|script| is_in_server(args[script], patterns))
}

/// The command-line program as exec server: `code-<commit> command-shell …`.
fn is_exec_server(exe: &[u8], args: &[&[u8]]) -> bool {
    let mut words = args.iter().skip(1).filter(|word| !word.starts_with(b"-"));
    words.next() == Some(&&b"command-shell"[..]) && ends_in_commit(file_name(exe))
}

fn is_in_server(path: &[u8], patterns: &[Vec<u8>]) -> bool {
    let components = components(path);
    // The directory's name is a component with something below it; a pattern may be the file.
    let in_known = components.split_last().is_some_and(|(_, directories)| {
        directories
            .iter()
            .any(|c| DIRECTORIES.iter().any(|name| name.as_bytes() == *c))
    });
    in_known
        || has_layout(&components)
        || patterns
            .iter()
            .any(|pattern| contains(&components, &self::components(pattern)))
}

/// The servers' own layouts, which show them where a setting has moved the directory:
/// `bin/<commit>/…`, `bin/<platform>/<commit>/…`, `cli/servers/Stable-<commit>/server/…`.
fn has_layout(components: &[&[u8]]) -> bool {
    let is_platform = |c: &[u8]| c.starts_with(b"linux-") || c.starts_with(b"alpine-");
    (0..components.len()).any(|i| match &components[i..] {
        [b"bin", commit, _, ..] if is_commit(commit) => true,
        [b"bin", platform, commit, _, ..] => is_platform(platform) && is_commit(commit),
        [b"cli", b"servers", version, b"server", _, ..] => ends_in_commit(version),
        _ => false,
    })
}

fn contains(components: &[&[u8]], part: &[&[u8]]) -> bool {
    !part.is_empty() && components.windows(part.len()).any(|window| window == part)
}

/// The components of a path, `.` and `..` resolved by their letters.
fn components(path: &[u8]) -> Vec<&[u8]> {
    let mut components = Vec::new();
    for component in path.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                components.pop();
            }
            _ => components.push(component),
        }
    }
    components
}

/// A commit's name: 40 hexadecimal digits.
fn is_commit(text: &[u8]) -> bool {
    text.len() == 40 && text.iter().all(u8::is_ascii_hexdigit)
}

/// `Stable-<commit>`, `code-<commit>`.
fn ends_in_commit(text: &[u8]) -> bool {
    let commit = text.len().checked_sub(40).map(|at| text.split_at(at));
    commit.is_some_and(|(name, commit)| name.len() > 1 && name.ends_with(b"-") && is_commit(commit))
}

/// How to find the script in an interpreter's arguments.
struct Interpreter {
    /// Names of the executable; a version behind them does not matter.
    names: &'static [&'static [u8]],
    /// Letters that mean: the program is no file (`-c COMMAND`).
    inline: &'static [u8],
    /// Letters that take a value: the rest of the word, or the next one.
    valued: &'static [u8],
    /// Letters that take the rest of the word, but never the next one.
    attached: &'static [u8],
    /// Long options that mean the same as `inline`.
    long_inline: &'static [&'static [u8]],
    /// Long options that take the next word where they have no `=`.
    long_valued: &'static [&'static [u8]],
}

const INTERPRETERS: [Interpreter; 6] = [
    Interpreter {
        names: &[
            b"sh", b"bash", b"dash", b"ash", b"ksh", b"mksh", b"zsh", b"csh", b"tcsh",
        ],
        inline: b"cs",
        valued: b"oO",
        attached: b"",
        long_inline: &[],
        long_valued: &[b"--rcfile", b"--init-file", b"--emulate"],
    },
    Interpreter {
        names: &[b"fish"],
        inline: b"c",
        valued: b"CdDofp",
        attached: b"",
        long_inline: &[b"--command"],
        long_valued: &[
            b"--init-command",
            b"--debug",
            b"--debug-output",
            b"--features",
            b"--profile",
        ],
    },
    Interpreter {
        names: &[b"node", b"nodejs"],
        inline: b"ep",
        valued: b"rC",
        attached: b"",
        long_inline: &[b"--eval", b"--print", b"--run", b"--test"],
        long_valued: &[
            b"--require",
            b"--import",
            b"--loader",
            b"--experimental-loader",
            b"--conditions",
            b"--icu-data-dir",
            b"--openssl-config",
            b"--redirect-warnings",
            b"--title",
            b"--report-dir",
            b"--report-directory",
            b"--report-filename",
            b"--tls-keylog",
            b"--trace-event-file-pattern",
            b"--trace-event-categories",
            b"--diagnostic-dir",
            b"--cpu-prof-dir",
            b"--cpu-prof-name",
            b"--heap-prof-dir",
            b"--heap-prof-name",
            b"--env-file",
            b"--env-file-if-exists",
            b"--inspect-port",
            b"--debug-port",
            b"--input-type",
            b"--dns-result-order",
            b"--disable-warning",
            b"--disable-proto",
            b"--unhandled-rejections",
            b"--watch-path",
            b"--snapshot-blob",
            b"--build-snapshot-config",
            b"--experimental-sea-config",
            b"--localstorage-file",
            b"--secure-heap",
        ],
    },
    Interpreter {
        names: &[b"python", b"pypy"],
        inline: b"cm",
        valued: b"WX",
        attached: b"",
        long_inline: &[],
        long_valued: &[b"--check-hash-based-pycs"],
    },
    Interpreter {
        names: &[b"perl"],
        inline: b"eE",
        valued: b"I",
        attached: b"MmxiFDCVd",
        long_inline: &[],
        long_valued: &[],
    },
    Interpreter {
        names: &[b"ruby"],
        inline: b"e",
        valued: b"IrCE",
        attached: b"FKTWxi",
        long_inline: &[],
        long_valued: &[
            b"--encoding",
            b"--external-encoding",
            b"--internal-encoding",
        ],
    },
];

/// The dynamic loader, ld.so(8): its operand is a program.
const LOADER: Interpreter = Interpreter {
    names: &[],
    inline: b"",
    valued: b"",
    attached: b"",
    long_inline: &[],
    long_valued: &[
        b"--library-path",
        b"--inhibit-rpath",
        b"--audit",
        b"--preload",
        b"--argv0",
        b"--glibc-hwcaps-prepend",
        b"--glibc-hwcaps-mask",
    ],
};

impl Interpreter {
    fn named(name: &[u8]) -> Option<&'static Self> {
        let is_version = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
        let length = name.len()
            - name
                .iter()
                .rev()
                .take_while(|byte| is_version(byte))
                .count();
        let name = &name[..length];
        INTERPRETERS.iter().find(|i| i.names.contains(&name))
    }

    /// The index of the script in `args`, which begin with the interpreter; `None` where it runs
    /// none. In doubt there is none.
    fn operand(&self, args: &[&[u8]]) -> Option<usize> {
        let mut i = 1;
        while i < args.len() {
            let word = args[i];
            match word {
                b"--" => return (i + 1 < args.len()).then_some(i + 1),
                // Its program comes from standard input.
                b"-" | b"" => return None,
                [b'-', b'-', ..] => {
                    let equals = word.iter().position(|&byte| byte == b'=');
                    let name = &word[..equals.unwrap_or(word.len())];
                    if self.long_inline.contains(&name) {
                        return None;
                    }
                    i += usize::from(equals.is_none() && self.long_valued.contains(&name));
                }
                [b'-' | b'+', letters @ ..] => {
                    let decisive = letters.iter().position(|letter| {
                        [self.inline, self.valued, self.attached]
                            .iter()
                            .any(|kind| kind.contains(letter))
                    });
                    if let Some(at) = decisive {
                        if self.inline.contains(&letters[at]) {
                            return None;
                        }
                        let takes_next = self.valued.contains(&letters[at]);
                        i += usize::from(takes_next && at + 1 == letters.len());
                    }
                }
                _ => return Some(i),
            }
            i += 1;
        }
        None
    }
}

/// Name and arguments of busybox's applet, which is chosen by what the program is called.
fn applet<'a, 'b>(args: &'b [&'a [u8]]) -> (&'a [u8], &'b [&'a [u8]]) {
    let name = |word: &'a [u8]| file_name(word.strip_prefix(b"-").unwrap_or(word));
    match args {
        [own, applet, ..] if name(own) == b"busybox" => (name(applet), &args[1..]),
        [own, ..] => (name(own), args),
        [] => (b"", args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn server(exe: &str, args: &str) -> bool {
        let fill = |text: &str| text.replace("COMMIT", COMMIT);
        let cmdline: String = args.split(' ').map(|arg| fill(arg) + "\0").collect();
        is_server(
            fill(exe).as_bytes(),
            cmdline.as_bytes(),
            &[b"acme-server".to_vec(), b"opt/ide".to_vec()],
        )
    }

    #[test]
    fn executables_and_scripts_in_a_server_directory_are_servers() {
        for (exe, args) in [
            ("/home/a/.vscode-server/bin/COMMIT/node", "node"),
            ("/home/a/.vscode-server/bin/COMMIT/node (deleted)", "node"),
            ("/home/a/.cursor-server/bin/linux-x64/COMMIT/node", "x"),
            (
                "/home/a/.vscode-server/extensions/rust/server/rust-analyzer",
                "rust-analyzer",
            ),
            (
                "/usr/bin/dash",
                "sh /home/a/.vscode-server/bin/x/bin/code-server --start-server",
            ),
            (
                "/usr/bin/bash",
                "bash -eu -o pipefail /home/a/.vscode-server/server.sh",
            ),
            (
                "/usr/bin/bash",
                "bash --rcfile /tmp/rc -- .vscode-server/server.sh",
            ),
            ("/usr/bin/bash", "bash +o posix .vscode-server/server.sh"),
            ("/usr/bin/bash", "bash --posix .vscode-server/server.sh"),
            (
                "/usr/bin/bash",
                "bash --rcfile=/tmp/rc .vscode-server/server.sh",
            ),
            ("/usr/bin/bash", "bash -- -c/.vscode-server/server.sh"),
            ("/bin/busybox", "sh /home/a/.vscode-server/server.sh"),
            (
                "/bin/busybox",
                "busybox ash /home/a/.vscode-server/server.sh",
            ),
            (
                "/usr/bin/node",
                "node --max-old-space-size=4096 -r x.js /h/.windsurf-server/a/server-main.js",
            ),
            (
                "/usr/bin/node18",
                "node --require x.js /h/.windsurf-server/a/server-main.js",
            ),
            (
                "/usr/bin/python3.11",
                "python3 -Bu -W ignore /h/.positron-server/x.py",
            ),
            (
                "/usr/lib64/ld-linux-x86-64.so.2",
                "ld --library-path /l /h/.vscode-server/bin/COMMIT/node x.js",
            ),
            (
                "/usr/lib64/ld-linux-x86-64.so.2",
                "ld /usr/bin/node /h/.vscode-server/out/server-main.js",
            ),
            ("/opt/glibc/ld-2.28.so", "ld /h/.vscode-server/node x.js"),
            ("/usr/bin/ld.so", "ld.so /h/.vscode-server/node x.js"),
            ("/usr/bin/acme-server", "acme-server"),
            ("/opt/ide/run", "run"),
        ] {
            assert!(server(exe, args), "{exe}: {args}");
        }
    }

    #[test]
    fn layouts_are_known_where_the_directory_was_moved() {
        for (exe, args) in [
            ("/scratch/a/vs/bin/COMMIT/node", "node"),
            ("/scratch/a/vs/bin/linux-x64/COMMIT/node", "node"),
            ("/scratch/a/vs/bin//linux-x64/./COMMIT/node", "node"),
            (
                "/scratch/a/vs/cli/servers/Stable-COMMIT/server/node",
                "node",
            ),
            (
                "/usr/bin/sh",
                "sh /scratch/a/cli/servers/Insiders-COMMIT/server/bin/code-server",
            ),
            (
                "/scratch/a/code-COMMIT",
                "code-COMMIT command-shell --on-port",
            ),
            ("/scratch/a/code-COMMIT", "code --verbose command-shell"),
        ] {
            assert!(server(exe, args), "{exe}: {args}");
        }
        for (exe, args) in [
            ("/scratch/a/code-COMMIT", "code-COMMIT tunnel command-shell"),
            ("/scratch/a/code-1234", "code-1234 command-shell"),
            ("/scratch/a/COMMIT", "x command-shell"),
            ("/scratch/a/-COMMIT", "x command-shell"),
            ("/scratch/a/codeCOMMIT", "x command-shell"),
            ("/scratch/a/bin/0123/node", "node"),
            ("/scratch/a/bin/COMMIT", "COMMIT"),
            ("/scratch/a/bin/x64/COMMIT/node", "node"),
            ("/scratch/a/servers/Stable-COMMIT/server/node", "node"),
        ] {
            assert!(!server(exe, args), "{exe}: {args}");
        }
    }

    #[test]
    fn a_file_argument_never_counts() {
        for (exe, args) in [
            ("/usr/bin/vim", "vim /home/a/.vscode-server/settings.json"),
            ("/usr/bin/tail", "tail -f /home/a/.vscode-server/x.log"),
            ("/usr/bin/rsync", "rsync -a /home/a/.vscode-server host:"),
            ("/usr/bin/grep", "grep vscode-server"),
            ("/bin/busybox", "tail -f /home/a/.vscode-server/x.log"),
            (
                "/bin/busybox",
                "busybox tail -f /home/a/.vscode-server/x.log",
            ),
            ("/usr/bin/bash", "bash -c /home/a/.vscode-server/server.sh"),
            (
                "/usr/bin/bash",
                "bash -ec tail /home/a/.vscode-server/server.sh",
            ),
            ("/usr/bin/bash", "bash -s /home/a/.vscode-server/server.sh"),
            ("/usr/bin/bash", "bash --rcfile /home/a/.vscode-server/rc"),
            (
                "/usr/bin/bash",
                "bash /home/a/work.sh /home/a/.vscode-server/server.sh",
            ),
            ("/usr/bin/bash", "bash"),
            ("/usr/bin/bash", "bash --"),
            (
                "/usr/bin/node",
                "node -e 1 /h/.vscode-server/server-main.js",
            ),
            (
                "/usr/bin/node",
                "node --env-file /h/.vscode-server/env app.js",
            ),
            (
                "/usr/bin/node",
                "node app.js /h/.vscode-server/server-main.js",
            ),
            ("/usr/bin/node", "node - /h/.vscode-server/server-main.js"),
            (
                "/usr/bin/python3",
                "python3 -m http.server -d /h/.vscode-server/x",
            ),
            ("/usr/bin/perl", "perl -ne 1 /h/.vscode-server/x.log"),
            ("/usr/bin/perl", "perl -l work.pl /h/.vscode-server/x.log"),
            (
                "/usr/bin/perl",
                "perl -Mstrict work.pl /h/.vscode-server/x.log",
            ),
            ("/usr/bin/perl", "perl -d work.pl /h/.vscode-server/x.log"),
            (
                "/usr/lib64/ld-linux-x86-64.so.2",
                "ld /usr/bin/tail /h/.vscode-server/x.log",
            ),
        ] {
            assert!(!server(exe, args), "{exe}: {args}");
        }
    }

    #[test]
    fn names_count_as_whole_components_only() {
        for exe in [
            "/home/a/.vscode-server-backup/bin/x/node",
            "/home/a/my.vscode-server/node",
            "/home/a/vscode-server/node",
            "/home/a/.vscode/extensions/x/node",
            "/home/a/.vscode-server",
            "/home/a/.vscode-server/../bin/tool",
            "/opt/x/ide/run",
            "/usr/bin/acme-server2",
        ] {
            assert!(!server(exe, "x"), "{exe}");
        }
    }

    #[test]
    fn odd_command_lines_are_no_servers() {
        for cmdline in [&b""[..], b"\0", b"\0\0\0", b"sh", b"sh\0.vscode-server/x"] {
            assert!(!is_server(b"/bin/sh", cmdline, &[]), "{cmdline:?}");
        }
        assert!(!is_server(b"", b"sh\0.vscode-server/x.sh\0", &[]));
        assert!(!is_server(b"/bin/ld-linux.so", b"a\0ld-x\0ld-y\0", &[]));
    }
}
