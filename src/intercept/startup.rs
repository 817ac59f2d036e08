//! The site's own commands for the job's shell, between the probe and the client's first byte.
//!
//! Each is handed to the shell's `eval`, which works in the Bourne shells and in csh and tcsh
//! (measured), with nothing on its stdin: so a command that reads does not eat what stands behind
//! it. (csh and tcsh ignore that: their `eval` does not redirect what it runs.) The last line says
//! on stdout and on stderr that all of them have ended. Up to there what the
//! shell writes is theirs and not the client's.

/// What the end is called behind the marker.
pub const ENDED: &[u8] = b"startup";

/// Most bytes of one line of output that are told.
const LINE: usize = 512;
/// Most bytes of output that are told in all, of one stream.
const TOLD: usize = 64 * 1024;

/// The lines for the shell, the last newline included.
pub fn startup_text(commands: &[String], marker: &str) -> Vec<u8> {
    let mut text = String::new();
    for command in commands {
        text += &format!("eval '{}' < /dev/null\n", command.replace('\'', r"'\''"));
    }
    let word = ENDED.escape_ascii();
    // `>&2` is a file's name in csh, so that sh has to write there. Its echo may be another one, but
    // there is nothing in the text that could mean something to it.
    text += &format!("\\echo {marker}:{word}:; /bin/sh -c 'echo {marker}:{word}: >&2'\n");
    text.into_bytes()
}

/// What the commands write to one stream, line by line.
#[derive(Debug, Default)]
pub struct StartupOutput {
    line: Vec<u8>,
    /// At most [`TOLD`], but for the last line.
    told: usize,
    /// The last line that was told.
    last: String,
}

impl StartupOutput {
    /// Takes bytes of the stream; the next whole line, as one that can stand in a log. `None` when
    /// `input` is used up.
    pub fn next(&mut self, input: &mut &[u8]) -> Option<String> {
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            match byte {
                b'\n' => {
                    if let Some(line) = self.end() {
                        return Some(line);
                    }
                }
                byte if self.line.len() < LINE => self.line.push(byte),
                _ => {}
            }
        }
        None
    }

    /// The rest, if a line has begun.
    pub fn end(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        let shown = |c: char| if c.is_control() { ' ' } else { c };
        let text: String = text.trim_end().chars().map(shown).collect();
        if text.is_empty() || self.told > TOLD {
            return None;
        }
        self.told += text.len() + 1;
        if self.told > TOLD {
            return Some("it writes more than is told here".to_owned());
        }
        self.last.clone_from(&text);
        Some(text)
    }

    /// The last line, or nothing.
    pub fn last(&self) -> &str {
        &self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_stands_between_quotes_and_the_end_is_said_twice() {
        let commands = ["module load gcc", "echo 'a b'"].map(String::from);
        assert_eq!(
            String::from_utf8(startup_text(&commands, "@0")).unwrap(),
            "eval 'module load gcc' < /dev/null\n\
             eval 'echo '\\''a b'\\''' < /dev/null\n\
             \\echo @0:startup:; /bin/sh -c 'echo @0:startup: >&2'\n"
        );
    }

    #[test]
    fn output_is_told_in_lines_without_control_characters() {
        let mut output = StartupOutput::default();
        let mut input: &[u8] = b"one\r\n\n\x1b[1mtwo\xff";
        assert_eq!(output.next(&mut input), Some("one".to_owned()));
        assert_eq!(output.next(&mut input), None);
        assert!(input.is_empty());
        let mut more: &[u8] = b"!\n";
        assert_eq!(output.next(&mut more), Some(" [1mtwo\u{fffd}!".to_owned()));
        assert_eq!(output.end(), None);
        assert_eq!(output.last(), " [1mtwo\u{fffd}!");
    }

    #[test]
    fn what_is_held_and_told_is_bounded() {
        let mut output = StartupOutput::default();
        let long = vec![b'x'; 3 * TOLD];
        assert_eq!(output.next(&mut long.as_slice()), None);
        assert_eq!(output.line.len(), LINE);
        let mut lines = 0;
        let mut told = 0;
        for _ in 0..TOLD {
            let mut input: &[u8] = b"twelve bytes\n";
            if let Some(line) = output.next(&mut input) {
                lines += 1;
                told += line.len();
            }
        }
        assert!(
            lines > 1000 && told <= TOLD + 100,
            "{lines} lines, {told} bytes"
        );
    }

    #[test]
    fn what_fills_the_bound_is_told_and_the_first_line_beyond_is_announced_once() {
        let mut output = StartupOutput::default();
        let line = format!("{}\n", "x".repeat(LINE - 1));
        let mut told = || output.next(&mut line.as_bytes());
        for _ in 0..TOLD / LINE {
            assert_eq!(told().as_deref(), Some(line.trim_end()));
        }
        assert_eq!(told().as_deref(), Some("it writes more than is told here"));
        assert_eq!(told(), None);
    }
}
