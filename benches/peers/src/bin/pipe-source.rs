//! Lines of 80 bytes into the pipe on stdout, without end and without touching them: pages of a
//! file are lent to the pipe.

use std::io::{self, Write};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::pipe::{SpliceFlags, splice};

/// A whole number of lines, and of pages.
const LENGTH: usize = 80 * 4096;

fn main() -> io::Result<()> {
    let file = memfd_create("lines", MemfdFlags::CLOEXEC)?;
    let line = [&[b'x'; 79][..], b"\n"].concat();
    std::fs::File::from(file.try_clone()?).write_all(&line.repeat(LENGTH / line.len()))?;
    let mut offset = 0;
    loop {
        let left = LENGTH - offset as usize;
        match splice(
            &file,
            Some(&mut offset),
            io::stdout(),
            None,
            left,
            SpliceFlags::empty(),
        ) {
            Ok(_) => offset %= LENGTH as u64,
            // Who read it has read enough.
            Err(rustix::io::Errno::PIPE) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}
