//! A line of shell text, cut into commands and words, as far as recognising a command needs it.
//!
//! This is no shell: nothing is expanded, and a quote that stays open ends with the line. What it
//! does not understand it cuts into words that nobody recognises.

use std::ops::Range;

/// One command of a line: its words, as ranges of the line, redirections left out.
pub(super) type Command = Vec<Range<usize>>;

/// What a line consists of.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) commands: Vec<Command>,
    /// Where unquoted `<<` stand that introduce a here-document: the position behind each.
    pub(super) heredocs: Vec<usize>,
}

/// Cuts `line`, without its newline, into commands.
pub(super) fn cut(line: &[u8]) -> Line {
    let mut cut = Line::default();
    let mut command = Command::new();
    let mut skips_word = false;
    let mut at = 0;
    while let Some(&byte) = line.get(at) {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => at += 1,
            b'\\' if line[at + 1..].starts_with(b"\n") => at += 2,
            b'\\' if line[at + 1..].starts_with(b"\r\n") => at += 3,
            b'#' => break,
            b';' | b'|' | b'(' | b')' => {
                end(&mut command, &mut cut);
                at += 1;
            }
            // `&>file` and `>&2` are redirections, `&` ends a command.
            b'&' if line.get(at + 1) != Some(&b'>') => {
                end(&mut command, &mut cut);
                at += 1;
            }
            b'&' | b'<' | b'>' => {
                let operator = line[at..]
                    .iter()
                    .take_while(|byte| b"&<>|".contains(byte))
                    .count();
                // `((1<<2))` shifts; a here-string's `<<<` has its word on the line.
                if line[at..at + operator].starts_with(b"<<")
                    && operator == 2
                    && !line[..at].windows(2).any(|pair| pair == b"((")
                {
                    cut.heredocs.push(at + 2);
                }
                at += operator;
                skips_word = true;
            }
            _ => {
                let start = at;
                at = word_end(line, at);
                let is_descriptor = line[start..at].iter().all(u8::is_ascii_digit)
                    && matches!(line.get(at), Some(b'<' | b'>'));
                if !is_descriptor && !std::mem::take(&mut skips_word) {
                    command.push(start..at);
                }
            }
        }
    }
    end(&mut command, &mut cut);
    cut
}

fn end(command: &mut Command, cut: &mut Line) {
    if !command.is_empty() {
        cut.commands.push(std::mem::take(command));
    }
}

/// The end of the word that begins at `at`: the first unquoted blank or operator.
fn word_end(line: &[u8], mut at: usize) -> usize {
    let mut quote = None;
    while let Some(&byte) = line.get(at) {
        match (quote, byte) {
            (
                None,
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'|' | b'&' | b'<' | b'>' | b'(' | b')',
            ) => {
                break;
            }
            (None, b'\\') if line[at + 1..].starts_with(b"\n") => break,
            (None | Some(b'"'), b'\\') => at += 1,
            (None, b'\'' | b'"') => quote = Some(byte),
            (Some(open), _) if open == byte => quote = None,
            _ => {}
        }
        at += 1;
    }
    at.min(line.len())
}

/// `word` without a pair of quotes around it.
pub(super) fn unquoted(word: &[u8]) -> &[u8] {
    match word {
        [b'"', inner @ .., b'"'] | [b'\'', inner @ .., b'\''] => inner,
        _ => word,
    }
}

/// `NAME=VALUE`, where `word` is one.
pub(super) fn assignment(word: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = word.iter().position(|byte| *byte == b'=')?;
    let (name, value) = (&word[..at], &word[at + 1..]);
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let begins = name.first().is_some_and(|first| !first.is_ascii_digit());
    (begins && name.iter().all(is_name)).then_some((name, value))
}

/// Words that stand before a command without being one.
pub(super) fn is_prefix(word: &[u8]) -> bool {
    const PREFIXES: [&[u8]; 16] = [
        b"if", b"then", b"elif", b"else", b"do", b"while", b"until", b"!", b"{", b"time", b"nohup",
        b"exec", b"env", b"command", b"setsid", b"eval",
    ];
    PREFIXES.contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Vec<&str>> {
        let commands = cut(line.as_bytes()).commands;
        commands
            .iter()
            .map(|words| words.iter().map(|word| &line[word.clone()]).collect())
            .collect()
    }

    #[test]
    fn a_line_is_cut_into_commands_and_words() {
        assert_eq!(
            words(r#"A=1 "$X y" --a='b c' 2>&1 > "f g" &> h < i & d;e|f # g"#),
            vec![
                vec!["A=1", r#""$X y""#, "--a='b c'"],
                vec!["d"],
                vec!["e"],
                vec!["f"]
            ]
        );
        assert_eq!(words("a \\\n b\\ c"), vec![vec!["a", "b\\ c"]]);
    }

    #[test]
    fn here_documents_are_told_from_shifts_and_here_strings() {
        assert_eq!(cut(b"cat <<EOF; x <<- 'A b'").heredocs.len(), 2);
        assert!(cut(b"x $((1 << y)) <<< z '<<A' # <<B").heredocs.is_empty());
    }
}
