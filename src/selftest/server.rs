//! The stand-in for VS Code's server, inside the job: the hidden mode `--internal-server`.
//!
//! It takes the arguments of the VS Code CLI's `command-shell` that matter here, binds to the host
//! that it is given, loopback by default as the original does, says where it listens in the
//! original's words, and serves the requests of the `wire` module.
//!
//! It does not end with its parent. VS Code's server does not either, and the self-test wants to
//! see that the end of the job ends it. As a last resort it leaves after two minutes without a
//! connection.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::outgoing::Outgoing;
use super::wire::{Pattern, REQUEST, Request, TOKEN, Tally, Task, Totals, Way};

/// Where the script puts the token, as for the original.
const TOKEN_VARIABLE: &str = "VSCODE_CLI_REQUIRE_TOKEN";
/// What stands before the address in the server's log.
pub(super) const LISTENING: &str = "Listening on ";
/// A server that nobody talks to for so long was forgotten.
const IDLE_LIMIT: Duration = Duration::from_secs(120);
/// Most connections at a time; the self-test has five.
const CONNECTIONS: usize = 64;
/// Most bytes read at one time from one connection.
const BLOCK: usize = 64 * 1024;

/// The hidden mode's name: the first argument of the executable.
pub const MODE: &str = "--internal-server";

/// The server's process: `args` are those behind [`MODE`]. What keeps it from serving is said on
/// stderr, which is the log that the script reads.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until nobody has connected for [`IDLE_LIMIT`].
fn serve(args: impl IntoIterator<Item = OsString>) -> io::Result<()> {
    let host = host_option(args).unwrap_or_else(|| "127.0.0.1".into());
    let token = std::env::var(TOKEN_VARIABLE).unwrap_or_default();
    let token = <[u8; TOKEN]>::try_from(token.as_bytes())
        .map_err(|_| io::Error::other(format!("{TOKEN_VARIABLE} is not {TOKEN} bytes long")))?;
    let host = host
        .to_str()
        .ok_or_else(|| io::Error::other("the host's name is not UTF-8"))?;
    let listener = TcpListener::bind((host, 0))
        .map_err(|error| io::Error::new(error.kind(), format!("cannot bind to {host}: {error}")))?;
    listener.set_nonblocking(true)?;
    // The directory it was started in belongs to the script, which removes it.
    std::env::set_current_dir("/")?;
    // One write, and straight to the file: the script may look at any time.
    let address = listener.local_addr()?;
    io::stdout().write_all(format!("{LISTENING}{address}\n").as_bytes())?;
    Server {
        listener,
        token,
        connections: Vec::new(),
        swallowed: Vec::new(),
    }
    .serve()
}

/// The value of `--on-host`, in either form; every other argument is the original's business.
fn host_option(args: impl IntoIterator<Item = OsString>) -> Option<OsString> {
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        if arg == "--on-host" {
            return args.next();
        }
        if let Some(host) = arg.to_str().and_then(|arg| arg.strip_prefix("--on-host=")) {
            return Some(OsStr::new(host).to_owned());
        }
    }
    None
}

struct Server {
    listener: TcpListener,
    token: [u8; TOKEN],
    connections: Vec<Connection>,
    /// What the last [`Task::Swallow`] connections got, by their numbers, the latest first.
    swallowed: Vec<(u64, Totals)>,
}

impl Server {
    fn serve(&mut self) -> io::Result<()> {
        let idle = PollTimeout::try_from(IDLE_LIMIT).unwrap_or(PollTimeout::MAX);
        loop {
            let accepting = self.connections.len() < CONNECTIONS;
            let mut watched: Vec<PollFd<'_>> =
                self.connections.iter().map(Connection::interest).collect();
            let wanted = if accepting {
                PollFlags::POLLIN
            } else {
                PollFlags::empty()
            };
            watched.push(PollFd::new(self.listener.as_fd(), wanted));
            match poll(&mut watched, idle) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            let ready: Vec<bool> = watched.iter().map(|fd| fd.any().unwrap_or(true)).collect();
            let mut ready = ready.into_iter();
            self.connections.retain_mut(|connection| {
                // A connection that fails is the client's to notice and to report.
                !ready.next().unwrap_or(false)
                    || connection
                        .turn(&self.token, &mut self.swallowed)
                        .unwrap_or(false)
            });
            if ready.next().unwrap_or(false) {
                self.accept();
            }
            self.answer_reports();
        }
    }

    fn accept(&mut self) {
        // Whatever accept(2) says, the next event brings it back here.
        if let Ok((stream, _)) = self.listener.accept()
            && stream.set_nonblocking(true).is_ok()
        {
            let _ = stream.set_nodelay(true);
            self.connections.push(Connection {
                stream,
                state: State::Request(Vec::new()),
                outgoing: Outgoing::default(),
                ended: false,
            });
        }
    }

    /// Gives the waiting reports what has become known.
    fn answer_reports(&mut self) {
        for connection in &mut self.connections {
            let State::Report(number) = connection.state else {
                continue;
            };
            if let Some((_, totals)) = self.swallowed.iter().find(|(known, _)| *known == number) {
                connection.outgoing.push(&totals.encode());
                connection.state = State::Drain;
            }
        }
    }
}

enum State {
    /// The request has come as far as this.
    Request(Vec<u8>),
    Echo,
    Exchange(Tally),
    Swallow(u64, Tally),
    /// Waits for the end of the connection with this number.
    Report(u64),
    /// Nothing more is wanted from the client; what is outgoing still goes out.
    Drain,
}

struct Connection {
    stream: TcpStream,
    state: State,
    outgoing: Outgoing,
    /// The client's end of file has been seen.
    ended: bool,
}

impl Connection {
    /// An echo reads only when everything before it is sent, so that it holds one block at most.
    fn interest(&self) -> PollFd<'_> {
        let mut flags = PollFlags::empty();
        let blocked = matches!(self.state, State::Echo) && !self.outgoing.is_empty();
        flags.set(PollFlags::POLLIN, !self.ended && !blocked);
        flags.set(PollFlags::POLLOUT, !self.outgoing.is_empty());
        PollFd::new(self.stream.as_fd(), flags)
    }

    /// Reads at most one block, sends what can be sent; `false` when the connection is done.
    fn turn(
        &mut self,
        token: &[u8; TOKEN],
        swallowed: &mut Vec<(u64, Totals)>,
    ) -> io::Result<bool> {
        let blocked = matches!(self.state, State::Echo) && !self.outgoing.is_empty();
        if !self.ended && !blocked {
            let mut block = [0; BLOCK];
            match self.stream.read(&mut block) {
                Ok(0) => self.end(swallowed),
                Ok(n) => self.take(&block[..n], token)?,
                Err(error) if is_transient(&error) => {}
                Err(error) => return Err(error),
            }
        }
        self.outgoing.send(&mut &self.stream)?;
        Ok(!(self.ended && self.outgoing.is_empty()))
    }

    fn take(&mut self, mut bytes: &[u8], token: &[u8; TOKEN]) -> io::Result<()> {
        if let State::Request(have) = &mut self.state {
            let missing = bytes.len().min(REQUEST - have.len());
            have.extend_from_slice(&bytes[..missing]);
            bytes = &bytes[missing..];
            let Ok(whole) = <&[u8; REQUEST]>::try_from(have.as_slice()) else {
                return Ok(());
            };
            let request = Request::decode(whole)
                .filter(|request| request.token == *token)
                .ok_or_else(|| io::Error::from(ErrorKind::PermissionDenied))?;
            self.state = match request.task {
                Task::Echo => State::Echo,
                Task::Exchange => {
                    let Request { number, length, .. } = request;
                    self.outgoing.then(Pattern::new(number, Way::Down, length));
                    State::Exchange(Tally::default())
                }
                Task::Swallow => {
                    self.stream.shutdown(Shutdown::Write)?;
                    State::Swallow(request.number, Tally::default())
                }
                Task::Report => State::Report(request.number),
            };
        }
        match &mut self.state {
            State::Echo => self.outgoing.push(bytes),
            State::Exchange(tally) | State::Swallow(_, tally) => tally.take(bytes),
            State::Request(_) | State::Report(_) | State::Drain => {}
        }
        Ok(())
    }

    /// The client has ended its direction.
    fn end(&mut self, swallowed: &mut Vec<(u64, Totals)>) {
        self.ended = true;
        match &self.state {
            State::Exchange(tally) => self.outgoing.push(&tally.totals().encode()),
            State::Swallow(number, tally) => {
                swallowed.truncate(CONNECTIONS);
                swallowed.insert(0, (*number, tally.totals()));
            }
            State::Request(_) | State::Echo | State::Report(_) | State::Drain => {}
        }
    }
}

pub(super) fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use std::thread;

    const SECRET: [u8; TOKEN] = [b's'; TOKEN];

    /// A server for the rest of the test program's life.
    fn server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = Server {
            listener,
            token: SECRET,
            connections: Vec::new(),
            swallowed: Vec::new(),
        };
        thread::spawn(move || server.serve());
        address
    }

    fn ask(address: SocketAddr, token: [u8; TOKEN], task: Task, length: u64) -> TcpStream {
        let mut stream = TcpStream::connect(address).unwrap();
        let request = Request {
            token,
            task,
            number: 1,
            length,
        };
        stream.write_all(&request.encode()).unwrap();
        stream
    }

    fn rest(mut stream: &TcpStream) -> Vec<u8> {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_host_is_found_in_both_forms_among_the_originals_arguments() {
        let host = |args: &[&str]| host_option(args.iter().map(OsString::from));
        assert_eq!(
            host(&["command-shell", "--on-host=0.0.0.0", "--on-port"]),
            Some("0.0.0.0".into())
        );
        assert_eq!(host(&["--on-port", "--on-host", "::1"]), Some("::1".into()));
        assert_eq!(host(&["--on-port"]), None);
    }

    #[test]
    fn who_has_not_the_token_gets_nothing() {
        let stream = ask(server(), [b'x'; TOKEN], Task::Exchange, 100);
        let mut bytes = Vec::new();
        // Closed with unread bytes or without: an end or a reset.
        let _ = (&stream).read_to_end(&mut bytes);
        assert_eq!(bytes, b"");
    }

    #[test]
    fn an_echo_gives_back_what_it_gets() {
        let stream = ask(server(), SECRET, Task::Echo, 0);
        (&stream).write_all(b"hello").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&stream), b"hello");
    }

    #[test]
    fn totals_follow_the_pattern_of_an_exchange() {
        let stream = ask(server(), SECRET, Task::Exchange, 100);
        (&stream).write_all(b"hello").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let bytes = rest(&stream);
        let (pattern, totals) = bytes.split_at(100);
        let (mut down, mut up) = (Tally::default(), Tally::default());
        down.take(pattern);
        up.take(b"hello");
        assert_eq!(down.totals(), Pattern::new(1, Way::Down, 100).totals());
        assert_eq!(Totals::decode(totals), Some(up.totals()));
    }

    #[test]
    fn a_report_waits_for_what_was_swallowed() {
        let address = server();
        let report = ask(address, SECRET, Task::Report, 0);
        let swallow = ask(address, SECRET, Task::Swallow, 0);
        assert_eq!(rest(&swallow), b"");
        (&swallow).write_all(b"hello").unwrap();
        swallow.shutdown(Shutdown::Write).unwrap();
        let mut totals = [0; 16];
        (&report).read_exact(&mut totals).unwrap();
        assert_eq!(Totals::decode(&totals).unwrap().bytes, 5);
    }
}
