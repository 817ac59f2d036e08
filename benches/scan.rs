//! The interceptors alone, beside one `memchr::memmem` over the same bytes and beside a scanner
//! that collects lines.
//!
//! `cargo bench --bench scan -- [--quick] [FILTER]`. A text of 1 MiB goes through in slices of
//! 16 KiB again and again; a machine goes on where it was, as it does in a session. Texts: lines of
//! 8, 80 and 4000 bytes; a line without an end; a bootstrap script, over and over; almost matches
//! everywhere, of `memmem`'s needles and of what the shell's text is looked through for; and what
//! the machines are slowest at, which `memmem` takes no notice of.
//! Time is the thread's CPU time.

mod support;

use std::hint::black_box;

use memchr::memmem::Finder;
use rustix::time::{ClockId, clock_gettime};
use support::Plan;
use support::record::Record;
use vscode_shell_proxy::intercept::{Inbound, InboundPiece, Outbound, OutboundPiece};

/// Bytes of a text.
const TEXT: usize = 1 << 20;
/// Bytes of a slice.
const SLICE: usize = 16 << 10;

/// What is looked for, by the peers.
const OUTBOUND: &[u8] = b"isteningOn=";
const INBOUND: &[u8] = b"--on-host";

/// A page of a bootstrap script, without what is looked for.
const SCRIPT: &str = r#"# The server's log may not be there yet: it's read until it is.
OS_RELEASE_ID="$(grep -i '^ID=' /etc/os-release 2>/dev/null | sed 's/^ID=//gi' | sed 's/"//g')"
if [ -z "$OS_RELEASE_ID" ]; then
  OS_RELEASE_ID="unknown"
fi
case "$(uname -m)" in
  x86_64|amd64) ARCH="x64" ;;
  *) ARCH='' ;;
esac
for i in $(seq 1 15); do
  LISTENING_ON=`cat "$CLI_LOG_FILE" | grep -E 'listening on .+' | sed 's/.*on //'`
  if [ -n "$LISTENING_ON" ]; then break; fi
  sleep 0.03
done
printf "%s\n" "exitCode==$EXIT_CODE==" "arch==$ARCH==" "platform==linux=="
"#;

fn main() {
    let plan = Plan::from_args();
    let mut record = Record::default();
    let line = |length: usize| "abcdefg ".repeat(length / 8)[..length - 1].to_owned() + "\n";
    let texts = [
        ("lines of 8 bytes", line(8)),
        ("lines of 80 bytes", line(80)),
        ("lines of 4000 bytes", line(4000)),
        ("a line without an end", "abcdefgh".to_owned()),
        ("a script", SCRIPT.to_owned()),
        (
            "almost matches, client to shell",
            "--on-hos --on-hos --on-hos\n".to_owned(),
        ),
        (
            "almost matches, shell to client",
            "listeningOn-listeningOn=x\n".to_owned(),
        ),
        (
            "almost options",
            "--on-por --start-serve -shel\n".to_owned(),
        ),
        ("almost addresses", "listeningOn==1x\n".to_owned()),
        ("announcements of nothing", "listeningOn=".to_owned()),
        ("options", "ls -so\n".to_owned()),
        ("dashes", "-".to_owned()),
        ("quotes", "\"a\" 'b'\n".to_owned()),
        ("substitutions", "a=$(b)\n".to_owned()),
    ];
    for (scenario, unit) in texts {
        if !plan.wants(scenario) {
            continue;
        }
        let text: Vec<u8> = unit.bytes().cycle().take(TEXT).collect();
        let mut inbound = Inbound::new();
        let mut outbound = Outbound::new();
        let mut lines = Lines::default();
        let (here, there) = (Finder::new(INBOUND), Finder::new(OUTBOUND));
        for _ in 0..plan.rounds {
            let mut measure = |name: &str, scan: &mut dyn FnMut(&[u8]) -> usize| {
                let rate = rate(&text, plan.ms, scan);
                record.sample(scenario, name, ("rate", "GB/s"), rate);
            };
            measure("inbound", &mut |slice| through_inbound(&mut inbound, slice));
            measure("memmem for --on-host", &mut |slice| {
                here.find_iter(slice).count()
            });
            measure("outbound", &mut |slice| {
                through_outbound(&mut outbound, slice)
            });
            measure("memmem for isteningOn=", &mut |slice| {
                there.find_iter(slice).count()
            });
            measure("lines", &mut |slice| lines.scan(slice, &there));
        }
        println!("\n{scenario}");
        for (ours, theirs) in [
            ("inbound", "memmem for --on-host"),
            ("outbound", "memmem for isteningOn="),
            ("inbound", "lines"),
            ("outbound", "lines"),
        ] {
            let rate = |name| {
                record
                    .find(scenario, name, "rate")
                    .map(|it| support::record::median(&it.samples))
            };
            let (Some(our_rate), Some(their_rate)) = (rate(ours), rate(theirs)) else {
                continue;
            };
            let ratio = record
                .ratio(scenario, "rate", ours, theirs)
                .unwrap_or(f64::NAN);
            println!(
                "  {ours:<9} {our_rate:>6.2} GB/s: {ratio:>6.2} of {theirs} ({their_rate:.2} GB/s)"
            );
        }
    }
    record.save("scan");
}

/// GB per second of CPU time.
fn rate(text: &[u8], ms: u64, scan: &mut dyn FnMut(&[u8]) -> usize) -> f64 {
    let begin = cpu();
    let mut bytes = 0;
    loop {
        for slice in text.chunks(SLICE) {
            black_box(scan(black_box(slice)));
        }
        bytes += text.len();
        let spent = cpu() - begin;
        if spent * 1000.0 >= ms as f64 {
            return bytes as f64 / spent / 1e9;
        }
    }
}

fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn through_inbound(machine: &mut Inbound, mut input: &[u8]) -> usize {
    let mut passed = 0;
    while let Some(piece) = machine.next(&mut input) {
        if let InboundPiece::Bytes(bytes) = piece {
            passed += bytes.len();
        }
    }
    passed
}

fn through_outbound(machine: &mut Outbound, mut input: &[u8]) -> usize {
    let mut passed = 0;
    while let Some(piece) = machine.next(&mut input) {
        if let OutboundPiece::Bytes(bytes) = piece {
            passed += bytes.len();
        }
    }
    passed
}

/// A scanner that looks at whole lines, as the Python original does.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn scan(&mut self, mut slice: &[u8], finder: &Finder<'_>) -> usize {
        let mut found = 0;
        while let Some(newline) = memchr::memchr(b'\n', slice) {
            let (line, rest) = slice.split_at(newline + 1);
            self.0.extend_from_slice(line);
            found += usize::from(finder.find(&self.0).is_some());
            self.0.clear();
            slice = rest;
        }
        self.0.extend_from_slice(slice);
        if self.0.len() > TEXT {
            // Nobody would wait for the end of such a line for ever.
            self.0.clear();
        }
        found
    }
}
