//! `without-splice COMMAND ARG…` runs a command for which splice(2) fails with EINVAL, as on a
//! kernel or a kind of socket that has none: so the relay's other way is measured in the same place.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

fn main() -> io::Result<()> {
    let mut words = std::env::args_os().skip(1);
    let program = words
        .next()
        .ok_or_else(|| io::Error::other("usage: without-splice COMMAND ARG..."))?;
    refuse_splice()?;
    Err(Command::new(program).args(words).exec())
}

/// Installs a filter that exec(2) keeps: the number of the call is compared, nothing else.
#[allow(unsafe_code)]
fn refuse_splice() -> io::Result<()> {
    use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter};
    let code = |parts: [u32; 3]| parts.iter().sum::<u32>() as u16;
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let splice = libc::SYS_splice as u32;
    let mut steps = [
        // The call's number is the first word of seccomp's data.
        step(code([BPF_LD, BPF_W, BPF_ABS]), 0, 0, 0),
        step(code([BPF_JMP, BPF_JEQ, BPF_K]), 0, 1, splice),
        step(
            code([BPF_RET, BPF_K, 0]),
            0,
            0,
            libc::SECCOMP_RET_ERRNO | libc::EINVAL as u32,
        ),
        step(code([BPF_RET, BPF_K, 0]), 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: steps.len() as u16,
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: the calls read their arguments, which live until they return; a filter on our own
    // thread, with no new privileges, changes no memory.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0
    };
    if done {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
