//! Relaying and scanning allocate nothing, once every kind of thing has happened once: neither in the
//! proxy nor in the relay in the job.
//!
//! This is a program of its own, without the test harness: it is the test, and, started by it, the
//! proxy, its keeper and the relay with an allocator that counts. How often that was asked for memory
//! is read out of a process's memory, so it is watched without being disturbed.

#![allow(unsafe_code, reason = "a global allocator is unsafe to be one")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use support::tcp::{self, Server};
use support::{Program, Session};
use vscode_shell_proxy::options::{self, Request};
use vscode_shell_proxy::{in_job, keeper, proxy};

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
    if args.next_if(|mode| mode == in_job::MODE).is_some() {
        return in_job::run(args);
    }
    if args.next_if(|mode| mode == PROXY).is_some() {
        return run_proxy(args);
    }
    for reach in ["direct", "in-job"] {
        the_steady_state_allocates_nothing(reach);
        println!("test the_steady_state_allocates_nothing, reach {reach} ... ok");
    }
    ExitCode::SUCCESS
}

/// The proxy.
fn run_proxy(args: impl Iterator<Item = OsString>) -> ExitCode {
    let Ok(Request::Run(options)) = options::parse(args) else {
        panic!("the test's own options are good");
    };
    proxy::start(&options).expect("a session").run().into()
}

/// The count of a process that is this program too.
struct Count {
    memory: File,
    at: u64,
}

impl Count {
    fn of(pid: i32) -> Self {
        let memory =
            File::open(format!("/proc/{pid}/mem")).expect("the memory of a process of ours");
        let here = ASKED.as_ptr() as u64 - start_of(std::process::id().cast_signed());
        let at = start_of(pid) + here;
        let count = Self { memory, at };
        assert!(count.read() > 0, "nothing is counted");
        count
    }

    fn read(&self) -> u64 {
        let mut count = [0; 8];
        let read = self.memory.read_exact_at(&mut count, self.at);
        read.expect("the count");
        u64::from_ne_bytes(count)
    }
}

/// Where this program lies in the memory of a process.
fn start_of(pid: i32) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("a process of ours");
    let this = std::env::current_exe().expect("a program has a path");
    let first = maps
        .lines()
        .find(|line| line.ends_with(&*this.to_string_lossy()));
    let start = first
        .and_then(|line| line.split('-').next())
        .expect("it is this program");
    u64::from_str_radix(start, 16).expect("an address")
}

fn the_steady_state_allocates_nothing(reach: &str) {
    let this = std::env::current_exe().expect("a program has a path");
    let reach_option = format!("--reach={reach}");
    let program = Program::new(this).args([PROXY, "-q", &reach_option, "--", "bash"]);
    let mut session = program.start();
    let server = Server::on("127.0.0.1");
    let port = session.announce(server.port());
    let client = tcp::connect(port);
    let server = server.accept();
    let mut counts = vec![("the proxy", Count::of(session.pid().cast_signed()))];
    let processes = session.processes();
    let relay = processes
        .iter()
        .find(|process| process.mentions("--in-job"));
    assert_eq!(relay.is_some(), reach == "in-job");
    counts.extend(relay.map(|relay| ("the relay", Count::of(relay.pid))));
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
    let before: Vec<u64> = counts.iter().map(|(_, count)| count.read()).collect();
    everything(&mut session);
    for ((whose, count), before) in counts.iter().zip(before) {
        let more = count.read() - before;
        assert_eq!(more, 0, "{whose} has asked for memory {more} times");
    }
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
