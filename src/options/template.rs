//! Texts with places to be filled: `%u` and the like, and in environment variables `$NAME`.
//!
//! Pure: a text is understood when the options are read, so that a wrong one is refused there, and
//! filled when the launch command is made.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::str::FromStr;

/// The login node and the user, as templates and a launch see them.
#[derive(Debug, Clone)]
pub struct Login {
    /// The user's name: `%u`.
    pub user: String,
    /// The login node's name: `%h`.
    pub host: String,
    /// The proxy's process id: `%p`.
    pub pid: u32,
    /// `SHELL` of the proxy's own environment.
    pub shell: Option<OsString>,
    /// Whether there is a `/bin/bash`.
    pub bash_exists: bool,
    /// The login node's environment: `$NAME`.
    pub variable: fn(&str) -> Option<String>,
}

/// What texts are filled with.
pub struct Filling<'a> {
    /// For most places.
    pub login: &'a Login,
    /// The shell that the job gets: `%s`.
    pub shell: &'a str,
    /// The names of the variables that the launch command gets, comma-separated: `%e`.
    pub names: &'a str,
}

/// A text that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    User,
    Host,
    Pid,
    Shell,
    Names,
    Variable(String),
}

impl Template {
    /// This text, whatever is in it.
    pub fn verbatim(text: &str) -> Self {
        Self(vec![Part::Text(text.to_owned())])
    }

    /// A text with `%u`, `%h`, `%p` and `%%`, and with `$NAME`, `${NAME}` and `$$`.
    ///
    /// # Errors
    /// What would be right.
    pub fn with_variables(text: &str) -> Result<Self, String> {
        read(text, &[Part::User, Part::Host, Part::Pid], true)
    }

    /// The text with its places filled. A variable that is not set is empty.
    pub fn fill(&self, with: &Filling<'_>) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(part) => text += part,
                Part::User => text += &with.login.user,
                Part::Host => text += &with.login.host,
                // Writing to a string cannot fail.
                Part::Pid => drop(write!(text, "{}", with.login.pid)),
                Part::Shell => text += with.shell,
                Part::Names => text += with.names,
                Part::Variable(name) => text += &(with.login.variable)(name).unwrap_or_default(),
            }
        }
        text
    }
}

impl FromStr for Template {
    type Err = String;

    /// A text with `%u`, `%h`, `%p` and `%%`.
    fn from_str(text: &str) -> Result<Self, String> {
        read(text, &[Part::User, Part::Host, Part::Pid], false)
    }
}

/// A launch command: words, one of which may stand for the arguments that are added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandTemplate {
    /// The program, and what stands before the added arguments. Never empty.
    pub front: Vec<Template>,
    /// What stands behind them.
    pub back: Vec<Template>,
}

impl FromStr for CommandTemplate {
    type Err = String;

    /// Words as a shell splits them, with `%u`, `%h`, `%p`, `%s`, `%e` and `%%`; the word `%a` is the
    /// place of the added arguments, which otherwise is the end.
    fn from_str(text: &str) -> Result<Self, String> {
        let words = split(text)?;
        let place = words.iter().position(|word| word == "%a");
        let (front, back) = words.split_at(place.unwrap_or(words.len()));
        let back = back.get(1..).unwrap_or_default();
        if front.first().is_none_or(String::is_empty) {
            return Err("a program's name is expected".to_owned());
        }
        if back.iter().any(|word| word == "%a") {
            return Err("%a stands for all the arguments: it may stand there once".to_owned());
        }
        let places = [Part::User, Part::Host, Part::Pid, Part::Shell, Part::Names];
        let read = |words: &[String]| -> Result<Vec<_>, _> {
            words
                .iter()
                .map(|word| read(word, &places, false))
                .collect()
        };
        Ok(Self {
            front: read(front)?,
            back: read(back)?,
        })
    }
}

/// One text: `%` with the letters of `places`, and `$` where there are `variables`.
fn read(text: &str, places: &[Part], variables: bool) -> Result<Template, String> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['%', '$']) {
        plain += &rest[..at];
        let (sign, behind) = rest[at..].split_at(1);
        let (part, length) = match sign {
            "%" => place(behind, places)?,
            _ if variables => variable(behind)?,
            _ => (Part::Text("$".to_owned()), 0),
        };
        match part {
            Part::Text(text) => plain += &text,
            part => {
                parts.push(Part::Text(std::mem::take(&mut plain)));
                parts.push(part);
            }
        }
        rest = &behind[length..];
    }
    plain += rest;
    parts.push(Part::Text(plain));
    parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
    Ok(Template(parts))
}

/// What stands behind a `%`, and how many bytes of it belong there.
fn place(behind: &str, places: &[Part]) -> Result<(Part, usize), String> {
    let part = match behind.chars().next() {
        Some('%') => return Ok((Part::Text("%".to_owned()), 1)),
        Some('u') => Some(Part::User),
        Some('h') => Some(Part::Host),
        Some('p') => Some(Part::Pid),
        Some('s') => Some(Part::Shell),
        Some('e') => Some(Part::Names),
        Some('a') if places.contains(&Part::Shell) => {
            return Err("%a has to be a word of its own".to_owned());
        }
        _ => None,
    };
    match part.filter(|part| places.contains(part)) {
        Some(part) => Ok((part, 1)),
        None if places.contains(&Part::Shell) => {
            Err("behind % one of u, h, p, a, s, e and % is expected".to_owned())
        }
        None => Err("behind % one of u, h, p and % is expected".to_owned()),
    }
}

/// What stands behind a `$`, and how many bytes of it belong there.
fn variable(behind: &str) -> Result<(Part, usize), String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if behind.starts_with('$') {
        return Ok((Part::Text("$".to_owned()), 1));
    }
    let (name, length) = match behind.strip_prefix('{') {
        None => {
            let name = &behind[..behind.find(|c| !is_name(c)).unwrap_or(behind.len())];
            (name, name.len())
        }
        Some(inner) => {
            let name = inner.split_once('}').map_or("", |(name, _)| name);
            (name, name.len() + 2)
        }
    };
    let is_right = !name.is_empty()
        && name.chars().all(is_name)
        && !name.starts_with(|c: char| c.is_ascii_digit());
    match is_right {
        true => Ok((Part::Variable(name.to_owned()), length)),
        false => Err("behind $ a variable's name, {NAME} or another $ is expected".to_owned()),
    }
}

/// The words of a text, as a shell splits them: `'…'`, `"…"` and `\` keep together and take away
/// meaning. Nothing is expanded.
fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c.is_ascii_whitespace() {
            words.extend(word.take());
            continue;
        }
        let word = word.get_or_insert_default();
        match c {
            '\'' | '"' => loop {
                match chars.next() {
                    None => return Err(format!("a closing {c} is missing")),
                    Some(end) if end == c => break,
                    Some('\\') if c == '"' => match chars.next() {
                        Some(next @ ('"' | '\\' | '$' | '`')) => word.push(next),
                        Some(next) => word.extend(['\\', next]),
                        None => return Err("a closing \" is missing".to_owned()),
                    },
                    Some(inner) => word.push(inner),
                }
            },
            '\\' => word.push(chars.next().ok_or("nothing is behind the last \\")?),
            c => word.push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(template: &Template) -> String {
        let login = Login {
            user: "alice".to_owned(),
            host: "login1".to_owned(),
            pid: 42,
            shell: None,
            bash_exists: true,
            variable: |name| (name == "HOME").then(|| "/home/alice".to_owned()),
        };
        template.fill(&Filling {
            login: &login,
            shell: "/bin/bash",
            names: "A,B",
        })
    }

    fn command(text: &str) -> Result<[Vec<String>; 2], String> {
        let command: CommandTemplate = text.parse()?;
        let words = |words: &[Template]| words.iter().map(fill).collect();
        Ok([words(&command.front), words(&command.back)])
    }

    #[test]
    fn words_are_split_as_a_shell_does_it_and_nothing_is_expanded() {
        for text in [
            "salloc --partition=devel",
            "  a\t'b c'  \"d 'e'\" f\\ g ''",
            r#"a"b"'c'\d "\"\\\$\x" '\' "#,
            "'it'\\''s' \"\"",
        ] {
            let script = format!("printf '%s\\0' {text}");
            let sh = std::process::Command::new("sh")
                .arg("-c")
                .arg(script)
                .output();
            let sh = String::from_utf8(sh.unwrap().stdout).unwrap();
            let expected: Vec<&str> = sh.split_terminator('\0').collect();
            assert_eq!(split(text).unwrap(), expected, "{text}");
        }
        let text = "a * $HOME `b` $(c) ~ ; d | e > f # g";
        let words: Vec<&str> = text.split(' ').collect();
        assert_eq!(split(text).unwrap(), words);
        for (text, why) in [
            ("a 'b", "a closing ' is missing"),
            ("a \"b", "a closing \" is missing"),
            ("a \"b\\", "a closing \" is missing"),
            ("a \\", "nothing is behind the last \\"),
        ] {
            assert_eq!(split(text), Err(why.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_commands_places_are_filled_word_by_word() {
        let words = |text| command(text).unwrap().map(|words| words.join("|"));
        assert_eq!(
            words("salloc --job-name=%u@%h.%p %a srun --pty %s 100%%"),
            [
                "salloc|--job-name=alice@login1.42",
                "srun|--pty|/bin/bash|100%"
            ]
        );
        assert_eq!(words("a --export=%e $HOME"), ["a|--export=A,B|$HOME", ""]);
        for (text, why) in [
            ("", "a program's name is expected"),
            ("%a b", "a program's name is expected"),
            ("'' b", "a program's name is expected"),
            (
                "a %a %a",
                "%a stands for all the arguments: it may stand there once",
            ),
            ("a x%a", "%a has to be a word of its own"),
            ("a %x", "behind % one of u, h, p, a, s, e and % is expected"),
            ("a %", "behind % one of u, h, p, a, s, e and % is expected"),
        ] {
            assert_eq!(command(text), Err(why.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_variables_value_takes_from_the_login_environment() {
        let fill_in = |text| Template::with_variables(text).map(|text| fill(&text));
        for (text, value) in [
            ("", ""),
            ("$HOME/lib:${HOME}x", "/home/alice/lib:/home/alicex"),
            ("[$UNSET]", "[]"),
            ("$$HOME 5%% %u", "$HOME 5% alice"),
        ] {
            assert_eq!(fill_in(text), Ok(value.to_owned()), "{text}");
        }
        for text in ["$", "$-", "${", "${}", "${A", "${A-b}", "$1"] {
            let why = "behind $ a variable's name, {NAME} or another $ is expected";
            assert_eq!(fill_in(text), Err(why.to_owned()), "{text}");
        }
        // What only a command has is nothing here.
        for text in ["%s", "%a", "%x", "%"] {
            let why = "behind % one of u, h, p and % is expected";
            assert_eq!(fill_in(text), Err(why.to_owned()), "{text}");
        }
        let text = "$HOME %x";
        assert_eq!(fill(&Template::verbatim(text)), text);
    }
}
