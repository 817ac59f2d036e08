//! What the interceptor promises about the client's stream, a second time: whole commands, looked
//! at when all is known.

use super::shell_reference::{Char, Token, cut};
use crate::intercept::Notice;

const LIMIT: usize = 16384;
const LONGEST_WORD: usize = 80;

/// What the shell gets for `text`, and what is said about it.
pub(super) fn rewrite(text: &[u8]) -> (Vec<u8>, Vec<Notice>) {
    let mut script = Script {
        text,
        edits: Vec::new(),
        notices: Vec::new(),
        args_changed: false,
    };
    let mut command = Command::default();
    let mut is_file = false;
    for token in cut(text) {
        match token {
            Token::Redirection => is_file = true,
            Token::Delimiter => is_file = false,
            Token::Word { .. } | Token::Unfinished { .. } if std::mem::take(&mut is_file) => {}
            Token::Unfinished { chars } => {
                // Nothing is decided any more, but it may be too long already.
                if script.would_be_too_long(&mut command, &chars, text.len()) {
                    script.notices.push(Notice::TooLong);
                    command = Command::default();
                }
            }
            Token::Word { chars, end } => script.word(&mut command, &chars, end),
            Token::End { at, decided } => {
                script.end(&command, at, decided);
                command = Command::default();
                is_file = false;
            }
            Token::Quiet { mut chars } => {
                if is_file {
                    chars.clear();
                }
                // Whatever is held was held for too long.
                if script.would_be_too_long(&mut command, &chars, usize::MAX)
                    || !command.places.is_empty()
                {
                    script.notices.push(Notice::TooLong);
                }
                command = Command::default();
                is_file = false;
            }
        }
    }
    // What the end of the text left open may be too long already.
    if let Some((first, ..)) = command.places.first()
        && text.len() - first > LIMIT
    {
        script.notices.push(Notice::TooLong);
    }
    (script.carry_out(), script.notices)
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Is {
    /// Nothing yet.
    #[default]
    Open,
    /// `$args`, `$args =`.
    Args,
    ArgsEquals,
    /// A server's program; then, which of its two commands.
    Program,
    CommandShell,
    StartServer,
    Other,
}

/// A loopback address or a use of `LISTEN_ARGS`: from, to, and what is to stand there.
type Place = (usize, usize, &'static [u8]);
const EVERYWHERE: &[u8] = b"0.0.0.0";
const AS_IT_WAS: &[u8] = b"--on-host=127.0.0.1 --on-port";

#[derive(Default)]
struct Command {
    is: Is,
    /// The last word was this option, whose value is to follow.
    after: Option<&'static [u8]>,
    host: bool,
    port: bool,
    listen_args: bool,
    no_token: bool,
    places: Vec<Place>,
}

struct Script<'t> {
    text: &'t [u8],
    edits: Vec<Place>,
    notices: Vec<Notice>,
    args_changed: bool,
}

impl Script<'_> {
    fn word(&mut self, command: &mut Command, chars: &[Char], end: usize) {
        let whole = text(chars);
        let name_end = whole.iter().position(|&byte| byte == b'=');
        let name = name_end
            .map(|end| &whole[..end])
            .filter(|name| name.len() <= LONGEST_WORD);
        match command.is {
            Is::Open if name == Some(b"LISTEN_ARGS") => {
                let options = name_end.map_or(&[][..], |end| &chars[end + 1..]);
                self.collected(command, options, end, Is::CommandShell);
            }
            Is::Open if name == Some(b"$args") || name == Some(b"args") => {
                let options = name_end.map_or(&[][..], |end| &chars[end + 1..]);
                self.collected(command, options, end, Is::StartServer);
            }
            Is::Open if name == Some(b"VSCODE_CLI_REQUIRE_TOKEN") => {
                command.no_token = whole.last() == Some(&b'=') && whole.len() == 25;
            }
            Is::Open if name.is_some_and(is_name) => {}
            Is::Open if PREFIXES.contains(&whole.as_slice()) => {}
            Is::Open if whole == b"$args" => command.is = Is::Args,
            Is::Open if is_program(&whole) => command.is = Is::Program,
            Is::Args if whole.starts_with(b"=") => {
                self.collected(command, &chars[1..], end, Is::StartServer);
            }
            Is::ArgsEquals => self.collected(command, chars, end, Is::StartServer),
            Is::Open | Is::Args => command.is = Is::Other,
            Is::Program if whole == b"command-shell" => command.is = Is::CommandShell,
            Is::Program if whole == b"--start-server" => command.is = Is::StartServer,
            Is::Program | Is::Other => {}
            Is::CommandShell | Is::StartServer => {
                self.option(command, chars, command.is, false);
                if command.places.len() > 4 {
                    // Nothing recorded.
                    *command = Command {
                        is: Is::Other,
                        ..Command::default()
                    };
                } else {
                    self.too_long(command, end, end);
                }
            }
        }
    }

    /// Whether a word that ends nowhere makes the command too long by the byte at `end`.
    fn would_be_too_long(&self, command: &mut Command, chars: &[Char], end: usize) -> bool {
        let mut trial = Script {
            text: self.text,
            edits: Vec::new(),
            notices: Vec::new(),
            args_changed: self.args_changed,
        };
        trial.word(command, chars, end);
        trial.notices == [Notice::TooLong]
    }

    /// An assignment whose value is a server's options.
    fn collected(&mut self, command: &mut Command, chars: &[Char], end: usize, of: Is) {
        let mut options = Command {
            no_token: command.no_token,
            ..Command::default()
        };
        // No word begins with a blank, and quotes alone make none in here.
        let words: Vec<&[Char]> = chars
            .split(|char| matches!(char, Char::Blank(_)))
            .filter(|word| !word.is_empty())
            .collect();
        let Some(first) = words.first() else {
            if of == Is::StartServer {
                command.is = Is::ArgsEquals;
            }
            return;
        };
        let starts = of == Is::CommandShell || text(first) == b"--start-server";
        if starts {
            for word in &words[usize::from(of == Is::StartServer)..] {
                self.option(&mut options, word, of, true);
                if options.places.len() > 4 {
                    command.is = Is::Other;
                    return;
                }
            }
        }
        command.no_token = options.no_token;
        if of == Is::StartServer {
            command.is = Is::Other;
        }
        if self.too_long(&mut options, end, end) {
            command.is = Is::Other;
            command.no_token = false;
            return;
        }
        if !starts || (of == Is::CommandShell && (!options.port || options.places.is_empty())) {
            return;
        }
        if options.no_token {
            self.notices.push(Notice::WithoutToken);
            return;
        }
        self.args_changed |= of == Is::CommandShell;
        self.edits.extend(options.places);
        self.notices.push(Notice::ServerStart);
    }

    fn option(&mut self, command: &mut Command, chars: &[Char], of: Is, collected: bool) {
        let host: &[u8] = if of == Is::CommandShell {
            b"--on-host"
        } else {
            b"--host"
        };
        let whole = text(chars);
        let empty: &[&[u8]] = if collected {
            &[b"", b"''", b"\"\""]
        } else {
            &[b""]
        };
        match command.after.take() {
            Some(b"host") => return command.places.extend(loopback(chars)),
            Some(_) => {
                command.no_token |= empty.contains(&whole.as_slice());
                return;
            }
            None => {}
        }
        let fits = whole.len() <= LONGEST_WORD;
        if whole == host {
            command.host = true;
            command.after = Some(b"host");
        } else if whole.starts_with(&[host, b"="].concat()) {
            command.host = true;
            command.places.extend(loopback(&chars[host.len() + 1..]));
        } else if whole == b"--on-port"
            || (whole.starts_with(b"--on-port=") && fits && !whole.contains(&b'/'))
        {
            command.port = true;
        } else if whole == b"$LISTEN_ARGS" || whole == b"${LISTEN_ARGS}" {
            command.listen_args = true;
            if self.args_changed
                && command.no_token
                && !collected
                && of == Is::CommandShell
                && let Some((from, to)) = span(chars)
            {
                command.places.push((from, to, AS_IT_WAS));
            }
        } else if whole == b"--without-connection-token" {
            command.no_token = true;
        } else if let Some(token) = whole.strip_prefix(b"--connection-token=") {
            command.no_token |= empty.contains(&token);
        } else if whole == b"--connection-token" {
            command.after = Some(b"token");
        }
    }

    fn end(&mut self, command: &Command, at: usize, decided: usize) {
        if !matches!(command.is, Is::CommandShell | Is::StartServer) {
            return;
        }
        if let Some((first, ..)) = command.places.first() {
            let more = decided < self.text.len();
            if decided - first > LIMIT || (more && decided - first == LIMIT) {
                self.notices.push(Notice::TooLong);
                return;
            }
        }
        if command.no_token {
            let places = command.places.iter().filter(|place| place.2 == AS_IT_WAS);
            self.edits.extend(places);
            self.notices.push(Notice::WithoutToken);
            return;
        }
        self.edits.extend(&command.places);
        let has_host = command.host || command.listen_args;
        if command.is == Is::CommandShell && command.port && !has_host {
            let comment = self.text.get(at) == Some(&b'#');
            let added: &[u8] = if comment {
                b" --on-host=0.0.0.0 "
            } else {
                b" --on-host=0.0.0.0"
            };
            self.edits.push((at, at, added));
        }
        self.notices.push(Notice::ServerStart);
    }

    /// Whether more is held than may be, before the byte at `decided` is looked at.
    fn too_long(&mut self, command: &mut Command, end: usize, decided: usize) -> bool {
        let Some((first, ..)) = command.places.first() else {
            return false;
        };
        let more = end < self.text.len();
        let too_long = decided - first > LIMIT || (more && decided - first == LIMIT);
        if too_long {
            self.notices.push(Notice::TooLong);
            *command = Command {
                is: Is::Other,
                ..Command::default()
            };
        }
        too_long
    }

    fn carry_out(&self) -> Vec<u8> {
        let mut output = Vec::new();
        let mut at = 0;
        for &(from, to, with) in &self.edits {
            output.extend_from_slice(&self.text[at..from]);
            output.extend_from_slice(with);
            at = to;
        }
        output.extend_from_slice(&self.text[at..]);
        output
    }
}

const PREFIXES: [&[u8]; 18] = [
    b"!", b"command", b"do", b"elif", b"else", b"env", b"eval", b"exec", b"export", b"if",
    b"local", b"nohup", b"setsid", b"then", b"time", b"until", b"while", b"{",
];

/// The bytes of a word, with NUL for what is not known.
fn text(chars: &[Char]) -> Vec<u8> {
    let byte = |char: &Char| match *char {
        Char::Literal(byte, _) => byte,
        Char::Blank(_) => b' ',
        Char::Unknown => 0,
    };
    chars.iter().map(byte).collect()
}

/// Where `chars` stand, if they stand there in one piece.
fn span(chars: &[Char]) -> Option<(usize, usize)> {
    let places: Option<Vec<usize>> = chars
        .iter()
        .map(|char| match *char {
            Char::Literal(_, at) => Some(at),
            _ => None,
        })
        .collect();
    let places = places?;
    let (from, to) = (*places.first()?, *places.last()? + 1);
    (to - from == chars.len()).then_some((from, to))
}

fn loopback(chars: &[Char]) -> Option<Place> {
    let value = text(chars);
    let known: [&[u8]; 4] = [b"127.0.0.1", b"localhost", b"::1", b"[::1]"];
    let (from, to) = span(chars)?;
    known
        .contains(&value.as_slice())
        .then_some((from, to, EVERYWHERE))
}

fn is_name(text: &[u8]) -> bool {
    let text = std::str::from_utf8(text).unwrap_or("");
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn is_program(word: &[u8]) -> bool {
    let file = word.rsplit(|&byte| byte == b'/').next().unwrap_or(word);
    if file.len() > LONGEST_WORD {
        return false;
    }
    let Ok(file) = std::str::from_utf8(file) else {
        return false;
    };
    if let Some(name) = file.strip_prefix('$') {
        let braced = name
            .strip_prefix('{')
            .and_then(|name| name.strip_suffix('}'));
        return is_name(braced.unwrap_or(name).as_bytes());
    }
    let products = [
        "antigravity-ide",
        "antigravity",
        "codium",
        "code",
        "cursor",
        "positron",
        "trae",
        "void",
        "windsurf",
    ];
    products.iter().any(|product| {
        let Some(rest) = file.strip_prefix(product) else {
            return false;
        };
        let kinds = ["", "-server"].iter().flat_map(|server| {
            ["", "-insiders", "-oss"]
                .iter()
                .map(move |quality| format!("{server}{quality}"))
        });
        let plain = kinds.clone().any(|kind| kind == rest);
        let commit = kinds.filter(|kind| !kind.ends_with("-oss")).any(|kind| {
            rest.strip_prefix(kind.as_str())
                .and_then(|rest| rest.strip_prefix('-'))
                .is_some_and(|hex| hex.len() >= 7 && hex.chars().all(|c| c.is_ascii_hexdigit()))
        });
        plain || commit
    })
}
