//! Shell text cut into words and commands, a second time: over the whole text at once, with
//! look-ahead and recursion, in vectors, without a thought for speed.
//!
//! It shares nothing with `intercept`, its constants neither, so that a mistake has to be made
//! twice to be missed.

const LIMIT: usize = 16384;
const QUIET: usize = 4096;
const DEEPEST: usize = 23;

/// What the script consists of, in order.
pub(super) enum Token {
    /// A word that ends before the byte at `end`.
    Word {
        chars: Vec<Char>,
        end: usize,
    },
    /// A word that goes on at the end of the text, within quotes or something nested.
    Unfinished {
        chars: Vec<Char>,
    },
    /// `<` or `>`: the next word is a file, unless a here-document's delimiter follows.
    Redirection,
    Delimiter,
    /// The command ends: an option would be put before the byte at `at`, and it takes the bytes
    /// before `decided` to know.
    End {
        at: usize,
        decided: usize,
    },
    /// From here on the line is too quiet to be a command; whatever is open is none, and this word
    /// is none.
    Quiet {
        chars: Vec<Char>,
    },
}

/// A byte of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Char {
    /// A byte that means itself, and where it stands.
    Literal(u8, usize),
    /// A blank or newline within quotes.
    Blank(usize),
    /// Something that the shell would have to work out.
    Unknown,
}

/// Cuts `text`. At its end everything is ended that is not in quotes or nested.
pub(super) fn cut(text: &[u8]) -> Vec<Token> {
    let mut cutter = Cutter {
        text,
        at: 0,
        busy: 0,
        dozing: false,
        word: None,
        in_command: false,
        may_comment: true,
        comment: false,
        here_documents: Vec::new(),
        tokens: Vec::new(),
    };
    loop {
        if cutter.dozing {
            cutter.doze();
        }
        if cutter.at == text.len() {
            cutter.end_word();
            cutter.end_command(0);
            break;
        }
        match cutter.step() {
            Ok(()) => cutter.listen(),
            Err(Stop::TextEnds) => break cutter.unfinished(),
            Err(Stop::TooDeep) => {
                cutter.unknown();
                if cutter.comment().is_err() {
                    break cutter.unfinished();
                }
            }
        }
    }
    cutter.tokens
}

/// Why something nested was not read to its end.
enum Stop {
    TextEnds,
    TooDeep,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Single,
    Ansi,
    Double,
    Substitution,
    Arithmetic,
    Backquote,
}

struct HereDocument {
    delimiter: Vec<u8>,
    tabs: bool,
    quoted: bool,
}

struct Cutter<'t> {
    text: &'t [u8],
    at: usize,
    /// Behind the last byte that shows that this is shell text.
    busy: usize,
    dozing: bool,
    word: Option<Vec<Char>>,
    in_command: bool,
    may_comment: bool,
    /// The newline to come belongs to a comment.
    comment: bool,
    here_documents: Vec<HereDocument>,
    tokens: Vec<Token>,
}

/// Whether a byte, wherever it stands, shows that this is shell text.
fn is_sign(byte: &u8) -> bool {
    b"-<'\"\\$`".contains(byte)
}

impl Cutter<'_> {
    fn unfinished(&mut self) {
        if let Some(chars) = self.word.take() {
            self.tokens.push(Token::Unfinished { chars });
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn next_is(&self, byte: u8) -> bool {
        self.peek() == Some(byte)
    }

    fn is_busy(&mut self) {
        self.busy = self.busy.max(self.at);
    }

    /// After a step in the script itself.
    fn listen(&mut self) {
        let quiet = self.at.saturating_sub(self.busy);
        if quiet >= QUIET && self.text[self.at - 1] == b'\n' && !self.in_command {
            self.dozing = true;
        } else if quiet > LIMIT {
            let chars = self.word.take().unwrap_or_default();
            self.tokens.push(Token::Quiet { chars });
            self.in_command = false;
            self.here_documents.clear();
            self.skip_line();
        }
    }

    fn skip_line(&mut self) {
        let newline = self.text[self.at..].iter().position(|&byte| byte == b'\n');
        self.at = newline.map_or(self.text.len(), |newline| self.at + newline + 1);
        self.may_comment = true;
        self.dozing = true;
    }

    /// From the beginning of a line to that of the next line worth reading.
    fn doze(&mut self) {
        while self.at < self.text.len() {
            let begin = self.at;
            let Some(sign) = (begin..self.text.len()).find(|&at| b"-<'".contains(&self.text[at]))
            else {
                self.at = self.text.len();
                return;
            };
            let start = (begin..sign)
                .filter(|&at| self.text[at] == b'\n')
                .filter(|&at| {
                    let before = &self.text[begin..at];
                    before
                        .iter()
                        .rev()
                        .take_while(|&&byte| byte == b'\\')
                        .count()
                        % 2
                        == 0
                })
                .map(|newline| newline + 1)
                .next_back()
                .unwrap_or(begin);
            if sign - start <= LIMIT {
                self.at = start;
                self.busy = sign;
                self.dozing = false;
                self.may_comment = true;
                return;
            }
            self.at = sign;
            self.skip_line();
        }
    }

    fn word(&mut self, char: Char) {
        self.word.get_or_insert_default().push(char);
        self.in_command = true;
    }

    /// Within a word, if there is one: in `((…))` there is none.
    fn unknown(&mut self) {
        if let Some(word) = &mut self.word {
            word.push(Char::Unknown);
        }
    }

    fn open_word(&mut self) {
        self.word.get_or_insert_default();
        self.in_command = true;
    }

    fn end_word(&mut self) {
        if let Some(chars) = self.word.take() {
            self.tokens.push(Token::Word {
                chars,
                end: self.at,
            });
        }
    }

    /// Before the byte at hand, known `ahead` bytes later.
    fn end_command(&mut self, ahead: usize) {
        if std::mem::take(&mut self.in_command) {
            self.tokens.push(Token::End {
                at: self.at,
                decided: self.at + ahead,
            });
        }
    }

    /// One byte of the script, or one thing that is nested in it.
    fn step(&mut self) -> Result<(), Stop> {
        let byte = self.text[self.at];
        let may_comment = std::mem::take(&mut self.may_comment);
        match byte {
            b' ' | b'\t' | b'\r' => {
                self.end_word();
                self.at += 1;
                self.may_comment = true;
            }
            b'\n' => {
                self.end_word();
                self.end_command(0);
                self.at += 1;
                if std::mem::take(&mut self.comment) {
                    self.is_busy();
                }
                self.may_comment = true;
                self.read_bodies()?;
            }
            b';' | b'|' | b')' => {
                self.end_word();
                self.end_command(0);
                self.at += 1;
                self.may_comment = true;
            }
            b'(' => {
                self.end_word();
                self.end_command(0);
                self.at += 1;
                self.may_comment = true;
                if self.next_is(b'(') && self.at.saturating_sub(self.busy) <= LIMIT {
                    self.at += 1;
                    self.may_comment = false;
                    self.nested(Kind::Arithmetic, 1)?;
                }
            }
            b'&' => {
                self.end_word();
                self.may_comment = true;
                if self.text.get(self.at + 1) != Some(&b'>') {
                    self.end_command(1);
                }
                self.at += 1;
            }
            b'<' | b'>' => {
                self.end_word();
                self.in_command = true;
                self.tokens.push(Token::Redirection);
                self.may_comment = true;
                if self.operator(byte) {
                    self.tokens.push(Token::Delimiter);
                    self.may_comment = false;
                } else if self.next_is(b'(') {
                    self.at += 1;
                    self.word(Char::Unknown);
                    self.may_comment = false;
                    self.nested(Kind::Substitution, 1)?;
                } else if self.next_is(b'&') || self.next_is(b'|') {
                    self.at += 1;
                }
            }
            b'#' if may_comment => {
                self.end_command(0);
                self.comment()?;
            }
            b'\\' => {
                self.at += 1;
                self.is_busy();
                match self.peek() {
                    Some(b'\n') => {
                        self.at += 1;
                        self.may_comment = may_comment;
                    }
                    Some(other) => {
                        self.word(Char::Literal(other, self.at));
                        self.at += 1;
                        if is_sign(&other) {
                            self.is_busy();
                        }
                    }
                    None => {}
                }
            }
            b'\'' => {
                self.at += 1;
                self.open_word();
                self.nested(Kind::Single, 1)?;
            }
            b'"' => {
                self.at += 1;
                self.open_word();
                self.nested(Kind::Double, 1)?;
            }
            b'`' => {
                self.at += 1;
                self.word(Char::Unknown);
                self.nested(Kind::Backquote, 1)?;
            }
            b'$' => self.dollar(1)?,
            _ => {
                self.word(Char::Literal(byte, self.at));
                self.at += 1;
                if byte == b'-' {
                    self.is_busy();
                }
            }
        }
        Ok(())
    }

    /// `$` and what may belong to it, which stands in so many nested things less one.
    fn dollar(&mut self, depth: usize) -> Result<(), Stop> {
        if depth == 1 {
            self.word(Char::Literal(b'$', self.at));
        }
        self.at += 1;
        self.is_busy();
        match self.peek() {
            Some(b'$') => {
                if depth == 1 {
                    self.word(Char::Literal(b'$', self.at));
                }
                self.at += 1;
                self.is_busy();
                Ok(())
            }
            Some(b'(') => {
                self.at += 1;
                self.substitution(depth)
            }
            Some(b'\'') => {
                self.at += 1;
                self.nested(Kind::Ansi, depth)
            }
            _ => Ok(()),
        }
    }

    /// Behind `$(`.
    fn substitution(&mut self, depth: usize) -> Result<(), Stop> {
        self.unknown();
        if depth <= DEEPEST && self.next_is(b'(') {
            self.at += 1;
            return self.nested(Kind::Arithmetic, depth);
        }
        self.nested(Kind::Substitution, depth)
    }

    /// A comment, up to its newline or the end of the text.
    fn comment(&mut self) -> Result<(), Stop> {
        while self.peek().ok_or(Stop::TextEnds)? != b'\n' {
            self.at += 1;
        }
        self.is_busy();
        self.comment = true;
        Ok(())
    }

    /// A run of `<` or one `>`; whether it was `<<` with a delimiter behind it.
    fn operator(&mut self, byte: u8) -> bool {
        let begin = self.at;
        while self.next_is(byte) && (byte == b'<' || self.at == begin) {
            self.at += 1;
        }
        if byte == b'<' {
            self.is_busy();
        }
        byte == b'<' && self.at - begin == 2 && self.delimiter()
    }

    /// Behind `<<`: takes the delimiter; `false` if there is nothing like one.
    fn delimiter(&mut self) -> bool {
        let begin = self.at;
        let mut document = HereDocument {
            delimiter: Vec::new(),
            tabs: false,
            quoted: false,
        };
        if self.next_is(b'-') {
            document.tabs = true;
            self.at += 1;
            self.is_busy();
        }
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
        let word = self.at;
        let mut quote = None;
        while let Some(byte) = self.peek() {
            match (quote, byte) {
                (None, b' ' | b'\t' | b'\n' | b';' | b'&' | b'|' | b'<' | b'>' | b'(' | b')') => {
                    break;
                }
                (None | Some(b'"'), b'\\') => {
                    document.quoted = true;
                    self.at += 1;
                    self.is_busy();
                    document.delimiter.extend(self.peek());
                    if self.peek().is_none() {
                        break;
                    }
                }
                (None, b'\'' | b'"') => {
                    quote = Some(byte);
                    document.quoted = true;
                }
                (Some(open), _) if open == byte => quote = None,
                _ => document.delimiter.push(byte),
            }
            self.at += 1;
            if self.text[..self.at].last().is_some_and(is_sign) {
                self.is_busy();
            }
            if self.at - self.busy > LIMIT {
                return true;
            }
        }
        let known: usize = self
            .here_documents
            .iter()
            .map(|it| it.delimiter.len())
            .sum();
        if self.at > word
            && !document.delimiter.contains(&b'\n')
            && self.here_documents.len() < 8
            && known + document.delimiter.len() <= 512
            && self.at < self.text.len()
        {
            self.here_documents.push(document);
        }
        self.at > begin
    }

    /// Behind a newline: the bodies of the here-documents before it.
    fn read_bodies(&mut self) -> Result<(), Stop> {
        for document in std::mem::take(&mut self.here_documents) {
            let mut joined = false;
            loop {
                let rest = &self.text[self.at..];
                let Some(newline) = rest.iter().position(|&byte| byte == b'\n') else {
                    return Err(Stop::TextEnds);
                };
                let line = &rest[..newline];
                self.at += newline + 1;
                self.is_busy();
                let tabs = line.iter().take_while(|&&byte| byte == b'\t').count();
                let stripped = if document.tabs { &line[tabs..] } else { line };
                if !joined && stripped == document.delimiter {
                    break;
                }
                let backslashes = line.iter().rev().take_while(|&&byte| byte == b'\\').count();
                joined = !document.quoted && backslashes % 2 == 1;
            }
        }
        Ok(())
    }

    /// A byte of quoted text, told if the quotes stand in the script itself.
    fn quoted(&mut self, depth: usize) {
        let byte = self.text[self.at];
        if depth == 1 {
            self.word(match byte {
                b' ' | b'\t' | b'\r' | b'\n' => Char::Blank(self.at),
                _ => Char::Literal(byte, self.at),
            });
        }
        self.at += 1;
    }

    /// Something nested, behind what opens it, up to and with what closes it.
    fn nested(&mut self, kind: Kind, depth: usize) -> Result<(), Stop> {
        if depth > DEEPEST {
            return Err(Stop::TooDeep);
        }
        let result = match kind {
            Kind::Single | Kind::Ansi | Kind::Double => self.quotes(kind, depth),
            Kind::Substitution => self.commands(kind, 1, depth),
            Kind::Arithmetic => self.commands(kind, 2, depth),
            Kind::Backquote => self.commands(kind, 0, depth),
        };
        self.is_busy();
        result
    }

    fn quotes(&mut self, kind: Kind, depth: usize) -> Result<(), Stop> {
        loop {
            match (kind, self.peek().ok_or(Stop::TextEnds)?) {
                (Kind::Single | Kind::Ansi, b'\'') | (Kind::Double, b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                (Kind::Ansi | Kind::Double, b'\\') => {
                    self.at += 1;
                    match self.peek().ok_or(Stop::TextEnds)? {
                        b'\n' => self.at += 1,
                        _ => self.quoted(depth),
                    }
                }
                (Kind::Double, b'`') => {
                    self.at += 1;
                    self.unknown();
                    self.nested(Kind::Backquote, depth + 1)?;
                }
                (Kind::Double, b'$') => {
                    self.quoted(depth);
                    if self.next_is(b'$') {
                        self.quoted(depth);
                    } else if self.next_is(b'(') {
                        self.at += 1;
                        self.substitution(depth + 1)?;
                    }
                }
                _ => self.quoted(depth),
            }
        }
    }

    /// Commands within something, in which so many parentheses are open; none for backquotes.
    fn commands(&mut self, kind: Kind, mut open: usize, depth: usize) -> Result<(), Stop> {
        let arithmetic = kind == Kind::Arithmetic;
        let mut may_comment = true;
        loop {
            let byte = self.peek().ok_or(Stop::TextEnds)?;
            let could_comment = std::mem::take(&mut may_comment);
            match byte {
                b'\\' => {
                    self.at += 1;
                    may_comment = could_comment && self.next_is(b'\n');
                    self.peek().ok_or(Stop::TextEnds)?;
                    self.at += 1;
                }
                b'\'' => {
                    self.at += 1;
                    self.nested(Kind::Single, depth + 1)?;
                }
                b'"' => {
                    self.at += 1;
                    self.nested(Kind::Double, depth + 1)?;
                }
                b'`' => {
                    self.at += 1;
                    if kind == Kind::Backquote {
                        return Ok(());
                    }
                    self.nested(Kind::Backquote, depth + 1)?;
                }
                b'$' => self.dollar(depth + 1)?,
                b'(' => {
                    self.at += 1;
                    open += usize::from(kind != Kind::Backquote);
                    may_comment = true;
                }
                b')' => {
                    self.at += 1;
                    may_comment = true;
                    if kind != Kind::Backquote {
                        open -= 1;
                        if open == 0 {
                            return Ok(());
                        }
                    }
                }
                b'#' if could_comment && !arithmetic => {
                    if depth + 1 > DEEPEST {
                        self.at += 1;
                        return Err(Stop::TooDeep);
                    }
                    let ends = |byte| byte == b'\n' || (kind == Kind::Backquote && byte == b'`');
                    while !ends(self.peek().ok_or(Stop::TextEnds)?) {
                        self.at += 1;
                    }
                }
                b'\n' => {
                    self.at += 1;
                    self.read_bodies()?;
                    may_comment = true;
                }
                b'<' | b'>' if !arithmetic => {
                    if self.operator(byte) {
                        continue;
                    }
                    if self.next_is(b'(') {
                        self.at += 1;
                        self.nested(Kind::Substitution, depth + 1)?;
                        continue;
                    }
                    may_comment = true;
                }
                _ => {
                    self.at += 1;
                    may_comment = b" \t\r;&|<>".contains(&byte);
                }
            }
        }
    }
}
