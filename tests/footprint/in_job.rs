//! What the relay inside the job costs its node.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, poll};

use crate::observe::Activity;
use crate::support::processes::Process;
use crate::support::reach::{Control, Proxy};
use crate::support::tcp::Server;
use crate::support::{Program, Session};
use crate::trace::Counter;
use crate::{Pair, raise_open_files, release};
use vscode_shell_proxy::reach::Report;

/// A relay in a shell, with the proxy's part played here.
struct InJob {
    proxy: Proxy,
    control: Control,
    server: Server,
    shell: Session,
    /// The next stream.
    next: u64,
}

impl InJob {
    fn start() -> Self {
        raise_open_files();
        let proxy = Proxy::new();
        let shell = Program::new("sh").without_env("LD_LIBRARY_PATH");
        let program = release();
        let program = program.to_str().expect("a plain path");
        let (shell, control) = proxy.start_program(shell, program);
        Self {
            proxy,
            control,
            server: Server::on("127.0.0.1"),
            shell,
            next: 0,
        }
    }

    fn pair(&mut self) -> Pair {
        let number = self.next;
        self.next += 1;
        let client = self.proxy.data(number);
        self.control.open(number, self.server.port());
        let server = self.server.accept();
        assert_eq!(self.control.report(), Report::Opened { number });
        for end in [&client, &server] {
            end.set_nodelay(true).expect("TCP_NODELAY");
        }
        Pair { client, server }
    }

    fn pairs(&mut self, count: usize) -> Vec<Pair> {
        (0..count).map(|_| self.pair()).collect()
    }

    fn process(&mut self) -> Process {
        self.shell.until("the relay stands alone", |shell| {
            let mut processes = shell.processes().into_iter();
            processes.find(|it| it.mentions("--in-job") && it.session == it.pid)
        })
    }
}

#[test]
fn a_relay_that_waits_is_small() {
    let mut in_job = InJob::start();
    let relay = in_job.process();
    Activity::settled(&relay);
    assert_eq!(relay.threads(), 1);
    let resident = relay.status_kib("VmRSS").expect("VmRSS");
    let private = relay.private_kib().expect("it runs");
    println!("resident {resident} KiB, private {private} KiB");
    assert!(resident <= 1600, "the relay has {resident} KiB resident");
    assert!(private <= 192, "the relay has {private} KiB of its own");
}

#[test]
fn a_relay_with_idle_streams_does_nothing() {
    let mut in_job = InJob::start();
    let mut pairs = in_job.pairs(100);
    pairs.iter_mut().for_each(Pair::round_trip);
    let relay = in_job.process();
    let before = Activity::settled(&relay);
    // The assertion is about a time in which nothing happens.
    thread::sleep(Duration::from_secs(5));
    assert_eq!(Activity::of(&relay), before, "{relay}");
}

/// Writes until nothing more is taken: what is under way waits in the kernel, and in the relay.
fn fill(mut from: &TcpStream) {
    from.set_nonblocking(true).expect("F_SETFL on a socket");
    let block = vec![7; 256 * 1024];
    let mut has_room = true;
    while has_room {
        if let Err(error) = from.write(&block) {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            let mut room = [PollFd::new(from.as_fd(), PollFlags::POLLOUT)];
            // What the relay takes, it takes at once.
            has_room = poll(&mut room, 500u16).expect("poll") > 0;
        }
    }
}

#[test]
fn a_relay_whose_readers_are_slow_is_small_too() {
    let mut in_job = InJob::start();
    let pairs = in_job.pairs(40);
    thread::scope(|scope| {
        for pair in &pairs {
            scope.spawn(|| fill(&pair.client));
            scope.spawn(|| fill(&pair.server));
        }
    });
    let relay = in_job.process();
    let resident = relay.status_kib("VmRSS").expect("VmRSS");
    let most = relay.status_kib("VmHWM").expect("VmHWM");
    println!("resident {resident} KiB, at most {most} KiB");
    assert!(most <= 2048, "the relay has had {most} KiB resident");
}

#[test]
fn an_idle_stream_costs_two_descriptors_and_a_kilobyte() {
    let mut in_job = InJob::start();
    in_job.pair().carry(1 << 20);
    let relay = in_job.process();
    let (memory, files) = (relay.private_kib().expect("it runs"), relay.open_files());
    let pairs = in_job.pairs(500);
    // The stream before is closed here, and may not be closed there yet.
    let opened = relay.open_files() - files;
    assert!((998..=1000).contains(&opened), "{opened} descriptors");
    pairs.iter().for_each(|pair| pair.carry(256 * 1024));
    let used = relay.private_kib().expect("it runs");
    println!("private KiB: {memory} without, {used} with 500 streams, after use");
    let each = used.saturating_sub(memory) * 1024 / 500;
    assert!(each <= 1024, "{each} bytes for an idle stream");
}

#[test]
fn what_a_stream_takes_is_what_a_connection_takes() {
    let mut in_job = InJob::start();
    let mut pair = in_job.pair();
    pair.carry(16 << 20);
    pair.round_trip();
    let counter = Counter {
        process: in_job.process(),
        session: &in_job.shell,
    };
    counter.assert_calls(6.05, 2000.0, "round trip", || {
        (0..2000).for_each(|_| pair.round_trip());
    });
    counter.assert_bulk_calls(4.0, 64 << 20, || pair.carry(64 << 20));
}
