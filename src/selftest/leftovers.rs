//! Is anything left after the hang-up? Processes here, listeners here and on the job's node.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid};

use crate::sys::descendants::{Process, Scope, descendants, send};

/// How long one attempt to connect, or one look-up of a name, may take.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(5);
/// How long to wait before asking a listener again that is still there. It lives on another node,
/// and nothing here tells of its end.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// What became of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Listener {
    /// Connections to it are refused.
    Gone,
    /// It still accepts connections.
    There,
    /// It cannot be asked, for this reason.
    Unknown(String),
}

/// Asks whether somebody listens on `host:port`, until nobody does or the time is over.
pub(super) fn listener(host: &str, port: u16, limit: Duration) -> Listener {
    let addresses = match resolve(host, port) {
        Ok(addresses) => addresses,
        Err(error) => return Listener::Unknown(format!("{host} is not found: {error}")),
    };
    let deadline = Instant::now() + limit;
    loop {
        let answer = ask(&addresses);
        if answer != Listener::There || Instant::now() > deadline {
            return answer;
        }
        thread::sleep(ASK_AGAIN);
    }
}

/// One address that accepts is enough for being there; one that refuses, for being gone.
fn ask(addresses: &[SocketAddr]) -> Listener {
    let mut answer = Listener::Unknown("it has no address".to_owned());
    for address in addresses {
        match TcpStream::connect_timeout(address, ATTEMPT_LIMIT) {
            Ok(_) => return Listener::There,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => answer = Listener::Gone,
            Err(error) if answer == Listener::Gone => drop(error),
            Err(error) => answer = Listener::Unknown(format!("{address}: {error}")),
        }
    }
    answer
}

/// The look-up cannot be interrupted, so a thread makes it, and is left to it if it takes too long.
fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let answer = Arc::new((Mutex::new(None), Condvar::new()));
    let (theirs, host) = (answer.clone(), host.to_owned());
    thread::spawn(move || {
        let addresses = (host.as_str(), port)
            .to_socket_addrs()
            .map(Iterator::collect);
        *lock(&theirs.0) = Some(addresses);
        theirs.1.notify_one();
    });
    let (addresses, come) = &*answer;
    let waited = come.wait_timeout_while(lock(addresses), ATTEMPT_LIMIT, |it| it.is_none());
    let (mut addresses, _) = waited.unwrap_or_else(PoisonError::into_inner);
    (addresses.take()).unwrap_or_else(|| Err(ErrorKind::TimedOut.into()))
}

/// Nobody panics with the lock in hand.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The processes below this one: as it is a subreaper, all that the second copy has left. A `/proc`
/// that cannot be read shows none.
fn processes() -> Vec<Process> {
    let scope = Scope {
        root: getpid(),
        session: None,
        with: &[],
        except: &[],
    };
    descendants(scope).unwrap_or_default()
}

/// The processes that are left, in words.
pub(super) fn named() -> String {
    let name = |process: &Process| {
        let pid = process.pid().as_raw_pid();
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        format!("{pid} ({})", name.trim_end())
    };
    let names: Vec<String> = processes().iter().map(name).collect();
    names.join(", ")
}

/// Ends what is left, for good: the test was asked to leave nothing.
pub(super) fn kill_all() {
    // What forks meanwhile is met in the next round.
    for _ in 0..100 {
        let left = processes();
        if left.is_empty() {
            return;
        }
        for process in &left {
            // One that may not be killed is still there in the end, and was named.
            let _ = send(process.identity, &[Signal::KILL]);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::process::{Command, Stdio};

    #[test]
    fn a_listener_is_there_until_it_is_closed() {
        let bound = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = bound.local_addr().unwrap().port();
        assert_eq!(listener("127.0.0.1", port, Duration::ZERO), Listener::There);
        drop(bound);
        assert_eq!(
            listener("127.0.0.1", port, Duration::from_secs(5)),
            Listener::Gone
        );
        assert!(matches!(
            listener("name.invalid", port, Duration::ZERO),
            Listener::Unknown(_)
        ));
    }

    #[test]
    fn a_child_is_named_while_it_lives() {
        let mut cat = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let name = format!("{} (cat)", cat.id());
        assert!(named().contains(&name), "{}", named());
        drop(cat.stdin.take());
        cat.wait().unwrap();
        assert!(!named().contains(&name), "{}", named());
    }
}
