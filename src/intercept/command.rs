//! One command of the script, word by word: is it one that starts a server, and what in it has to
//! change?
//!
//! Three recorded shapes count, and nothing else: the CLI's `command-shell`, a server program's
//! `--start-server`, and an assignment that collects the options of either (`LISTEN_ARGS=…`,
//! `$args=…`), whose value is read as words of its own.

use super::Notice;
use super::lexer::Event;
use super::words::{
    ARGS, ARGS_NAME, BEFORE_COMMAND, COMMAND_SHELL, HOST, LISTEN_ARGS, LISTEN_ARGS_USES, LOOPBACK,
    ON_HOST, ON_PORT, PRODUCTS, REQUIRE_TOKEN, START_SERVER, TOKEN, WITHOUT_TOKEN,
};

/// Most places changed in one command; one with more is nothing recorded, and passes as it is.
pub(super) const MOST_PLACES: usize = 4;
/// Longest word of interest. Of a path only the last part is kept.
const WORD: usize = 80;

/// A place in the stream that may have to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The offset of its first byte.
    pub(super) at: u64,
    /// Its length in bytes.
    pub(super) len: usize,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A loopback address, in a server's option.
    Loopback,
    /// A use of `LISTEN_ARGS`, whose value was changed, for a server without a token.
    ListenArgs,
}

/// A few places, in the order in which they stand in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Places {
    places: [Place; MOST_PLACES],
    count: usize,
}

/// What is to be done at the end of a command, or of an assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decision {
    /// What changes.
    pub(super) places: Places,
    /// Add the option for the host, in front of what ends the command.
    pub(super) add_host: bool,
    pub(super) notice: Notice,
}

/// The command so far.
#[derive(Debug)]
pub(super) struct Command {
    stage: Stage,
    /// The value of an assignment is being read, whose words are the server's options.
    collected: Option<Collected>,
    word: Word,
    /// This word, or the next one if none has begun, is the file of a redirection.
    file: bool,
    /// This word, or the next one, belongs to the option before it.
    expected: Option<Expected>,
    /// The word's text may become one of `places`.
    candidate: Option<Candidate>,
    /// The word is `NAME=…`.
    assignment: bool,
    on_host: bool,
    on_port: bool,
    listen_args: bool,
    without_token: bool,
    /// The byte before was an `&` in front of which the option may have to be added.
    ampersand: bool,
    places: Places,
    /// `LISTEN_ARGS` was changed, in a command before.
    listen_args_changed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing yet, or only what may stand before a command.
    Start,
    /// `$args`, and `=` is to follow.
    Args,
    /// `$args =`, and the value is to follow.
    ArgsValue,
    /// A program that may be a server's, without the word that starts one.
    Program,
    CommandShell,
    StartServer,
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Collected {
    ListenArgs,
    /// `$args`, and whether it has `--start-server` as its first word.
    Args {
        starts: Option<bool>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Host,
    Token,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    /// The offset of its first byte.
    at: u64,
    kind: Kind,
    /// It is the beginning of what is looked for, and as whole in the stream as in the word.
    matches: bool,
}

impl Kind {
    /// The texts that are looked for.
    fn texts(self) -> &'static [&'static [u8]] {
        match self {
            Self::Loopback => &LOOPBACK,
            Self::ListenArgs => &LISTEN_ARGS_USES,
        }
    }
}

impl Command {
    pub(super) const fn new() -> Self {
        Self {
            stage: Stage::Start,
            collected: None,
            word: Word::new(),
            file: false,
            expected: None,
            candidate: None,
            assignment: false,
            on_host: false,
            on_port: false,
            listen_args: false,
            without_token: false,
            ampersand: false,
            places: Places::new(),
            listen_args_changed: false,
        }
    }

    /// The next command of the same script begins.
    pub(super) fn renew(&mut self) {
        let Self {
            stage,
            collected,
            word,
            file,
            expected,
            candidate,
            assignment,
            on_host,
            on_port,
            listen_args,
            without_token,
            ampersand,
            places,
            listen_args_changed: _,
        } = self;
        // One by one: what the arrays had in them does not matter.
        *stage = Stage::Start;
        (*collected, *expected, *candidate) = (None, None, None);
        (*file, *assignment, *ampersand) = (false, false, false);
        (*on_host, *on_port, *listen_args, *without_token) = (false, false, false, false);
        word.renew();
        places.count = 0;
    }

    /// Takes what the byte at offset `at` means.
    pub(super) fn take(&mut self, event: Event, at: u64) -> Option<Decision> {
        match event {
            Event::None => {}
            Event::Text(byte) => self.text(byte, at),
            Event::Space if self.collected.is_some() => self.argument_ends(),
            Event::Space => self.text(b' ', at),
            Event::Quote => self.begin_word(),
            Event::Opaque => self.text(0, at),
            Event::Redirection => {
                self.ampersand = false;
                self.file = true;
            }
            Event::Delimiter => self.file = false,
            Event::Ampersand => self.ampersand = self.lacks_host(),
            Event::WordEnd => return self.word_ends(),
            Event::CommandEnd => return self.command_ends(),
        }
        None
    }

    /// Takes literal text without a `=`, if it need not be looked at byte by byte.
    pub(super) fn take_text(&mut self, text: &[u8]) -> bool {
        if self.file || self.stage == Stage::Other {
            return true;
        }
        self.begin_word();
        if self.candidate.is_some() {
            return false;
        }
        for &byte in text {
            self.word.push(byte);
        }
        true
    }

    /// Whether a byte that was given may have to change, or have something put in front of it.
    pub(super) fn holds(&self) -> bool {
        !self.places.is_empty() || self.ampersand || self.candidate.is_some_and(|it| it.matches)
    }

    /// Whether nothing but its end is of interest any more.
    pub(super) fn is_other(&self) -> bool {
        self.stage == Stage::Other
    }

    /// It passes as it is, whatever follows.
    pub(super) fn give_up(&mut self) {
        self.renew();
        self.stage = Stage::Other;
    }

    fn text(&mut self, byte: u8, at: u64) {
        if self.file || self.stage == Stage::Other {
            return;
        }
        self.begin_word();
        if let Some(candidate) = &mut self.candidate {
            let len = self.word.push(byte);
            if len == 1 {
                candidate.at = at;
            }
            let whole = !self.word.cut && candidate.at + len as u64 == at + 1;
            let text = self.word.text();
            let begun = candidate.kind.texts().iter().any(|it| it.starts_with(text));
            candidate.matches = whole && begun && (len == 1 || candidate.matches);
            if !candidate.matches && candidate.kind == Kind::ListenArgs {
                // It is any other word.
                self.candidate = None;
            }
        } else if byte == b'=' && self.equals() {
            self.word.clear();
            // The words of a collected value begin with it.
            self.word.begun = self.collected.is_none();
        } else {
            self.word.push(byte);
        }
    }

    /// `=` behind the word so far: whether what follows is a word of its own.
    fn equals(&mut self) -> bool {
        let text = self.word.text();
        if !self.word.is_whole() {
            return false;
        }
        if self.host_option() == Some(text) && self.expected.is_none() {
            self.on_host = true;
            self.begin_candidate(Kind::Loopback);
            return true;
        }
        if self.collected.is_some() || self.assignment {
            return false;
        }
        self.collected = match (self.stage, text) {
            (Stage::Start, text) if text == LISTEN_ARGS => Some(Collected::ListenArgs),
            (Stage::Start, text) if text == ARGS || text == ARGS_NAME => {
                Some(Collected::Args { starts: None })
            }
            (Stage::Args, b"") => Some(Collected::Args { starts: None }),
            (Stage::Start, text) if is_name(text) => {
                self.assignment = true;
                if text == REQUIRE_TOKEN {
                    self.expected = Some(Expected::Token);
                    return true;
                }
                None
            }
            _ => None,
        };
        self.collected.is_some()
    }

    /// The option that takes the host, if this command or assignment has one.
    fn host_option(&self) -> Option<&'static [u8]> {
        match (self.collected, self.stage) {
            (Some(Collected::ListenArgs), _) | (None, Stage::CommandShell) => Some(ON_HOST),
            (Some(Collected::Args { starts: Some(true) }), _) | (None, Stage::StartServer) => {
                Some(HOST)
            }
            _ => None,
        }
    }

    fn begin_candidate(&mut self, kind: Kind) {
        self.candidate = Some(Candidate {
            at: 0,
            kind,
            matches: false,
        });
    }

    fn begin_word(&mut self) {
        if self.word.begun || self.file {
            return;
        }
        self.word.begun = true;
        if self.stage == Stage::ArgsValue && self.collected.is_none() {
            self.collected = Some(Collected::Args { starts: None });
        }
        if self.expected == Some(Expected::Host) {
            self.expected = None;
            self.begin_candidate(Kind::Loopback);
        } else if self.stage == Stage::CommandShell
            && self.without_token
            && self.listen_args_changed
            && self.expected.is_none()
        {
            self.begin_candidate(Kind::ListenArgs);
        }
    }

    fn word_ends(&mut self) -> Option<Decision> {
        if std::mem::take(&mut self.file) {
            return None;
        }
        self.argument_ends();
        let collected = self.collected.take()?;
        let changes = match collected {
            Collected::ListenArgs => self.on_port && !self.places.is_empty(),
            Collected::Args { starts: None } => {
                // `$args=` and a blank: the value is the next word.
                self.stage = Stage::ArgsValue;
                false
            }
            Collected::Args { starts } => {
                self.stage = Stage::Other;
                starts == Some(true)
            }
        };
        let decision = changes.then(|| self.decide(false));
        let changed = decision.is_some_and(|decision| !decision.places.is_empty());
        self.listen_args_changed |= changed && collected == Collected::ListenArgs;
        (self.on_host, self.on_port, self.listen_args, self.expected) = (false, false, false, None);
        self.places = Places::new();
        decision
    }

    fn command_ends(&mut self) -> Option<Decision> {
        let starts = matches!(self.stage, Stage::CommandShell | Stage::StartServer);
        let decision = starts.then(|| self.decide(self.lacks_host()));
        self.renew();
        decision
    }

    fn decide(&self, add_host: bool) -> Decision {
        let (change, notice) = match self.without_token {
            true => (Kind::ListenArgs, Notice::WithoutToken),
            false => (Kind::Loopback, Notice::ServerStart),
        };
        Decision {
            places: self.places.of(change),
            add_host,
            notice,
        }
    }

    /// Whether it is a `command-shell` that would bind loopback by default.
    fn lacks_host(&self) -> bool {
        let has_host = self.on_host || self.listen_args;
        self.stage == Stage::CommandShell && self.on_port && !has_host && !self.without_token
    }

    /// A word has ended, the script's or one of a collected value.
    fn argument_ends(&mut self) {
        if self.stage != Stage::Other {
            self.judge_word();
        }
        self.word.renew();
    }

    fn judge_word(&mut self) {
        let word = &self.word;
        if let Some(candidate) = self.candidate.take() {
            if candidate.matches && candidate.kind.texts().contains(&word.text()) {
                let place = Place {
                    at: candidate.at,
                    len: word.len,
                    kind: candidate.kind,
                };
                if !self.places.push(place) {
                    return self.give_up();
                }
            }
            if candidate.kind == Kind::Loopback {
                return;
            }
        }
        if self.collected.is_some() && word.is_empty() {
            return;
        }
        if let Some(Expected::Token) = self.expected.take() {
            // The last one counts; of the environment's and the options', each.
            let assignment = std::mem::take(&mut self.assignment);
            let none = self.is_no_token(word.text()) && !word.cut;
            self.without_token = none || (self.without_token && !assignment);
            return;
        }
        if !word.begun {
            return;
        }
        match (&mut self.collected, self.stage) {
            (Some(Collected::ListenArgs), _) | (None, Stage::CommandShell) => self.option(),
            (Some(Collected::Args { starts }), _) => {
                if starts.is_some() {
                    self.option();
                } else {
                    *starts = Some(word.is(START_SERVER));
                }
            }
            (None, Stage::StartServer) => self.option(),
            (None, Stage::Start) => self.stage = self.command_word(),
            (None, Stage::Args) => self.stage = Stage::Other,
            (None, Stage::Program) if word.is(COMMAND_SHELL) => self.stage = Stage::CommandShell,
            (None, Stage::Program) if word.is(START_SERVER) => self.stage = Stage::StartServer,
            (None, _) => {}
        }
    }

    /// Whether a token is empty. In a collected value, quotes are text.
    fn is_no_token(&self, token: &[u8]) -> bool {
        let quotes = self.collected.is_some() && matches!(token, b"''" | b"\"\"");
        token.is_empty() || quotes
    }

    fn command_word(&mut self) -> Stage {
        let word = &self.word;
        let stands_before = word.is_whole() && BEFORE_COMMAND.contains(&word.text());
        if std::mem::take(&mut self.assignment) || stands_before {
            Stage::Start
        } else if word.is(ARGS) {
            Stage::Args
        } else if is_program(word) {
            Stage::Program
        } else {
            Stage::Other
        }
    }

    /// An option of a server, or anything else that it is given.
    fn option(&mut self) {
        let text = self.word.text();
        if !self.word.is_whole() {
        } else if self.host_option() == Some(text) {
            self.expected = Some(Expected::Host);
            self.on_host = true;
        } else if text == ON_PORT || text.strip_prefix(ON_PORT).is_some_and(|it| it[0] == b'=') {
            self.on_port = true;
        } else if LISTEN_ARGS_USES.contains(&text) {
            self.listen_args = true;
        } else if text == WITHOUT_TOKEN {
            self.without_token = true;
        } else if let Some([b'=', token @ ..]) = text.strip_prefix(TOKEN) {
            self.without_token |= self.is_no_token(token);
        } else if text == TOKEN {
            self.expected = Some(Expected::Token);
        }
    }
}

impl Places {
    const fn new() -> Self {
        Self {
            places: [Place {
                at: 0,
                len: 0,
                kind: Kind::Loopback,
            }; MOST_PLACES],
            count: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Place> {
        self.places[..self.count].iter()
    }

    /// Adds one; `false` if there is no room.
    fn push(&mut self, place: Place) -> bool {
        let Some(free) = self.places.get_mut(self.count) else {
            return false;
        };
        *free = place;
        self.count += 1;
        true
    }

    /// Those of one kind.
    fn of(&self, kind: Kind) -> Self {
        let mut places = Self::new();
        for place in self.iter().filter(|place| place.kind == kind) {
            places.push(*place);
        }
        places
    }
}

/// Whether `word` may be a server's program: nothing but a variable (recorded are `$CLI_PATH`,
/// `$VSCH_SERVER_SCRIPT`, `$SERVER_SCRIPT`), or a product's file.
fn is_program(word: &Word) -> bool {
    let text = word.text();
    if let Some(name) = text.strip_prefix(b"$") {
        let name = name
            .strip_prefix(b"{")
            .and_then(|name| name.strip_suffix(b"}"))
            .unwrap_or(name);
        return word.fits() && is_name(name);
    }
    let begins = |product: &[u8]| text.first() == product.first();
    let named = |product: &&[u8]| begins(product) && is_named(text, product);
    word.fits() && PRODUCTS.iter().any(named)
}

/// `code`, `code-server`, `code-server-insiders`, `code-insiders`, `code-<commit>`, …
fn is_named(file: &[u8], product: &[u8]) -> bool {
    let Some(rest) = file.strip_prefix(product) else {
        return false;
    };
    let rest = rest.strip_prefix(b"-server").unwrap_or(rest);
    let commit = |text: &[u8]| text.len() >= 7 && text.iter().all(u8::is_ascii_hexdigit);
    matches!(rest, b"" | b"-insiders" | b"-oss")
        || rest.strip_prefix(b"-").is_some_and(commit)
        || rest.strip_prefix(b"-insiders-").is_some_and(commit)
}

fn is_name(text: &[u8]) -> bool {
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    text.first().is_some_and(|first| !first.is_ascii_digit()) && text.iter().all(word)
}

/// A word without its quotes. Of a path it keeps the last part.
#[derive(Debug)]
struct Word {
    text: [u8; WORD],
    /// May count on beyond the text that is kept.
    len: usize,
    begun: bool,
    /// A part before the last `/` is not kept.
    cut: bool,
}

impl Word {
    const fn new() -> Self {
        Self {
            text: [0; WORD],
            len: 0,
            begun: false,
            cut: false,
        }
    }

    /// Appends a byte; how many are kept now.
    fn push(&mut self, byte: u8) -> usize {
        if byte == b'/' {
            self.cut = true;
            self.len = 0;
            return 0;
        }
        if let Some(place) = self.text.get_mut(self.len) {
            *place = byte;
        }
        self.len += 1;
        self.len
    }

    /// The next word is to begin.
    fn renew(&mut self) {
        self.clear();
        self.begun = false;
    }

    /// Starts again within the same word.
    fn clear(&mut self) {
        self.len = 0;
        self.cut = false;
    }

    fn text(&self) -> &[u8] {
        &self.text[..self.len.min(WORD)]
    }

    fn fits(&self) -> bool {
        self.len <= WORD
    }

    fn is_whole(&self) -> bool {
        self.fits() && !self.cut
    }

    fn is_empty(&self) -> bool {
        self.len == 0 && !self.cut
    }

    fn is(&self, text: &[u8]) -> bool {
        self.is_whole() && self.text() == text
    }
}
