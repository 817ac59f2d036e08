//! The client's stream, cut into slices in any way.

use super::inbound_reference::rewrite;
use super::slices::Slices;
use crate::intercept::{Inbound, InboundPiece, Notice};
use bstr::ByteSlice;

/// Most bytes held, as documented.
const BOUND: usize = 16 * 1024;

/// Behind a text, it shows what the text has left open.
const START: &[u8] = b"\n$SERVER_SCRIPT --start-server --host=127.0.0.1\n";

/// Reads `data` as a stream, with what its end says about the cuts and whether a server's start
/// follows: the shell gets what the reference says, the same is said about it, and no more is held
/// than is documented.
pub fn check(data: &[u8]) {
    let (slices, text) = Slices::take(data);
    let text = match data.last() {
        Some(128..) => &[text, START].concat(),
        _ => text,
    };
    let expected = rewrite(text);
    for (name, got) in [("whole", run([text])), ("cut", run(slices.of(text)))] {
        assert_eq!(
            got.0.as_bstr(),
            expected.0.as_bstr(),
            "{name}: {:?}",
            text.as_bstr()
        );
        assert_eq!(got.1, expected.1, "{name}: {:?}", text.as_bstr());
    }
    passes_all(slices.of(text), text);
}

/// What comes out for `slices` up to their end, and the notices.
pub(super) fn run<'a>(slices: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, Vec<Notice>) {
    let mut machine = Inbound::new();
    let mut out = (Vec::new(), Vec::new());
    for slice in slices {
        drain(&mut machine, slice, &mut out);
    }
    machine.end();
    drain(&mut machine, b"", &mut out);
    assert_eq!(machine.holds(), 0, "held for ever");
    out
}

fn drain(machine: &mut Inbound, mut input: &[u8], out: &mut (Vec<u8>, Vec<Notice>)) {
    while let Some(piece) = machine.next(&mut input) {
        match piece {
            InboundPiece::Bytes(bytes) => {
                assert!(!bytes.is_empty(), "an empty piece");
                out.0.extend_from_slice(bytes);
            }
            InboundPiece::Notice(notice) => out.1.push(notice),
        }
        assert!(machine.holds() <= BOUND, "holds {}", machine.holds());
    }
    assert!(input.is_empty(), "input was left");
}

/// After the announcement, here before the last slice, what was held comes out as it came, and
/// then everything does.
fn passes_all<'a>(slices: impl Iterator<Item = &'a [u8]>, text: &[u8]) {
    let slices: Vec<&[u8]> = slices.collect();
    let Some((last, before)) = slices.split_last() else {
        return;
    };
    let mut machine = Inbound::new();
    let mut out = (Vec::new(), Vec::new());
    for slice in before {
        drain(&mut machine, slice, &mut out);
    }
    let (out_before, notices) = (out.0.len(), out.1.len());
    let held = machine.holds();
    machine.pass_all();
    drain(&mut machine, last, &mut out);
    let rest = &text[text.len() - last.len() - held..];
    assert_eq!(out.0[out_before..].as_bstr(), rest.as_bstr());
    assert_eq!(out.1.len(), notices);
}
