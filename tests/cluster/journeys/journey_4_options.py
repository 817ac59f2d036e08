"""Every option of the table once, on the real cluster, and the README's Host stanzas as they stand there."""
import re
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path

import box
import socks
from box import check, eventually, jobs, nothing_left, path, run
from client import PROXY, Session, free_port
from journey import journey, write
from journey_3_strangers import dial

README = Path(__file__).parents[3] / "README.md"


def remote(*words, user="alice", input=None):
    """The program as a remote command that ends by itself: (status, stdout, stderr)."""
    done = subprocess.run(
        box.enter("client", "laptop") + ["ssh", "-T", "-o", "BatchMode=yes", f"{user}@login", " ".join([PROXY, *words])],
        input=input, stdin=None if input is not None else subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


@journey(4)
def help_and_version():
    """--help and --version: on stdout, exit 0, and nothing is submitted."""
    for words, wanted in ((["-h"], "Usage"), (["--help"], "--salloc-arg"), (["-V"], PROXY), (["--version"], PROXY)):
        status, out, err = remote(*words)
        check((status, err) == (0, ""), f"{words}: status {status}, stderr {err!r}")
        check(wanted in out, f"{words}: {out!r}")
    check(not jobs(), f"jobs were submitted: {jobs()}")


@journey(4)
def every_option_is_here():
    """Every option that --help shows is used by a journey, and by each of its names."""
    _, text, _ = remote("--help")
    sources = "".join(file.read_text() for file in Path(__file__).parent.glob("journey_*.py"))
    rows = re.findall(r"(?m)^ {2}(?: {4})?(-(?:\w, -)?-[\w-]+(?:, --[\w-]+)*)", text)
    check(len(rows) >= 15, f"--help shows only {rows}")
    names = [name for row in rows for name in row.split(", ")]
    unused = [name for name in names if not re.search(rf"\"{name}[\"=]", sources)]
    check(not unused, f"no journey uses {unused}")


@journey(4)
def wrong_use():
    """Wrong use and files that cannot be opened: one line, exit 2 or 1, and nothing is submitted."""
    for words, status, named in (
        (["--no-such-option"], 2, "no-such-option"),
        (["--backlog=0"], 2, "backlog"),
        (["--listen-port=65536"], 2, "listen-port"),
        (["--status-interval=soon"], 2, "status-interval"),
        (["word"], 2, "word"),
        (["-S", "x", "--", "bash"], 2, "salloc-arg"),
        (["--log-file=/no/such/directory/log"], 1, "/no/such/directory/log"),
        (["--tee-stdout=/etc/passwd"], 1, "/etc/passwd"),
        (["--listen-port=22"], 1, "22"),
    ):
        got, out, err = remote(*words)
        check(got == status, f"{words}: status {got}, not {status}: {err}")
        check(out == "" and err.count("\n") == 1 and named in err, f"{words}: stdout {out!r}, stderr {err!r}")
    # slurmctld remembers ended jobs for a minute; these were never there.
    check(not jobs("alice"), f"jobs were submitted: {jobs('alice')}")


@journey(4)
def a_shell_that_ends():
    """`echo command | program` prints the answer and ends with the shell's status."""
    status, out, err = remote(input="uname -n; exit 3\n")
    check((status, out) == (3, "node1\n"), f"status {status}, stdout {out!r}, stderr {err!r}")
    nothing_left("alice")


LONG_NAMES = ["--verbose", "--verbose", "--log-file={log}", "--tee-stdin={stdin}", "--tee-stdout={stdout}", "--tee-stderr={stderr}"]
SHORT_NAMES = ["-v", "-v", "-v", "-l", "{log}", "-0", "{stdin}", "-1", "{stdout}", "-2", "{stderr}"]


@journey(4)
def log_and_tees():
    """-v, -l, -0, -1, -2: files with [PID] in their names, mode 0600, copies byte for byte."""
    for words in (LONG_NAMES, SHORT_NAMES):
        names = {option: f"journey.{option}.[PID]" for option in ("log", "stdin", "stdout", "stderr")}
        with Session(*(word.format(**names) for word in words)) as session:
            session.start()
            socks.http(session.connect())
            session.settled()
            files = {option: next(path("login", "/home/alice").glob(f"journey.{option}.*")) for option in names}
            check(len({file.suffix for file in files.values()}) == 1 and file_pid(files["log"]), f"the names are {files}")
            session.hang_up()
            nothing_left("alice")
        for file in files.values():
            check(file.stat().st_mode & 0o777 == 0o600, f"{file.name} has mode {file.stat().st_mode & 0o777:o}")
        text = {option: file.read_text() for option, file in files.items()}
        check(text["stdout"] == session.out.text, f"the copy of stdout is not what the client got: {text['stdout'][-300:]!r}, {session.out.text[-300:]!r}")
        # Log lines are not on stderr with -l, so the copy and what ssh had agree; ssh may have had less at its end.
        check(text["stderr"].startswith(session.err.text) and "Granted" in text["stderr"], "the copy of stderr is not what the client got")
        check("--on-host=127.0.0.1" in text["stdin"] and "--in-job" in text["stdin"], "the copy of stdin is not what the shell got")
        check(session.token not in text["log"], "the log holds the session's token")
        check(text["log"].count("\n") >= 3, f"the log says little: {text['log']!r}")
        for file in files.values():
            file.unlink()


def file_pid(file):
    return file.suffix[1:].isdigit()


@journey(4)
def quiet():
    """-q: a local shell's warning, an announcement without a start, and a refused stranger are not logged."""
    with Session("-q", "--quiet") as session:
        port = session.start()[0]
        dial("login", port, "bob")
        socks.http(session.connect())
        check(PROXY not in session.err.text and "bob" not in session.err.text, f"stderr says {session.err.text!r}")


@journey(4)
def listener():
    """-b, -B, -H, -p: the session works with a backlog, a byte limit, a host and a port of the user's choice."""
    port = free_port()
    with Session("-b", "64", "-B", "512", "-H", "localhost", "-p", str(port)) as session:
        check(session.start() == [port], f"port {port} was asked for, {session.ports} announced")
        listening = run("login", "ss", "-Hltn", f"sport = :{port}").split()
        check(listening[2] == "64" and listening[3] == f"127.0.0.1:{port}", f"the listener is {listening}")
        socks.echo(session.connect(), 1 << 20, 1)
        # A second proxy on the same port must not share it silently.
        status, _, err = remote(f"--listen-port={port}")
        check(status == 1 and str(port) in err, f"a second proxy on port {port}: status {status}, {err!r}")
    nothing_left("alice")
    with Session(f"--listen-port={port}", "--listen-host=127.0.0.1", "--backlog", "1", "--byte-limit=1048576") as session:
        check(session.start() == [port], "the port is not free again at once")


@journey(4)
def salloc_arguments_and_environment():
    """-S and -e: arguments and variables reach salloc, and through it the job."""
    with Session("-S", "--job-name=two words", "--salloc-arg=--nodelist=node2", "-e", "JOURNEY=to the node", "--salloc-env", "JOURNEY_EMPTY") as session:
        session.opening()
        got = session.ask("echo journey: $JOURNEY, ${JOURNEY_EMPTY-unset}.", r"journey: (.*)\n").group(1)
        check(got == "to the node, .", f"the job's variables are {got!r}")
        check(session.ask("echo at: $SLURM_JOB_NODELIST", r"at: (.*)\n").group(1) == "node2", "the argument has not reached salloc")
        check(run("login", "squeue", "-h", "-o", "%j", "-u", "alice").strip() == "two words", "the job's name is another")
        session.burst()
        session.announced()
        check(session.answers()["node"] == "node2.box.test", "the server is not on node2")


@journey(4)
def launch_command():
    """--command, its arguments by their neutral names, and the environment that comes and goes with it."""
    words = ["--command", "salloc %a srun --pty --export=ALL,%e %s", "--launch-arg=--nodelist=node2", "--srun-arg", "--comment=ours",
             "--job-name=%u.%h", "--launch-env=JOURNEY=1", "--env=JOURNEY2", "--unset-env=SSH_CONNECTION"]
    with Session(*words) as session:
        session.opening()
        got = session.ask("echo journey: $JOURNEY, ${JOURNEY2-unset}, ${SSH_CONNECTION-unset}.", r"journey: (.*)\n").group(1)
        check(got == "1, , unset.", f"the job's variables are {got!r}")
        fields = run("login", "squeue", "-h", "-o", "%j|%k|%N", "-u", "alice").strip()
        check(fields == "alice.login|ours|node2", f"the job's name, comment and node are {fields}")
        session.burst()
        session.announced()
        socks.http(session.connect())
        session.hang_up()
    nothing_left("alice")
    with Session() as session:
        session.opening()
        name = run("login", "squeue", "-h", "-o", "%j", "-u", "alice").strip()
        check(name == "vscode-alice", f"without an option the job's name is {name}")
        session.hang_up()
    nothing_left("alice")


SITE = """\
# The site's.
lock = admit
startup = echo to the log; export STARTED=yes
salloc-arg = --job-name=from the site

[profile small]
description = any node
salloc-arg = --time=10

[profile second]
description = the second node
salloc-arg = --nodelist=node2
"""


@journey(4)
def site_file():
    """/etc/vscode-shell-proxy.conf with two profiles and a lock, a user's file, and the options that are about files."""
    site, own = path("login", "/etc/vscode-shell-proxy.conf"), path("login", "/home/alice/own.conf")
    write(site, SITE)
    write(own, "salloc-arg = --comment=own\n")
    try:
        check(remote("--list-profiles")[1] == "small   any node\nsecond  the second node\n", "the profiles are others")
        for profile, node in (("small", "node1"), ("second", "node2")):
            with Session("--profile", profile, "--config=own.conf", "--startup", "echo not to stderr either >&2") as session:
                session.opening()
                check(session.ask("echo started: $STARTED", r"started: (.*)\n").group(1) == "yes", "the startup command has not run")
                session.burst()
                session.announced()
                both = session.out.text + session.err.text
                check("to the log" not in both and "not to stderr" not in both, f"the client saw what startup wrote: {both!r}")
                check(session.answers()["node"].startswith(node), f"{profile} is on {session.answers()['node']}")
                fields = run("login", "squeue", "-h", "-o", "%j|%k", "-u", "alice").strip()
                check(fields == "from the site|own", f"the job's name and comment are {fields}")
                session.hang_up()
                nothing_left("alice")
        status, out, _ = remote("--profile=second", "--show-config")
        wanted = "/etc/vscode-shell-proxy.conf, line 12"
        check(status == 0 and any(line.startswith(wanted) and line.endswith("salloc-arg = --nodelist=node2") for line in out.splitlines()),
              f"--show-config prints {out}")
        for words in (["--admit=any"], ["--config", "none", "--admit=any"], ["--profile=third"]):
            status, out, err = remote(*words)
            check(status == 2 and out == "" and err.count("\n") == 1, f"{words}: status {status}, {err!r}")
        write(site, "enabled = no\nmessage = Closed until Friday.\n")
        status, out, err = remote("--config=none")
        check((status, out, err) == (1, "", f"{PROXY}: Closed until Friday.\n"), f"switched off: status {status}, {err!r}")
        check(not jobs("alice"), f"jobs were submitted: {jobs('alice')}")
    finally:
        site.unlink()
        own.unlink()


@journey(4)
def workgroup():
    """-g: the launch command runs under the workgroup's wrapper, here a real set-group-id one, and ends with it."""
    run("login", "bash", "-c", "getent group physics || groupadd physics; usermod -aG physics alice")
    write(path("login", "/usr/local/bin/workgroup"),
          '#!/bin/bash\n# workgroup -g NAME --command @ -- COMMAND…\n'
          '[[ "$*" == "-q workgroups" ]] && echo "2000 physics" && exit\n'
          '[[ $1 == -g && $3 == --command && $4 == @ && $5 == -- ]] || exit 64\n'
          'exec sg "$2" -c "exec ${*@Q:6}"\n'.replace("${*@Q:6}", '$(printf "%q " "${@:6}")'))
    for word, name in (("-g", "physics"), ("--group", "physics"), ("--workgroup", "auto")):
        with Session(word, name) as session:
            session.opening()
            got = session.ask("echo group: $(id -gn)", r"group: (.*)\n").group(1)
            check(got == "physics", f"with {word} the job's group is {got}")
            session.burst()
            session.announced()
            socks.http(session.connect())
            session.settled()
            # sg cleared the launch command's death signal: only the keeper can end it.
            box.kill(session.proxy().pid)
            nothing_left("alice")


@journey(4)
def admission():
    """--admit and --admit-from: who else is let in, and that nobody is by default."""
    for options, who, host, address, admitted in (
        ([], "root", "login", "127.0.0.1", False),
        (["--admit=root"], "root", "login", "127.0.0.1", True),
        (["--admit=root"], "bob", "login", "127.0.0.1", False),
        (["--admit", "any"], "bob", "login", "127.0.0.1", True),
        (["-H", "0.0.0.0"], "alice", "node1", "10.90.0.3", False),
        (["-H", "0.0.0.0", "--admit-from=10.90.0.12/32"], "alice", "node1", "10.90.0.3", False),
        (["-H", "0.0.0.0", "--admit-from=192.0.2.0/24", "--admit-from", "10.90.0.0/24"], "alice", "node1", "10.90.0.3", True),
    ):
        with Session(*options) as session:
            port = session.start()[0]
            answer = dial(host, port, who, address)
            check(("200 OK" in answer) == admitted, f"{who} on {host} with {options or 'no option'}: {answer}")
            socks.http(session.connect())


@journey(4)
def max_sessions():
    """--max-sessions: one session more is refused, another user's is not, and an ended one leaves its place."""
    with Session() as session:
        session.start()
        status, out, err = remote("--max-sessions=1")
        check((status, out) == (1, "") and "1 session of yours runs" in err and err.count("\n") == 1, f"status {status}, {err!r}")
        for words, user in ((["--max-sessions=2"], "alice"), (["--max-sessions", "1"], "bob")):
            status, _, err = remote(*words, "--", "true", user=user)
            check(status == 0, f"{user} with {words}: status {status}, {err!r}")
        session.hang_up()
    nothing_left("alice")
    status, _, err = remote("--max-sessions=1", "--", "true")
    check(status == 0, f"after the first one's end: status {status}, {err!r}")


@contextmanager
def system_log():
    """The system log of the login node: a /dev with everything that was there, and a socket that is read here."""
    run("login", "bash", "-c", "mkdir /tmp/dev && mount --rbind /dev /tmp/dev && mount -t tmpfs -o mode=755 dev /dev"
        " && ln -s /tmp/dev/* /dev/ && ln -sfn /tmp/log /dev/log")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
            log.bind(str(path("login", "/tmp/log")))
            path("login", "/tmp/log").chmod(0o666)
            log.settimeout(10)
            yield lambda: log.recv(4096).decode().partition("]: ")[2]
    finally:
        run("login", "bash", "-c", "umount --lazy /dev /tmp/dev; rmdir /tmp/dev; rm -f /tmp/log")


@journey(4)
def syslog():
    """--syslog: a line at the start, and one at the end with the job, its node, and the reason."""
    with system_log() as line, Session("--syslog") as session:
        session.start()
        job, node = session.job(), session.answers()["node"]
        started = line()
        check(re.fullmatch(r"session started: user=alice uid=\d+ command=salloc", started), f"it starts with {started!r}")
        session.hang_up()
        ended = line()
        check(re.fullmatch(rf"session ended: user=alice uid=\d+ job={job} node={node} seconds=\d+ status=129 reason=\"the client is gone\"", ended),
              f"it ends with {ended!r}")
    nothing_left("alice")


@journey(4)
def stanza_to_paste():
    """--ssh-config and --ssh-host: what it prints is used as it stands, and leads to a session with the options."""
    status, text, err = remote("--ssh-config", "printed", "--ssh-host=login", "--salloc-arg='--comment=two words'")
    check((status, err) == (0, ""), f"status {status}, stderr {err!r}")
    config = path("client", "/home/laptop/config-printed")
    write(config, text.split("\n\n")[0] + "\n")
    with Session(stanza=("/home/laptop/config-printed", "printed")) as session:
        session.start()
        check("Comment=two words" in box.scontrol("show", "job", session.job()), f"the option is lost from\n{text}")
        session.hang_up()
    nothing_left("alice")


@journey(4)
def other_commands():
    """-- COMMAND: a shell right here, srun, and a salloc of one's own."""
    for command, host in ((["bash"], "login"), (["srun", "--pty", "bash"], "node"), (["salloc", "-w", "node2"], "node2")):
        with Session("--", *command) as session:
            session.start()
            check(session.answers()["node"].startswith(host), f"{command} serves from {session.answers()['node']}")
            session.hang_up()
            nothing_left("alice")


def stanzas():
    """The README's Host blocks, each with its name."""
    if not README.exists():
        return []
    blocks = re.findall(r"^ *```ssh-config\n(.*?)^ *```", README.read_text(), re.M | re.S)
    found = []
    for block in blocks:
        if re.search(r"^\s*RemoteCommand", block, re.M):
            found += [part for part in re.split(r"(?m)^(?=\s*Host\s)", block) if re.match(r"\s*Host\s", part)]
    return found


@journey(4, "x11")
def host_stanzas():
    """The README's Host stanzas verbatim, host and user replaced; with X11 an X client in the job opens the display."""
    found = stanzas()
    check(found, "README.md has no Host stanza with a RemoteCommand")
    server = XServer()
    try:
        for stanza in found:
            name = re.search(r"Host\s+(\S+)", stanza).group(1)
            config = re.sub(r"(?im)^(\s*HostName\s+).*$", r"\1login", stanza)
            config = re.sub(r"(?im)^(\s*User\s+).*$", r"\1alice", config)
            if not re.search(r"(?im)^\s*HostName", config):
                config += "    HostName login\n"
            if not re.search(r"(?im)^\s*User\s", config):
                config += "    User alice\n"
            write(path("client", f"/home/laptop/config-{name}"), config)
            x11 = "x11" in stanza.lower()
            with Session(stanza=(f"/home/laptop/config-{name}", name), display=server.name if x11 else None) as session:
                try:
                    session.start()
                    socks.http(session.connect())
                    if x11:
                        with Session(stanza=(f"/home/laptop/config-{name}", name), display=server.name) as second:
                            second.opening()
                            second.ask("xdpyinfo | grep -i 'vendor string'", r"(?i)vendor string: *\S+")
                except Exception as error:
                    error.add_note(f"with the stanza\n{stanza}")
                    raise
                session.hang_up()
            nothing_left("alice")
    finally:
        server.stop()


@journey(4, "x11")
def x11_without_display():
    """--salloc-arg=--x11 without a DISPLAY: refused at once with salloc's words and status."""
    with Session("--salloc-arg=--x11") as session:
        session.err.expect("(?i)display")
        status = session.wait()
        check(status == 255 or status == 1, f"salloc's status came back as {status}")
    nothing_left("alice")


class XServer:
    """A display on the client."""

    name = ":7"

    def __init__(self):
        self.process = subprocess.Popen(
            box.enter("client", "laptop", pid_namespace=False) + ["Xvfb", self.name, "-nolisten", "tcp", "-ac"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        eventually(20, "Xvfb does not answer", lambda: subprocess.run(
            box.enter("client", "laptop") + ["xdpyinfo", "-display", self.name], capture_output=True).returncode == 0)
        # ssh hands a cookie on, so there has to be one.
        run("client", "xauth", "add", self.name, ".", "0123456789abcdef0123456789abcdef", user="laptop")

    def stop(self):
        self.process.terminate()
        self.process.wait(10)
