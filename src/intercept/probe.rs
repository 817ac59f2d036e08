//! The question that the job's shell answers before it reads the client's first byte: where does it
//! run, in which job, and what does Slurm call the node. Echo and answer are taken out of what the
//! client gets.
//!
//! The line works in sh, dash, bash, zsh, csh, tcsh and the Korn shells (measured). Both the echo
//! and the answer begin with a byte that ends no ordinary prompt, so a prompt or a motd that stands
//! before them on the line passes at once; only a beginning of the marker is ever held.
//!
//! Further lines of ours may follow, which begin in the same way ([`Probe::marker`]); a shell, or what
//! it runs for them, answers with a word between colons behind the marker. Where `set -x` traces
//! such a line, what stands behind the marker is taken out too: so nothing of it is shown.

use bstr::ByteSlice;

/// The command word of the line. The backslash makes it a rare beginning, and bypasses an alias.
const ECHO: &[u8] = b"\\echo ";
/// How a trace of the line goes on before the marker.
const TRACE: &[u8] = b"echo ";
/// Most bytes of an answer: a host name has at most 64 of them, a job's id 10, Slurm's name of a
/// node as many as a host name.
const ANSWER: usize = 256;
/// `@` and 32 hexadecimal digits.
const MARKER: usize = 33;

/// The probe of one run.
#[derive(Clone, Debug)]
pub struct Probe {
    line: Vec<u8>,
    /// `\echo ` and the marker: how an echo begins. An answer begins with the marker alone.
    echo: [u8; ECHO.len() + MARKER],
}

/// What the shell has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeAnswer {
    /// The node's name, as `uname -n` prints it; never empty.
    pub node: Vec<u8>,
    /// What `SLURM_JOB_ID` holds there, if anything.
    pub job: Option<Vec<u8>>,
    /// What `SLURMD_NODENAME` holds there, if anything: Slurm's name of the node.
    pub slurm_node: Option<Vec<u8>>,
}

/// One step's answer.
#[derive(Debug, PartialEq, Eq)]
pub enum ProbePiece<'a> {
    /// Bytes that are not the probe's.
    Bytes(&'a [u8]),
    /// The shell has answered the probe.
    Answer(ProbeAnswer),
    /// A further question was answered with this word, of letters, digits and `/._+-`; it is never
    /// empty.
    Word(Vec<u8>),
    /// A line of ours has come back, or an answer that cannot be understood: something is there that
    /// reads.
    Echo,
}

impl Probe {
    /// A probe whose marker carries `random`. With `shell` the job's environment gets this value of
    /// `SHELL`; one that a shell might not take literally is left out.
    pub fn new(random: [u8; 16], shell: Option<&str>) -> Self {
        let mut echo = [0; ECHO.len() + MARKER];
        echo[..ECHO.len()].copy_from_slice(ECHO);
        echo[ECHO.len()] = b'@';
        for (place, byte) in echo[ECHO.len() + 1..].chunks_exact_mut(2).zip(random) {
            let hex = |half: u8| b"0123456789abcdef"[usize::from(half)];
            place.copy_from_slice(&[hex(byte >> 4), hex(byte & 15)]);
        }
        let mut line = echo.to_vec();
        line.extend_from_slice(b":`uname -n`:`printenv SLURM_JOB_ID`:`printenv SLURMD_NODENAME`:");
        if let Some(shell) = shell.filter(|shell| is_plain(shell.as_bytes())) {
            // `$?shell` is 1 in csh and tcsh, and the last status with a word behind it elsewhere.
            let restore =
                format!("; test $?shell = 1 && setenv SHELL {shell} || export SHELL={shell}");
            line.extend_from_slice(restore.as_bytes());
        }
        line.push(b'\n');
        Self { line, echo }
    }

    /// The line for the shell, newline included.
    pub fn line(&self) -> &[u8] {
        &self.line
    }

    /// How an answer begins: `@` and 32 hexadecimal digits. Every line of ours begins with `\echo `
    /// and this.
    pub fn marker(&self) -> &str {
        // It was made of nothing but such characters.
        std::str::from_utf8(&self.echo[ECHO.len()..]).unwrap_or_default()
    }
}

fn is_plain(text: &[u8]) -> bool {
    text.iter()
        .all(|byte| byte.is_ascii_alphanumeric() || b"/._+-".contains(byte))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Passing,
    /// So many bytes of `echo`, from this one on, are held.
    Matching {
        from: usize,
        until: usize,
    },
    /// In the line of an echo: dropped up to its end.
    Echo,
    /// In the line of an answer.
    Answer,
    /// The stream has ended with so much of the marker's beginning.
    Ended {
        from: usize,
        until: usize,
    },
    /// Nothing is looked for any more.
    Over,
}

/// Takes the probe out of one of the shell's streams. It holds at most the 39 bytes of the marker
/// with its command word, and the answer's line, which is nobody else's.
#[derive(Clone, Debug)]
pub struct ProbeFilter {
    echo: [u8; ECHO.len() + MARKER],
    state: State,
    answer: Vec<u8>,
    /// The last bytes that passed: `echo ` before an answer says that a shell traces (`set -x`)
    /// what it runs, and that the answer itself is still to come.
    tail: Vec<u8>,
    traced: bool,
    /// Answers still to come; those of a trace do not count.
    answers: usize,
    /// Nothing more is looked for once what is under way is finished.
    stops: bool,
}

/// What stands behind the marker of an answer.
enum Line {
    Answer(ProbeAnswer),
    Word(Vec<u8>),
}

impl ProbeFilter {
    /// A filter for a stream of the shell that gets `probe`; with the probe's own, there are
    /// `answers` to come.
    pub fn new(probe: &Probe, answers: usize) -> Self {
        Self {
            echo: probe.echo,
            state: State::Passing,
            answer: Vec::new(),
            tail: Vec::with_capacity(2 * TRACE.len()),
            traced: false,
            answers,
            stops: false,
        }
    }

    /// The next piece; `None` when `input` is used up.
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Option<ProbePiece<'s>> {
        loop {
            match self.state {
                State::Over => {
                    let rest = std::mem::take(input);
                    return (!rest.is_empty()).then_some(ProbePiece::Bytes(rest));
                }
                State::Ended { from, until } => {
                    self.state = State::Over;
                    return Some(ProbePiece::Bytes(&self.echo[from..until]));
                }
                State::Passing if self.stops => self.state = State::Over,
                State::Passing => {
                    let at = input.find_byteset([self.echo[0], self.echo[ECHO.len()]]);
                    let (passed, rest) = input.split_at(at.unwrap_or(input.len()));
                    *input = rest;
                    if let Some(first) = rest.first() {
                        let from = if *first == self.echo[0] {
                            0
                        } else {
                            ECHO.len()
                        };
                        self.state = State::Matching { from, until: from };
                    }
                    self.remember(passed);
                    if !passed.is_empty() {
                        return Some(ProbePiece::Bytes(passed));
                    }
                    if rest.is_empty() {
                        return None;
                    }
                }
                State::Matching { from, until } => {
                    let wanted = &self.echo[until..];
                    let same = wanted
                        .iter()
                        .zip(*input)
                        .take_while(|(a, b)| a == b)
                        .count();
                    *input = &input[same..];
                    let until = until + same;
                    self.state = State::Matching { from, until };
                    if until == self.echo.len() {
                        self.state = if from == 0 {
                            State::Echo
                        } else {
                            State::Answer
                        };
                        self.traced = self.tail.ends_with(TRACE);
                        self.tail.clear();
                    } else if input.is_empty() {
                        return None;
                    } else {
                        self.state = State::Passing;
                        self.tail.clear();
                        return Some(ProbePiece::Bytes(&self.echo[from..until]));
                    }
                }
                State::Echo => {
                    let end = input.find_byte(b'\n');
                    *input = end.map_or(&[], |end| &input[end + 1..]);
                    end?;
                    self.state = State::Passing;
                    return Some(ProbePiece::Echo);
                }
                State::Answer => {
                    let end = input.find_byte(b'\n');
                    let (line, rest) = input.split_at(end.map_or(input.len(), |end| end + 1));
                    *input = rest;
                    let room = ANSWER.saturating_sub(self.answer.len());
                    self.answer.extend_from_slice(&line[..line.len().min(room)]);
                    end?;
                    self.state = State::Passing;
                    let line = parse(&self.answer);
                    self.answer = Vec::new();
                    // A trace says what a shell is about to run; the word itself is still to come.
                    let is_trace = self.traced && matches!(line, Some(Line::Word(_)));
                    if let Some(line) = line.filter(|_| !is_trace) {
                        self.answers = self.answers.saturating_sub(usize::from(!self.traced));
                        self.stops |= self.answers == 0;
                        return Some(match line {
                            Line::Answer(answer) => ProbePiece::Answer(answer),
                            Line::Word(word) => ProbePiece::Word(word),
                        });
                    }
                    return Some(ProbePiece::Echo);
                }
            }
        }
    }

    /// One answer more is to come than was thought, to a question that is not asked yet.
    pub fn expect_another(&mut self) {
        self.answers += 1;
        self.stops = false;
        if self.state == State::Over {
            self.state = State::Passing;
        }
    }

    /// Nothing of the probe will come on this stream any more; a line of it that has begun is still
    /// taken out. A filter stops by itself at the last answer that is no trace.
    pub fn stop(&mut self) {
        self.stops = true;
    }

    fn remember(&mut self, passed: &[u8]) {
        let last = &passed[passed.len().saturating_sub(TRACE.len())..];
        if last.len() == TRACE.len() {
            self.tail.clear();
        }
        self.tail.extend_from_slice(last);
        let surplus = self.tail.len().saturating_sub(TRACE.len());
        self.tail.drain(..surplus);
    }

    /// The stream has ended: a beginning of the marker that is held comes out with the next piece.
    pub fn end(&mut self) {
        self.state = match self.state {
            State::Matching { from, until } => State::Ended { from, until },
            _ => State::Over,
        };
    }

    /// How many bytes are held that may not be the probe's.
    pub fn holds(&self) -> usize {
        match self.state {
            State::Matching { from, until } => until - from,
            _ => 0,
        }
    }
}

/// `:NODE:JOB:SLURM_NODE:` or `:WORD:`, and the line's end.
fn parse(line: &[u8]) -> Option<Line> {
    let line = line.trim_end_with(|end| end == '\r' || end == '\n');
    let inner = line.strip_prefix(b":")?.strip_suffix(b":")?;
    let fields: Vec<&[u8]> = inner.split(|byte| *byte == b':').collect();
    let is_word = |field: &[u8]| !field.is_empty() && is_plain(field);
    let some = |field: &[u8]| is_word(field).then(|| field.to_vec());
    match fields[..] {
        [word] => some(word).map(Line::Word),
        // Without its name by Slurm a node is a node; without the job's id something is wrong.
        [node, job, slurm_node] if is_plain(job) => Some(Line::Answer(ProbeAnswer {
            node: some(node)?,
            job: some(job),
            slurm_node: some(slurm_node),
        })),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::slices::cut;
    use proptest::prelude::*;

    fn probe() -> Probe {
        Probe::new(*b"0123456789abcdef", Some("/usr/bin/fish"))
    }

    fn marker() -> String {
        format!("@{}", "30313233343536373839616263646566")
    }

    fn filtered(slices: &[&[u8]]) -> (Vec<u8>, Vec<ProbeAnswer>) {
        let (out, answers, _) = filtered_of(1, slices);
        (out, answers)
    }

    fn filtered_of(expected: usize, slices: &[&[u8]]) -> (Vec<u8>, Vec<ProbeAnswer>, Vec<Vec<u8>>) {
        let (mut filter, mut out, mut answers, mut words) = (
            ProbeFilter::new(&probe(), expected),
            Vec::new(),
            Vec::new(),
            Vec::new(),
        );
        for slice in slices.iter().copied().map(Some).chain([None]) {
            let mut input = slice.unwrap_or_default();
            if slice.is_none() {
                filter.end();
            }
            while let Some(piece) = filter.next(&mut input) {
                match piece {
                    ProbePiece::Bytes(bytes) => out.extend_from_slice(bytes),
                    ProbePiece::Answer(answer) => answers.push(answer),
                    ProbePiece::Word(word) => words.push(word),
                    ProbePiece::Echo => {}
                }
            }
            assert!(input.is_empty() && filter.holds() <= 40);
        }
        (out, answers, words)
    }

    fn answer(node: &str, job: Option<&str>, slurm_node: Option<&str>) -> ProbeAnswer {
        ProbeAnswer {
            node: node.into(),
            job: job.map(Into::into),
            slurm_node: slurm_node.map(Into::into),
        }
    }

    #[test]
    fn the_answer_is_taken_out_wherever_it_stands() {
        let marker = marker();
        for (fields, before, behind, job, slurm_node) in [
            (":node1:12:n1:\n", "", "next", Some("12"), Some("n1")),
            (":node1:12::\n", "a\n", "b\n", Some("12"), None),
            (":node1:::\r\n", "motd $ ", "", None, None),
            // What Slurm would call no node is none.
            (":node1::n1 n2:\n", "", "", None, None),
        ] {
            let text = format!("{before}{marker}{fields}{behind}");
            let rest = format!("{before}{behind}");
            let (out, answers) = filtered(&[text.as_bytes()]);
            assert_eq!(
                (out.as_bstr(), answers),
                (
                    rest.as_bytes().as_bstr(),
                    vec![answer("node1", job, slurm_node)]
                ),
                "{text}"
            );
        }
    }

    #[test]
    fn the_echo_is_taken_out_with_its_newline_and_is_no_answer() {
        let probe = probe();
        let echo = String::from_utf8(probe.line().to_vec()).unwrap();
        let text = format!("bash$ {}\r\n{}more", echo.trim_end(), echo);
        assert_eq!(
            filtered(&[text.as_bytes()]),
            (b"bash$ more".to_vec(), vec![])
        );
    }

    #[test]
    fn what_comes_back_without_an_answer_is_a_sign_of_somebody_who_reads() {
        let (probe, marker) = (probe(), marker());
        let echo = String::from_utf8(probe.line().to_vec()).unwrap();
        for (text, signs) in [
            (echo.as_str(), 1),
            // A shell without uname.
            (&format!("{marker}::1::\n"), 1),
            (&format!("{echo}{marker}:n:1::\n"), 1),
            (&format!("motd\n{marker}:n:1::\n"), 0),
            (&format!("motd\n\\echo {marker}:"), 0),
        ] {
            let (mut filter, mut found, mut input) =
                (ProbeFilter::new(&probe, 1), 0, text.as_bytes());
            while let Some(piece) = filter.next(&mut input) {
                found += usize::from(piece == ProbePiece::Echo);
            }
            assert_eq!(found, signs, "{text}");
        }
    }

    #[test]
    fn a_trace_is_taken_out_and_the_answer_behind_it_too() {
        let marker = marker();
        let text = format!("+ echo {marker}:n:1::\n{marker}:n:1::\nx");
        let (out, answers) = filtered(&[text.as_bytes()]);
        assert_eq!((out.as_bstr(), answers.len()), ("+ echo x".into(), 2));
    }

    #[test]
    fn further_questions_are_answered_by_words_and_their_traces_show_nothing() {
        let marker = marker();
        let text = format!(
            "{marker}:n:1::\n\\echo {marker}-secret | sh -c x\n+ echo {marker}-secret\n+ sh -c x\n\
             {marker}:up:\n{marker}:down:\n"
        );
        let (out, answers, words) = filtered_of(2, &[text.as_bytes()]);
        assert_eq!(
            out.as_bstr(),
            format!("+ echo + sh -c x\n{marker}:down:\n")
                .as_bytes()
                .as_bstr(),
            "after the last answer nothing is looked for"
        );
        assert_eq!(
            (answers, words),
            (vec![answer("n", Some("1"), None)], vec![b"up".to_vec()])
        );
    }

    #[test]
    fn what_is_neither_answer_nor_word_is_taken_out_and_tells_nothing() {
        for rest in [
            "",
            ":",
            "::",
            ":::",
            "::::",
            "::1:2:",
            ":n",
            "n:",
            ":n:1:",
            ":n:1:2:3:",
            ":a b:",
            ":a b:1:2:",
            ":n:a b:2:",
            "-x:y:",
        ] {
            let text = format!("a {}{rest}\nb", marker());
            let (out, answers, words) = filtered_of(1, &[text.as_bytes()]);
            assert_eq!(
                (out.as_bstr(), answers.len(), words.len()),
                ("a b".into(), 0, 0),
                "{rest}"
            );
        }
    }

    #[test]
    fn what_only_begins_like_the_probe_passes() {
        for text in [
            "\\",
            "\\echo x",
            "@",
            "@303x",
            "user@host",
            "\\echo @30313233y",
            "\\\\@@",
        ] {
            assert_eq!(
                filtered(&[text.as_bytes()]),
                (text.as_bytes().to_vec(), vec![]),
                "{text}"
            );
        }
    }

    #[test]
    fn the_line_has_its_marker_behind_an_echo() {
        assert_eq!(probe().marker(), marker());
        assert!(probe().line().contains_str(format!("\\echo {}", marker())));
    }

    #[test]
    fn a_trace_is_known_wherever_it_is_cut() {
        let marker = marker();
        let text = format!("+ echo {marker}:n:1::\n{marker}:n:1::\nx");
        for at in 0..text.len() {
            let (before, behind) = text.as_bytes().split_at(at);
            let (out, answers) = filtered(&[before, behind]);
            assert_eq!(
                (out.as_bstr(), answers.len()),
                ("+ echo x".into(), 2),
                "{at}"
            );
        }
    }

    #[test]
    fn only_the_beginning_of_a_marker_is_held() {
        let mut filter = ProbeFilter::new(&probe(), 1);
        for (text, held) in [("a", 0), ("b@30", 3), ("31", 5), ("x", 0)] {
            let mut input = text.as_bytes();
            while filter.next(&mut input).is_some() {}
            assert_eq!(filter.holds(), held, "{text}");
        }
    }

    #[test]
    fn a_prompt_passes_at_once() {
        let mut filter = ProbeFilter::new(&probe(), 1);
        let mut input: &[u8] = b"password: ";
        assert_eq!(
            filter.next(&mut input),
            Some(ProbePiece::Bytes(b"password: "))
        );
    }

    #[test]
    fn after_the_stop_everything_passes() {
        let mut filter = ProbeFilter::new(&probe(), 1);
        filter.stop();
        let text = marker();
        let mut input = text.as_bytes();
        assert_eq!(
            filter.next(&mut input),
            Some(ProbePiece::Bytes(text.as_bytes()))
        );
    }

    #[test]
    fn a_shell_with_special_characters_is_not_put_into_the_line() {
        let probe = Probe::new([0; 16], Some("/bin/x;rm"));
        assert!(!probe.line().contains_str("SHELL"));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(
            parts in proptest::collection::vec(prop_oneof![
                Just(marker()), Just("echo ".to_owned()), Just(format!("{}:n:1::\n", marker())),
                Just(format!("{}:w:\n", marker())), Just("\\echo ".to_owned()),
                Just("@".to_owned()), Just("\\".to_owned()), Just(marker()[..9].to_owned()),
                "[a-c:\n]{0,4}",
            ], 0..10),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
        ) {
            let text = parts.concat().into_bytes();
            prop_assert_eq!(filtered_of(2, &cut(&text, &cuts)), filtered_of(2, &[&text]));
        }
    }
}
