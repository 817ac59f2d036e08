//! Command lines of any bytes.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use crate::options::{Request, parse};

/// Reads `data` as arguments separated by NUL. What is accepted is the same when printed and read
/// again; what is not is explained in one line.
pub fn check(data: &[u8]) {
    let args = data
        .split(|&byte| byte == 0)
        .map(|arg| OsString::from_vec(arg.to_vec()));
    match parse(args) {
        Ok(Request::Run(options)) => {
            assert_eq!(parse(options.to_args()), Ok(Request::Run(options)));
        }
        Ok(Request::SelfTest(options, again)) => {
            assert_eq!(parse(again), Ok(Request::Run(options)));
        }
        Ok(Request::Help(_) | Request::Version(_)) => {}
        Err(error) => {
            let text = error.to_string();
            assert!(
                !text.is_empty() && !text.contains(['\n', '\r', '\x1b']),
                "{text:?}"
            );
        }
    }
}
