//! The end of the session: the client hangs up, and nothing may be left.

use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

use super::failure::Failure;
use super::leftovers::{self, Listener};
use super::player::{Player, Woken};
use super::report::{pass, time};
use super::session::Started;

/// How long a hang-up may take to end the second copy, which is beyond its own limits.
const END_LIMIT: Duration = Duration::from_secs(40);
/// How long a server on another node may outlive its job: schedulers wait before they kill.
const REMOTE_END_LIMIT: Duration = Duration::from_secs(60);
/// What a client gets whose end of stdout has vanished.
const STATUS_OF_HANG_UP: i32 = 129;

/// Hangs up as ssh does, and looks for what is left.
pub(super) fn hang_up(player: &mut Player, started: Option<&Started>) -> Result<(), Failure> {
    const LEFT: &str = "The test has ended it now. After a real session it would have stayed.";
    let ended_before = player.status().is_some();
    let begin = Instant::now();
    player.hang_up();
    let expected = format!("status {STATUS_OF_HANG_UP} of a session whose client is gone");
    if !await_end(player, |player| player.status().is_some())? {
        let got = format!("it still runs after {} s", END_LIMIT.as_secs());
        return Err(Failure::new(&expected, &got));
    }
    if !ended_before {
        if let Some(status) = player
            .status()
            .filter(|status| *status != STATUS_OF_HANG_UP)
        {
            return Err(Failure::new(&expected, &format!("status {status}")));
        }
        let took = time(begin.elapsed());
        pass("hang-up", format_args!("the session ended after {took}"));
    }
    if !await_end(player, Player::is_nothing_left)? {
        let got = format!("still running: {}", leftovers::named());
        return Err(Failure::new("no process of the session is left", &got).hint(LEFT));
    }
    let Some(started) = started else {
        pass("remains", format_args!("no process"));
        return Ok(());
    };
    let address = started.announced;
    let listener = leftovers::listener(&address.ip().to_string(), address.port(), Duration::ZERO);
    if listener == Listener::There {
        let got = format!("{address} still accepts connections");
        return Err(Failure::new("the proxy's listener is closed", &got));
    }
    let Started {
        node,
        port,
        connection,
        ..
    } = started;
    match (&mut &*connection).read(&mut [0]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => {
            return Err(Failure::new(
                "the open connection is closed",
                &format!("{other:?}"),
            ));
        }
    }
    match leftovers::listener(node, *port, REMOTE_END_LIMIT) {
        Listener::Gone => {
            pass(
                "remains",
                format_args!("no process, no listener, no server at {node}:{port}"),
            );
        }
        Listener::There => {
            let got = format!("{node}:{port} still accepts connections");
            return Err(Failure::new("the server ends with its job", &got).hint(
                "The scheduler does not end a job's processes (Slurm: ProctrackType), or the job \
                 was not ended: ask squeue. The server ends by itself after two minutes.",
            ));
        }
        Listener::Unknown(reason) => {
            pass(
                "remains",
                format_args!("no process, no listener; the server: {reason}"),
            );
        }
    }
    Ok(())
}

/// Waits until it is so, within [`END_LIMIT`]; whether it is.
fn await_end(player: &mut Player, is_so: fn(&Player) -> bool) -> Result<bool, Failure> {
    let deadline = Instant::now() + END_LIMIT;
    while !is_so(player) {
        if player.wait(&[], deadline)? == Woken::Late {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whatever was found or not: the test leaves nothing.
pub(super) fn clear(player: &mut Player) {
    player.hang_up();
    if !await_end(player, Player::is_nothing_left).unwrap_or(false) {
        leftovers::kill_all();
    }
}
