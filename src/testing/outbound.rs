//! The shell's stream, cut into slices in any way, its addresses answered in any way.

use super::slices::Slices;
use crate::intercept::{Announcement, Outbound, OutboundPiece};
use bstr::ByteSlice;

/// Most bytes held, as documented.
const BOUND: usize = 16;

/// What is to be answered to an announcement.
#[derive(Clone, Copy)]
enum Answer {
    Port(u16),
    Unchanged,
}

/// What the client gets, the announced ports with whether a host stood there, and how many Unix
/// sockets were reported.
#[derive(Default, PartialEq, Eq, Debug)]
struct Outcome {
    output: Vec<u8>,
    announced: Vec<(u16, bool)>,
    sockets: usize,
}

/// Reads `data` as a stream, with what its end says about the cuts and the answers: the client
/// gets what the reference says, nothing passes before an answer, and no more is held than is
/// documented.
pub fn check(data: &[u8]) {
    let (seed, rest) = data
        .split_last()
        .map_or((0, data), |(seed, rest)| (*seed, rest));
    let (slices, text) = Slices::take(rest);
    let answers = |number: usize| match (usize::from(seed) + number) % 4 {
        3 => Answer::Unchanged,
        // Ports of every length.
        other => Answer::Port([9, 8080, 65535][other]),
    };
    let expected = reference(text, answers);
    assert_eq!(
        run([text], answers),
        expected,
        "whole: {:?}",
        text.as_bstr()
    );
    assert_eq!(
        run(slices.of(text), answers),
        expected,
        "cut: {:?}",
        text.as_bstr()
    );
}

fn run<'a>(
    slices: impl IntoIterator<Item = &'a [u8]>,
    answers: impl Fn(usize) -> Answer,
) -> Outcome {
    let mut machine = Outbound::new();
    let mut outcome = Outcome::default();
    let mut drain = |machine: &mut Outbound, mut input: &[u8]| {
        while let Some(piece) = machine.next(&mut input) {
            match piece {
                OutboundPiece::Bytes(bytes) => outcome.output.extend_from_slice(bytes),
                OutboundPiece::Socket => outcome.sockets += 1,
                OutboundPiece::Announced(Announcement { port, has_host }) => {
                    let left = input.len();
                    assert!(
                        machine.next(&mut input).is_none(),
                        "went on without an answer"
                    );
                    assert_eq!(input.len(), left, "took input without an answer");
                    match answers(outcome.announced.len()) {
                        Answer::Port(port) => machine.release(port),
                        Answer::Unchanged => machine.release_unchanged(),
                    }
                    outcome.announced.push((port, has_host));
                }
            }
            assert!(machine.holds() <= BOUND, "holds {}", machine.holds());
        }
        assert!(input.is_empty(), "input was left");
    };
    for slice in slices {
        drain(&mut machine, slice);
    }
    machine.end();
    drain(&mut machine, b"");
    outcome
}

/// The same over the whole text, place by place.
fn reference(text: &[u8], answers: impl Fn(usize) -> Answer) -> Outcome {
    let mut outcome = Outcome::default();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let key = at > 0 && b"lL".contains(&text[at - 1]) && rest.starts_with(b"isteningOn=");
        if !key {
            outcome.output.push(text[at]);
            at += 1;
            continue;
        }
        let begin = if rest[11..].starts_with(b"=") { 12 } else { 11 };
        outcome.output.extend_from_slice(&rest[..begin]);
        at += begin;
        let value = &rest[begin..];
        outcome.sockets += usize::from(value.starts_with(b"/"));
        let Some((length, port, has_host)) = address(value) else {
            continue;
        };
        let answer = answers(outcome.announced.len());
        outcome.announced.push((port, has_host));
        let host = if has_host { "127.0.0.1:" } else { "" };
        match answer {
            Answer::Port(port) => outcome.output.extend(format!("{host}{port}").bytes()),
            Answer::Unchanged => outcome.output.extend_from_slice(&value[..length]),
        }
        at += length;
    }
    outcome
}

/// The address that `value` begins with: its length, its port, whether it has a host.
fn address(value: &[u8]) -> Option<(usize, u16, bool)> {
    let hosts = [
        "",
        "127.0.0.1:",
        "0.0.0.0:",
        "[::1]:",
        "[::]:",
        "localhost:",
    ];
    hosts.iter().rev().find_map(|host| {
        let digits: Vec<u8> = value
            .strip_prefix(host.as_bytes())?
            .iter()
            .copied()
            .take_while(u8::is_ascii_digit)
            .collect();
        let port: u32 = String::from_utf8(digits.clone()).ok()?.parse().ok()?;
        // A number as a program prints it.
        let is_port = (1..=65535).contains(&port) && port.to_string().as_bytes() == digits;
        let length = host.len() + digits.len();
        let ends = match value.get(length) {
            None => true,
            Some(b'=' | b' ' | b'\t' | b'\n' | b'\x0c' | b'\r' | b'\x1b') => true,
            Some(_) => false,
        };
        // What was parsed is at most 65535.
        (is_port && ends).then_some((length, port as u16, !host.is_empty()))
    })
}
