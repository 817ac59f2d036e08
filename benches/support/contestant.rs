//! Running relays that lead to one port: ours, its peers, and whatever `PEER_CMD` names.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{Peers, installed, proxy};

/// How long a contestant may take to listen.
const BOUND: Duration = Duration::from_secs(20);

/// A relay that listens.
pub struct Contestant {
    /// How tables call it.
    pub name: String,
    /// The process whose CPU time counts, with all below it; 0 for none.
    pub pid: u32,
    /// Where it listens.
    pub port: u16,
    /// Its command line, for the report.
    pub command: String,
    process: Option<Child>,
    /// What it needs as long as it runs.
    _directory: Option<TempDir>,
}

impl Drop for Contestant {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // One that leads a session ends its job when its stdin and stdout are gone.
            drop(process.stdin.take());
            drop(process.stdout.take());
            let _ = Command::new("kill").arg(process.id().to_string()).status();
            let until = Instant::now() + Duration::from_secs(2);
            while Instant::now() < until && !matches!(process.try_wait(), Ok(Some(_))) {
                std::thread::yield_now();
            }
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// No relay at all: the client connects to the server.
pub fn direct(backend: u16) -> Contestant {
    Contestant {
        name: "direct".into(),
        pid: 0,
        port: backend,
        command: String::new(),
        process: None,
        _directory: None,
    }
}

/// The proxy with `args`, driven as a session: its shell announces `backend`, and the line that
/// comes out names the port where it listens. `under` is a command that runs it.
pub fn ours(name: &str, under: &[PathBuf], args: &[&str], backend: u16) -> io::Result<Contestant> {
    let mut words: Vec<&Path> = under.iter().map(PathBuf::as_path).collect();
    words.push(proxy());
    // Nothing that starts a server was sent to it, which it would warn of.
    words.push(Path::new("-q"));
    words.extend(args.iter().map(Path::new));
    words.extend(["--", "bash"].map(Path::new));
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    let directory = TempDir::new()?;
    session(name, command, directory, backend)
}

/// A program of the proxy's kind: it starts `salloc`, a stand-in here, and rewrites its lines.
fn session(
    name: &str,
    mut command: Command,
    directory: TempDir,
    backend: u16,
) -> io::Result<Contestant> {
    let salloc = directory.path().join("salloc");
    fs::write(&salloc, "#!/bin/sh\nexec bash\n")?;
    make_executable(&salloc)?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::iter::once(directory.path().to_path_buf()).chain(std::env::split_paths(&path));
    command.env(
        "PATH",
        std::env::join_paths(path).map_err(io::Error::other)?,
    );
    let shown = shown(&command);
    let mut process = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let port = announce(&mut process, backend)?;
    Ok(Contestant {
        name: name.into(),
        pid: process.id(),
        port,
        command: shown,
        process: Some(process),
        _directory: Some(directory),
    })
}

/// Lets the session's shell announce `backend`; the port that the client is told.
pub fn announce(process: &mut Child, backend: u16) -> io::Result<u16> {
    let missing = || io::Error::other("no pipe to the session");
    let mut stdin = process.stdin.as_ref().ok_or_else(missing)?;
    let stdout = process.stdout.as_mut().ok_or_else(missing)?;
    // Printed in two pieces, so that no echo of the command is taken for the announcement.
    writeln!(stdin, "printf '%s==%s==\\n' listeningOn {backend}")?;
    // Byte by byte as it were: what stands behind the line stays in the pipe.
    for line in BufReader::with_capacity(1, stdout).lines() {
        if let Some(port) = line?.strip_prefix("listeningOn==") {
            let port = port.trim_end_matches('=').parse();
            return port.map_err(io::Error::other);
        }
    }
    Err(io::Error::other(
        "the session has ended without an announcement",
    ))
}

/// One of the relays in `benches/peers`, which print their port.
pub fn peer(name: &str, peers: &Peers, backend: u16) -> io::Result<Contestant> {
    let mut command = Command::new(peers.path(name));
    command.arg(backend.to_string());
    let mut process = command.stdout(Stdio::piped()).spawn()?;
    let stdout = process
        .stdout
        .take()
        .ok_or_else(|| io::Error::other("no pipe"))?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    Ok(Contestant {
        name: name.into(),
        pid: process.id(),
        port: line.trim().parse().map_err(io::Error::other)?,
        command: shown(&command),
        process: Some(process),
        _directory: None,
    })
}

/// haproxy with one thread; with `splice`, and otherwise as it comes.
pub fn haproxy(splice: bool, backend: u16) -> Option<io::Result<Contestant>> {
    let program = installed("haproxy")?;
    let (name, options) = if splice {
        let options = "option splice-auto\n option splice-request\n option splice-response\n";
        ("haproxy-splice", options)
    } else {
        ("haproxy", "")
    };
    Some(configured(name, |directory, port| {
        let path = directory.join("haproxy.cfg");
        let text = format!(
            "global\n nbthread 1\n maxconn 4000\n\
             defaults\n mode tcp\n {options} timeout connect 5s\n timeout client 1h\n \
             timeout server 1h\n\
             listen relay\n bind 127.0.0.1:{port}\n server load 127.0.0.1:{backend}\n"
        );
        fs::write(&path, text)?;
        let mut command = Command::new(program);
        command.arg("-db").arg("-f").arg(path).stderr(Stdio::null());
        Ok(command)
    }))
}

/// nginx with its stream module and one process.
pub fn nginx(backend: u16) -> Option<io::Result<Contestant>> {
    let program = installed("nginx")?;
    let module = "/usr/lib/nginx/modules/ngx_stream_module.so";
    let load = match Path::new(module).exists() {
        true => format!("load_module {module};"),
        // Built in, or else nginx says so.
        false => String::new(),
    };
    Some(configured("nginx", |directory, port| {
        let path = directory.join("nginx.conf");
        let text = format!(
            "{load}\ndaemon off; master_process off;\nerror_log stderr crit;\npid nginx.pid;\n\
             events {{ worker_connections 4096; }}\n\
             stream {{ server {{ listen 127.0.0.1:{port}; proxy_pass 127.0.0.1:{backend}; \
             proxy_half_close on; }} }}\n"
        );
        fs::write(&path, text)?;
        let mut command = Command::new(program);
        command
            .arg("-e")
            .arg("stderr")
            .arg("-p")
            .arg(directory)
            .arg("-c")
            .arg(path);
        Ok(command)
    }))
}

/// socat, a process for each connection.
pub fn socat(backend: u16) -> Option<io::Result<Contestant>> {
    let program = installed("socat")?;
    Some(configured("socat", |_, port| {
        let mut command = Command::new(program);
        command.args(["-b", "65536"]).stderr(Stdio::null());
        command.arg(format!(
            "TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,backlog=1024"
        ));
        command.arg(format!("TCP:127.0.0.1:{backend}"));
        Ok(command)
    }))
}

/// `ssh -L`, with its server below it: both ends of the tunnel count, which encrypts.
pub fn ssh(backend: u16) -> Option<io::Result<Contestant>> {
    let (program, server) = (installed("ssh")?, installed("sshd")?);
    Some(configured("ssh -L", |directory, port| {
        let [key, config, start] = ["key", "sshd_config", "sshd"].map(|it| directory.join(it));
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]);
        if !keygen.arg(&key).status()?.success() {
            return Err(io::Error::other("no key can be made"));
        }
        // It is its own host key, and the only one that is let in.
        let key = key.display();
        fs::write(
            &config,
            format!(
                "HostKey {key}\nAuthorizedKeysFile {key}.pub\nStrictModes no\nUsePAM no\n\
                 PidFile none\n"
            ),
        )?;
        // Root's needs a directory that only the system's own makes.
        let serve = format!("exec {} -i -f {}", server.display(), config.display());
        fs::write(
            &start,
            format!(
                "#!/bin/sh\n[ \"$(id -u)\" = 0 ] && exec unshare -m sh -c \
                 'mount -t tmpfs none /run && mkdir /run/sshd && {serve}'\n{serve}\n"
            ),
        )?;
        make_executable(&start)?;
        let mut command = Command::new(program);
        command.args(["-F", "none", "-i"]).arg(key.to_string());
        for option in [
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            &format!("ProxyCommand={}", start.display()),
        ] {
            command.arg("-o").arg(option);
        }
        command.arg("-N").arg("-L");
        command.arg(format!("127.0.0.1:{port}:127.0.0.1:{backend}"));
        command.arg("localhost");
        Ok(command)
    }))
}

/// Whatever `PEER_CMD` names. With `{listen}` and `{backend}` in it: a relay, in whose command the
/// ports are put there. Otherwise: a program of the proxy's kind, which starts `salloc`.
pub fn any_other(backend: u16) -> Option<io::Result<Contestant>> {
    let peer = std::env::var("PEER_CMD")
        .ok()
        .filter(|peer| !peer.is_empty())?;
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("exec {script}"));
        command
    };
    Some(if peer.contains("{listen}") {
        configured("PEER_CMD", |_, port| {
            let listen = peer.replace("{listen}", &port.to_string());
            Ok(shell(&listen.replace("{backend}", &backend.to_string())))
        })
    } else {
        TempDir::new().and_then(|directory| session("PEER_CMD", shell(&peer), directory, backend))
    })
}

/// A program that is told where to listen, and awaited there.
fn configured(
    name: &str,
    command: impl FnOnce(&Path, u16) -> io::Result<Command>,
) -> io::Result<Contestant> {
    let directory = TempDir::new()?;
    let port = free_port()?;
    let mut command = command(directory.path(), port)?;
    let process = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let contestant = Contestant {
        name: name.into(),
        pid: process.id(),
        port,
        command: shown(&command),
        process: Some(process),
        _directory: Some(directory),
    };
    await_listener(port)?;
    Ok(contestant)
}

/// Waits until somebody listens on `port`, without a connection, which would reach the load.
fn await_listener(port: u16) -> io::Result<()> {
    let until = Instant::now() + BOUND;
    // proc_net_tcp(5): the local address is the second word, and the state 0A is LISTEN.
    let listens = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let local = words.next().unwrap_or_default();
        local.ends_with(&format!(":{port:04X}")) && words.nth(1) == Some("0A")
    };
    while !fs::read_to_string("/proc/net/tcp")?.lines().any(listens) {
        if Instant::now() > until {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    Ok(())
}

/// A port on which nobody listens, for those who cannot take one from the kernel.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

fn make_executable(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// The command line, with the names of programs without their directories.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words = words.map(|word| {
        let path = Path::new(word);
        let name = path.file_name().filter(|_| path.is_absolute());
        name.unwrap_or(word).to_string_lossy().into_owned()
    });
    words.collect::<Vec<_>>().join(" ")
}
