//! Command lines of any bytes.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use crate::options::{CommandLine, Request, parse};

/// Reads `data` as arguments separated by NUL. What is accepted is the same when printed and read
/// again; what is not is explained in one line.
pub fn check(data: &[u8]) {
    let args: Vec<OsString> = data
        .split(|&byte| byte == 0)
        .map(|arg| OsString::from_vec(arg.to_vec()))
        .collect();
    let line = CommandLine::read(args.iter().cloned());
    if let Ok(line) = &line {
        assert_eq!(CommandLine::read(line.to_args()).as_ref(), Ok(line));
    }
    match parse(args) {
        Ok(Request::SelfTest(options, again)) => {
            assert_eq!(parse(again), Ok(Request::Run(options)));
        }
        Ok(request) => assert_eq!(line.and_then(|line| parse(line.to_args())), Ok(request)),
        Err(error) => {
            let text = error.to_string();
            assert!(
                !text.is_empty() && !text.contains(['\n', '\r', '\x1b']),
                "{text:?}"
            );
        }
    }
}
