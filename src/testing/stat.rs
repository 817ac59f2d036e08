//! `/proc/PID/stat` of any bytes.

use crate::cleanup::scan::parse_stat;

/// Reads `data` as a whole line. What is accepted is said by the line itself, word for word; and
/// whatever name a process gives itself, its numbers are the same.
pub fn check(data: &[u8]) {
    if let Some((stat, comm)) = parse_stat(data) {
        let close = data.iter().rposition(|&byte| byte == b')');
        let close = close.expect("a name in brackets");
        assert_eq!(&data[close - comm.len()..close], comm);
        let words: Vec<&[u8]> = data[close + 1..]
            .split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty())
            .collect();
        assert_eq!(words[0], [stat.state]);
        let start: u64 = std::str::from_utf8(words[19])
            .ok()
            .and_then(|word| word.parse().ok())
            .expect("a start time");
        assert_eq!(stat.id.start, start);
    }
    // A name that looks like a line itself does not change what the real one says.
    let mut line = b"7 (".to_vec();
    line.extend_from_slice(data);
    line.extend_from_slice(b") R 6 5 4 0 -1 64 0 0 0 0 1 2 0 0 20 0 3 0 99\n");
    let (stat, comm) = parse_stat(&line).expect("a valid line");
    assert_eq!(comm, data);
    assert_eq!((stat.id.pid, stat.id.start, stat.parent), (7, 99, 6));
    assert_eq!(
        (stat.group, stat.session, stat.threads, stat.cpu),
        (5, 4, 3, 3)
    );
}
