//! The look-up of a node's name, as a process of its own: getaddrinfo(3) blocks, and may do so for
//! as long as a name service takes.

use std::ffi::OsString;
use std::io::Write;
use std::net::{IpAddr, ToSocketAddrs};

/// First argument of the executable in this hidden mode; the second one is the name.
pub const MODE: &str = "--internal-resolve";

/// More of an answer than this many bytes is not read.
pub const ANSWER_LIMIT: usize = 4096;

/// The hidden mode: prints the addresses of the name in `args`, one a line; the exit status.
pub fn run(mut args: impl Iterator<Item = OsString>) -> u8 {
    let name = args.next().unwrap_or_default();
    let Some(name) = name.to_str() else { return 1 };
    let Ok(found) = (name, 0).to_socket_addrs() else {
        return 1;
    };
    let mut answer = String::new();
    for address in found {
        answer += &format!("{}\n", address.ip());
    }
    match std::io::stdout().write_all(answer.as_bytes()) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

/// The addresses in an answer, each once, both families in turn, in the answer's order within one.
pub fn parse(answer: &[u8]) -> Vec<IpAddr> {
    let text = String::from_utf8_lossy(answer);
    let mut families = [Vec::new(), Vec::new()];
    for address in text.lines().filter_map(|line| line.parse::<IpAddr>().ok()) {
        let family = &mut families[usize::from(address.is_ipv6())];
        if !family.contains(&address) {
            family.push(address);
        }
    }
    let [four, six] = families;
    let longest = four.len().max(six.len());
    (0..longest)
        .flat_map(|n| [four.get(n), six.get(n)])
        .flatten()
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_nothing_comes_twice() {
        let answer = b"10.0.0.1\n10.0.0.1\n10.0.0.2\nfd00::1\nnonsense\n";
        let expected: Vec<IpAddr> = ["10.0.0.1", "fd00::1", "10.0.0.2"]
            .map(|text| text.parse().unwrap())
            .into();
        assert_eq!(parse(answer), expected);
    }
}
