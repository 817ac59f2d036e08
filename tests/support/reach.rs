//! The proxy's part towards a relay inside a job, played over real sockets.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use vscode_shell_proxy::reach::{
    Acceptor, Decoder, IN_JOB, Instructions, Message, Order, Reached, Report, Role, Secret, Target,
    launch_line,
};

use super::tcp::{Server, half_close, read_all};
use super::{Program, Session};

/// The relay's own program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_vscode-shell-proxy");

/// A session's secret, and where its relay dials back to.
pub struct Proxy {
    pub listener: Server,
    pub secret: Secret,
    pub grace: Duration,
    nonces: std::cell::Cell<u8>,
    /// Data connections that have come and were not asked for yet.
    early: std::cell::RefCell<BTreeMap<u64, TcpStream>>,
}

/// A control connection.
pub struct Control {
    stream: TcpStream,
    decoder: Decoder<Report>,
    read: Vec<Report>,
}

impl Proxy {
    pub fn new() -> Self {
        Self {
            listener: Server::on("127.0.0.1"),
            secret: Secret::new([0x5e; 32]),
            grace: Duration::from_secs(30),
            nonces: std::cell::Cell::new(0),
            early: Default::default(),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.listener.port()).into()
    }

    /// What the relay is told, with these addresses.
    pub fn instructions(&self, addresses: Vec<SocketAddr>) -> Instructions {
        Instructions {
            secret: self.secret.clone(),
            marker: format!("@{}", "0123456789abcdef".repeat(2)),
            grace: self.grace,
            addresses,
        }
    }

    /// The line by which the relay answers.
    pub fn answer(&self, word: &str) -> String {
        let answer = self.instructions(vec![]).answer(word);
        answer.trim_end().to_owned()
    }

    /// The line that starts `program` as the relay.
    pub fn line(&self, program: &str, addresses: Vec<SocketAddr>) -> String {
        let machine = nix::sys::utsname::uname().expect("uname");
        let machine = machine.machine().to_str().expect("its machine");
        let line = launch_line(&self.instructions(addresses), program, machine);
        let line = line.expect("a plain path");
        String::from_utf8(line).expect("plain characters")
    }

    /// Starts a shell, and in it the relay; its control connection, greeted.
    #[track_caller]
    pub fn start(&self, shell: Program) -> (Session, Control) {
        self.start_program(shell, PROGRAM)
    }

    /// As [`Self::start`], with the path of the program.
    #[track_caller]
    pub fn start_program(&self, shell: Program, program: &str) -> (Session, Control) {
        let mut shell = shell.start();
        shell.send(self.line(program, vec![self.address()]));
        let mut control = self.control();
        let greeting = control.report();
        assert!(matches!(greeting, Report::Greeting { .. }), "{greeting:?}");
        shell.expect_line(&self.answer(IN_JOB));
        (shell, control)
    }

    /// The next connection, after its handshake.
    #[track_caller]
    pub fn accept(&self) -> (TcpStream, Role) {
        let stream = self.listener.accept();
        let role = self.shake_hands(&stream).expect("a relay");
        (stream, role)
    }

    /// Lets the peer of `stream` in; the bytes that it has sent are in no other stream.
    pub fn shake_hands(&self, mut stream: &TcpStream) -> Option<Role> {
        self.nonces.set(self.nonces.get().wrapping_add(1));
        let mut acceptor = Acceptor::new([self.nonces.get(); 32]);
        let mut buffer = [0; 256];
        loop {
            let bytes = stream.read(&mut buffer[..acceptor.wanted()]).ok()?;
            if bytes == 0 {
                return None;
            }
            match acceptor.feed(&self.secret, &mut &buffer[..bytes]).ok()? {
                Reached::More => {}
                Reached::Answer(challenge) => stream.write_all(&challenge).ok()?,
                Reached::Accepted(role) => return Some(role),
            }
        }
    }

    /// The next control connection; data connections that come before it are kept.
    #[track_caller]
    pub fn control(&self) -> Control {
        loop {
            match self.accept() {
                (stream, Role::Control) => {
                    return Control {
                        stream,
                        decoder: Decoder::default(),
                        read: Vec::new(),
                    };
                }
                (stream, Role::Data { number }) => self.keep(number, stream),
            }
        }
    }

    /// The data connection with this number.
    #[track_caller]
    pub fn data(&self, number: u64) -> TcpStream {
        loop {
            let early = self.early.borrow_mut().remove(&number);
            if let Some(stream) = early {
                return stream;
            }
            match self.accept() {
                (stream, Role::Data { number }) => self.keep(number, stream),
                (_, role) => panic!("not a data connection: {role:?}"),
            }
        }
    }

    fn keep(&self, number: u64, stream: TcpStream) {
        let before = self.early.borrow_mut().insert(number, stream);
        assert!(before.is_none(), "number {number} was dialled twice");
    }
}

impl Control {
    /// Gives an order.
    #[track_caller]
    pub fn order(&mut self, order: &Order) {
        let mut frame = Vec::new();
        order.encode(&mut frame);
        self.stream.write_all(&frame).expect("the relay listens");
    }

    /// Orders the stream `number` to port `port`.
    #[track_caller]
    pub fn open(&mut self, number: u64, port: u16) {
        let target = Target::Port(port);
        self.order(&Order::Open { number, target });
    }

    /// Says what may be no order.
    pub fn say(&self, words: &[u8]) {
        (&self.stream).write_all(words).expect("the relay listens");
    }

    /// The next report.
    #[track_caller]
    pub fn report(&mut self) -> Report {
        self.next().expect("a report, and not the end")
    }

    /// Waits for the connection's end; what was reported before it.
    #[track_caller]
    pub fn until_end(&mut self) -> Vec<Report> {
        std::iter::from_fn(|| self.next()).collect()
    }

    /// Waits for the connection's end, which is a reset.
    #[track_caller]
    pub fn assert_reset(&mut self) {
        let mut rest = Vec::new();
        let error = self.stream.read_to_end(&mut rest).expect_err("a reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }

    #[track_caller]
    fn next(&mut self) -> Option<Report> {
        let mut buffer = [0; 4096];
        while self.read.is_empty() {
            let bytes = match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("reading reports: {error}"),
            };
            let mut input = &buffer[..bytes];
            while let Some(report) = self.decoder.next(&mut input).expect("a relay's words") {
                self.read.push(report);
            }
        }
        Some(self.read.remove(0))
    }
}

/// What is said at one end arrives at the other, and then its end, while the other way stays open.
#[track_caller]
pub fn say(mut from: &TcpStream, to: &TcpStream, words: &[u8]) {
    from.write_all(words).expect("a word");
    half_close(from);
    assert_eq!(read_all(to), words);
}
