use super::*;
use proptest::prelude::*;

/// What comes out for `slices`, and the notices.
fn run<'a>(slices: impl IntoIterator<Item = &'a [u8]>) -> (String, Vec<Notice>) {
    let mut machine = Inbound::new();
    let (mut out, mut notices) = (Vec::new(), Vec::new());
    let mut drain = |machine: &mut Inbound, mut input: &[u8]| {
        while let Some(piece) = machine.next(&mut input) {
            match piece {
                InboundPiece::Bytes(bytes) => out.extend_from_slice(bytes),
                InboundPiece::Notice(notice) => notices.push(notice),
            }
        }
        assert!(input.is_empty() && machine.holds() <= LIMIT);
    };
    for slice in slices {
        drain(&mut machine, slice);
    }
    machine.end();
    drain(&mut machine, b"");
    assert_eq!(machine.holds(), 0);
    (String::from_utf8(out).unwrap(), notices)
}

fn check(input: &str, output: &str, notices: &[Notice]) {
    for step in [usize::MAX, 1, 2, 7] {
        let (out, said) = run(input.as_bytes().chunks(step.min(input.len().max(1))));
        assert_eq!(out, output, "in steps of {step}");
        assert_eq!(said, notices, "in steps of {step}: {input}");
    }
}

/// `[…]` is what becomes `0.0.0.0`; `{}` is where the option is added.
fn changes(script: &str, notices: &[Notice]) {
    let mut input = String::new();
    let mut output = String::new();
    for part in script.split_inclusive(['⟦', '⟧', '+']) {
        match part.chars().next_back() {
            Some('⟧') => {
                input.push_str(part.strip_suffix('⟧').unwrap());
                output.push_str("0.0.0.0");
                continue;
            }
            Some('+') => output.push_str(&format!("{} --on-host=0.0.0.0", &part[..part.len() - 1])),
            _ => output.push_str(part.strip_suffix('⟦').unwrap_or(part)),
        }
        input.push_str(part.strip_suffix(['⟦', '+']).unwrap_or(part));
    }
    check(&input, &output, notices);
}

fn untouched(script: &str) {
    check(script, script, &[]);
}

const START: &[Notice] = &[Notice::ServerStart];
const NO_TOKEN: &[Notice] = &[Notice::WithoutToken];

#[test]
fn exec_server_with_its_options_in_a_variable() {
    let rest = "VSCODE_CLI_REQUIRE_TOKEN=${TOKEN} \"$CLI_PATH\" command-shell ${LOG_LEVEL_FLAG} \
         ${RECONNECTION_FLAG} --cli-data-dir \"$CLI_DATA_DIR\" --parent-process-id $$ \
         ${LISTEN_ARGS} > \"$CLI_LOG_FILE\" 2>&1 < /dev/null &\n";
    for assignment in [
        "LISTEN_ARGS=\"--on-host=⟦127.0.0.1⟧ --on-port\"\n",
        "LISTEN_ARGS=\"--on-port --on-host=⟦127.0.0.1⟧\"\n",
        "LISTEN_ARGS='--on-host=⟦127.0.0.1⟧ --on-port'; X=1\n",
        "  LISTEN_ARGS=\"--on-host ⟦127.0.0.1⟧  --on-port\"\n",
        "if true; then LISTEN_ARGS=\"--on-port --on-host=⟦localhost⟧\"; fi\n",
        "export LISTEN_ARGS=\"--on-host=⟦::1⟧ --on-port=0\" # it's\n",
        "LISTEN_ARGS=\\\n\"--on-host=⟦127.0.0.1⟧ \\\n --on-port\"\n",
    ] {
        changes(assignment, START);
        changes(&format!("{assignment}{rest}"), &[START, START].concat());
    }
    changes(rest, START);
}

#[test]
fn exec_server_with_its_options_in_the_command() {
    for command in [
        "VSCODE_CLI_REQUIRE_TOKEN=ab-cd \"$CLI_PATH\" command-shell --cli-data-dir d \
         --parent-process-id $$ --on-port --on-host=⟦127.0.0.1⟧ &> \"$LOG\" &\n",
        "$CLI_PATH command-shell --on-host ⟦127.0.0.1⟧ --on-port\n",
        "'/home/u/.vscode-server/code-0ee08df0cf4527e40edc9aa28f4b5bd38bbff2b2' \\\n\
         \tcommand-shell --on-host=\"⟦127.0.0.1⟧\" --on-port &\n",
        "${CLI_PATH} command-shell --on-port \"--on-host=⟦127.0.0.1⟧\"&",
        "(\"$CLI_PATH\" command-shell --on-port --on-host=⟦127.0.0.1⟧)",
        "x; \"$CLI_PATH\" command-shell --on-port --on-host=⟦[::1]⟧ | cat; y",
        "\"$CLI_PATH\" command-shell --on-port --on-host=10.0.0.1 &\n",
        "\"$CLI_PATH\" command-shell --on-port --on-host=127.0.0.11 &\n",
        "\"$CLI_PATH\" command-shell --on-port --on-host=/127.0.0.1 &\n",
        "\"$CLI_PATH\" command-shell --on-port --on-host=127\".0.0.1\" &\n",
        "VSCODE_CLI_REQUIRE_TOKEN= VSCODE_CLI_REQUIRE_TOKEN=1 $CLI_PATH command-shell --on-port --on-host=⟦127.0.0.1⟧ &\n",
    ] {
        changes(command, START);
    }
}

#[test]
fn command_shell_without_a_host_gets_one() {
    for command in [
        "T=1 \"$CLI_PATH\" command-shell --on-port --x &> \"$LOG\" < /dev/null +&\n",
        "\"$CLI_PATH\" command-shell --on-port+\n",
        "\"$CLI_PATH\" command-shell --on-port+",
        "\"$CLI_PATH\" command-shell --on-port=0 +; x\n",
        "\"$CLI_PATH\" command-shell --on-port +&& x\n",
        "\"$CLI_PATH\" command-shell --on-port 2>&1 +| tee x\n",
        "\"$CLI_PATH\" command-shell --on-port \\\n --x \\\n+\n",
        "\"$CLI_PATH\" command-shell --on-port &>> x +&",
        "\"$CLI_PATH\" command-shell --on-port+&# it's\n",
        "\"$CLI_PATH\" command-shell --on-port --connection-token --on-host=x+\n",
    ] {
        changes(command, START);
    }
    check(
        "\"$CLI_PATH\" command-shell --on-port # x\n",
        "\"$CLI_PATH\" command-shell --on-port  --on-host=0.0.0.0 # x\n",
        START,
    );
    for command in [
        "\"$CLI_PATH\" command-shell --on-socket &\n",
        "\"$CLI_PATH\" command-shell $LISTEN_ARGS --on-port &\n",
    ] {
        check(command, command, START);
    }
}

#[test]
fn node_servers_of_every_product() {
    for command in [
        "\"$VSCH_SERVER_SCRIPT\" --start-server --host=⟦127.0.0.1⟧ --connection-token 1a \
         --port=0 &> \"$VSCH_LOGFILE\" < /dev/null &\n",
        "\"$SERVER_SCRIPT\" --start-server --host=⟦127.0.0.1⟧ --port 0 --connection-token=$T &\n",
        "$SERVER_SCRIPT --start-server --host ⟦127.0.0.1⟧ --port 0 > l 2>&1 &\n",
        "nohup ~/.cursor-server/bin/linux-x64/abc/bin/cursor-server --start-server \
         --host='⟦127.0.0.1⟧' --port 0&\n",
        "'/x y/codium-server' --start-server \\\n  --host=⟦127.0.0.1⟧\n",
        "\"$D/code-server-insiders\" --start-server --host=⟦127.0.0.1⟧ --host=⟦localhost⟧\n",
    ] {
        changes(command, START);
    }
}

#[test]
fn options_collected_for_a_node_server() {
    for line in [
        "$args=\"--start-server --host=⟦127.0.0.1⟧ --port=0\"\r\n",
        "args='--start-server --host=⟦127.0.0.1⟧'\n",
        "$args = \"--start-server --host=⟦127.0.0.1⟧ --port=0\"\n",
        "$args= '--start-server --port 0 --host ⟦127.0.0.1⟧'\n",
        "$args ='--start-server --host=⟦127.0.0.1⟧'\n",
    ] {
        changes(line, START);
    }
    untouched("$args=\"--serve --host=127.0.0.1\"\n");
    untouched("$args --start-server --host=127.0.0.1\n");
}

#[test]
fn a_server_without_a_token_is_left_as_it_is() {
    for command in [
        "$SERVER_SCRIPT --start-server --host=127.0.0.1 --without-connection-token --port=0 &\n",
        "$SERVER_SCRIPT --start-server --without-connection-token --host=127.0.0.1 &\n",
        "$SERVER_SCRIPT --start-server --host=127.0.0.1 --connection-token= --port=0 &\n",
        "$SERVER_SCRIPT --start-server --host=127.0.0.1 --connection-token=\"\"\n",
        "$SERVER_SCRIPT --start-server --host=127.0.0.1 --connection-token '' --port=0 &\n",
        "VSCODE_CLI_REQUIRE_TOKEN= \"$CLI_PATH\" command-shell --on-port --on-host=127.0.0.1 &\n",
        "VSCODE_CLI_REQUIRE_TOKEN=\"\" \"$CLI_PATH\" command-shell --on-port &\n",
        "$args=\"--start-server --host=127.0.0.1 --without-connection-token\"\n",
    ] {
        check(command, command, NO_TOKEN);
    }
}

#[test]
fn a_server_without_a_token_gets_back_what_its_options_were() {
    let assignment = "LISTEN_ARGS=\"--on-port --on-host=127.0.0.1\"\n";
    let changed = assignment.replace("127.0.0.1", "0.0.0.0");
    let command = |token, args| {
        format!("VSCODE_CLI_REQUIRE_TOKEN={token} \"$CLI_PATH\" command-shell --x=$Y {args} &\n")
    };
    let said = &[Notice::ServerStart, Notice::WithoutToken];
    for args in ["${LISTEN_ARGS}", "$LISTEN_ARGS"] {
        check(
            &format!("{assignment}{}", command("''", args)),
            &format!(
                "{changed}{}",
                command("''", "--on-host=127.0.0.1 --on-port")
            ),
            said,
        );
        check(&command("", args), &command("", args), NO_TOKEN);
    }
}

#[test]
fn the_same_text_elsewhere_is_data() {
    let start = "\"$SERVER_SCRIPT\" --start-server --host=127.0.0.1 --port=0 &";
    for script in [
        "jupyter lab --host=127.0.0.1 --port=0\n",
        "mydb --start-server --host=127.0.0.1\n",
        "echo \"$CLI_PATH\" command-shell --on-port --on-host=127.0.0.1\n",
        "echo \"Starting server with command $SERVER_SCRIPT --start-server --host=127.0.0.1\"\n",
        "LISTEN_ARGS=\"--on-host=127.0.0.1\"\n",
        "LISTEN_ARGS=\"--on-host=127.0.0.1 --on-portal\"\n",
        "MY_LISTEN_ARGS=\"--on-host=127.0.0.1 --on-port\"\n",
        "\"$SERVER_SCRIPT\" --host=127.0.0.1\n",
        "command-shell --on-port --on-host=127.0.0.1\n",
        "\"$CLI_PATH command-shell --on-host=127.0.0.1\"\n",
    ] {
        untouched(script);
    }
    for (before, after) in [
        ("cat > f <<EOF\n", "\nEOF\n"),
        ("cat > f << 'E F'; x <<-\"B\"\nA\nE F\n", "\n\t\tB\n"),
        ("cat <<EOF\nx\\\nEOF\n", "\nEOF\n"),
        ("cat <<'EOF'\nx\\\n", "\nEOF\n"),
        ("cat <<#E\n", "\n#E\n"),
        ("cat <<E-F\n", "\nE-F\n"),
        ("cat <<'a\nb' <<E\n", "\nE\n"),
        ("cat <<EOF\n", " \\\\\nEOF\n"),
        ("x=$(cat <<EOF\n", "\nEOF\n)\n"),
        ("echo 'a\n", "\n'\n"),
        ("# ", "\n"),
        ("x=$(echo \"`a`\" '\"'; ", "\n)\n"),
        ("printf %s $'it\\'s\n", "'\n"),
    ] {
        let data = format!("{before}{start}{after}");
        untouched(&data);
        changes(
            &format!("{data}{}", start.replace("127.0.0.1", "⟦127.0.0.1⟧")),
            START,
        );
    }
    // Not here-documents, not comments, not open quotes.
    for before in [
        "x <<< EOF\n",
        "echo $((1<<2))\n",
        "((x=1<<2))\n",
        "echo \"$((1<<2))\"\n",
        "echo a#'b'\n",
        "echo \"a << b\"\n",
        "# it's\n",
        "echo \\' \\\" x\\\\\n",
        "echo ${#x} $# '#'\n",
        "id=\"$(grep ID /etc/os-release | sed 's/\"//g')\"\n",
        "x=`echo \"'\"`\n",
        "case $x in a) echo ;; esac\n",
        "(( $(x) - '1' )); ",
        "&> f\n",
        "echo $$(x)\n",
        "> $(cat <<E\nE\n) ",
        "cat <<'E'\nx\\\nE\n",
        "f() { echo '}'; }\n",
        "echo \"it's\"\n",
        "echo $'\\''\n",
    ] {
        changes(
            &format!("{before}{}", start.replace("127.0.0.1", "⟦127.0.0.1⟧")),
            START,
        );
    }
}

#[test]
fn a_command_that_is_too_long_passes() {
    let long = format!(
        "$SERVER_SCRIPT --start-server --host=127.0.0.1 {}\n",
        "x ".repeat(9000)
    );
    check(&long, &long, &[Notice::TooLong]);
    let longest = format!(
        "$SERVER_SCRIPT --start-server --host=⟦127.0.0.1⟧ {}\n",
        "x ".repeat(8000)
    );
    changes(&longest, START);
}

#[test]
fn a_few_hosts_are_changed_and_more_are_nothing_recorded() {
    let host = "--host=⟦127.0.0.1⟧ ";
    let start = |count| {
        format!(
            "$SERVER_SCRIPT --start-server {}--port=0 &\n",
            host.repeat(count)
        )
    };
    changes(&start(MOST_PLACES), START);
    untouched(&start(MOST_PLACES + 1).replace(['⟦', '⟧'], ""));
}

#[test]
fn what_stands_for_a_host_is_no_other_option() {
    changes(
        "$SERVER_SCRIPT --start-server --host=⟦127.0.0.1⟧ --host=--without-connection-token &\n",
        START,
    );
}

#[test]
fn each_notice_says_what_became_of_the_server() {
    for (notice, is_start, words) in [
        (Notice::ServerStart, true, "recognised"),
        (Notice::WithoutToken, false, "without a token"),
        (Notice::TooLong, false, "unchanged"),
    ] {
        assert_eq!(notice.is_server_start(), is_start, "{notice:?}");
        assert!(notice.to_string().contains(words), "{notice}");
    }
}

#[test]
fn quiet_text_before_a_start_does_not_hide_it() {
    let start = "\"$SERVER_SCRIPT\" \\\n --start-server --host=⟦127.0.0.1⟧ --port=0\n";
    for filler in [
        "abcdefg\n",
        "abcdefg \\\n",
        &("abc ".repeat(2000) + "\n"),
        "\n",
    ] {
        let filler = filler.repeat(20_000usize.div_ceil(filler.len()));
        changes(&format!("{filler}\n{start}"), START);
    }
}

/// Found by the property below.
#[test]
fn what_opens_at_the_limit_of_quiet_is_read_on() {
    let text = "a".repeat(LIMIT - 1) + "((b))\n";
    untouched(&text);
}

/// Found by the property below: the comment shows that this is shell text.
#[test]
fn a_comment_before_quiet_text_counts() {
    let quiet = "ab c\n".repeat(QUIET as usize / 5);
    let start = "$SERVER_SCRIPT --start-server --host=127.0.0.1\n";
    untouched(&format!("# x\n{quiet}a((\n{start}"));
}

#[test]
fn what_nobody_listens_to_is_left_where_a_shell_would_leave_it() {
    let start = "\n$SERVER_SCRIPT --start-server --host=";
    for line in [
        "a `b # c`",
        "a `b # c`; d # e'",
        "a $(b) cd #'",
        // A quote within so many is too deep: all of it is forgotten with the line.
        &format!("a {}'", "$(".repeat(23)),
    ] {
        changes(&format!("{line}{start}⟦127.0.0.1⟧\n"), START);
    }
    let deep = format!("a {}'b' c", "$(".repeat(22));
    for line in ["a $(b) cd#'", "a `b # c", &deep] {
        untouched(&format!("{line}{start}127.0.0.1\n"));
    }
}

#[test]
fn an_escape_is_of_one_byte_where_nobody_listens_too() {
    let start = "\n$SERVER_SCRIPT --start-server --host=";
    for line in [
        "a $(b) \"c\\d\"",
        "a $(b \"c\\d\")",
        "a $(b) c\\d",
        "a $(b\\c 'd')",
    ] {
        changes(&format!("{line}{start}⟦127.0.0.1⟧\n"), START);
    }
}

/// Text that is quiet long enough is no longer read: a quote in it hides nothing.
#[test]
fn quiet_is_counted_from_the_last_sign_and_once_more_after_each() {
    let quiet = |length: usize| "\n".repeat(length);
    let begin = quiet(QUIET as usize) + "ab -c\n";
    for (before, sign) in [("", "a=$(b) c-"), ("", "a=$(b) '-'"), (&begin, "ab -c -")] {
        let text = |length| format!("{before}{sign}{}a \"\n$SERVER_SCRIPT", quiet(length));
        let start = " --start-server --host=";
        untouched(&format!("{}{start}127.0.0.1\n", text(QUIET as usize - 1)));
        changes(
            &format!("{}{start}⟦127.0.0.1⟧\n", text(QUIET as usize)),
            START,
        );
    }
}

#[test]
fn a_line_is_skipped_once_more_than_16_kib_of_it_are_quiet() {
    let start = "\n$SERVER_SCRIPT --start-server --host=";
    for (length, is_read) in [(LIMIT, true), (LIMIT + 1, false), (3 * LIMIT, false)] {
        let line = format!("-{}'", "a".repeat(length));
        match is_read {
            true => untouched(&format!("{line}{start}127.0.0.1\n")),
            false => changes(&format!("{line}{start}⟦127.0.0.1⟧\n"), START),
        }
    }
}

/// Of the line that a sign of shell syntax turns up in, so much is remembered.
#[test]
fn a_quiet_line_of_16_kib_is_read_again_and_a_longer_one_is_not() {
    let quiet = "ab c\n".repeat(QUIET as usize / 5 + 4);
    let line = |length: usize, begin: &str| format!("{begin}{}", " ".repeat(length - begin.len()));
    let (within, beyond) = (
        line(LIMIT, "$SERVER_SCRIPT"),
        line(LIMIT + 1, "$SERVER_SCRIPT"),
    );
    changes(
        &format!("{quiet}{within}--start-server --host=⟦127.0.0.1⟧\n"),
        START,
    );
    untouched(&format!("{quiet}{beyond}--start-server --host=127.0.0.1\n"));
    // The quote hides what follows where it is read.
    let (within, beyond, far) = (line(LIMIT, "a"), line(LIMIT + 1, "a"), line(3 * LIMIT, "a"));
    let start = "\n$SERVER_SCRIPT --start-server --host=";
    untouched(&format!("{quiet}{within}'{start}127.0.0.1\n"));
    changes(&format!("{quiet}{beyond}'{start}⟦127.0.0.1⟧\n"), START);
    changes(&format!("{quiet}{far}'{start}⟦127.0.0.1⟧\n"), START);
}

#[test]
fn a_quiet_line_goes_on_behind_an_escaped_newline_only() {
    let quiet = "ab c\n".repeat(QUIET as usize / 5 + 4);
    let long = "a".repeat(LIMIT - 8);
    let start = "$SERVER_SCRIPT --start-server --host=";
    for (end, joined) in [("", false), ("\\", true), ("\\\\", false), ("\\\\\\", true)] {
        let before = format!("{quiet}{long}{end}\n");
        match joined {
            true => untouched(&format!("{before}{start}127.0.0.1\n")),
            false => changes(&format!("{before}{start}⟦127.0.0.1⟧\n"), START),
        }
    }
}

#[test]
fn what_is_not_ours_passes_in_the_same_step() {
    for text in [
        "$ ",
        "-",
        "--on-host",
        "\"$CLI_PATH\" command-shell --on-port",
        "'",
        "cat <<E",
        "\\",
    ] {
        let mut machine = Inbound::new();
        let mut input = text.as_bytes();
        assert_eq!(
            machine.next(&mut input),
            Some(InboundPiece::Bytes(text.as_bytes()))
        );
        assert_eq!(machine.next(&mut input), None);
    }
}

/// Enough for the rare parts to meet; a second's worth.
const CASES: u32 = 4000;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]
    #[test]
    fn any_script_in_any_slices_becomes_what_the_reference_says(
        parts in proptest::collection::vec(part(), 0..24),
        cuts in proptest::collection::vec(any::<u8>(), 0..8),
        start in any::<bool>(),
    ) {
        let mut data = parts.concat().into_bytes();
        data.extend(&cuts);
        data.push(cuts.len() as u8 + if start { 128 } else { 0 });
        crate::testing::inbound::check(&data);
    }
}

/// Texts are long here, and so are the reference's vectors.
const LONG_CASES: u32 = 200;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(LONG_CASES))]
    #[test]
    fn the_limits_of_quiet_are_where_the_reference_has_them(
        before in proptest::collection::vec(part(), 0..4),
        quiet in proptest::sample::select(vec!["a", "ab c\n", "\n", "a; b &\n", " # "]),
        limit in proptest::sample::select(vec![QUIET as usize, LIMIT]),
        more in 0..12usize,
        behind in proptest::collection::vec(part(), 0..8),
        cuts in proptest::collection::vec(any::<u8>(), 0..4),
    ) {
        let quiet: String = quiet.chars().cycle().take(limit - 6 + more).collect();
        let mut data = (before.concat() + &quiet + &behind.concat()).into_bytes();
        data.extend(&cuts);
        data.push(128 + cuts.len() as u8);
        crate::testing::inbound::check(&data);
    }
}

fn part() -> impl Strategy<Value = String> {
    let words = [
        "\n",
        "\\",
        "\\\n",
        "\r\n",
        " ",
        "\t",
        "\"",
        "'",
        "`",
        "$(",
        ")",
        "(",
        "((",
        "))",
        "$",
        "$'",
        "#",
        ";",
        "&",
        "&>",
        "|",
        ">",
        "<",
        "<<",
        "<<<",
        "<<-E",
        "<<E",
        "<<'E' ",
        "E",
        "\nE\n",
        "=",
        "/",
        "{",
        "--host=",
        "--host ",
        "--on-host=",
        "--on-host ",
        "--on-port",
        "127.0.0.1",
        "localhost",
        "[::1]",
        "$SERVER_SCRIPT ",
        "\"$CLI_PATH\" ",
        "/x/code-server ",
        "--start-server ",
        "command-shell ",
        "--connection-token ",
        "--connection-token=",
        "--without-connection-token",
        "${LISTEN_ARGS} ",
        "LISTEN_ARGS=",
        "LISTEN_ARGS=\"--on-host=127.0.0.1 --on-port\"",
        "$args",
        "args=",
        "A=1 ",
        "nohup ",
        "VSCODE_CLI_REQUIRE_TOKEN=",
        "VSCODE_CLI_REQUIRE_TOKEN= ",
        "\0",
        "x",
        "$SERVER_SCRIPT --start-server --host=127.0.0.1 ",
        "\"$CLI_PATH\" command-shell --on-port ",
    ];
    prop_oneof![
        9 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned),
        1 => "[a-z1.=< ]{0,6}",
        1 => ("(ab c\n|ls -so \\$HOME\n|a -on |b-shel\n)", 3..16usize)
            .prop_map(|(plain, times)| plain.repeat(times)),
    ]
}

#[test]
fn after_the_announcement_everything_passes() {
    let mut machine = Inbound::new();
    let mut out = Vec::new();
    let mut pass = |machine: &mut Inbound, mut input: &[u8]| {
        while let Some(InboundPiece::Bytes(bytes)) = machine.next(&mut input) {
            out.extend_from_slice(bytes);
        }
    };
    let begun = "$SERVER_SCRIPT --start-server --host=127.0.0.1 --port";
    let rest = "=0\n$SERVER_SCRIPT --start-server --host=127.0.0.1\n";
    pass(&mut machine, begun.as_bytes());
    assert!(machine.holds() > 0);
    machine.pass_all();
    pass(&mut machine, rest.as_bytes());
    machine.end();
    pass(&mut machine, b"");
    assert_eq!(out.as_bstr(), format!("{begun}{rest}").as_str());
}
