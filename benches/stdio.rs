//! The standard streams, interceptors on, beside `cat`, `tee` and `socat` in the same place.
//!
//! `cargo bench --bench stdio -- [--quick] [FILTER]`. Lines of 80 bytes go through pipes of 64 KiB:
//! *down* from a process in the job to the client, *up* the other way. Neither far end touches a
//! byte of them where it can help it. The CPU time is the relaying process's own. A *line* goes up,
//! comes back from a `cat` in the job, and is timed from its arrival to its release at the end; for
//! a peer that is one process before that `cat` and one behind it.

mod support;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::pipe::{SpliceFlags, splice};
use support::record::{Record, median};
use support::{Peers, Plan, cpu, installed, pin, proxy};

/// A name, and what stands between two pipes.
type Contestant = (&'static str, Vec<&'static str>);

/// Processes around a measurement, of which the first one is measured.
struct Chain {
    processes: Vec<Child>,
}

impl Drop for Chain {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // The job of the proxy ends with it.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn main() -> io::Result<()> {
    let plan = Plan::from_args();
    let peers = Peers::build();
    let source = peers.path("pipe-source");
    let source = source.to_str().expect("the path of the build is text");
    let mut record = Record::default();
    let mut field: Vec<Contestant> = vec![("proxy", Vec::new())];
    let others = [
        ("cat", vec!["cat"]),
        ("tee", vec!["tee"]),
        (
            "socat",
            vec!["socat", "-u", "-b", "65536", "STDIN", "STDOUT"],
        ),
    ];
    for (name, words) in others {
        if installed(name).is_some() {
            record.fact(name, &words.join(" "));
            field.push((name, words));
        } else {
            println!("left out: {name} is not installed");
        }
    }
    record.fact("proxy", "vscode-shell-proxy -q -- bash");

    let span = Duration::from_millis(plan.ms);
    // Children run where we run, until they are put elsewhere.
    pin(std::process::id(), 0);
    for _ in 0..plan.rounds {
        for (name, words) in &field {
            if plan.wants("down") {
                let (cpu, rate) = down(words, source, span)?;
                record.sample("80-byte lines, down", name, ("cpu", "s/GB"), cpu);
                record.sample("80-byte lines, down", name, ("rate", "GB/s"), rate);
            }
            if plan.wants("up") {
                let (cpu, rate) = up(words, span)?;
                record.sample("80-byte lines, up", name, ("cpu", "s/GB"), cpu);
                record.sample("80-byte lines, up", name, ("rate", "GB/s"), rate);
            }
            if plan.wants("line") {
                let time = line(words, span)?;
                record.sample("a line up and back, one CPU", name, ("p50", "µs"), time);
            }
        }
    }
    record.print("proxy");
    record.save("stdio");
    Ok(())
}

/// From the job to us: CPU seconds for a GB, and GB in a second.
fn down(words: &[&str], source: &str, span: Duration) -> io::Result<(f64, f64)> {
    let mut chain = Chain {
        processes: Vec::new(),
    };
    let output = if words.is_empty() {
        let mut proxy = session()?;
        writeln!(proxy.stdin.as_ref().ok_or_else(no_pipe)?, "exec {source}")?;
        let output = proxy.stdout.take();
        chain.processes.push(proxy);
        output
    } else {
        let mut source = Command::new(source).stdout(Stdio::piped()).spawn()?;
        let lines = source.stdout.take().ok_or_else(no_pipe)?;
        let mut peer = command(words).stdin(lines).stdout(Stdio::piped()).spawn()?;
        let output = peer.stdout.take();
        chain.processes.extend([peer, source]);
        output
    };
    let output = OwnedFd::from(output.ok_or_else(no_pipe)?);
    let nowhere = File::options().write(true).open("/dev/null")?;
    measure(&chain, span, || {
        Ok(splice(
            &output,
            None,
            &nowhere,
            None,
            1 << 20,
            SpliceFlags::empty(),
        )?)
    })
}

/// From us to the job.
fn up(words: &[&str], span: Duration) -> io::Result<(f64, f64)> {
    let mut chain = Chain {
        processes: Vec::new(),
    };
    let input = if words.is_empty() {
        let mut proxy = session()?;
        let input = proxy.stdin.take();
        writeln!(input.as_ref().ok_or_else(no_pipe)?, "exec cat > /dev/null")?;
        chain.processes.push(proxy);
        input
    } else {
        let mut peer = command(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = peer.stdout.take().ok_or_else(no_pipe)?;
        let sink = Command::new("cat")
            .stdin(lines)
            .stdout(Stdio::null())
            .spawn()?;
        let input = peer.stdin.take();
        chain.processes.extend([peer, sink]);
        input
    };
    let input = OwnedFd::from(input.ok_or_else(no_pipe)?);
    let lines = lines()?;
    measure(&chain, span, || {
        Ok(splice(
            &lines,
            Some(&mut 0),
            &input,
            None,
            LENGTH,
            SpliceFlags::empty(),
        )?)
    })
}

/// µs from a line's arrival to its release: the median.
fn line(words: &[&str], span: Duration) -> io::Result<f64> {
    let mut chain = Chain {
        processes: Vec::new(),
    };
    let (input, output) = if words.is_empty() {
        let mut proxy = session()?;
        let (input, output) = (proxy.stdin.take(), proxy.stdout.take());
        writeln!(input.as_ref().ok_or_else(no_pipe)?, "exec cat")?;
        chain.processes.push(proxy);
        (input, output)
    } else {
        let piped = |words: &[&str], stdin: Stdio| {
            command(words).stdin(stdin).stdout(Stdio::piped()).spawn()
        };
        let mut before = piped(words, Stdio::piped())?;
        let mut job = piped(&["cat"], before.stdout.take().ok_or_else(no_pipe)?.into())?;
        let mut behind = piped(words, job.stdout.take().ok_or_else(no_pipe)?.into())?;
        let (input, output) = (before.stdin.take(), behind.stdout.take());
        chain.processes.extend([before, job, behind]);
        (input, output)
    };
    let (mut input, mut output) = (input.ok_or_else(no_pipe)?, output.ok_or_else(no_pipe)?);
    let mut line = [b'x'; 80];
    line[79] = b'\n';
    let mut exchange = || -> io::Result<f64> {
        let began = Instant::now();
        input.write_all(&line)?;
        output.read_exact(&mut line)?;
        Ok(began.elapsed().as_nanos() as f64 / 1e3)
    };
    for _ in 0..100 {
        exchange()?;
    }
    let began = Instant::now();
    let mut times = Vec::new();
    while began.elapsed() < span {
        times.push(exchange()?);
    }
    Ok(median(&times))
}

/// Moves bytes for `span`, with the first process of `chain` on a CPU of its own.
fn measure(
    chain: &Chain,
    span: Duration,
    mut step: impl FnMut() -> io::Result<usize>,
) -> io::Result<(f64, f64)> {
    let pid = chain.processes[0].id();
    let mut run = |span: Duration| -> io::Result<(usize, Duration)> {
        let began = Instant::now();
        let mut bytes = 0;
        while began.elapsed() < span {
            bytes += step()?;
        }
        Ok((bytes, began.elapsed()))
    };
    // Only now are all processes of the job there, on our CPU.
    run(span / 5)?;
    pin(pid, 1);
    run(span / 5)?;
    let before = cpu(pid);
    let (bytes, lasted) = run(span)?;
    let used = cpu(pid) - before;
    // ns for a byte are s for a GB.
    let bytes = bytes as f64;
    Ok((used as f64 / bytes, bytes / lasted.as_nanos() as f64))
}

const LENGTH: usize = 80 * 4096;

fn lines() -> io::Result<File> {
    let mut file = File::from(memfd_create("lines", MemfdFlags::CLOEXEC)?);
    let line = [&[b'x'; 79][..], b"\n"].concat();
    file.write_all(&line.repeat(LENGTH / line.len()))?;
    Ok(file)
}

fn session() -> io::Result<Child> {
    let mut command = Command::new(proxy());
    command.args(["-q", "--", "bash"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command
}

fn no_pipe() -> io::Error {
    io::Error::other("no pipe")
}
