//! The relay inside the job, started by a shell as the proxy starts it. The proxy's part is played
//! here.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::processes::Process;
use support::reach::{Control, PROGRAM, Proxy, say};
use support::tcp::{self, Server};
use support::{Program, Session, skipped};
use vscode_shell_proxy::reach::{IN_JOB, Order, Report, Target, UNREACHED};

fn shell() -> Program {
    Program::new("sh").without_env("SLURM_JOB_ID")
}

/// The relay of a session, which is no child of its shell any more.
#[track_caller]
fn relay(shell: &mut Session) -> Process {
    shell.until("the relay stands alone", |shell| {
        let relays: Vec<Process> = (shell.processes().into_iter())
            .filter(|process| process.mentions("--in-job"))
            .collect();
        match &relays[..] {
            [relay] => Some(relay.clone()),
            _ => None,
        }
    })
}

/// A stream that was opened: the data connection, and the server's end.
#[track_caller]
fn stream(
    proxy: &Proxy,
    control: &mut Control,
    number: u64,
    server: &Server,
) -> (TcpStream, TcpStream) {
    let data = proxy.data(number);
    control.open(number, server.port());
    let target = server.accept();
    assert_eq!(control.report(), Report::Opened { number });
    (data, target)
}

#[track_caller]
fn assert_reset(mut stream: &TcpStream) {
    let error = stream.read(&mut [0; 16]).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn it_answers_and_leaves_the_shells_streams_and_session() {
    let proxy = Proxy::new();
    let (mut shell, _control) = proxy.start(shell());
    assert_eq!(shell.ask("echo $?"), "0");
    let relay = relay(&mut shell);
    assert_eq!(relay.session, relay.pid, "a session of its own");
    assert_ne!(relay.parent, shell.pid().cast_signed());
    for stream in 0..3 {
        let stream = std::fs::read_link(format!("/proc/{}/fd/{stream}", relay.pid));
        assert_eq!(stream.expect("it is there").as_os_str(), "/dev/null");
    }
    let directory = std::fs::read_link(format!("/proc/{}/cwd", relay.pid));
    assert_eq!(directory.expect("it is somewhere").as_os_str(), "/");

    // Nobody but the shell holds them.
    shell.send("exec > /dev/null 2>&1\n");
    assert_eq!(shell.rest_of_stdout(), b"");
    assert!(Process::read(relay.pid).is_some());
}

#[test]
fn it_runs_where_the_shells_session_began_outside_the_process_namespace() {
    if !nix::unistd::geteuid().is_root() {
        return skipped("only root can make a process namespace everywhere");
    }
    // As a container's start does: the session has no id that could be told inside.
    let container = Program::new("unshare").args(["--pid", "--fork", "--mount-proc", "sh"]);
    let container = container.without_env("SLURM_JOB_ID");
    let proxy = Proxy::new();
    let (mut shell, _control) = proxy.start(container);
    assert_eq!(shell.ask("echo $?"), "0");
    assert_eq!(
        shell.ask("cut -d ' ' -f 6 < /proc/$$/stat"),
        "0",
        "the session's id"
    );
}

#[test]
fn the_secret_stands_in_no_argument_and_in_no_variable() {
    let proxy = Proxy::new();
    let (mut shell, _control) = proxy.start(shell());
    let relay = relay(&mut shell);
    let secret = "5e".repeat(32);
    let line = proxy.instructions(vec![proxy.address()]).to_line();
    assert!(line.contains(&secret), "the test looks for the right thing");
    for file in ["cmdline", "environ", "comm"] {
        let bytes = std::fs::read(format!("/proc/{}/{file}", relay.pid)).expect("it is ours");
        assert!(!String::from_utf8_lossy(&bytes).contains(&secret), "{file}");
    }
}

#[test]
fn its_greeting_tells_version_node_and_job() {
    let proxy = Proxy::new();
    let mut shell = shell().env("SLURM_JOB_ID", "4711").start();
    shell.send(proxy.line(PROGRAM, vec![proxy.address()]));
    let node = rustix::system::uname().nodename().to_bytes().to_vec();
    let greeting = Report::Greeting {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node,
        job: b"4711".to_vec(),
    };
    assert_eq!(proxy.control().report(), greeting);
}

#[test]
fn what_it_does_not_understand_it_refuses_in_silence() {
    for words in ["nonsense", "", "reach-2 x"] {
        let end = Program::proxy().arg("--in-job").run(format!("{words}\n"));
        assert_eq!((end.code(), end.stdout_text()), (2, String::new()));
        assert_eq!(end.stderr_text(), "");
    }
    let end = Program::proxy().args(["--in-job", "x"]).run("");
    assert_eq!((end.code(), end.stderr_text()), (2, String::new()));
}

#[test]
fn without_a_proxy_the_shell_goes_on_in_time() {
    let proxy = Proxy::new();
    let refused = Server::on("127.0.0.1").port();
    let silent = Server::on("127.0.0.1");
    let refused = SocketAddr::from(([127, 0, 0, 1], refused));
    for (listener, at) in [(None, refused), (Some(&silent), proxy.address())] {
        let at = listener.map_or(at, |silent| ([127, 0, 0, 1], silent.port()).into());
        let mut shell = shell().start();
        let began = Instant::now();
        shell.send(proxy.line(PROGRAM, vec![at]));
        shell.expect_line(&proxy.answer(UNREACHED));
        // The proxy waits for 3 s; the machine that runs this may be slow.
        println!("{at}: {:?}", began.elapsed());
        shell.until("nothing of it is left", |shell| {
            (shell.processes().len() == 1).then_some(())
        });
    }
}

#[test]
fn the_addresses_are_tried_in_their_order() {
    let proxy = Proxy::new();
    let silent = Server::on("127.0.0.1");
    let silent = SocketAddr::from(([127, 0, 0, 1], silent.port()));
    let mut shell = shell().start();
    shell.send(proxy.line(PROGRAM, vec![silent, proxy.address()]));
    let _control = proxy.control();
    shell.expect_line(&proxy.answer(IN_JOB));
}

/// A listener that is somebody else's.
fn hostile(answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let listener = Server::on("127.0.0.1");
    let at = ([127, 0, 0, 1], listener.port()).into();
    thread::spawn(move || {
        while let Some(mut stream) = listener.accept_within(Duration::from_secs(10)) {
            let mut hello = [0; vscode_shell_proxy::reach::HELLO];
            if stream.read_exact(&mut hello).is_ok() {
                let _ = stream.write_all(&answer(&hello));
            }
            // What it says then is nothing.
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
            assert_eq!(rest, b"", "a proof for a stranger");
        }
    });
    at
}

#[test]
fn a_stranger_at_the_address_is_not_believed() {
    type Answer = fn(&[u8]) -> Vec<u8>;
    let answers: [(&str, Answer); 4] = [
        ("noise", |_| vec![7; 64]),
        ("a reflection", |hello| [hello, hello].concat()),
        ("something else", |_| {
            b"HTTP/1.1 400 Bad Request\r\n\r\n".repeat(4)
        }),
        ("its end", |_| Vec::new()),
    ];
    for (what, answer) in answers {
        let proxy = Proxy::new();
        let mut shell = shell().start();
        shell.send(proxy.line(PROGRAM, vec![hostile(answer)]));
        shell.expect_line(&proxy.answer(UNREACHED));
        println!("{what} was not believed");
    }
}

#[test]
fn a_recorded_proof_is_not_believed() {
    let proxy = Proxy::new();
    let (_shell, _control) = proxy.start(shell());
    // The spare: its challenge is recorded, and played back to the next attempt.
    let record = |mut stream: &TcpStream| {
        let mut hello = [0; vscode_shell_proxy::reach::HELLO];
        stream.read_exact(&mut hello).expect("a hello");
        let mut acceptor = vscode_shell_proxy::reach::Acceptor::new([7; 32]);
        match acceptor.feed(&proxy.secret, &mut &hello[..]) {
            Ok(vscode_shell_proxy::reach::Reached::Answer(challenge)) => challenge,
            other => panic!("{other:?}"),
        }
    };
    let first = proxy.listener.accept();
    let challenge = record(&first);
    drop(first);
    let mut second = proxy.listener.accept();
    second.write_all(&challenge).expect("it listens");
    let mut rest = Vec::new();
    let _ = second.read_to_end(&mut rest);
    let hello = vscode_shell_proxy::reach::HELLO;
    assert_eq!(rest.len(), hello, "a proof for a stranger");
    // The relay tries again, and finds the proxy.
    proxy.data(0);
}

#[test]
fn a_stream_leads_to_a_port_and_the_next_spare_is_there() {
    let (proxy, server) = (Proxy::new(), Server::on("127.0.0.1"));
    let (_shell, mut control) = proxy.start(shell());
    for number in 0..3 {
        let (data, target) = stream(&proxy, &mut control, number, &server);
        say(&data, &target, b"a question");
        say(&target, &data, b"an answer");
    }
    let _spare = proxy.data(3);
}

#[test]
fn the_clients_bytes_need_not_wait_for_the_answer() {
    let (proxy, server) = (Proxy::new(), Server::on("127.0.0.1"));
    let (_shell, mut control) = proxy.start(shell());
    let data = proxy.data(0);
    // All of it comes, its end too, before the order.
    (&data).write_all(b"early").expect("taken");
    tcp::half_close(&data);
    thread::sleep(Duration::from_millis(50));
    control.open(0, server.port());
    let target = server.accept();
    assert_eq!(tcp::read_all(&target), b"early");
    say(&target, &data, b"late");
}

#[test]
fn a_stream_leads_to_a_unix_socket() {
    let proxy = Proxy::new();
    let (shell, mut control) = proxy.start(shell());
    let path = shell.path("socket");
    let listener = UnixListener::bind(&path).expect("a socket");
    let data = proxy.data(0);
    let target = Target::Socket(path.as_os_str().as_bytes().to_vec());
    control.order(&Order::Open { number: 0, target });
    assert_eq!(control.report(), Report::Opened { number: 0 });
    let (mut server, _) = listener.accept().expect("a connection");
    (&data).write_all(b"a question").expect("taken");
    tcp::half_close(&data);
    let mut heard = Vec::new();
    server.read_to_end(&mut heard).expect("an end");
    assert_eq!(heard, b"a question");
    server.write_all(b"an answer").expect("taken");
    drop(server);
    assert_eq!(tcp::read_all(&data), b"an answer");
}

#[test]
fn much_goes_through_both_ways_at_once() {
    let (proxy, server) = (Proxy::new(), Server::on("127.0.0.1"));
    let (_shell, mut control) = proxy.start(shell());
    let (data, target) = stream(&proxy, &mut control, 0, &server);
    let (up, down) = (tcp::noise(1, 8 << 20), tcp::noise(2, 8 << 20));
    thread::scope(|scope| {
        for (end, bytes) in [(&data, &up), (&target, &down)] {
            scope.spawn(move || {
                let mut end = end;
                end.write_all(bytes).expect("taken");
                tcp::half_close(end);
            });
        }
        scope.spawn(|| assert!(tcp::read_all(&target) == up));
        scope.spawn(|| assert!(tcp::read_all(&data) == down));
    });
}

#[test]
fn a_reset_goes_through_both_ways() {
    let (proxy, server) = (Proxy::new(), Server::on("127.0.0.1"));
    let (_shell, mut control) = proxy.start(shell());
    let (data, target) = stream(&proxy, &mut control, 0, &server);
    tcp::reset(data);
    assert_reset(&target);
    let (data, target) = stream(&proxy, &mut control, 1, &server);
    tcp::reset(target);
    assert_reset(&data);
}

#[test]
fn a_target_that_refuses_is_told_and_the_client_reset() {
    let proxy = Proxy::new();
    let (_shell, mut control) = proxy.start(shell());
    let port = Server::on("127.0.0.1").port();
    let nowhere = || Target::Socket(b"/nowhere/socket".to_vec());
    let refusals = [
        (Target::Port(port), nix::libc::ECONNREFUSED),
        (nowhere(), nix::libc::ENOENT),
    ];
    for (number, (target, errno)) in (0..).zip(refusals) {
        let data = proxy.data(number);
        control.order(&Order::Open { number, target });
        assert_eq!(control.report(), Report::Failed { number, errno });
        assert_reset(&data);
    }
}

#[test]
fn two_hundred_at_once_are_all_served() {
    let (proxy, server) = (Proxy::new(), Server::on("127.0.0.1"));
    let (_shell, mut control) = proxy.start(shell());
    for number in 0..200 {
        control.open(number, server.port());
    }
    let streams: Vec<TcpStream> = (0..200).map(|number| proxy.data(number)).collect();
    // Which of the server's is whose is told by what comes.
    for (number, mut data) in streams.iter().enumerate() {
        data.write_all(&[number as u8]).expect("taken");
    }
    let mut seen: Vec<u8> = (0..200)
        .map(|_| {
            let mut target = server.accept();
            let number = tcp::read_exactly(&target, 1);
            target.write_all(&number).expect("taken");
            number[0]
        })
        .collect();
    for (number, data) in streams.iter().enumerate() {
        assert_eq!(tcp::read_exactly(data, 1), [number as u8], "another's");
    }
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..200));
    let mut opened: Vec<Report> = (0..200).map(|_| control.report()).collect();
    opened.sort_by_key(|report| match report {
        Report::Opened { number } => *number,
        other => panic!("{other:?}"),
    });
    opened.dedup();
    assert_eq!(opened.len(), 200);
    proxy.data(200);
}

#[test]
fn beyond_its_descriptors_it_refuses_and_goes_on() {
    let (proxy, server) = (Proxy::new(), Server::on("127.0.0.1"));
    let (_shell, mut control) = proxy.start(shell().open_files(80));
    let mut streams: Vec<_> = (0..8)
        .map(|number| stream(&proxy, &mut control, number, &server))
        .collect();
    let data = proxy.data(8);
    control.open(8, server.port());
    let errno = nix::libc::EMFILE;
    assert_eq!(control.report(), Report::Failed { number: 8, errno });
    assert_reset(&data);
    streams.pop();
    let (data, target) = stream(&proxy, &mut control, 9, &server);
    say(&data, &target, b"room again");
}

#[test]
fn a_number_that_was_passed_over_is_given_up() {
    let (proxy, server) = (Proxy::new(), Server::on("127.0.0.1"));
    let (_shell, mut control) = proxy.start(shell());
    let spare = proxy.data(0);
    control.open(2, server.port());
    assert_reset(&spare);
    let (data, target) = (proxy.data(2), server.accept());
    assert_eq!(control.report(), Report::Opened { number: 2 });
    say(&data, &target, b"a word");
    proxy.data(3);
}

#[test]
fn a_spare_that_is_lost_is_dialled_again_and_the_first_of_a_row_is_told() {
    let (proxy, server) = (Proxy::new(), Server::on("127.0.0.1"));
    let (_shell, mut control) = proxy.start(shell());
    let told = |report| match report {
        Report::Note { text, .. } => {
            assert!(text.contains("kept ready for the next client"), "{text}")
        }
        other => panic!("{other:?}"),
    };
    tcp::reset(proxy.data(0));
    told(control.report());
    // Strangers' silence is not a spare that stands.
    drop((proxy.listener.accept(), proxy.listener.accept()));
    let (data, target) = stream(&proxy, &mut control, 0, &server);
    say(&data, &target, b"a word");
    tcp::reset(proxy.data(1));
    told(control.report());
}

#[test]
fn it_ends_with_the_shell() {
    for ending in ["exit\n", "kill -9 $$\n"] {
        let proxy = Proxy::new();
        let (mut shell, mut control) = proxy.start(shell());
        let data = proxy.data(0);
        shell.send(ending);
        shell.wait();
        let last = control.until_end();
        assert!(matches!(&last[..], [Report::Note { .. }]), "{last:?}");
        let _ = (&data).read(&mut [0; 1]);
        shell.assert_nothing_left();
    }
}

#[test]
fn it_leaves_when_it_is_told_and_the_shell_goes_on() {
    let (proxy, server) = (Proxy::new(), Server::on("127.0.0.1"));
    let (mut shell, mut control) = proxy.start(shell());
    let (_data, target) = stream(&proxy, &mut control, 0, &server);
    control.order(&Order::End);
    assert_eq!(control.until_end(), []);
    assert_eq!(tcp::read_all(&target), b"");
    shell.until("the relay is gone", |shell| {
        (shell.processes().len() == 1).then_some(())
    });
    assert_eq!(shell.ask("echo on"), "on");
}

#[test]
fn sigterm_ends_it_and_nothing_else_does() {
    let proxy = Proxy::new();
    let (mut shell, mut control) = proxy.start(shell());
    let relay = relay(&mut shell);
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGUSR1] {
        kill(Pid::from_raw(relay.pid), signal).expect("it is there");
    }
    control.open(0, 1);
    assert!(matches!(control.report(), Report::Failed { .. }));
    kill(Pid::from_raw(relay.pid), Signal::SIGTERM).expect("it is there");
    let last = control.until_end();
    assert!(matches!(&last[..], [Report::Note { .. }]), "{last:?}");
    assert_eq!(shell.ask("echo on"), "on");
}

#[test]
fn a_control_connection_that_is_lost_comes_back_and_no_stream_notices() {
    let (proxy, server) = (Proxy::new(), Server::on("127.0.0.1"));
    let (_shell, mut control) = proxy.start(shell());
    let (data, target) = stream(&proxy, &mut control, 0, &server);
    drop(control);
    let mut control = proxy.control();
    assert!(matches!(control.report(), Report::Greeting { .. }));
    // An order whose answer may have been lost is answered once more, and obeyed once.
    control.open(0, server.port());
    assert_eq!(control.report(), Report::Opened { number: 0 });
    let second = stream(&proxy, &mut control, 1, &server);
    say(&second.0, &second.1, b"a new one");
    say(&data, &target, b"an old one");
    say(&target, &data, b"an answer");
    let gone = |number, errno| Report::Failed { number, errno };
    drop((data, target));
    let until = Instant::now() + support::BOUND;
    loop {
        control.open(0, server.port());
        match control.report() {
            Report::Opened { number: 0 } if Instant::now() < until => {}
            report => break assert_eq!(report, gone(0, nix::libc::ECONNABORTED)),
        }
    }
}

#[test]
fn who_speaks_another_language_on_control_is_left_and_dialled_again() {
    let proxy = Proxy::new();
    let (_shell, mut control) = proxy.start(shell());
    control.say(b"\0\x01?");
    assert!(matches!(proxy.control().report(), Report::Greeting { .. }));
    // An orderly end would say that the relay has left.
    control.assert_reset();
}

#[test]
fn without_the_login_side_the_shell_its_descendants_and_the_job_are_ended() {
    let mut proxy = Proxy::new();
    proxy.grace = Duration::from_millis(300);
    // As the scheduler starts it, it leads a session: bash hangs up its process group too.
    let program = Program::new("setsid").args(["bash", "-i"]);
    let program = program.env("SLURM_JOB_ID", "4711");
    let cancelled = program.path("cancelled");
    let program = program.stand_in(
        "scancel",
        &format!("#!/bin/sh\necho \"$@\" >> {}\n", cancelled.display()),
    );
    let (mut shell, control) = proxy.start(program);
    // One in a session of its own, one that is deaf, and one whose parent is gone.
    shell
        .send("setsid sleep 1000 & (trap '' TERM HUP; sleep 1001 & sleep 1002) & (sleep 1003 &)\n");
    shell.until("they run", |shell| {
        let mentions = |what: &str| shell.processes().iter().any(|it| it.mentions(what));
        ["1000", "1001", "1002"]
            .iter()
            .all(|it| mentions(it))
            .then_some(())
    });
    drop((control, proxy));
    shell.wait();
    shell.until("what was below the shell is gone", |shell| {
        let left = shell.processes();
        let is_left = |what: &str| left.iter().any(|it| it.mentions(what));
        (!["1000", "1001", "1002", "--in-job"]
            .iter()
            .any(|it| is_left(it)))
        .then_some(())
    });
    let cancelled = std::fs::read_to_string(cancelled).expect("scancel was run");
    assert_eq!(cancelled, "4711\n");
}

#[test]
fn the_job_is_cancelled_before_the_shell_is_touched_and_again_where_that_fails() {
    let mut proxy = Proxy::new();
    proxy.grace = Duration::from_millis(300);
    let program = Program::new("setsid").args(["bash", "-i"]);
    let program = program.env("SLURM_JOB_ID", "4711");
    let (attempts, shells_pid) = (program.path("attempts"), program.path("pid"));
    // A controller that is away at first. With the shell's end the scheduler's daemon on the node
    // kills whatever else is in the job, the cancellation too.
    let scancel = format!(
        "#!/bin/sh\nsleep 0.2\nkill -0 $(cat {0}) && echo alive >> {1} || echo gone >> {1}\n\
         test $(wc -l < {1}) -ge 3\n",
        shells_pid.display(),
        attempts.display()
    );
    let (mut shell, control) = proxy.start(program.stand_in("scancel", &scancel));
    shell.send(format!("echo $$ > {}\n", shells_pid.display()));
    shell.until("the shell's pid is known", |_| {
        let pid = std::fs::read_to_string(&shells_pid).ok()?;
        pid.ends_with('\n').then_some(())
    });
    drop((control, proxy));
    shell.wait();
    let attempts = std::fs::read_to_string(attempts).expect("scancel was run");
    assert_eq!(attempts, "alive\nalive\nalive\n");
}
