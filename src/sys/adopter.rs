//! Which process adopts orphans here: measured, since the kernel shows it nowhere.
#![allow(unsafe_code)]

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork};

/// Makes an orphan and asks it for its new parent: the nearest child subreaper above this process,
/// or pid 1 (0 where that is outside of the pid namespace).
///
/// The orphan ends at once and is the adopter's to reap, as all orphans are.
///
/// # Errors
/// No more processes or descriptors are to be had.
pub fn measure() -> io::Result<i32> {
    let (mut answer, answer_end) = io::pipe()?;
    let (start_end, mut start) = io::pipe()?;
    let [start_end_fd, start_fd, answer_fd] = [
        start_end.as_raw_fd(),
        start.as_raw_fd(),
        answer_end.as_raw_fd(),
    ];
    // SAFETY: the child calls nothing but functions that are async-signal-safe (fork, close, read,
    // write, getppid, _exit), on its own stack, and does not return; so it is sound even where
    // other threads run.
    match unsafe { fork()? } {
        ForkResult::Child => {
            // SAFETY: as above, for both of the processes that go on here. The descriptors are
            // open in each, and the buffers are as long as is said.
            unsafe {
                if libc::fork() == 0 {
                    libc::close(start_fd);
                    let mut byte = 0_u8;
                    // A byte: the parent is gone. End of file: nobody wants to know.
                    if libc::read(start_end_fd, (&raw mut byte).cast(), 1) == 1 {
                        let parent = libc::getppid().to_ne_bytes();
                        libc::write(answer_fd, parent.as_ptr().cast(), parent.len());
                    }
                }
                libc::_exit(0)
            }
        }
        ForkResult::Parent { child } => {
            drop((answer_end, start_end));
            // Once it can be waited for, its child has been given to the adopter.
            while waitpid(child, None) == Err(Errno::EINTR) {}
            start.write_all(&[0])?;
            let mut parent = [0; size_of::<i32>()];
            answer.read_exact(&mut parent)?;
            Ok(i32::from_ne_bytes(parent))
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn somebody_adopts() {
        let adopter = super::measure().expect("an orphan");
        assert_eq!(super::measure().expect("another"), adopter);
        let own = i32::try_from(std::process::id()).expect("a pid is positive");
        assert_ne!(adopter, own);
    }
}
