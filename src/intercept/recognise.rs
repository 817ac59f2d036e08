//! Which commands start a server, and what has to change in them: the recorded shapes of the
//! protocol, and nothing else.

use std::ops::Range;

use bstr::ByteSlice;

use super::shell::{self, Command, assignment, unquoted};
use super::words::{
    ARGS, COMMAND_SHELL, EVERYWHERE, HOST, LISTEN_ARGS, LOOPBACK, NO_TOKEN, ON_HOST, ON_PORT,
    REQUIRE_TOKEN, START_SERVER, TOKEN,
};

/// A part of a line, and what takes its place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Edit {
    pub(super) at: Range<usize>,
    pub(super) with: Vec<u8>,
}

/// What a line does for a server's start.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// What to change, in the line's order.
    pub(super) edits: Vec<Edit>,
    /// A server is started, or the options for its start are set.
    pub(super) starts: bool,
    /// A server would be started without a token: it is left as it is.
    pub(super) without_token: bool,
    /// What `LISTEN_ARGS` was set to, before the edits.
    pub(super) listen_args: Option<Vec<u8>>,
}

/// A command of a recorded shape.
enum Shape {
    /// `LISTEN_ARGS="…"`: the value's range.
    ListenArgs(Range<usize>),
    /// `args="--start-server …"`, `$args = …`: the value's range.
    NodeArgs(Range<usize>),
    /// `PROGRAM command-shell …`: the arguments behind it; whether an empty token is set before it.
    CommandShell {
        args: Vec<Range<usize>>,
        empty_token: bool,
    },
    /// `PROGRAM --start-server …`: the arguments behind it.
    StartServer { args: Vec<Range<usize>> },
}

/// Whether the last command of `line`, which is not finished, has a recorded shape so far.
pub(super) fn may_start(line: &[u8]) -> bool {
    shell::cut(line)
        .commands
        .last()
        .is_some_and(|command| shape(line, command).is_some())
}

/// Recognises what the whole of `line` does. `listen_args` is what `LISTEN_ARGS` was set to before.
pub(super) fn recognise(line: &[u8], commands: &[Command], listen_args: Option<&[u8]>) -> Verdict {
    let mut verdict = Verdict::default();
    for command in commands {
        match shape(line, command) {
            None => {}
            Some(Shape::ListenArgs(value)) => {
                verdict.starts = true;
                verdict.listen_args = Some(unquoted(&line[value.clone()]).to_vec());
                rewrite_text(line, value, ON_HOST, &mut verdict.edits);
            }
            Some(Shape::NodeArgs(value)) => {
                let text = &line[value.clone()];
                let empty = [TOKEN, b"="].concat();
                let has_empty = text.find_iter(&empty).any(|at| {
                    text.get(at + empty.len())
                        .is_none_or(|next| !next.is_ascii_graphic() || b"\"'".contains(next))
                });
                if text.contains_str(NO_TOKEN) || has_empty {
                    verdict.without_token = true;
                } else {
                    verdict.starts = true;
                    rewrite_text(line, value, HOST, &mut verdict.edits);
                }
            }
            Some(Shape::StartServer { args }) => {
                if lacks_token(line, &args) {
                    verdict.without_token = true;
                } else {
                    verdict.starts = true;
                    rewrite_args(line, &args, HOST, &mut verdict.edits);
                }
            }
            Some(Shape::CommandShell { args, empty_token }) => {
                let uses_variable = |word: &[u8]| {
                    let name = unquoted(word).strip_prefix(b"$").unwrap_or_default();
                    let inner = name
                        .strip_prefix(b"{")
                        .and_then(|name| name.strip_suffix(b"}"));
                    inner.unwrap_or(name) == LISTEN_ARGS
                };
                let variable = args
                    .iter()
                    .find(|word| uses_variable(&line[(*word).clone()]));
                if empty_token || lacks_token(line, &args) {
                    verdict.without_token = true;
                    // The variable was rewritten before this was known: here it gets back what
                    // the script had put into it.
                    if let (Some(word), Some(original)) = (variable, listen_args) {
                        verdict.edits.push(Edit {
                            at: word.clone(),
                            with: original.to_vec(),
                        });
                    }
                    continue;
                }
                verdict.starts = true;
                let before = verdict.edits.len();
                let has_host = rewrite_args(line, &args, ON_HOST, &mut verdict.edits);
                let port = args
                    .iter()
                    .find(|word| name(unquoted(&line[(*word).clone()])) == ON_PORT);
                if let (Some(port), false, None) = (port, has_host, variable) {
                    debug_assert_eq!(before, verdict.edits.len());
                    let with = [b" ", ON_HOST, b"=", EVERYWHERE].concat();
                    verdict.edits.push(Edit {
                        at: port.end..port.end,
                        with,
                    });
                }
            }
        }
    }
    verdict
}

/// An option without its `=VALUE`.
fn name(option: &[u8]) -> &[u8] {
    option
        .split(|byte| *byte == b'=')
        .next()
        .unwrap_or_default()
}

fn shape(line: &[u8], command: &Command) -> Option<Shape> {
    let word = |range: &Range<usize>| &line[range.clone()];
    let mut words = command.iter();
    let mut empty_token = false;
    let program = loop {
        let range = words.next()?;
        let text = word(range);
        let plain = text.strip_prefix(b"$").unwrap_or(text);
        if let Some((name, value)) = assignment(plain) {
            let value_range = range.end - value.len()..range.end;
            let has_server = value
                .trim_start_with(|c| "\"' \t".contains(c))
                .starts_with(START_SERVER);
            match name {
                LISTEN_ARGS => return Some(Shape::ListenArgs(value_range)),
                ARGS if has_server => return Some(Shape::NodeArgs(value_range)),
                REQUIRE_TOKEN => empty_token = unquoted(value).is_empty(),
                _ => {}
            }
            if text == plain {
                continue;
            }
        }
        if plain == ARGS
            && let [equals, value] = command.get(1..3)?
        {
            let starts = word(value).trim_start_with(|c| "\"' \t".contains(c));
            return (word(equals) == b"=" && starts.starts_with(START_SERVER))
                .then(|| Shape::NodeArgs(value.clone()));
        }
        if text == b"export" || text == b"local" || shell::is_prefix(text) {
            continue;
        }
        break text;
    };
    let first = words.next()?;
    let args = words.cloned().collect();
    match unquoted(word(first)) {
        COMMAND_SHELL if is_program(program, |name| name.starts_with(b"code")) => {
            Some(Shape::CommandShell { args, empty_token })
        }
        START_SERVER if is_program(program, |name| name.contains_str("server")) => {
            Some(Shape::StartServer { args })
        }
        _ => None,
    }
}

/// Whether `word` may be a server's program: a variable, or a path whose last part fits.
fn is_program(word: &[u8], fits: impl Fn(&[u8]) -> bool) -> bool {
    let word = word.trim_with(|c| c == '"' || c == '\'');
    let last = word.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    (word.starts_with(b"$") && !word.contains(&b' ')) || fits(last)
}

fn lacks_token(line: &[u8], args: &[Range<usize>]) -> bool {
    let texts: Vec<&[u8]> = args
        .iter()
        .map(|word| unquoted(&line[word.clone()]))
        .collect();
    texts.iter().enumerate().any(|(index, text)| {
        *text == NO_TOKEN
            || (*text == TOKEN && texts.get(index + 1).is_some_and(|next| next.is_empty()))
            || text
                .strip_prefix(TOKEN)
                .and_then(|rest| rest.strip_prefix(b"="))
                .is_some_and(|value| unquoted(value).is_empty())
    })
}

/// Changes the loopback address that `option` has among `args`; whether the option is there.
fn rewrite_args(line: &[u8], args: &[Range<usize>], option: &[u8], edits: &mut Vec<Edit>) -> bool {
    let mut found = false;
    for (index, range) in args.iter().enumerate() {
        let raw = &line[range.clone()];
        let text = unquoted(raw);
        let value = match text.strip_prefix(option) {
            Some([b'=', value @ ..]) => Some((range, value)),
            Some([]) => args.get(index + 1).map(|next| (next, &line[next.clone()])),
            _ => None,
        };
        let Some((range, value)) = value else {
            continue;
        };
        found = true;
        if unquoted(value) == LOOPBACK
            && let Some(at) = line[range.clone()].rfind(LOOPBACK)
        {
            let start = range.start + at;
            edits.push(Edit {
                at: start..start + LOOPBACK.len(),
                with: EVERYWHERE.to_vec(),
            });
        }
    }
    found
}

/// Changes the loopback address of `option` in a text that becomes arguments later.
fn rewrite_text(line: &[u8], range: Range<usize>, option: &[u8], edits: &mut Vec<Edit>) {
    let text = &line[range.clone()];
    for at in text.find_iter(LOOPBACK) {
        let before = text[..at].trim_end_with(|c| "\"' \t=\\\r\n".contains(c));
        let separated = before.len() < at;
        let after = text.get(at + LOOPBACK.len());
        let whole =
            after.is_none_or(|next| !(next.is_ascii_alphanumeric() || b".-_:".contains(next)));
        let is_option = before.strip_suffix(option).is_some_and(|rest| {
            rest.last()
                .is_none_or(|last| !last.is_ascii_alphanumeric() && *last != b'-')
        });
        if separated && whole && is_option {
            let start = range.start + at;
            edits.push(Edit {
                at: start..start + LOOPBACK.len(),
                with: EVERYWHERE.to_vec(),
            });
        }
    }
}
