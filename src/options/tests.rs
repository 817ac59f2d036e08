//! The command line as a whole: what it means, and how wrong use is explained.

use super::command_line::on_command_line;
use super::table::{TABLE, Value, spec};
use super::*;
use crate::testing::options::check;
use proptest::prelude::*;

fn request(line: &[&str]) -> Result<Request, UsageError> {
    parse(line.iter().map(OsString::from))
}

#[track_caller]
fn options(line: &[&str]) -> Options {
    match request(line) {
        Ok(Request::Run(options)) => *options,
        other => panic!("{line:?} gave {other:?}"),
    }
}

#[track_caller]
fn salloc(line: &[&str]) -> (Option<String>, Vec<String>) {
    match options(line).launch {
        LaunchChoice::Configured(it) => (it.workgroup.map(|name| name.to_string()), it.args),
        other => panic!("{line:?} launches {other:?}"),
    }
}

fn variable(name: &str, value: &str) -> Variable {
    Variable {
        name: name.to_owned(),
        value: Template::verbatim(value),
    }
}

#[test]
fn every_wrong_use_is_named_with_its_remedy() {
    for (line, message) in [
        (
            &["--frob"] as &[&str],
            "unknown option --frob: --help lists the options",
        ),
        (&["-x"], "unknown option -x: --help lists the options"),
        (&["-vx"], "unknown option -x: --help lists the options"),
        // A letter is no beginning of a name, though a single one begins with it.
        (&["-w"], "unknown option -w: --help lists the options"),
        (
            &["-\u{e9}"],
            "unknown option -\u{e9}: --help lists the options",
        ),
        (
            &["--a\nb"],
            "unknown option --a\\nb: --help lists the options",
        ),
        (
            &["--log"],
            "unknown option --log: --log-file has to be written out",
        ),
        (&["--tee"], "unknown option --tee: --help lists the options"),
        (
            &["--log-file"],
            "--log-file without its value: PATH is expected behind it",
        ),
        (&["-vl"], "-l without its value: PATH is expected behind it"),
        (&["-S"], "-S without its value: ARG is expected behind it"),
        (
            &["-e"],
            "-e without its value: NAME[=VALUE] is expected behind it",
        ),
        (
            &["--workgroup"],
            "--workgroup without its value: NAME is expected behind it",
        ),
        (
            &["-S", "--", "bash"],
            "-S without its value: ARG is expected behind it",
        ),
        (
            &["--verbose=3"],
            "--verbose with a value: it is a flag and takes none",
        ),
        (
            &["--self-test=yes"],
            "--self-test with a value: it is a flag and takes none",
        ),
        (
            &["bash"],
            "unexpected word \"bash\": options begin with -, and a COMMAND goes after --",
        ),
        (
            &["-v", "-", "--", "bash"],
            "unexpected word \"-\": options begin with -, and a COMMAND goes after --",
        ),
        (
            &[""],
            "unexpected word \"\": options begin with -, and a COMMAND goes after --",
        ),
        (
            &["-b", "0"],
            "--backlog \"0\": a whole number from 1 to 65535 is expected",
        ),
        (
            &["--backlog=65536"],
            "--backlog \"65536\": a whole number from 1 to 65535 is expected",
        ),
        (
            &["-b", "-1"],
            "--backlog \"-1\": a whole number from 1 to 65535 is expected",
        ),
        (
            &["-b", "many", "-b", "5"],
            "--backlog \"many\": a whole number from 1 to 65535 is expected",
        ),
        (
            &["-B", "511"],
            "--byte-limit \"511\": a whole number from 512 to 1048576 is expected",
        ),
        (
            &["-B", "1048577"],
            "--byte-limit \"1048577\": a whole number from 512 to 1048576 is expected",
        ),
        (
            &["-B", "64k"],
            "--byte-limit \"64k\": a whole number from 512 to 1048576 is expected",
        ),
        (
            &["-p", "65536"],
            "--listen-port \"65536\": a whole number from 0 to 65535 is expected",
        ),
        (
            &["-p", "99999999999999999999"],
            "--listen-port \"99999999999999999999\": a whole number from 0 to 65535 is expected",
        ),
        (
            &["-p", ""],
            "--listen-port \"\": a whole number from 0 to 65535 is expected",
        ),
        (&["-l", ""], "--log-file \"\": PATH must not be empty"),
        (
            &["-l", "-v"],
            "--log-file \"-v\": PATH is expected, and it must not begin with - \
             (a path may begin with ./)",
        ),
        (
            &["-1", "--self-test"],
            "--tee-stdout \"--self-test\": PATH is expected, and it must not begin with - \
             (a path may begin with ./)",
        ),
        (&["-H", ""], "--listen-host \"\": HOST must not be empty"),
        (&["-g="], "--group \"\": NAME must not be empty"),
        (
            &["--admit", "all"],
            "--admit \"all\": self, root or any is expected",
        ),
        (
            &["--admit-from", "10.0.0.0/33"],
            "--admit-from \"10.0.0.0/33\": a prefix from 0 to 32 is expected behind the /",
        ),
        (
            &["--admit-from", "login1"],
            "--admit-from \"login1\": a network such as 10.1.0.0/16 or fd00:1::/32, or an \
             address, is expected",
        ),
        (
            &["--admit-from", "10.1.2.3/16"],
            "--admit-from \"10.1.2.3/16\": bits are set behind the prefix; 10.1.0.0/16 is the \
             network",
        ),
        (
            &["--node-domain", "%n.org"],
            "--node-domain \"%n.org\": a domain is expected, such as cluster.example.org",
        ),
        (
            &["--node-address", "gateway"],
            "--node-address \"gateway\": %n or %N is expected in it, or it is the same for every node",
        ),
        (
            &["--node-address", "%h-ib"],
            "--node-address \"%h-ib\": behind % one of n, N and % is expected",
        ),
        (
            &["-e", "=x"],
            "--salloc-env \"=x\": NAME or NAME=VALUE is expected, with a NAME that is not empty",
        ),
        (
            &["-v", "--"],
            "nothing after --: a COMMAND is expected there (without --: salloc)",
        ),
        (
            &["--", "", "x"],
            "the COMMAND after -- is an empty word: a program's name is expected",
        ),
        (
            &["-g", "it", "--", "bash"],
            "--group \"it\" cannot be combined with the COMMAND \"bash\": it is for the \
                 configured command (salloc); put it into the COMMAND",
        ),
        (
            &["-S", "--x11", "--", "bash"],
            "--salloc-arg \"--x11\" cannot be combined with the COMMAND \"bash\": it is for \
                 the configured command (salloc); put it into the COMMAND",
        ),
    ] {
        match request(line) {
            Err(error) => assert_eq!(error.to_string(), message, "{line:?}"),
            Ok(request) => panic!("{line:?} gave {request:?}"),
        }
    }
}

#[test]
fn bytes_that_are_not_utf8_pass_only_in_a_command() {
    let raw = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    let error = parse(["-v".into(), raw(b"--log-file=\xff\n")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "argument 2, \"--log-file=\\xFF\\n\", is not UTF-8: only a COMMAND after -- may hold \
         any bytes"
    );
    let command = vec![raw(b"/bin/\xc0"), raw(b"\xff"), "--".into(), raw(b"")];
    let line = [vec!["-q".into(), "--".into()], command.clone()].concat();
    let Ok(Request::Run(options)) = parse(line) else {
        panic!("refused")
    };
    assert_eq!(options.launch, LaunchChoice::Command(command));
    assert_eq!(options.verbosity, Some(LevelFilter::Error));
}

#[test]
fn an_empty_line_gives_the_defaults_of_the_table() {
    assert_eq!(options(&[]), Options::default());
    for spec in TABLE {
        assert!(
            spec.default_in_words().starts_with(spec.built_in),
            "{}",
            spec.long
        );
    }
    assert!(spec("verbose").default_in_words().starts_with("warn"));
    let default = Options::default();
    assert_eq!(default.backlog, 8);
    assert_eq!(default.byte_limit, 256 * 1024);
    assert_eq!(default.listen_host, "127.0.0.1");
    assert_eq!(default.listen_port, 0);
    assert_eq!(default.admit, Admit::Own);
}

#[test]
fn letters_long_names_and_pythons_equals_sign_mean_the_same() {
    for spec in TABLE
        .iter()
        .filter(|spec| spec.value != Value::None && !spec.short.is_empty())
    {
        let value = match spec.value {
            Value::Number { max, .. } => max.to_string(),
            _ => "A=b".to_owned(),
        };
        let (short, long) = (spec.short, spec.long);
        let expected = options(&[&format!("--{long}"), &value]);
        assert_ne!(expected, Options::default(), "--{long}");
        for line in [
            vec![format!("-{short}"), value.clone()],
            vec![format!("-{short}{value}")],
            vec![format!("-{short}={value}")],
            vec![format!("--{long}={value}")],
        ] {
            let line: Vec<&str> = line.iter().map(String::as_str).collect();
            assert_eq!(options(&line), expected, "{line:?}");
        }
    }
}

#[test]
fn the_originals_remote_command_works() {
    let line = "-vvvv -g it_nss --salloc-arg=--partition=devel -S=--cpus-per-task=4 \
                -l /home/1001/.log.[PID] --tee-stdin=/home/1001/.in.[PID] -0 in -1 out -2 err";
    let options = options(&line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(options.verbosity, Some(LevelFilter::Trace));
    assert_eq!(options.tee_stdin, Some("in".into()));
    assert_eq!(options.tee_stdout, Some("out".into()));
    assert_eq!(options.tee_stderr, Some("err".into()));
    assert_eq!(
        expand_pid(&options.log_file.unwrap(), 42),
        Path::new("/home/1001/.log.42")
    );
    let (workgroup, args) = salloc(&line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(workgroup, Some("it_nss".into()));
    assert_eq!(args, ["--partition=devel", "--cpus-per-task=4"]);
}

#[test]
fn single_options_take_their_last_value_whatever_they_are_called() {
    assert_eq!(
        options(&["-p1", "--listen-port", "2", "-p=3"]).listen_port,
        3
    );
    assert_eq!(salloc(&["-g", "a", "--workgroup=b"]).0, Some("b".into()));
    assert_eq!(
        salloc(&["--workgroup=b", "--group", "c"]).0,
        Some("c".into())
    );
    assert_eq!(
        salloc(&["--group=c", "--workgroup=b", "-ga"]).0,
        Some("a".into())
    );
    assert_eq!(options(&["--admit=any", "--admit=self"]).admit, Admit::Own);
}

#[test]
fn repeatable_options_keep_their_order() {
    let (_, args) = salloc(&["-S", "-a", "-S=--b", "-Sc", "-S", "=d"]);
    assert_eq!(args, ["-a", "--b", "c", "=d"]);
    let env = options(&["-e", "A", "-e", "B=1=2", "--salloc-env=A=", "-e=C=x"]).env;
    let expected = [("A", ""), ("B", "1=2"), ("A", ""), ("C", "x")];
    assert_eq!(env, expected.map(|(name, value)| variable(name, value)));
    let from = options(&["--admit-from=10.0.0.0/8", "--admit-from", "fd00::1"]).admit_from;
    assert_eq!(
        from,
        ["10.0.0.0/8".parse().unwrap(), "fd00::1".parse().unwrap()]
    );
}

#[test]
fn an_empty_value_takes_back_what_a_repeatable_option_had() {
    let line = [
        "-S",
        "-a",
        "-e",
        "A=b",
        "--salloc-arg=",
        "-e=",
        "-S",
        "-b",
        "-e",
        "C",
    ];
    assert_eq!(salloc(&line).1, ["-b"]);
    assert_eq!(options(&line).env, [variable("C", "")]);
    let from = options(&["--admit-from=::1", "--admit-from", ""]).admit_from;
    assert_eq!(from, []);
}

#[test]
fn verbosity_counts_both_ways() {
    for (line, level) in [
        (&[] as &[&str], None),
        (&["-v"], Some(LevelFilter::Info)),
        (&["-vv"], Some(LevelFilter::Debug)),
        (&["-v", "--verbose", "-v"], Some(LevelFilter::Trace)),
        (&["-vvvvvvvv"], Some(LevelFilter::Trace)),
        (&["-q"], Some(LevelFilter::Error)),
        (&["-qq"], Some(LevelFilter::Off)),
        (&["-qqqqqq"], Some(LevelFilter::Off)),
        (&["-vq"], Some(LevelFilter::Warn)),
        (&["-qvv"], Some(LevelFilter::Info)),
    ] {
        assert_eq!(options(line).verbosity, level, "{line:?}");
    }
}

#[test]
fn help_and_version_come_before_values_and_go_to_stdout() {
    let Ok(Request::Print(text)) = request(&["-V", "-h", "-b", "0"]) else {
        panic!("no help")
    };
    for spec in on_command_line() {
        let letter = (!spec.short.is_empty()).then(|| format!("-{}", spec.short));
        let names = spec.names().map(|name| format!("--{name}"));
        let all = letter
            .into_iter()
            .chain(names)
            .collect::<Vec<_>>()
            .join(", ");
        let line = text
            .lines()
            .find(|line| line.trim_start().starts_with(&all));
        assert!(
            line.is_some_and(|line| line.contains(spec.value.name())),
            "{all}"
        );
    }
    assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    let untidy = text.lines().find(|line| *line != line.trim_end());
    assert_eq!(untidy, None);
    let version = format!("vscode-shell-proxy {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(request(&["--version"]), Ok(Request::Print(version)));
}

#[test]
fn self_test_hands_on_all_but_itself() {
    let line = ["--self-test", "-v", "-S", "--x11", "-e", "A=b"];
    let Ok(Request::SelfTest(options, again)) = request(&line) else {
        panic!("no self-test")
    };
    assert_eq!(parse(again), Ok(Request::Run(options.clone())));
    assert_eq!(
        parse(line[1..].iter().map(OsString::from)),
        Ok(Request::Run(options))
    );
}

#[test]
fn pid_is_expanded_wherever_it_stands() {
    let expand = |path: &str| expand_pid(Path::new(path), 7);
    assert_eq!(expand("/a/[PID]/b.[PID]"), Path::new("/a/7/b.7"));
    assert_eq!(expand("[pid] [PID"), Path::new("[pid] [PID"));
}

prop_compose! {
    fn any_setting()(
        spec in prop::sample::select(on_command_line().collect::<Vec<_>>()),
        value in "[^\0]{0,12}",
    ) -> Setting {
        Setting {
            spec,
            name: spec.long,
            value: if spec.value == Value::None { Setting::SET.to_owned() } else { value },
            origin: Origin::CommandLine,
        }
    }
}

prop_compose! {
    fn any_line()(
        settings in prop::collection::vec(any_setting(), 0..8),
        command in proptest::option::of(prop::collection::vec(
            prop::collection::vec(1..=255u8, 0..8), 0..4
        )),
    ) -> CommandLine {
        let words = |words: Vec<_>| words.into_iter().map(OsString::from_vec).collect();
        CommandLine { settings: settings.into_iter().collect(), command: command.map(words) }
    }
}

proptest! {
    #[test]
    fn a_printed_line_is_read_back(line in any_line()) {
        prop_assert_eq!(CommandLine::read(line.to_args()), Ok(line));
    }

    #[test]
    fn arbitrary_words_give_options_or_one_line(data: Vec<u8>) {
        check(&data);
    }

    #[test]
    fn likely_words_give_options_or_one_line(words in prop::collection::vec(prop::sample::select(vec![
        "-v", "-q", "-l", "-S", "-S=", "-S=-S==", "-g", "--workgroup=", "-e", "A=", "=", "-",
        "--", "--admit-from=::/0", "-b7", "-B", "600", "--self-test", "-\u{e9}", "--\u{e9}", "\u{fe}",
    ]), 0..8)) {
        check(words.join("\0").as_bytes());
    }
}

#[test]
fn a_stanza_repeats_the_line_without_itself() {
    let line = [
        "--ssh-config",
        "gpu",
        "-S",
        "--gres=gpu:1",
        "-v",
        "--self-test",
    ];
    let Ok(Request::Stanza(stanza)) = request(&line) else {
        panic!("no stanza")
    };
    assert_eq!(
        stanza.args,
        ["--salloc-arg=--gres=gpu:1", "--verbose"].map(OsString::from)
    );
    let again = parse(stanza.args.clone());
    assert!(matches!(again, Ok(Request::Run(_))), "{again:?}");
}

#[test]
fn for_those_who_want_no_file_what_the_site_locks_is_left_of_it() {
    for (text, left) in [
        (
            "lock = backlog\nbacklog = 9\nadmit = root\n[profile a]\nbacklog = 3\n",
            "lock = backlog\nbacklog = 9\n",
        ),
        (
            "lock = profile\nlock = backlog\nadmit = root\n\
             [profile a]\nbacklog = 3\nadmit = any\n[profile b]\nadmit = any\n",
            "lock = profile\nlock = backlog\n\n[profile a]\nbacklog = 3\n\n[profile b]\n",
        ),
        ("enabled = no\nbacklog = 9\n[profile a]\n", "enabled = no\n"),
    ] {
        let file = ConfigFile::read(Path::new("conf"), Whose::Site, text.as_bytes());
        assert_eq!(file.unwrap().without_what_is_free().to_string(), left);
    }
}

#[test]
fn a_wrong_value_is_found_in_a_profile_that_nobody_chose() {
    let read = |line: &str| {
        let text = format!("[profile a]\n{line}\n");
        ConfigFile::read(Path::new("conf"), Whose::Site, text.as_bytes())
    };
    for (line, why) in [
        (
            "backlog = 0",
            "backlog \"0\": a whole number from 1 to 65535 is expected",
        ),
        (
            "admit = all",
            "admit \"all\": self, root or any is expected",
        ),
        ("verbose = 3", "verbose \"3\": yes or no is expected"),
        ("enabled = 1", "enabled \"1\": yes or no is expected"),
        (
            "lock = message",
            "lock \"message\": the name of an option that others could set is expected",
        ),
    ] {
        let error = read(line).unwrap_err().to_string();
        assert_eq!(error, format!("conf, line 2: {why}"));
    }
    for line in [
        "backlog = 1",
        "backlog =",
        "admit = any",
        "verbose = false",
        "enabled = no",
        "lock = env",
    ] {
        assert!(read(line).is_ok(), "{line}");
    }
}

#[test]
fn startup_commands_are_lines_and_fit_into_a_pipe_together() {
    let half = "x".repeat(4096);
    let line = ["--startup", &half, "--startup", &half];
    assert_eq!(options(&line).startup, [half.as_str(), &half]);
    let error = request(&[&line[..], &["--startup", "y"]].concat()).unwrap_err();
    let why = "all of them together may have 8192 bytes; put them into a file";
    assert_eq!(error.to_string(), format!("--startup \"y\": {why}"));
    for text in ["a\nb", "a\r", "\0"] {
        let error = request(&["--startup", text]).unwrap_err().to_string();
        assert!(error.ends_with(": one line is expected"), "{error}");
    }
}

#[test]
fn variables_are_unset_by_their_names() {
    let names = options(&["--unset-env", "A", "--unset-env=B"]).unset_env;
    assert_eq!(names, ["A", "B"]);
    let error = request(&["--unset-env=A=b"]).unwrap_err().to_string();
    assert_eq!(error, "--unset-env \"A=b\": a NAME alone is expected");
}
