//! The load generator of `benches/peers`, asked for one measurement at a time.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::Peers;
use super::contestant::Contestant;

/// The running generator, which owns the server that every relay leads to.
pub struct Load {
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// The server's port.
    pub port: u16,
}

impl Load {
    /// Starts it.
    pub fn start(peers: &Peers) -> Self {
        let mut process = Command::new(peers.path("load"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the load generator starts");
        let commands = process.stdin.take().expect("stdin is a pipe");
        let mut answers = BufReader::new(process.stdout.take().expect("stdout is a pipe"));
        let mut line = String::new();
        answers
            .read_line(&mut line)
            .expect("a line from the load generator");
        let port = line
            .trim()
            .parse()
            .expect("the load generator prints its port");
        Self {
            process,
            commands,
            answers,
            port,
        }
    }

    /// One measurement of `contestant`: the answer's numbers, or what went wrong.
    pub fn measure(
        &mut self,
        command: &str,
        contestant: &Contestant,
    ) -> Result<HashMap<String, f64>, String> {
        let (to, pid) = (contestant.port, contestant.pid);
        let lost = |error| format!("the load generator is gone: {error}");
        writeln!(self.commands, "{command} to={to} pid={pid}").map_err(lost)?;
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(lost)?;
        if let Some(error) = line.strip_prefix("error=") {
            return Err(error.trim().to_owned());
        }
        let pairs = line
            .split_whitespace()
            .filter_map(|word| word.split_once('='));
        let numbers = pairs.filter_map(|(key, value)| Some((key.to_owned(), value.parse().ok()?)));
        Ok(numbers.collect())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It has nothing to end in order.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
