//! Configuration files: a site's beside the program, a user's at home, and what they decide.

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use support::{End, Program};

const PROXY: &str = env!("CARGO_BIN_EXE_vscode-shell-proxy");
const SITE: &str = "opt/etc/vscode-shell-proxy.conf";
const USER: &str = "home/.config/vscode-shell-proxy/config";

/// A `salloc` that says what it was given, and leaves.
const SALLOC: &str = "#!/bin/sh\nprintf '<%s>' \"$@\"\necho\n";

/// The program called as `opt/bin/vscode-shell-proxy`, with this site's file in `opt/etc`.
fn site(text: &str) -> Program {
    let program = Program::proxy().stand_in("salloc", SALLOC).file(SITE, text);
    let called = program.path("opt/bin/vscode-shell-proxy");
    fs::create_dir(program.path("opt/bin")).expect("a directory");
    symlink(PROXY, &called).expect("a link to the program");
    program.called(called).env("USER", "alice")
}

/// What `salloc` was given after what it is always given.
#[track_caller]
fn given(program: Program) -> String {
    let end = program.run("");
    assert_eq!((end.code(), end.stderr_text()), (0, String::new()));
    let text = end.stdout_text();
    let always = "<--kill-command><--job-name=vscode-alice>";
    let given = text.trim_end().strip_prefix(always);
    given.unwrap_or_else(|| panic!("{text}")).to_owned()
}

/// One line on stderr with these words, nothing on stdout.
#[track_caller]
fn refused(end: &End, code: i32, words: &[&str]) {
    let text = end.stderr_text();
    assert_eq!(end.code(), code, "{text}");
    assert_eq!(end.stdout_text(), "");
    assert_eq!(text.lines().count(), 1, "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
}

#[track_caller]
fn printed(program: Program) -> String {
    let end = program.run("");
    assert_eq!((end.code(), end.stderr_text()), (0, String::new()));
    end.stdout_text()
}

#[test]
fn site_user_and_command_line_add_up_in_this_order() {
    let program = site("salloc-arg = --partition=devel\n")
        .file(USER, "# mine\nsalloc-arg = --time=1:00:00\n")
        .file("more", "salloc-arg = --mem=1G\n");
    let more = program.path("more");
    let program = program.arg("--config").arg(more).arg("-S=-n2");
    assert_eq!(
        given(program),
        "<--partition=devel><--time=1:00:00><--mem=1G><-n2>"
    );
}

#[test]
fn an_empty_value_clears_what_came_before() {
    let files = || {
        site("salloc-arg = --partition=devel\nbacklog = 16\n")
            .file(USER, "salloc-arg =\nsalloc-arg = --mine\nbacklog =\n")
    };
    assert_eq!(given(files()), "<--mine>");
    assert_eq!(given(files().args(["-S", "", "-S", "--now"])), "<--now>");
    let text = printed(files().arg("--show-config"));
    assert!(text.contains("built-in"), "{text}");
    assert!(text.contains("backlog = 8\n"), "{text}");
}

#[test]
fn config_none_is_no_file_and_a_further_one_is_read_alone() {
    let files = || {
        site("salloc-arg = --site\n")
            .file(USER, "salloc-arg = --user\n")
            .file("more", "salloc-arg = --more\n")
    };
    assert_eq!(given(files().arg("--config=none")), "");
    let program = files();
    let more = program.path("more");
    let program = program.arg("--config=none").arg("--config").arg(more);
    assert_eq!(given(program), "<--more>");
}

#[test]
fn xdg_config_home_counts_before_the_home_directory() {
    let program = site("")
        .file(USER, "salloc-arg = --home\n")
        .file("xdg/vscode-shell-proxy/config", "salloc-arg = --xdg\n");
    let xdg = program.path("xdg");
    assert_eq!(given(program.env("XDG_CONFIG_HOME", xdg)), "<--xdg>");
}

#[test]
fn the_sites_file_is_found_by_the_name_of_the_command_on_path() {
    let program = site("salloc-arg = --site\n");
    let (bin, private) = (program.path("opt/bin"), program.path("bin"));
    let path = format!("{}:{}:/usr/bin:/bin", bin.display(), private.display());
    let program = program.called("sh");
    let program = program.args(["-c", "exec vscode-shell-proxy"]);
    assert_eq!(given(program.env("PATH", path)), "<--site>");
}

#[test]
fn behind_a_link_the_sites_file_lies_beside_the_executable() {
    // A second name of the program, since a copy could still be open for writing in a child that
    // another thread is about to start.
    let prefix = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    for directory in ["bin", "etc"] {
        fs::create_dir(prefix.path().join(directory)).expect("a directory");
    }
    let executable = prefix.path().join("bin/vscode-shell-proxy");
    fs::hard_link(PROXY, &executable).expect("a second name");
    let conf = "vscode-shell-proxy.conf";
    let text = "salloc-arg = --executable\n";
    fs::write(prefix.path().join("etc").join(conf), text).expect("the site's file");

    let program = Program::proxy().stand_in("salloc", SALLOC);
    let link = program.path("vscode-shell-proxy");
    symlink(&executable, &link).expect("a link");
    let program = program.called(&link).env("USER", "alice");
    assert_eq!(given(program), "<--executable>");

    // Beside the link counts first.
    let program = site("salloc-arg = --called\n");
    let called = program.path("opt/bin/vscode-shell-proxy");
    fs::remove_file(&called).expect("the link to the build's program");
    symlink(&executable, &called).expect("a link");
    assert_eq!(given(program), "<--called>");
}

#[test]
fn a_wrong_line_is_named_with_file_number_and_remedy() {
    for (text, words) in [
        (
            "\n# one\nfrob = 1\n",
            &["line 3", "frob", "--help"] as &[&str],
        ),
        ("--backlog = 9\n", &["line 1", "without dashes"]),
        ("backlog\n", &["line 1", "NAME = VALUE"]),
        (
            "backlog = many\n",
            &["line 1: backlog \"many\"", "1 to 65535"],
        ),
        ("[profile a]\nbacklog = 0\n", &["line 2", "1 to 65535"]),
        ("[gpu]\n", &["line 1", "[profile NAME]"]),
        ("[profile a b]\n", &["line 1", "[profile NAME]"]),
        ("verbose = 3\n", &["line 1: verbose \"3\"", "yes or no"]),
        (
            "self-test = yes\n",
            &["line 1: self-test", "command line only"],
        ),
        ("config = /x\n", &["line 1: config", "command line only"]),
        ("description = x\n", &["line 1: description", "section"]),
        (
            "[profile a]\nprofile = a\n",
            &["line 2: profile", "first section"],
        ),
        ("lock = frob\n", &["line 1: lock \"frob\""]),
        ("lock = lock\n", &["line 1: lock \"lock\""]),
        (
            "admit = all\n",
            &["line 1: admit \"all\"", "self, root or any"],
        ),
        ("salloc-env = =x\n", &["line 1: salloc-env \"=x\"", "NAME"]),
        ("command = salloc 'x\n", &["line 1: command", "closing '"]),
        ("command = salloc %x\n", &["line 1: command", "behind %"]),
        ("job-name = %e\n", &["line 1: job-name", "behind %"]),
        ("env = A=$-\n", &["line 1: env \"A=$-\"", "behind $"]),
        ("unset-env = A=b\n", &["line 1: unset-env", "NAME alone"]),
        ("listen-host = \0\n", &["line 1: listen-host", "NUL"]),
    ] {
        let end = site(text).run("");
        refused(&end, 2, words);
        refused(&end, 2, &[SITE]);
    }
    let end = site("").file(USER, "lock = admit\n").run("");
    refused(&end, 2, &[USER, "line 1: lock", "site's file only"]);
    let text = site("").file("latin", "");
    let latin = text.path("latin");
    fs::write(&latin, b"log-file = \xe9\n").expect("a file");
    refused(
        &text.arg("--config").arg(&latin).run(""),
        2,
        &["latin", "line 1", "UTF-8"],
    );
}

#[test]
fn help_and_version_need_no_file_that_is_right() {
    for option in ["--help", "--version"] {
        printed(site("wrong\n").arg(option));
    }
}

#[test]
fn a_file_that_cannot_be_trusted_or_read_is_refused_at_once() {
    let config = |program: Program, name: &str| {
        let path = program.path(name);
        program.arg("--config").arg(path).run("")
    };
    refused(
        &config(site(""), "nothing"),
        2,
        &["nothing", "no such file"],
    );
    refused(&config(site(""), "home"), 2, &["home", "regular file"]);

    let program = site("");
    let fifo = program.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    refused(&config(program, "fifo"), 2, &["fifo", "regular file"]);

    let end = config(site("").file("long", &"#\n".repeat(256 * 1024)), "long");
    refused(&end, 2, &["long", "262144 bytes"]);

    let program = site("");
    let mode = fs::Permissions::from_mode(0o666);
    fs::set_permissions(program.path(SITE), mode).expect("chmod");
    refused(&program.run(""), 2, &[SITE, "everybody can write it"]);
}

#[test]
fn a_profile_adds_its_section_of_each_file() {
    let files = || {
        site(
            "salloc-arg = --site\n\
             [profile cpu]\ndescription = Four cores\nsalloc-arg = -c4\n\
             [profile gpu]\ndescription = One GPU\nsalloc-arg = --gres=gpu:1\n",
        )
        .file(
            USER,
            "salloc-arg = --user\n[profile gpu]\nsalloc-arg = --mem=8G\n[profile own]\n",
        )
    };
    assert_eq!(given(files()), "<--site><--user>");
    assert_eq!(given(files().arg("--profile=cpu")), "<--site><-c4><--user>");
    assert_eq!(
        given(files().args(["--profile=cpu", "--profile", "gpu"])),
        "<--site><--gres=gpu:1><--user><--mem=8G>"
    );
    assert_eq!(
        printed(files().arg("--list-profiles")),
        "cpu  Four cores\ngpu  One GPU\nown\n"
    );
    let end = files().arg("--profile=cpus").run("");
    refused(&end, 2, &["--profile \"cpus\"", "cpu, gpu, own"]);
    let end = site("").arg("--profile=cpu").run("");
    refused(
        &end,
        2,
        &["--profile \"cpu\"", "no configuration file has a profile"],
    );
}

#[test]
fn a_file_may_choose_the_profile_of_those_who_name_none() {
    let files = || {
        site("profile = cpu\n[profile cpu]\nsalloc-arg = -c4\n[profile gpu]\nsalloc-arg = -G1\n")
    };
    assert_eq!(given(files()), "<-c4>");
    assert_eq!(given(files().file(USER, "profile = gpu\n")), "<-G1>");
    assert_eq!(given(files().file(USER, "profile =\n")), "");
    assert_eq!(given(files().arg("--profile=gpu")), "<-G1>");
    let end = site("profile = x\n").run("");
    refused(&end, 2, &[SITE, "line 1: profile \"x\""]);
}

#[test]
fn what_the_site_locks_nobody_else_sets() {
    let locked = "lock = salloc-arg\nlock = admit\nsalloc-arg = --site\nbacklog = 9\n";
    let files = || site(locked);
    assert_eq!(given(files()), "<--site>");
    for args in [
        &["-S", "--mine"] as &[&str],
        &["--salloc-arg="],
        &["--admit=any"],
        &["--", "salloc"],
    ] {
        let end = files().args(args).run("");
        refused(&end, 2, &[SITE, "line "]);
    }
    let end = files().file(USER, "admit = any\n").run("");
    refused(
        &end,
        2,
        &[USER, "line 1: admit", "locked by", SITE, "line 2"],
    );
    // No file is no way out, and what is not locked goes with it.
    let text = printed(files().args(["--config=none", "--show-config"]));
    assert!(text.contains("salloc-arg = --site\n"), "{text}");
    assert!(text.contains("backlog = 8\n"), "{text}");
    assert!(!text.contains("backlog = 9"), "{text}");
    let end = files().args(["--config=none", "--admit=any"]).run("");
    refused(&end, 2, &["--admit \"any\"", "locked by"]);
}

#[test]
fn a_locked_profile_keeps_its_section() {
    let files = || {
        site(
            "lock = profile\nprofile = cpu\n\
             [profile cpu]\nlock = salloc-arg\nsalloc-arg = -c4\n[profile gpu]\n",
        )
    };
    assert_eq!(given(files()), "<-c4>");
    refused(&files().arg("--profile=gpu").run(""), 2, &["locked by"]);
    refused(&files().arg("-S=-c8").run(""), 2, &["locked by"]);
}

#[test]
fn a_site_that_is_switched_off_says_why() {
    let off = || site("enabled = false\nmessage = Maintenance until Friday.\n");
    for args in [&[] as &[&str], &["--config=none"], &["--self-test"]] {
        refused(&off().args(args).run(""), 1, &["Maintenance until Friday."]);
    }
    let text = printed(off().arg("--show-config"));
    assert!(text.contains("enabled = false\n"), "{text}");
    let end = site("enabled = no\n").run("");
    refused(&end, 1, &["switched off", SITE, "line 1"]);
    let one = || site("[profile old]\nenabled = no\nmessage = Use new\n[profile new]\n");
    refused(&one().arg("--profile=old").run(""), 1, &["Use new"]);
    assert_eq!(given(one().arg("--profile=new")), "");
}

#[test]
fn show_config_names_the_source_of_every_value() {
    let program = site("lock = admit\nadmit = self\n[profile gpu]\nsalloc-arg = -G1\n")
        .file(USER, "backlog = 16\nbacklog = 32\n");
    let (site, user) = (program.path(SITE), program.path(USER));
    let text = printed(program.args(["--profile=gpu", "-S", "-n2", "--show-config"]));
    let (site, user) = (site.display(), user.display());
    for line in [
        format!("# the site's file: {site}"),
        format!("# a user's file: {user}"),
    ] {
        assert!(text.lines().any(|it| it == line), "{line:?} in {text}");
    }
    for (origin, value) in [
        (format!("{user}, line 2"), "backlog = 32"),
        ("built-in".into(), "byte-limit = 262144"),
        (format!("{site}, line 2 (locked)"), "admit = self"),
        (format!("{site}, line 4"), "salloc-arg = -G1"),
        ("command line".into(), "salloc-arg = -n2"),
        ("command line".into(), "profile = gpu"),
    ] {
        let is_it = |line: &str| {
            line.strip_prefix(&origin)
                .is_some_and(|rest| rest.trim_start() == value)
        };
        assert!(text.lines().any(is_it), "{origin}: {value} in {text}");
    }
    assert!(!text.contains("backlog = 16"), "{text}");
}

#[test]
fn the_self_tests_second_copy_reads_the_same_files_once() {
    let program = site("salloc-arg = --site\n").stand_in(
        "salloc",
        "#!/bin/bash\necho \"$@\" >> \"$HOME/given\"\nexec bash\n",
    );
    let given = program.path("home/given");
    let mut session = program.args(["--self-test", "-S=--mine"]).start();
    let end = session.wait();
    assert_eq!(end.code(), 0, "{}", end.stdout_text());
    let text = fs::read_to_string(given).expect("salloc was started");
    assert_eq!(
        text,
        "--kill-command --job-name=vscode-alice --site --mine\n"
    );
    assert!(end.stdout_text().contains("--site --mine"));
}

/// A launch command that says what it was given, one argument a line.
const SHOW: &str = "#!/bin/sh\nprintf '%s\\n' \"$@\"\n";

#[test]
fn the_launch_command_is_the_sites_and_arguments_go_where_it_says() {
    let launch = |command: &str| {
        site(&format!("command = {command}\n"))
            .stand_in("qrsh", SHOW)
            .args(["--launch-arg", "-l", "--srun-arg=gpu=1 2"])
    };
    assert_eq!(
        printed(launch("qrsh -now no 'a b' %a -- %u@%% %s")),
        "-now\nno\na b\n-l\ngpu=1 2\n--\nalice@%\n/bin/bash\n"
    );
    assert_eq!(
        printed(launch("qrsh $HOME '*' ;")),
        "$HOME\n*\n;\n-l\ngpu=1 2\n"
    );
    let program = launch("qrsh %h %p --export=%e").args(["-e", "A=1", "--launch-env=B", "-eA=2"]);
    let mut session = program.start();
    let pid = session.pid();
    session.end_stdin();
    let text = session.wait().stdout_text();
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("a host's name");
    let expected = format!("{}\n{pid}\n--export=A,B\n-l\ngpu=1 2\n", host.trim());
    assert_eq!(text, expected);
}

#[test]
fn a_command_on_the_line_drops_the_configured_one_and_its_arguments() {
    let text = "command = qrsh\nsalloc-arg = --site\ngroup = physics\njob-name = x\n";
    let program = site(text).stand_in("own", SHOW);
    assert_eq!(printed(program.args(["--", "own", "-x"])), "-x\n");
    let end = site(text).args(["--command=qrsh", "--", "own"]).run("");
    refused(&end, 2, &["--command \"qrsh\"", "cannot be combined"]);
}

#[test]
fn a_workgroup_wraps_the_configured_command_and_may_be_looked_up() {
    let workgroup = "#!/bin/sh\n\
        if [ \"$1 $2\" = '-q workgroups' ]; then printf '1002 it_nss\\n1003 it_css\\n'; exit; fi\n\
        printf '<%s>' \"$@\"\necho\n";
    for (name, found) in [("auto", "it_nss"), ("physics", "physics")] {
        let program = site(&format!("command = qrsh -x\ngroup = {name}\n"));
        let end = program.stand_in("workgroup", workgroup).run("");
        let expected = format!("<-g><{found}><--command><@><--><qrsh><-x>\n");
        assert_eq!(end.stdout_text(), expected, "{}", end.stderr_text());
    }
    let program = site("").arg("--group=auto");
    let end = program.stand_in("workgroup", "#!/bin/sh\nexit 1\n").run("");
    refused(&end, 1, &["--group auto", "names none"]);
    let end = site("").arg("--group=auto").run("");
    refused(
        &end,
        1,
        &["--group auto", "`workgroup -q workgroups`", "No such file"],
    );
}

#[test]
fn variables_of_files_are_filled_in_and_those_of_the_line_are_not() {
    let script = "#!/bin/sh\necho \"$LIB, $SAME, $NONE, ${OLD-unset}, ${KEPT-unset}\"\n";
    let text = "env = LIB=$PREFIX/lib:${PREFIX}64:%u\nenv = NONE=[$NOT_SET]\n\
                unset-env = OLD\nunset-env = KEPT\nenv = KEPT=$KEPT\n";
    let program = site(text).stand_in("salloc", script);
    let program = program
        .env("PREFIX", "/opt")
        .env("OLD", "1")
        .env("KEPT", "2");
    assert_eq!(
        printed(program.args(["-e", "SAME=$PREFIX %u"])),
        "/opt/lib:/opt64:alice, $PREFIX %u, [], unset, 2\n"
    );
}

#[test]
fn the_jobs_name_is_the_sites_until_an_argument_names_another() {
    let program = site("job-name = code.%u\nsalloc-arg = --job-name=own\n");
    let end = program.run("");
    assert_eq!(
        end.stdout_text(),
        "<--kill-command><--job-name=code.alice><--job-name=own>\n"
    );
}

/// Shells that this machine has, each with the line that makes a variable of the environment.
fn shells() -> Vec<(&'static str, &'static str)> {
    let bourne = ["sh", "dash", "bash", "zsh", "ksh", "mksh"].map(|it| (it, "export STARTED=1"));
    let csh = ["csh", "tcsh"].map(|shell| (shell, "setenv STARTED 1"));
    let all = bourne.into_iter().chain(csh);
    all.filter(|(shell, _)| Path::new("/usr/bin").join(shell).exists())
        .collect()
}

#[test]
fn startup_commands_run_in_the_jobs_shell_and_the_client_sees_nothing_of_them() {
    for (shell, export) in shells() {
        // csh and tcsh leave the shell's own stdin to what they evaluate.
        let reads = if shell.ends_with("csh") {
            "cat < /dev/null"
        } else {
            "cat"
        };
        let program = site(&format!(
            "startup = {export}\n\
             startup = echo 'it  is' \"noise\"\n\
             startup = sh -c 'echo noisier >&2'\n\
             startup = {reads}\n\
             startup = printf 'no newline'\n"
        ));
        let program = program.logged().args(["--", shell]);
        let mut session = program.start();
        session.send("echo started: $STARTED\nexit 4\n");
        // csh reads to its end before it exits.
        session.end_stdin();
        let end = session.wait_for_code(4);
        assert_eq!(end.stdout_text(), "started: 1\n", "{shell}");
        assert_eq!(end.stderr_text(), "", "{shell}");
        for line in [
            "startup, stdout: it  is noise",
            "startup, stderr: noisier",
            "startup, stdout: no newline",
            "the startup commands have ended",
        ] {
            assert!(end.log.contains(line), "{shell}: {line:?} in {}", end.log);
        }
    }
}

#[test]
fn startup_commands_of_a_shell_that_traces_or_echoes_stay_unseen_too() {
    for option in ["-x", "-v", "-xv"] {
        let program = site("startup = echo noise\n").args(["--", "bash", option]);
        let mut session = program.start();
        session.send("echo mine\nexit 0\n");
        let end = session.wait_for_code(0);
        assert_eq!(end.stdout_text(), "mine\n", "{option}");
        let stderr = end.stderr_text();
        assert!(stderr.contains("echo mine"), "{option}: {stderr}");
        for ours in ["noise", "startup", "eval", "@"] {
            assert!(!stderr.contains(ours), "{option}: {ours} in {stderr}");
        }
    }
}

#[test]
fn startup_commands_end_where_stdout_and_stderr_are_one() {
    let program = site("startup = echo noise; echo more >&2\n");
    let program = program.args(["--", "sh", "-c", "exec bash 2>&1"]);
    let mut session = program.start();
    session.send("echo mine\nexit 0\n");
    let end = session.wait_for_code(0);
    assert_eq!(
        (end.stdout_text(), end.stderr_text()),
        ("mine\n".into(), String::new())
    );
}

#[test]
fn a_shell_that_ends_during_the_startup_commands_is_told_with_its_last_words() {
    let program = site("startup = echo no such module >&2; exit 3\n").args(["--", "bash"]);
    let mut session = program.start();
    let end = session.wait_for_code(3);
    assert_eq!(end.stdout_text(), "");
    let text = end.stderr_text();
    assert!(
        text.contains("stderr has ended during the startup commands"),
        "{text}"
    );
    assert!(text.contains("their last words: no such module"), "{text}");
}

#[test]
fn startup_commands_that_take_longer_than_a_minute_end_the_session_before_the_clients_first_byte() {
    let program = site("startup = sleep 55; echo waiting for x; sleep 600\n");
    let reached = program.path("reached");
    let mut session = program.args(["-v", "--", "bash"]).start();
    session.send(format!("touch {}\n", reached.display()));
    session.await_stderr("startup, stdout: waiting for x");
    session.await_stderr("have not ended within 60 s; their last words: waiting for x");
    let end = session.wait_for_code(1);
    assert_eq!(end.stdout_text(), "");
    session.assert_nothing_left();
    assert!(!reached.exists());
}

#[test]
fn startup_commands_are_lines_of_a_bounded_size() {
    let end = site("").arg("--startup=a\nb").run("");
    refused(&end, 2, &["--startup", "one line"]);
    let long = format!("startup = {}\n", "x".repeat(5000));
    let end = site(&long.repeat(2)).run("");
    refused(&end, 2, &[SITE, "line 2: startup", "8192 bytes"]);
}
