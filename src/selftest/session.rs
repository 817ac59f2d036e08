//! The session as Remote-SSH plays it: from the first step to the last byte.

use std::fs::File;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::options::Reach;

use super::failure::Failure;
use super::place::{Place, find_program};
use super::player::{ANSWER_LIMIT, Player};
use super::report::{pass, time};
use super::script;
use super::transfer::{self, Client};

/// How long the job may take to start: what Remote-SSH is told to wait (`Connect Timeout`).
pub(super) const JOB_LIMIT: Duration = Duration::from_secs(300);
const CONNECTIONS: u64 = 4;
const BYTES_EACH_WAY: u64 = 16 << 20;
const BYTES_AFTER_HALF_CLOSE: u64 = 1 << 20;
const ROUND_TRIPS: usize = 500;

/// What the session has started in the job.
pub(super) struct Started {
    /// The job's node, as it is reached from here.
    pub(super) node: String,
    /// The server's port there.
    pub(super) port: u16,
    /// Where the proxy listens for the client.
    pub(super) announced: SocketAddr,
    /// A connection as VS Code would have one at the hang-up.
    pub(super) connection: TcpStream,
}

/// From the first step to the last byte. What was started by then is left in `started`.
pub(super) fn play(
    player: &mut Player,
    reach: Reach,
    started: &mut Option<Started>,
) -> Result<(), Failure> {
    // Two, for the session's id is shown and the token is not.
    let mut id = random()?;
    id.truncate(12);
    let token = random()?;
    open(player, &id)?;
    let place = Place::ask(player)?;
    pass("place", format_args!("{place}"));
    let Some(program) = find_program(player, &place)? else {
        return Ok(());
    };
    let script = script::bootstrap(&id, &token, &program);
    let token = token.as_bytes().try_into();
    let token = token.map_err(|_| Failure::new("a token of the right length", "another one"))?;

    let begin = Instant::now();
    player.send(&script)?;
    let announcement = Announcement::await_in(player, reach)?;
    let read = Instant::now();
    let client = Client {
        address: announcement.announced,
        token,
    };
    let connection = client.echo().map_err(|failure| failure.hint(UNREACHABLE))?;
    let answered = read.elapsed();
    let Announcement {
        port,
        announced,
        route,
    } = announcement;
    pass(
        "announce",
        format_args!("{announced}, {} after the script", time(read - begin)),
    );
    pass("reach", format_args!("{route}"));
    let node = &place.node;
    pass(
        "connect",
        format_args!(
            "the server on {node}:{port} answers {} later",
            time(answered)
        ),
    );
    let started = started.insert(Started {
        node: if place.is_here {
            "127.0.0.1".to_owned()
        } else {
            place.node
        },
        port,
        announced,
        connection,
    });
    finish_script(player, &id)?;
    work(player, client, &started.connection)
}

/// 128 random bits in hexadecimal digits.
fn random() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| Failure::new("/dev/urandom can be read", &error.to_string()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What VS Code needs of a connection, with the figures.
fn work(player: &mut Player, client: Client, connection: &TcpStream) -> Result<(), Failure> {
    let took = client.exchange(player, CONNECTIONS, BYTES_EACH_WAY)?;
    let each = BYTES_EACH_WAY >> 20;
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let rate = 2 * CONNECTIONS * each * 1_000_000 / micros.max(1);
    pass(
        "transfer",
        format_args!(
            "{each} MiB each way on {CONNECTIONS} connections, sums right, {rate} MiB/s in all"
        ),
    );
    let times = transfer::round_trips(connection, ROUND_TRIPS)?;
    let (median, most) = (time(times[ROUND_TRIPS / 2]), time(times[ROUND_TRIPS - 1]));
    pass(
        "latency",
        format_args!("{median} a round trip (median of {ROUND_TRIPS}, most {most})"),
    );
    client.half_close(BYTES_AFTER_HALF_CLOSE)?;
    pass(
        "half-close",
        format_args!("the end of one direction leaves the other open, both ways"),
    );
    Ok(())
}

const UNREACHABLE: &str = "The port was announced, but the server behind it was not reached. The \
    log says why. Frequent causes: a firewall between login and compute nodes, a node none of whose \
    names leads to it from here.";

/// The client's opening: each step is sent when the one before is answered.
fn open(player: &mut Player, id: &str) -> Result<(), Failure> {
    const STRAY: &str = "Something in the job prints at a time of its own: a start-up file of the \
        shell, or the scheduler. Remote-SSH takes such a line for an answer, too.";
    const NO_SHELL: &str = "No shell has answered. Run the launch command by hand, with `cat | ` \
        before it: does `hostname` print a compute node's name?";
    let begin = Instant::now();
    let no_shell = |failure: Failure| failure.hint(NO_SHELL);
    let sent = player.send(script::ready(id).as_bytes());
    sent.map_err(no_shell)?;
    let ready = format!("ready: {id}");
    // A motd and the like may come before it, but nothing else after.
    let deadline = begin + JOB_LIMIT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = player.line(&format!("the line {ready:?} from a shell in the job"), left);
        if line.map_err(no_shell)? == ready {
            break;
        }
    }
    let opened = begin.elapsed();
    let mut step = |step: &str, expected: &str, is_right: fn(&str) -> bool| {
        let answer = player.ask(step, expected)?;
        match is_right(&answer) {
            true => Ok(answer),
            false => Err(Failure::new(expected, &format!("{answer:?}")).hint(STRAY)),
        }
    };
    let kernel = step(script::KERNEL, "the kernel's name", |answer| {
        answer == "Linux"
    })?;
    let shell = step(script::SHELL, "the shell's path", |answer| {
        answer.starts_with('/')
    })?;
    let is_number = |answer: &str| answer.parse::<u32>().is_ok();
    let subshell = step(script::SUBSHELL, "the process id of a sh", is_number)?;
    pass(
        "open",
        format_args!(
            "ready after {}, {kernel}, {shell}, sh is process {subshell}",
            time(opened)
        ),
    );
    Ok(())
}

/// What the result block says of the server.
struct Announcement {
    /// The server's port in the job.
    port: u16,
    /// The address for the client.
    announced: SocketAddr,
    route: &'static str,
}

/// How a server is reached that listens on `host`: what was started on loopback was changed for
/// connections that go directly.
fn route(host: &str, reach: Reach) -> Result<&'static str, &'static str> {
    match host {
        "0.0.0.0" if reach == Reach::InJob => {
            Err("a server on loopback, reached by a relay in the job")
        }
        "0.0.0.0" => Ok("directly: the server listens on all addresses of its node"),
        "127.0.0.1" if reach == Reach::Direct => {
            Err("a server that listens on 0.0.0.0, not only on loopback")
        }
        "127.0.0.1" => Ok("by a relay in the job: the server listens on loopback only"),
        _ => Err("a server on 0.0.0.0 or on 127.0.0.1"),
    }
}

impl Announcement {
    /// Reads up to the line with the address.
    fn await_in(player: &mut Player, reach: Reach) -> Result<Self, Failure> {
        let expected = "the address of the server that the script starts";
        let mut bound = String::new();
        loop {
            let line = player.line(expected, ANSWER_LIMIT)?;
            if let Some(value) = script::value(&line, "boundTo") {
                bound = value.to_owned();
            }
            let Some(value) = script::value(&line, "listeningOn") else {
                continue;
            };
            let wrong = |what: &str| Failure::new(what, &format!("{line:?} and {bound:?}"));
            let announced: SocketAddr = value
                .parse()
                .map_err(|_| wrong("an address in the line listeningOn"))?;
            let (host, port) = bound
                .split_once(' ')
                .ok_or_else(|| wrong("a server's address"))?;
            let port = port.parse().map_err(|_| wrong("a server's port"))?;
            let route = route(host, reach).map_err(wrong)?;
            if !announced.ip().is_loopback() {
                return Err(wrong(
                    "a line listeningOn with the proxy's address on loopback",
                ));
            }
            return Ok(Self {
                port,
                announced,
                route,
            });
        }
    }
}

/// The rest of the result block, and the blank by which the script keeps idle connections alive.
fn finish_script(player: &mut Player, id: &str) -> Result<(), Failure> {
    let end = format!("{id}: end");
    while player.line(&format!("the line {end:?}"), ANSWER_LIMIT)? != end {}
    player.bytes(b" ", "the script's blank, without a newline behind it")
}
