//! The bytes of shell text, by what they mean.

pub(super) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

/// Whether a word may begin behind `byte`.
pub(super) fn is_separator(byte: u8) -> bool {
    is_blank(byte) || matches!(byte, b'\n' | b';' | b'&' | b'|' | b'(' | b')' | b'<' | b'>')
}

/// Sets of bytes, one bit each, for [`run`]. First those that mean something in a command that
/// nobody listens to. `-` does not, but it shows that this is command text (see `inbound::QUIET`).
pub(super) const SCRIPT: u8 = 1;
/// What means something within `"`, to nobody who listens.
pub(super) const DOUBLE: u8 = 2;
/// What is not literal text of a word without quotes, or has to be looked at for itself.
pub(super) const TEXT: u8 = 4;
/// The same within `"` and within `'`.
pub(super) const TEXT_IN_DOUBLE: u8 = 8;
pub(super) const TEXT_IN_SINGLE: u8 = 16;
/// What shows that this is shell text.
const SIGN: u8 = 32;
/// What has to be looked at in lines that may be skipped, and in quotes there.
pub(super) const LINES: u8 = 64;
pub(super) const LINES_IN_QUOTES: u8 = 128;

const SETS: [u8; 256] = {
    let mut sets = [0; 256];
    add(&mut sets, SCRIPT | TEXT, b"'\"\\$`#<>;&|()\n");
    add(&mut sets, SCRIPT, b"-");
    add(&mut sets, SIGN, b"-<'\"\\$`");
    add(&mut sets, LINES, b"-'\"\\$`#<(\n");
    add(&mut sets, LINES_IN_QUOTES, b"-'\"\\$`");
    add(&mut sets, DOUBLE | TEXT_IN_DOUBLE, b"\"\\$`");
    add(
        &mut sets,
        TEXT | TEXT_IN_DOUBLE | TEXT_IN_SINGLE,
        b"= \t\r\n",
    );
    add(&mut sets, TEXT_IN_SINGLE, b"'");
    sets
};

const fn add(sets: &mut [u8; 256], set: u8, bytes: &[u8]) {
    let mut at = 0;
    while at < bytes.len() {
        sets[bytes[at] as usize] |= set;
        at += 1;
    }
}

/// Whether `byte` shows that what it stands in is shell text: it quotes, escapes, opens a
/// here-document or begins an option.
pub(super) fn is_sign(byte: u8) -> bool {
    SETS[usize::from(byte)] & SIGN != 0
}

/// How many bytes at the front of `bytes` are in none of `sets`.
#[inline(always)]
pub(super) fn run(bytes: &[u8], sets: u8) -> usize {
    let end = bytes
        .iter()
        .position(|&byte| SETS[usize::from(byte)] & sets != 0);
    end.unwrap_or(bytes.len())
}
