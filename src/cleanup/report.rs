//! The listing: a table for people, JSON for programs, or numbers alone.
//!
//! Names and command lines are other people's bytes. They reach the output as printable ASCII
//! only, so that none of them can move a terminal's cursor or break out of a line or a string.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write};

use bstr::ByteSlice;
use nix::unistd::{Uid, User};
use rustix::termios::{isatty, tcgetwinsize};

use super::end::Outcome;
use super::options::{Options, Output};
use super::scan;
use crate::age::Age;
use crate::process_tree::{Pid, Process, Spared, Ticks};

/// A process of the listing.
#[derive(Debug)]
pub struct Row {
    /// Its tree's root.
    pub root: Pid,
    /// The process.
    pub process: Process,
    /// What became of it, if it should be ended.
    pub outcome: Option<Outcome>,
}

/// What a pass has found.
#[derive(Debug)]
pub struct Listing {
    /// The time of the snapshot.
    pub now: Ticks,
    /// Every process of the trees that were selected; each tree's are side by side.
    pub rows: Vec<Row>,
    /// Roots of the trees that were left alone, and why.
    pub spared: Vec<(Process, Spared)>,
}

impl Listing {
    /// Nothing found at time `now`.
    pub fn new(now: Ticks) -> Self {
        Self {
            now,
            rows: Vec::new(),
            spared: Vec::new(),
        }
    }

    fn trees(&self) -> usize {
        self.rows.chunk_by(|a, b| a.root == b.root).count()
    }

    fn memory(&self) -> u64 {
        let lives_on = |row: &&Row| matches!(row.outcome, Some(Outcome::Refused(_)));
        let rows = self.rows.iter().filter(|row| !lives_on(row));
        rows.map(|row| row.process.private).sum()
    }

    fn age(&self, process: &Process) -> Age {
        seconds(self.now.saturating_sub(process.stat.id.start))
    }
}

/// The terminal's width; `None` where the listing goes elsewhere.
pub fn width() -> Option<usize> {
    let out = io::stdout();
    let size = isatty(&out).then(|| tcgetwinsize(&out).ok()).flatten()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// Writes the listing in the form that the options ask for. Commands of the table are cut to
/// `width` columns.
///
/// # Errors
/// `out`'s.
pub fn write(
    listing: &Listing,
    options: &Options,
    width: Option<usize>,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut names = Names::default();
    let text = match options.output {
        Output::Table => table(listing, options, width, &mut names),
        Output::Json => json(listing, options, &mut names),
        Output::Pids if options.quiet => String::new(),
        Output::Pids => listing
            .rows
            .iter()
            .map(|row| format!("{}\n", row.process.stat.id.pid))
            .collect(),
    };
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn table(listing: &Listing, options: &Options, width: Option<usize>, names: &mut Names) -> String {
    const RIGHT: [bool; 7] = [true, true, false, true, true, true, false];
    let mut lines = vec![
        [
            "ROOT", "PID", "USER", "AGE", "MEMORY", "CPU", "OUTCOME", "COMMAND",
        ]
        .map(str::to_owned),
    ];
    let rows = if options.quiet {
        &[][..]
    } else {
        &listing.rows
    };
    for row in rows {
        let process = &row.process;
        lines.push([
            row.root.to_string(),
            process.stat.id.pid.to_string(),
            printable(names.of(process.uid).as_bytes()),
            listing.age(process).to_string(),
            size(process.resident),
            seconds(process.stat.cpu).to_string(),
            row.outcome
                .as_ref()
                .map(Outcome::to_string)
                .unwrap_or_default(),
            printable(&command(process)),
        ]);
    }
    let mut text = String::new();
    if lines.len() > 1 {
        let columns = |i: usize| lines.iter().map(|line| line[i].len()).max().unwrap_or(0);
        let widths: [usize; 7] = std::array::from_fn(columns);
        for line in &lines {
            let start = text.len();
            for (i, cell) in line[..7].iter().enumerate() {
                let pad = widths[i];
                let _ = match (i, RIGHT[i]) {
                    (6, _) if !options.kill => Ok(()), // nothing has an outcome
                    (_, true) => write!(text, "{cell:>pad$} "),
                    (_, false) => write!(text, "{cell:<pad$} "),
                };
            }
            text += &line[7];
            // All of it is ASCII: a byte is a column.
            text.truncate(width.map_or(text.len(), |width| text.len().min(start + width)));
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
    }
    text + &last_line(listing, options) + "\n"
}

/// `2 trees, 9 processes: ending them frees 812.4M`
fn last_line(listing: &Listing, options: &Options) -> String {
    let count =
        |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
    let trees = count(listing.trees(), "tree", "trees");
    let processes = count(listing.rows.len(), "process", "processes");
    let memory = size(listing.memory());
    if !options.kill {
        return format!("{trees}, {processes}: ending them frees {memory}");
    }
    let refused = |row: &&Row| matches!(row.outcome, Some(Outcome::Refused(_)));
    match listing.rows.iter().filter(refused).count() {
        0 => format!("{trees}, {processes}: {memory} freed"),
        refused => format!("{trees}, {processes}: {memory} freed, {refused} refused"),
    }
}

fn json(listing: &Listing, options: &Options, names: &mut Names) -> String {
    let trees: Vec<String> = listing
        .rows
        .chunk_by(|a, b| a.root == b.root)
        .map(|rows| {
            let processes: Vec<String> = rows
                .iter()
                .map(|row| {
                    let outcome = row.outcome.as_ref().map(Outcome::to_string);
                    let outcome = outcome.map(|outcome| quoted(outcome.as_bytes()));
                    format!(
                        "{{{}{},\"resident_bytes\":{},\"private_bytes\":{},\"outcome\":{}}}",
                        json_process(listing, &row.process, names),
                        format_args!(
                            ",\"cpu_seconds\":{}",
                            seconds(row.process.stat.cpu).as_secs()
                        ),
                        row.process.resident,
                        row.process.private,
                        outcome.as_deref().unwrap_or("null"),
                    )
                })
                .collect();
            if options.quiet {
                return format!("{{\"root\":{}}}", rows[0].root); // a chunk is never empty
            }
            let processes = processes.join(",\n   ");
            format!(
                "{{\"root\":{},\"processes\":[\n   {processes}]}}",
                rows[0].root
            )
        })
        .collect();
    let spared: Vec<String> = listing
        .spared
        .iter()
        .map(|(root, why)| {
            let why = quoted(why.to_string().as_bytes());
            format!("{{{},\"why\":{why}}}", json_process(listing, root, names))
        })
        .collect();
    let list = |items: &[String]| {
        if items.is_empty() {
            "[]".to_owned()
        } else {
            format!("[\n  {}]", items.join(",\n  "))
        }
    };
    let spared = if options.quiet {
        String::new()
    } else {
        format!("\"spared\":{},\n ", list(&spared))
    };
    format!(
        "{{\"trees\":{},\n {spared}\"total\":{{\"trees\":{},\"processes\":{},\"bytes\":{}}}}}\n",
        list(&trees),
        listing.trees(),
        listing.rows.len(),
        listing.memory(),
    )
}

/// The members that every process has, without brackets.
fn json_process(listing: &Listing, process: &Process, names: &mut Names) -> String {
    let stat = &process.stat;
    format!(
        "\"pid\":{},\"parent\":{},\"start_ticks\":{},\"uid\":{},\"user\":{},\"age_seconds\":{},\"command\":{}",
        stat.id.pid,
        stat.parent,
        stat.id.start,
        process.uid,
        quoted(names.of(process.uid).as_bytes()),
        listing.age(process).as_secs(),
        quoted(&command(process)),
    )
}

/// The command line; the name in brackets where there is none, as ps(1) has it.
fn command(process: &Process) -> Vec<u8> {
    let words = process.cmdline.trim_end_with(|c| c == '\0');
    if words.is_empty() {
        return [b"[", &process.comm[..], b"]"].concat();
    }
    words.replace(b"\0", b" ")
}

/// Printable ASCII as it is, the backslash doubled, every other byte as `\xNN`.
fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'\\' => text += "\\\\",
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
    }
    text
}

/// A JSON string, RFC 8259, in ASCII. What is not UTF-8 becomes U+FFFD: JSON has no other word.
fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for character in bytes.chars() {
        match character {
            '"' | '\\' => text.extend(['\\', character]),
            ' '..='~' => text.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    let _ = write!(text, "\\u{unit:04x}");
                }
            }
        }
    }
    text.push('"');
    text
}

/// `512K`, `81.4M`, `2.1G`.
fn size(bytes: u64) -> String {
    let kib = bytes / 1024;
    let tenths = |unit: u64| {
        let tenths = u128::from(kib) * 10 / u128::from(unit);
        (tenths / 10, tenths % 10)
    };
    match kib {
        0..1024 => format!("{kib}K"),
        1024..0x10_0000 => format!("{}.{}M", tenths(1024).0, tenths(1024).1),
        _ => format!("{}.{}G", tenths(0x10_0000).0, tenths(0x10_0000).1),
    }
}

fn seconds(ticks: Ticks) -> Age {
    Age::from_secs(ticks / scan::ticks_per_second())
}

/// Users' names, each looked up once: the name service may be far away.
#[derive(Default)]
struct Names {
    known: HashMap<u32, String>,
}

impl Names {
    fn of(&mut self, uid: u32) -> String {
        let look_up = || {
            let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
            user.map_or_else(|| uid.to_string(), |user| user.name)
        };
        self.known.entry(uid).or_insert_with(look_up).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cleanup::options::{self, Request};
    use crate::process_tree::{Id, Stat};

    fn process(pid: Pid, command: &[u8]) -> Process {
        Process {
            stat: Stat {
                id: Id { pid, start: 0 },
                parent: 1,
                group: pid,
                session: pid,
                state: b'S',
                threads: 1,
                is_kernel: false,
                cpu: 61 * scan::ticks_per_second(),
            },
            comm: b"co\x1bmm".to_vec(),
            uid: 4_000_000_000,
            resident: 3 << 20,
            private: 1 << 20,
            exe: None,
            cmdline: command.to_vec(),
            cgroup: Vec::new(),
        }
    }

    fn listing() -> Listing {
        let mut listing = Listing::new(3_600 * scan::ticks_per_second());
        for (root, pid, command) in [
            (7, 7, &b"sh\0/h/.vscode-server/x y.sh\0"[..]),
            (7, 12, b"a\x1b[31m\n\xff\\\"\0"),
            (8, 8, b""),
        ] {
            listing.rows.push(Row {
                root,
                process: process(pid, command),
                outcome: None,
            });
        }
        listing
    }

    fn written(listing: &Listing, line: &str, width: Option<usize>) -> String {
        let args = line.split_whitespace().map(Into::into);
        let Ok(Request::Run(options)) = options::parse(args) else {
            panic!("{line}");
        };
        let mut out = Vec::new();
        write(listing, &options, width, &mut out).expect("a vector takes all");
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn the_table_is_for_people() {
        assert_eq!(
            written(&listing(), "", None),
            "ROOT PID USER       AGE MEMORY  CPU COMMAND\n   \
                7   7 4000000000  1h   3.0M 1m1s sh /h/.vscode-server/x y.sh\n   \
                7  12 4000000000  1h   3.0M 1m1s a\\x1b[31m\\x0a\\xff\\\\\"\n   \
                8   8 4000000000  1h   3.0M 1m1s [co\\x1bmm]\n\
             2 trees, 3 processes: ending them frees 3.0M\n"
        );
        let cut = written(&listing(), "", Some(40));
        assert!(
            cut.lines().next_back().is_some_and(|line| line.len() > 40),
            "{cut}"
        );
        assert!(
            cut.lines().rev().skip(1).all(|line| line.len() <= 40),
            "{cut}"
        );
        assert_eq!(
            written(&listing(), "-q", None),
            "2 trees, 3 processes: ending them frees 3.0M\n"
        );
        assert_eq!(
            written(&Listing::new(0), "", None),
            "0 trees, 0 processes: ending them frees 0K\n"
        );
    }

    #[test]
    fn outcomes_are_shown_and_what_lives_on_frees_nothing() {
        let mut listing = listing();
        listing.rows[0].outcome = Some(Outcome::Ended);
        listing.rows[1].outcome = Some(Outcome::Killed);
        listing.rows[2].outcome = Some(Outcome::Refused("another user's".into()));
        let text = written(&listing, "-k", None);
        assert!(text.contains(" ended                   sh /h"), "{text}");
        assert!(text.contains(" refused: another user's [co"), "{text}");
        assert!(
            text.ends_with("\n2 trees, 3 processes: 2.0M freed, 1 refused\n"),
            "{text}"
        );
        assert!(!listing.is_done());
        listing.rows.pop();
        assert!(listing.is_done());
        assert!(written(&listing, "-k", None).ends_with("1 tree, 2 processes: 2.0M freed\n"));
    }

    #[test]
    fn json_is_ascii_and_keeps_every_character() {
        let mut listing = listing();
        listing
            .spared
            .push((process(9, "ü𝄞\0".as_bytes()), Spared::Attached));
        let text = written(&listing, "-o json", None);
        assert!(text.is_ascii() && !text.contains('\x1b'));
        assert!(
            text.contains(r#""command":"a\u001b[31m\u000a\ufffd\\\"""#),
            "{text}"
        );
        assert!(
            text.contains(r#""command":"\u00fc\ud834\udd1e","why":"attached""#),
            "{text}"
        );
        assert!(
            text.contains(r#""total":{"trees":2,"processes":3,"bytes":3145728}"#),
            "{text}"
        );
        let quiet = written(&listing, "-qo json", None);
        assert!(
            !quiet.contains("command") && quiet.contains(r#"{"root":8}"#),
            "{quiet}"
        );
    }

    #[test]
    fn numbers_alone() {
        assert_eq!(written(&listing(), "-o pids", None), "7\n12\n8\n");
        assert_eq!(written(&listing(), "-q -o pids", None), "");
    }

    #[test]
    fn sizes() {
        for (bytes, text) in [
            (0, "0K"),
            (1023 * 1024, "1023K"),
            (1 << 20, "1.0M"),
            (1 << 30, "1.0G"),
            (u64::MAX, "17179869183.9G"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
