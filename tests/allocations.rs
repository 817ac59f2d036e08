//! Relaying and scanning allocate nothing, once every kind of thing has happened once.
//!
//! This is a program of its own, without the test harness: it is the test, and, started by it, the
//! proxy with an allocator that counts. How often it was asked for memory is read out of its
//! memory, so the proxy is watched without being disturbed.

#![allow(unsafe_code, reason = "a global allocator is unsafe to be one")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use support::tcp::{self, Server};
use support::{Program, Session};
use vscode_shell_proxy::options::{self, Request};
use vscode_shell_proxy::{keeper, proxy};

/// The first argument of the proxy under test.
const PROXY: &str = "--counted-proxy";

static ASKED: AtomicU64 = AtomicU64::new(0);

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ASKED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ASKED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.next_if(|mode| mode == keeper::MODE).is_some() {
        return keeper::run(args);
    }
    if args.next_if(|mode| mode == PROXY).is_some() {
        return counted(args);
    }
    the_steady_state_allocates_nothing();
    println!("test the_steady_state_allocates_nothing ... ok");
    ExitCode::SUCCESS
}

/// The proxy, having said where its count is.
fn counted(args: impl Iterator<Item = OsString>) -> ExitCode {
    println!("{}", ASKED.as_ptr() as usize);
    let Ok(Request::Run(options)) = options::parse(args) else {
        panic!("the test's own options are good");
    };
    proxy::start(&options).expect("a session").run().into()
}

fn the_steady_state_allocates_nothing() {
    let this = std::env::current_exe().expect("a program has a path");
    // This executable knows no other mode of the program's.
    let program = Program::new(this).args([PROXY, "-q", "--reach=direct", "--", "bash"]);
    let mut session = program.start();
    let address: u64 = session.line().parse().expect("the address of the count");
    let memory = File::open(format!("/proc/{}/mem", session.pid())).expect("the proxy's memory");
    let asked = || {
        let mut count = [0; 8];
        memory
            .read_exact_at(&mut count, address)
            .expect("the count");
        u64::from_ne_bytes(count)
    };
    assert!(asked() > 0, "nothing is counted");

    let server = Server::on("127.0.0.1");
    let port = session.announce(server.port());
    let client = tcp::connect(port);
    let server = server.accept();
    session.send("exec cat\n");

    let everything = |session: &mut Session| {
        carry(&client, &server, 64 << 20);
        carry(&server, &client, 64 << 20);
        for _ in 0..1000 {
            carry(&client, &server, 64);
            carry(&server, &client, 64);
        }
        lines(session);
    };
    everything(&mut session);
    let before = asked();
    everything(&mut session);
    let more = asked() - before;
    assert_eq!(more, 0, "the proxy has asked for memory {more} times");
}

fn carry(mut from: &TcpStream, mut to: &TcpStream, bytes: usize) {
    thread::scope(|scope| {
        scope.spawn(|| from.write_all(&vec![7; bytes]).expect("a write"));
        to.read_exact(&mut vec![0; bytes]).expect("the bytes");
    });
}

/// Lines to the job and back, some of them like those that the interceptors look for.
fn lines(session: &mut Session) {
    let mut text =
        "a line that is nobody's\nlisteningOn\nisteningOn= code-server --host\n".repeat(2000);
    text.push_str("without an end\n");
    session.send(&text);
    assert!(session.read_stdout(text.len()) == text.as_bytes());
}
