//! Client to shell: the commands that start a server.
//!
//! Everything passes as it comes. Only from a loopback address on, given to a server's host option
//! in a command that has a recorded shape so far, or from the end of the word `command-shell`, is
//! the rest of the line held until the line is whole and can be decided. For that decision the part
//! of the line that has passed is remembered. Lines of here-documents are data, and pass.
//!
//! A line means a logical one: `\` before the newline continues it.

use std::collections::VecDeque;

use bstr::ByteSlice;

use super::heredoc::Heredocs;
use super::recognise::{self, Edit};
use super::shell;
use super::words::{COMMAND_SHELL, LOOPBACK};

/// Most bytes of a line that are remembered and held, together.
const LIMIT: usize = 16 * 1024;
/// Enough of what has passed to find a needle that lies across two slices.
const TAIL: usize = COMMAND_SHELL.len();

/// Something that was learnt; it carries nothing of the script, which holds secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A command that starts a server, or sets the options for it, was recognised.
    ServerStart,
    /// Such a command starts a server without a token; it was left as it is.
    WithoutToken,
    /// A line that may have been such a command is longer than can be held; it passed as it is.
    TooLong,
}

impl Notice {
    /// Whether it says that a server's start was recognised.
    pub fn is_server_start(self) -> bool {
        self == Self::ServerStart
    }
}

impl std::fmt::Display for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ServerStart => "recognised the start of a server",
            Self::WithoutToken => {
                "a server is started without a token; it stays on its node's loopback, where it \
                 cannot be reached from here: on all interfaces it would be an open shell for the \
                 cluster"
            }
            Self::TooLong => {
                "a command that may start a server is longer than 16 KiB; it is passed on unchanged"
            }
        })
    }
}

/// One step's answer.
#[derive(Debug, PartialEq, Eq)]
pub enum InboundPiece<'a> {
    /// Bytes for the shell.
    Bytes(&'a [u8]),
    /// Something for the log.
    Notice(Notice),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Looking for what a server's start begins with.
    Passing,
    /// The same, in a line that has a `<<`.
    Watching,
    /// What may become a loopback address is held.
    Suspecting,
    /// The rest of the line is held.
    Holding,
    /// `out` is on its way.
    Releasing,
    /// Nothing is ours any more.
    Over,
}

/// The machine. It remembers and holds at most 16 KiB.
#[derive(Clone, Debug)]
pub struct Inbound {
    state: State,
    /// What has passed of the line that is not over, unless it is too long.
    line: Vec<u8>,
    too_long: bool,
    held: Vec<u8>,
    out: Vec<u8>,
    heredocs: Heredocs,
    listen_args: Option<Vec<u8>>,
    notices: VecDeque<Notice>,
    /// Nothing is ours behind what is being released.
    ends: bool,
}

/// What begins at some place of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trigger {
    /// A loopback address, or its beginning, which may have to change.
    Address,
    /// The rest of a command that may have to change.
    Rest,
    /// What stands behind a `<<`.
    Heredoc,
}

impl Default for Inbound {
    fn default() -> Self {
        Self::new()
    }
}

impl Inbound {
    /// A machine at the beginning of a stream.
    pub fn new() -> Self {
        Self {
            state: State::Passing,
            line: Vec::new(),
            too_long: false,
            held: Vec::new(),
            out: Vec::new(),
            heredocs: Heredocs::default(),
            listen_args: None,
            notices: VecDeque::new(),
            ends: false,
        }
    }

    /// The next piece; `None` when `input` is used up.
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Option<InboundPiece<'s>> {
        loop {
            if let Some(notice) = self.notices.pop_front() {
                return Some(InboundPiece::Notice(notice));
            }
            match self.state {
                State::Releasing => {
                    self.state = if self.ends {
                        State::Over
                    } else {
                        State::Passing
                    };
                    if !self.out.is_empty() {
                        return Some(InboundPiece::Bytes(&self.out));
                    }
                }
                _ if input.is_empty() => return None,
                State::Over => return Some(InboundPiece::Bytes(std::mem::take(input))),
                State::Passing | State::Watching => {
                    let passed = self.pass(input);
                    let (passed, rest) = input.split_at(passed);
                    *input = rest;
                    if !passed.is_empty() {
                        return Some(InboundPiece::Bytes(passed));
                    }
                }
                State::Suspecting => self.suspect(input),
                State::Holding => self.hold(input),
            }
        }
    }

    /// The stream has ended: what is held is decided on, and comes out with the next pieces.
    pub fn end(&mut self) {
        if matches!(self.state, State::Suspecting | State::Holding) {
            self.decide();
        }
    }

    /// From now on nothing is ours: what is held comes out unchanged, and everything passes.
    pub fn pass_all(&mut self) {
        self.line = Vec::new();
        self.out = match self.state {
            State::Suspecting | State::Holding => std::mem::take(&mut self.held),
            State::Releasing => std::mem::take(&mut self.out),
            _ => Vec::new(),
        };
        self.held = Vec::new();
        self.ends = true;
        self.state = State::Releasing;
    }

    /// How many bytes are remembered or held.
    pub fn holds(&self) -> usize {
        self.line.len() + self.held.len()
    }

    /// How many bytes from the front of `input` pass, up to where something may be ours.
    fn pass(&mut self, input: &[u8]) -> usize {
        let mut at = 0;
        while at < input.len() {
            let rest = &input[at..];
            if self.heredocs.is_open() {
                let line = &rest[..line_length(rest)];
                self.pass_body(line);
                at += line.len();
                continue;
            }
            let length = if self.state == State::Watching {
                line_length(rest)
            } else {
                rest.len()
            };
            let text = &rest[..length];
            let Some((length, trigger)) = self.trigger(text) else {
                self.remember(text);
                at += length;
                continue;
            };
            self.remember(&text[..length]);
            at += length;
            self.state = match trigger {
                Trigger::Heredoc => State::Watching,
                Trigger::Rest => State::Holding,
                Trigger::Address => State::Suspecting,
            };
            if trigger != Trigger::Heredoc {
                return at;
            }
        }
        at
    }

    fn pass_body(&mut self, line: &[u8]) {
        let room = Heredocs::LINE.saturating_sub(self.line.len());
        self.line.extend_from_slice(&line[..line.len().min(room)]);
        if line.ends_with(b"\n") {
            if line.len() > room {
                self.line.clear();
            } else {
                self.heredocs.line(&self.line);
                self.line.clear();
            }
        }
    }

    /// The first thing in `text`, which continues the remembered line, that may be ours.
    fn trigger(&self, text: &[u8]) -> Option<(usize, Trigger)> {
        let heredoc = match self.state {
            State::Watching => None,
            _ => self.ends(text, b"<<").next(),
        };
        let all = [
            self.addresses(text).map(|at| (at, Trigger::Address)),
            self.commands(text).map(|at| (at, Trigger::Rest)),
            heredoc.map(|at| (at, Trigger::Heredoc)),
        ];
        all.into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// The end of the word `command-shell` in a command that may start a server.
    fn commands(&self, text: &[u8]) -> Option<usize> {
        self.ends(text, COMMAND_SHELL)
            .find(|end| self.may_start(&text[..*end]))
    }

    /// A loopback address, or at the end of `text` the beginning of one, given to a host option in
    /// a command that may start a server.
    fn addresses(&self, text: &[u8]) -> Option<usize> {
        let begun = (1..LOOPBACK.len()).rev().map(|length| &LOOPBACK[..length]);
        let begun = begun
            .filter(|begun| text.ends_with(begun))
            .map(|begun| text.len() - begun.len());
        text.find_iter(LOOPBACK)
            .chain(begun)
            .find(|at| self.is_host_option(&text[..*at]) && self.may_start(&text[..*at]))
    }

    /// Whether what stands before an address is an option for a host.
    fn is_host_option(&self, text: &[u8]) -> bool {
        const SEPARATORS: &[u8] = b"= \t\"'\\\r\n";
        let before = [
            &self.line[self.line.len().saturating_sub(64)..],
            &text[text.len().saturating_sub(64)..],
        ]
        .concat();
        let option =
            before.trim_end_with(|c| u8::try_from(c).is_ok_and(|b| SEPARATORS.contains(&b)));
        option.len() < before.len() && option.ends_with(b"host")
    }

    fn may_start(&self, text: &[u8]) -> bool {
        let line = match line_start(&self.line, text) {
            Some(start) => text[start..].to_vec(),
            None if self.too_long => return false,
            None => [&self.line, text].concat(),
        };
        line.len() <= LIMIT && recognise::may_start(&line)
    }

    /// The ends of `needle` in `text`, also of one that began in the remembered line.
    fn ends<'t>(&self, text: &'t [u8], needle: &'static [u8]) -> impl Iterator<Item = usize> + 't {
        let before = &self.line[self.line.len().saturating_sub(TAIL.min(needle.len() - 1))..];
        let window = [before, &text[..text.len().min(needle.len() - 1)]].concat();
        let across = window
            .find(needle)
            .map(|at| at + needle.len() - before.len());
        across
            .into_iter()
            .chain(text.find_iter(needle).map(move |at| at + needle.len()))
    }

    /// `text` has passed.
    fn remember(&mut self, text: &[u8]) {
        let start = line_start(&self.line, text);
        if let Some(start) = start {
            if self.state == State::Watching {
                self.append(&text[..start]);
                let line = std::mem::take(&mut self.line);
                self.open_heredocs(&line);
                self.state = State::Passing;
            }
            self.line.clear();
            self.too_long = false;
        }
        self.append(&text[start.unwrap_or(0)..]);
    }

    fn append(&mut self, text: &[u8]) {
        self.too_long |= self.line.len() + text.len() > LIMIT;
        self.line.extend_from_slice(text);
        if self.too_long {
            forget(&mut self.line);
        }
    }

    fn open_heredocs(&mut self, line: &[u8]) {
        if !self.too_long {
            for at in shell::cut(line).heredocs {
                self.heredocs.open(line, at);
            }
        }
    }

    /// Takes from `input` what continues the address that is held in part; lets it go where it is
    /// another one.
    fn suspect(&mut self, input: &mut &[u8]) {
        while let Some((byte, rest)) = input.split_first() {
            if self.held.len() == LOOPBACK.len() {
                self.state = State::Holding;
                return;
            }
            if LOOPBACK[self.held.len()] != *byte {
                let held = std::mem::take(&mut self.held);
                self.append(&held);
                self.out = held;
                self.state = State::Releasing;
                return;
            }
            self.held.push(*byte);
            *input = rest;
        }
    }

    /// Takes the rest of the line from `input`; decides when it is whole.
    fn hold(&mut self, input: &mut &[u8]) {
        while !input.is_empty() {
            let (line, rest) = input.split_at(line_length(input));
            if self.holds() + line.len() > LIMIT {
                self.notices.push_back(Notice::TooLong);
                self.too_long = true;
                self.out = std::mem::take(&mut self.held);
                self.line.extend_from_slice(&self.out);
                forget(&mut self.line);
                self.state = State::Releasing;
                return;
            }
            self.held.extend_from_slice(line);
            *input = rest;
            if self.held.ends_with(b"\n") && !is_continued(&self.held[..self.held.len() - 1]) {
                return self.decide();
            }
        }
    }

    /// The line is whole: changes what has to change.
    fn decide(&mut self) {
        let passed = self.line.len();
        let mut line = std::mem::take(&mut self.line);
        line.append(&mut self.held);
        let cut = shell::cut(&line);
        let verdict = recognise::recognise(&line, &cut.commands, self.listen_args.as_deref());
        for at in cut.heredocs {
            self.heredocs.open(&line, at);
        }
        if verdict.without_token {
            self.notices.push_back(Notice::WithoutToken);
        }
        if verdict.starts {
            self.notices.push_back(Notice::ServerStart);
        }
        if verdict.listen_args.is_some() {
            self.listen_args = verdict.listen_args;
        }
        self.out = edited(&line, passed, &verdict.edits);
        self.state = State::Releasing;
    }
}

/// `line` from `start` on, with `edits`.
fn edited(line: &[u8], start: usize, edits: &[Edit]) -> Vec<u8> {
    let mut out = Vec::with_capacity(line.len() - start + 32);
    let mut at = start;
    for edit in edits.iter().filter(|edit| edit.at.start >= start) {
        out.extend_from_slice(&line[at..edit.at.start]);
        out.extend_from_slice(&edit.with);
        at = edit.at.end;
    }
    out.extend_from_slice(&line[at..]);
    out
}

/// The length of the first physical line in `text`, with its newline.
fn line_length(text: &[u8]) -> usize {
    text.find_byte(b'\n').map_or(text.len(), |at| at + 1)
}

/// Whether a newline behind `line` continues it.
fn is_continued(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let backslashes = line.iter().rev().take_while(|byte| **byte == b'\\').count();
    backslashes % 2 == 1
}

/// Leaves of a line that is too long only what decides whether a newline continues it.
fn forget(line: &mut Vec<u8>) {
    let (continued, returns) = (is_continued(line), line.ends_with(b"\r"));
    line.clear();
    line.extend(continued.then_some(b'\\'));
    line.extend(returns.then_some(b'\r'));
}

/// Where the logical line that `text` ends with begins in it; `None` where it began in `before`,
/// which `text` continues.
fn line_start(before: &[u8], text: &[u8]) -> Option<usize> {
    let mut end = text.len();
    while let Some(at) = text[..end].rfind_byte(b'\n') {
        let continued = if text[..at].iter().all(|byte| b"\\\r".contains(byte)) {
            is_continued(&[before, &text[..at]].concat())
        } else {
            is_continued(&text[..at])
        };
        if !continued {
            return Some(at + 1);
        }
        end = at;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn through(slices: &[&[u8]]) -> (Vec<u8>, Vec<Notice>) {
        let (mut machine, mut out, mut notices) = (Inbound::new(), Vec::new(), Vec::new());
        for slice in slices.iter().copied().map(Some).chain([None]) {
            let mut input = slice.unwrap_or_default();
            if slice.is_none() {
                machine.end();
            }
            while let Some(piece) = machine.next(&mut input) {
                match piece {
                    InboundPiece::Bytes(bytes) => out.extend_from_slice(bytes),
                    InboundPiece::Notice(notice) => notices.push(notice),
                }
                assert!(machine.holds() <= LIMIT);
            }
            assert!(input.is_empty());
        }
        (out, notices)
    }

    fn becomes(text: &str, expected: &str) {
        let (out, notices) = through(&[text.as_bytes()]);
        assert_eq!(out.as_bstr(), expected, "{text:?}");
        assert!(notices.contains(&Notice::ServerStart), "{text:?}");
    }

    fn stays(text: &str) {
        assert_eq!(through(&[text.as_bytes()]).0.as_bstr(), text);
    }

    /// Every recorded form with a loopback address in it.
    const REWRITTEN: [&str; 15] = [
        "LISTEN_ARGS=\"--on-host=127.0.0.1 --on-port\"\n",
        "LISTEN_ARGS='--on-port --on-host=127.0.0.1'\n",
        "  LISTEN_ARGS=\"--on-port --on-host 127.0.0.1\"; x\n",
        "VSCODE_CLI_REQUIRE_TOKEN=abc \"$CLI_PATH\" command-shell --cli-data-dir d --parent-process-id $$ --on-port --on-host=127.0.0.1 &> l < /dev/null &\n",
        "\"$CLI_PATH\" command-shell --on-host=\"127.0.0.1\" --on-port\n",
        "~/.vscode-server/code-0123 command-shell --on-host '127.0.0.1' --on-port\n",
        "\"$VSCH_SERVER_SCRIPT\" --start-server --host=127.0.0.1 --port=0 --connection-token=x &> \"$L\" < /dev/null &\n",
        "if true; then $SERVER_SCRIPT --start-server --host 127.0.0.1 --port 0; fi\n",
        "\"$SERVER_SCRIPT\" --start-server \\\n  --host=127.0.0.1 \\\n --port 0 > x 2>&1 &\n",
        "/home/u/.cursor-server/bin/cursor-server --start-server\t--host   127.0.0.1\n",
        "args=\"--start-server --host=127.0.0.1 --port=0\"\n",
        "$args=\"--start-server --host=127.0.0.1\"\n",
        "$args = \"--start-server --host=127.0.0.1\"\r\n",
        "cat <<EOF; \"$S\" --start-server --host=127.0.0.1\nEOF\n",
        "( nohup \"$S\" --start-server --host=127.0.0.1 )",
    ];

    #[test]
    fn every_recorded_form_is_rewritten() {
        for text in REWRITTEN {
            becomes(text, &text.replace("127.0.0.1", "0.0.0.0"));
        }
    }

    #[test]
    fn a_command_shell_that_would_bind_loopback_by_default_gets_the_option() {
        becomes(
            "\"$CLI_PATH\" command-shell --on-port --x > l &\n",
            "\"$CLI_PATH\" command-shell --on-port --on-host=0.0.0.0 --x > l &\n",
        );
        for text in [
            "\"$CLI_PATH\" command-shell ${LISTEN_ARGS} > l &\n",
            "\"$CLI_PATH\" command-shell $LISTEN_ARGS --on-port\n",
            "\"$CLI_PATH\" command-shell --on-host=0.0.0.0 --on-port\n",
            "\"$CLI_PATH\" command-shell --on-socket\n",
        ] {
            becomes(text, text);
        }
    }

    #[test]
    fn the_same_characters_elsewhere_stay() {
        for text in [
            "jupyter lab --host=127.0.0.1\n",
            "jupyter --start-server --host=127.0.0.1\n",
            "grep -- '--start-server --host=127.0.0.1' f\n",
            "echo command-shell --on-port\n",
            "\"$S\" --start-server --host=127.0.0.10\n",
            "\"$S\" --start-server --bind=127.0.0.1 --host=127.0.0.1x\n",
            "\"$S\" --start-server; jupyter --host=127.0.0.1\n",
            "# \"$S\" --start-server --host=127.0.0.1\n",
            "cat > f <<'END'\n\"$S\" --start-server --host=127.0.0.1\nEND\n",
            "cat <<-A <<B\n\tA\n\"$S\" --start-server --host=127.0.0.1\nB\n",
            "OTHER_ARGS=\"--on-host=127.0.0.1\"\n",
        ] {
            stays(text);
        }
        becomes(
            "cat <<E\nE\n$S --start-server --host=127.0.0.1",
            "cat <<E\nE\n$S --start-server --host=0.0.0.0",
        );
    }

    #[test]
    fn a_server_without_a_token_stays_on_loopback() {
        for text in [
            "\"$S\" --start-server --host=127.0.0.1 --without-connection-token\n",
            "\"$S\" --start-server --host=127.0.0.1 --connection-token= --port=0\n",
            "\"$S\" --start-server --host=127.0.0.1 --connection-token \"\"\n",
            "VSCODE_CLI_REQUIRE_TOKEN= \"$C\" command-shell --on-port --on-host=127.0.0.1\n",
            "VSCODE_CLI_REQUIRE_TOKEN='' \"$C\" command-shell --on-port\n",
            "args=\"--start-server --host=127.0.0.1 --without-connection-token\"\n",
        ] {
            stays(text);
            assert_eq!(
                through(&[text.as_bytes()]).1,
                [Notice::WithoutToken],
                "{text:?}"
            );
        }
        let (out, _) = through(&[b"LISTEN_ARGS=\"--on-host=127.0.0.1 --on-port\"\nVSCODE_CLI_REQUIRE_TOKEN=\"\" \"$C\" command-shell ${LISTEN_ARGS} &\n"]);
        assert!(out.ends_with(b"command-shell --on-host=127.0.0.1 --on-port &\n"));
    }

    #[test]
    fn nothing_but_a_possible_address_is_delayed() {
        for text in [
            "$S --start-server --host=",
            "x --host=127.0.0.1",
            "--host=1",
            "-",
            "command-shell",
            "<<",
        ] {
            let mut input = text.as_bytes();
            let mut machine = Inbound::new();
            assert_eq!(
                machine.next(&mut input),
                Some(InboundPiece::Bytes(text.as_bytes()))
            );
        }
        let (mut machine, mut input) = (Inbound::new(), b"$S --start-server --host=12".as_slice());
        assert_eq!(
            machine.next(&mut input),
            Some(InboundPiece::Bytes(b"$S --start-server --host="))
        );
        assert_eq!(machine.next(&mut input), None);
        input = b"8";
        assert_eq!(machine.next(&mut input), Some(InboundPiece::Bytes(b"12")));
        assert_eq!(machine.next(&mut input), Some(InboundPiece::Bytes(b"8")));
    }

    #[test]
    fn a_command_that_is_too_long_passes_with_a_notice() {
        let text = format!("$S --start-server --host=127.0.0.1 {}\n", "x".repeat(LIMIT));
        assert_eq!(
            through(&[text.as_bytes()]),
            (text.clone().into_bytes(), vec![Notice::TooLong])
        );
    }

    #[test]
    fn after_the_announcement_everything_passes_at_once() {
        let mut machine = Inbound::new();
        let mut input: &[u8] = b"$S --start-server --host=127.0.0.1";
        while machine.next(&mut input).is_some() {}
        machine.pass_all();
        assert_eq!(
            machine.next(&mut input),
            Some(InboundPiece::Bytes(b"127.0.0.1"))
        );
        input = b"$S --start-server --host=127.0.0.1";
        assert_eq!(
            machine.next(&mut input),
            Some(InboundPiece::Bytes(b"$S --start-server --host=127.0.0.1"))
        );
    }

    fn part() -> impl Strategy<Value = String> {
        prop_oneof![
            proptest::sample::select(REWRITTEN.as_slice()).prop_map(str::to_owned),
            proptest::sample::select(vec![
                "\n",
                "\\",
                "\\\n",
                "\r\n",
                " ",
                "\"",
                "'",
                "#",
                "<<",
                "<<-E",
                "E",
                "E\n",
                "--host=",
                "127.0.0.1",
                "--on-host ",
                "$S --start-server ",
                "command-shell",
                " --on-port",
                "; ",
                "\0",
            ])
            .prop_map(str::to_owned),
            "[a-z1.=<]{0,6}",
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        #[test]
        fn any_split_gives_the_same(
            parts in proptest::collection::vec(part(), 0..12),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..10),
        ) {
            let text = parts.concat().into_bytes();
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            ends.sort_unstable();
            let mut slices = Vec::new();
            let mut start = 0;
            for end in ends.into_iter().chain([text.len()]) {
                slices.push(&text[start..end]);
                start = end;
            }
            prop_assert_eq!(through(&slices), through(&[&text]));
            let bytes: Vec<&[u8]> = text.chunks(1).collect();
            prop_assert_eq!(through(&bytes), through(&[&text]));
        }
    }
}
