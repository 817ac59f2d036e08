//! The unwinder that a program without unwinding needs: none.
//!
//! A panic aborts, so nobody unwinds. std asks for an unwinder all the same: for the stack traces of
//! RUST_BACKTRACE, which in a stripped program name nothing, and for what its own code, compiled for
//! both kinds of panic, would do if it were unwound. These functions answer instead of libgcc's. The
//! stack looks empty, so the readers of debugging information are left out of the program, 180 KB of
//! 1010, and libgcc_s.so is not loaded, 20 KiB of memory in each process. A panic is reported as ever,
//! with its message and place.
//!
//! A function that is missing here, because another std needs it, comes from libgcc_s again.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::process::abort;

/// `_URC_END_OF_STACK` of the Itanium C++ ABI.
const END_OF_STACK: c_int = 5;

// SAFETY: this is the function's type in the Itanium C++ ABI. It may end before the first frame, and
// neither calls the function nor touches the argument.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_frame: *const c_void, _argument: *mut c_void) -> c_int {
    END_OF_STACK
}

/// What is only called while somebody unwinds.
macro_rules! never_called {
    ($($name:ident)*) => {
        $(
            // SAFETY: it doesn't return, and reads no argument: its type says all that holds for any
            // caller.
            #[unsafe(no_mangle)]
            extern "C" fn $name() -> ! {
                abort()
            }
        )*

        // They are this program's own. A library that the C library loads later, such as a name
        // service written in C++, gets its unwinder from libgcc_s.
        std::arch::global_asm!(
            ".hidden _Unwind_Backtrace",
            $(concat!(".hidden ", stringify!($name))),*
        );
    };
}

never_called! {
    _Unwind_GetDataRelBase
    _Unwind_GetIP
    _Unwind_GetIPInfo
    _Unwind_GetLanguageSpecificData
    _Unwind_GetRegionStart
    _Unwind_GetTextRelBase
    _Unwind_Resume
    _Unwind_SetGR
    _Unwind_SetIP
}
