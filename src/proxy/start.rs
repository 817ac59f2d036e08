//! Everything that has to be there before a job is asked for: files, listener, streams. Nobody
//! shall wait in a queue to be told that a log file cannot be opened.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::intercept::{Probe, ProbeFilter};
use crate::job_watch::JobWatch;
use crate::keeper::{self, Launched};
use crate::launch::Launch;
use crate::logging::{self, Target};
use crate::node_names::Rules;
use crate::opening::Opening;
use crate::options::{Options, Reach, Workgroup, expand_pid};
use crate::reactor::{Deadlines, Reactor, Token};
use crate::relay::Pool;
use crate::revocation::Revocation;
use crate::session::Session;
use crate::sys::login::login;
use crate::sys::signals::Signals;
use crate::sys::spawn::Inherited;
use crate::sys::stdio::{Direction, Stream};
use crate::sys::{private_file, tcp};
use crate::transfer::Pipes;

use super::account::Account;
use super::backend::Backend;
use super::door::{self, Door};
use super::errand::Errands;
use super::forward::Forwards;
use super::inlet::{Gate, Inlet};
use super::limit;
use super::listeners::Listeners;
use super::outlet::Outlet;
use super::reach;
use super::sink::{Io, Orphan, Sink, Tee};
use super::startup::{self, Startup};
use super::watch::SlurmCommands;
use super::workgroup;
use super::{Proxy, Source};

/// Most bytes read at one time from a standard stream, half of a pipe: a read that empties a whole one
/// runs in lock step with its writer, and smaller ones are more (measured, over lines of 80 bytes:
/// nine tenths of the CPU time that 16 or 64 KiB take, and upwards less).
const STDIO_READ: usize = 32 * 1024;
/// More than what one read of a standard stream can owe its sink: the read, a held command of the
/// interceptor's, and what was held behind an announcement.
const STDIO_BLOCK: usize = 2 * STDIO_READ + 17 * 1024;
/// Each of three sinks may owe one block, and each of two outlets keep one, and a second while it
/// releases the first.
const STDIO_BLOCKS: usize = 8;
/// Memory that slow readers of connections may hold, all together.
const POOL_BYTES: usize = 4 * 1024 * 1024;
/// Idle blocks that are kept for the next slow reader.
const POOL_SPARE: usize = 1;

/// Why a session could not be started: one line, for stderr.
#[derive(Debug)]
pub struct StartError(String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn cannot(what: impl fmt::Display, error: impl fmt::Display) -> StartError {
    StartError(format!("cannot {what}: {error}"))
}

/// Opens everything and starts the launch command.
///
/// # Errors
/// What could not be opened, bound or started, or that the user has as many sessions as may be.
/// Nothing has been launched then.
pub fn start(options: &Options) -> Result<Proxy, StartError> {
    start_log(options)?;
    limit::take_place(options.max_sessions).map_err(|refusal| StartError(refusal.to_string()))?;
    let tees = [&options.tee_stdin, &options.tee_stdout, &options.tee_stderr];
    let [tee_stdin, tee_stdout, tee_stderr] = tees.map(|path| path.as_deref().map(open_tee));
    let (tee_stdin, tee_stdout, tee_stderr) = (
        tee_stdin.transpose()?,
        tee_stdout.transpose()?,
        tee_stderr.transpose()?,
    );
    let first = bind(&options.listen_host, options.listen_port, options.backlog)?;
    let rules = options.admission(rustix::process::geteuid().as_raw());
    door::announce(first.1.ip(), &rules);

    // Before signals are blocked: it may take seconds, and shall be interruptible.
    let workgroup = workgroup(options)?;
    let inherited = Inherited::capture().map_err(|error| cannot("read the limits", error))?;
    let descriptors = inherited.raise_open_files().unwrap_or_else(|error| {
        log::warn!("cannot raise the limit of open files: {error}");
        inherited.open_files()
    });
    let ends = [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGCHLD,
    ];
    let watch = |error| cannot("watch for events", error);
    let signals = Signals::block(&ends).map_err(watch)?;
    let forwards = Forwards::new(descriptors);
    let mut reactor = Reactor::with_room(forwards.descriptors()).map_err(watch)?;
    reactor
        .register(signals.as_fd(), Source::Signals)
        .map_err(watch)?;
    let listeners = Listeners::new(first, options.backlog, &mut reactor).map_err(watch)?;
    nix::sys::prctl::set_child_subreaper(true)
        .map_err(|error| cannot("adopt what a lost keeper leaves", error))?;

    let login = login();
    let launch = Launch::new(options, &login, workgroup.as_deref());
    let mut random = [0; 16];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| cannot("make a fresh marker", error))?;
    let probe = Probe::new(
        random,
        launch.own_shell.as_ref().and_then(|shell| shell.to_str()),
    );

    let means = match reach::prepare(options, &probe, &mut reactor) {
        Ok(means) => means,
        Err(why) if options.reach == Reach::InJob => {
            return Err(StartError(format!("--reach in-job is not possible: {why}")));
        }
        Err(why) => {
            log::warn!("there is no relay in the job: {why}; connections go directly to the node");
            None
        }
    };
    let (in_job, starter, step) = match means {
        Some(means) => (Some(means.in_job), Some(means.starter), Some(means.step)),
        None => (None, None, None),
    };
    let startup = startup::step(&options.startup, &probe);
    // The end of the startup commands is said on either stream, or twice on one of them.
    let answers_beside = usize::from(startup.is_some());
    let opening = Opening::new(startup.into_iter().chain(step));

    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let client_stdin = share("stdin", stdin.as_fd(), Source::Inlet, &mut reactor)?;
    let client_stdout = share("stdout", stdout.as_fd(), Source::Stdout, &mut reactor)?;
    let client_stderr = share("stderr", stderr.as_fd(), Source::Stderr, &mut reactor)?;

    let (keeper, shell) = keeper::start(&launch, &inherited)
        .map_err(|error| cannot(format_args!("start {}", launch.display()), error))?;
    let mut own = |fd, source| -> io::Result<(Stream, Token)> {
        let stream = Stream::own(fd)?;
        let token = reactor.register(stream.as_fd(), source)?;
        Ok((stream, token))
    };
    let shell_stdin = own(shell.stdin, Source::Inlet).map_err(watch)?;
    let shell_stdout = own(shell.stdout, Source::Stdout).map_err(watch)?;
    let shell_stderr = own(shell.stderr, Source::Stderr).map_err(watch)?;
    reactor
        .register(keeper.control(), Source::Keeper)
        .map_err(watch)?;

    let mut stdio_pool = Pool::new(STDIO_BLOCK, STDIO_BLOCKS, 1);
    let sink = |name, (stream, token), tee, orphan| Sink::new(name, stream, token, tee, orphan);
    let gate = match opening.is_over() {
        true => Gate::Open,
        false => Gate::Shut,
    };
    let mut inlet = Inlet::new(
        client_stdin,
        sink("the shell's stdin", shell_stdin, tee_stdin, Orphan::Ends),
        gate,
    );
    inlet.ask(
        probe.line(),
        &mut Io {
            reactor: &mut reactor,
            pool: &mut stdio_pool,
        },
    );
    let stdout = Outlet::new(
        "stdout",
        shell_stdout,
        ProbeFilter::new(&probe, opening.answers() + answers_beside),
        sink("stdout", client_stdout, tee_stdout, Orphan::Ends),
    );
    let mut stderr = Outlet::new(
        "stderr",
        shell_stderr,
        ProbeFilter::new(&probe, opening.answers() + answers_beside),
        sink("stderr", client_stderr, tee_stderr, Orphan::IsDiscarded),
    );
    if launch.is_slurm() {
        stderr = stderr.watch_allocation();
    }
    let mut account = Account::new(options.syslog, login.user);
    account.start(&launch.program.to_string_lossy());
    Ok(Proxy {
        reactor,
        deadlines: Deadlines::default(),
        session: Session::new(),
        signals,
        inherited,
        keeper,
        launched: Launched::Never,
        launch: launch.display().to_string(),
        is_salloc: launch.is_left_to_salloc,
        orphans: None,
        job: None,
        granted: false,
        opening,
        startup: Startup::default(),
        inlet,
        stdout,
        stderr,
        said: Vec::new(),
        listeners,
        forwards,
        backend: Backend::new(Rules {
            domain: options.node_domain.clone(),
            address: options.node_address.clone(),
        }),
        errands: Errands::new(inherited),
        slurm: SlurmCommands::new(launch.environment.clone()),
        revocation: Revocation::default(),
        watch: JobWatch::new(
            Instant::now(),
            Duration::from_secs(options.status_interval.into()),
        ),
        account,
        door: Door::new(rules),
        reach: options.reach,
        in_job,
        starter,
        here: rustix::system::uname().nodename().to_bytes().to_vec(),
        unrecognised_told: false,
        lines: Vec::new(),
        lines_done: 0,
        carried: 0,
        stdio_pool,
        pool: Pool::new(
            options.byte_limit,
            (POOL_BYTES / options.byte_limit).max(1),
            POOL_SPARE,
        ),
        pipes: Pipes::default(),
        scratch: vec![0; options.byte_limit],
        stdio_read: options.byte_limit.min(STDIO_READ),
        status: None,
    })
}

fn start_log(options: &Options) -> Result<(), StartError> {
    let target = match &options.log_file {
        Some(path) => {
            let path = expand_pid(path, std::process::id());
            Target::File(private_file::open(&path).map_err(|error| StartError(error.to_string()))?)
        }
        None => Target::Stderr,
    };
    logging::init(options.verbosity, target).map_err(|error| cannot("start the log", error))
}

/// The workgroup to submit under, looked up where that is asked for.
fn workgroup(options: &Options) -> Result<Option<String>, StartError> {
    match options.launch.workgroup() {
        None => Ok(None),
        Some(Workgroup::Named(name)) => Ok(Some(name.clone())),
        Some(Workgroup::First) => {
            let name = workgroup::first().map_err(|error| {
                StartError(format!("no workgroup for --group auto: {error}; name one"))
            })?;
            log::info!("the workgroup is {name}");
            Ok(Some(name))
        }
    }
}

fn open_tee(path: &Path) -> Result<Tee, StartError> {
    let path: PathBuf = expand_pid(path, std::process::id());
    let file = private_file::open(&path).map_err(|error| StartError(error.to_string()))?;
    Ok(Tee::new(path, file))
}

/// The first listener, at the first address of `host` where one can be bound, IPv4 ones first.
fn bind(
    host: &str,
    port: u16,
    backlog: u32,
) -> Result<(std::os::fd::OwnedFd, SocketAddr), StartError> {
    let listen = |error| cannot(format_args!("listen on {host} port {port}"), error);
    let addresses = (host, port).to_socket_addrs().map_err(listen)?;
    let (first, then): (Vec<_>, Vec<_>) = addresses.partition(SocketAddr::is_ipv4);
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in first.into_iter().chain(then) {
        match tcp::listener(address, backlog) {
            Ok(bound) => {
                warn_unreachable(bound.1.ip());
                return Ok(bound);
            }
            Err(error) => failure = error,
        }
    }
    Err(listen(failure))
}

fn warn_unreachable(ip: IpAddr) {
    if ip != Ipv4Addr::LOCALHOST && !ip.is_unspecified() {
        log::warn!(
            "Remote-SSH always connects to 127.0.0.1, which does not reach a listener on {ip}"
        );
    }
}

fn share(
    name: &str,
    fd: BorrowedFd<'_>,
    source: Source,
    reactor: &mut Reactor<Source>,
) -> Result<(Stream, Token), StartError> {
    let direction = if source == Source::Inlet {
        Direction::Read
    } else {
        Direction::Write
    };
    let stream =
        Stream::share(fd, direction).map_err(|error| cannot(format_args!("use {name}"), error))?;
    let token = reactor
        .register(stream.as_fd(), source)
        .map_err(|error| cannot(format_args!("watch {name}"), error))?;
    Ok((stream, token))
}
