"""The cluster as the journeys see it: its hosts, their processes, its queue, and bounded waiting.

The journeys run as root beside the hosts: they see every process, have the client's network, and reach a
host's files through /proc/PID/root.  Nothing here waits for time: every wait is for something, and has a limit
and a sentence to fail with.
"""
import os
import pwd
import signal
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HOSTS = ["client", "login", "node1", "node2"]
STATE = Path(os.environ["CLUSTER_STATE"])
CLUSTER = Path(__file__).parent.parent / "cluster"


class Failed(Exception):
    """What a journey found to be wrong."""


def eventually(limit, what, condition):
    """The first true answer of `condition`; fails with `what` where there is none within `limit` seconds."""
    end = time.monotonic() + limit
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > end:
            raise Failed(f"not within {limit:g} s: {what() if callable(what) else what}")
        # A queue and a process table cannot be waited for, only looked at again.
        time.sleep(0.03)


def check(condition, what):
    if not condition:
        raise Failed(what)


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    uid: int
    host: str
    argv: tuple

    def __str__(self):
        return f"{self.host}: {self.pid} (parent {self.parent}) {' '.join(self.argv)[:150]}"


def init_of(host):
    return int((STATE / "private/host" / host).read_text())


_network = {os.readlink(f"/proc/{init_of(host)}/ns/uts"): host for host in HOSTS}


def processes(user=None):
    """Every process that is alive, of one user or of all."""
    wanted = pwd.getpwnam(user).pw_uid if user else None
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        base = f"/proc/{entry}"
        try:
            # stat's owner is the effective uid, but root's for a process that may not be dumped.
            status = dict(line.split(":\t", 1) for line in Path(base, "status").read_text().splitlines() if ":\t" in line)
            if status["State"][0] in "ZX":
                continue
            uid = int(status["Uid"].split()[0])
            if wanted is not None and uid != wanted:
                continue
            host = _network.get(os.readlink(f"{base}/ns/uts"), "-")
            argv = Path(base, "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        words = tuple(word.decode("latin-1") for word in argv)
        found.append(Process(int(entry), int(status["PPid"]), uid, host, words if words != ("",) else (f"[{status['Name']}]",)))
    return found


def below(pid):
    """All descendants of a process, nearest first."""
    everything, found, parents = processes(), [], {pid}
    while True:
        new = [p for p in everything if p.parent in parents and p not in found]
        if not new:
            return found
        found += new
        parents = {p.pid for p in new}


def kill(pid, sig=signal.SIGKILL):
    try:
        os.kill(pid, sig)
    except ProcessLookupError:
        pass


def enter(host, user=None, pid_namespace=True):
    """The words that put a command on a host.  Without the pid namespace they are exec'ed away, and the pid
    of what was started is the command's own."""
    words = ["nsenter", "--target", str(init_of(host)), "--net", "--uts", "--mount", "--wdns=/"]
    if pid_namespace:
        words.append("--pid")
    if user:
        words += ["setpriv", "--reuid", user, "--regid", user, "--init-groups", "--reset-env"]
    return words


def run(host, *command, user=None, limit=20, input=None, ok=True):
    """Run to its end on a host; its stdout."""
    done = subprocess.run(
        enter(host, user) + list(command), input=input, stdin=None if input is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=limit, text=True, errors="replace",
    )
    if ok and done.returncode:
        raise Failed(f"{' '.join(command)} on {host}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def cluster(*words):
    done = subprocess.run([CLUSTER, *words], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Failed(f"cluster {' '.join(words)}: {done.stdout}{done.stderr}")


def path(host, name):
    """A host's file as it is reached from here."""
    return Path(f"/proc/{init_of(host)}/root") / name.lstrip("/")


# What mount lays over a place: nothing at all; or the place as it is, without execution.
NOTHING = [["-t", "tmpfs", "-o", "mode=755", "nothing", "@"]]
NO_EXECUTION = [["--bind", "@", "@"], ["-o", "remount,bind,noexec", "@"]]


@contextmanager
def laid_over_on_the_nodes(place, mounts=NOTHING):
    """Lays something over a directory of both nodes, for a while."""
    nodes = ("node1", "node2")
    try:
        for node in nodes:
            for words in mounts:
                run(node, "mount", *(place if word == "@" else word for word in words))
        yield
    finally:
        for node in nodes:
            run(node, "umount", place, ok=False)


def jobs(user=None):
    """[(id, user, state, node)] of what is queued, running, or completing."""
    lines = run("login", "squeue", "--noheader", "--states=PD,R,CG,CF,S", "--format=%i %u %t %N").splitlines()
    rows = [(line.split() + [""])[:4] for line in lines]
    return [row for row in rows if user in (None, row[1])]


def scontrol(*words):
    return run("login", "scontrol", *words)


def interactive_step():
    """Whether salloc's shell runs in the job, in Slurm's present variant."""
    return "use_interactive_step" in scontrol("show", "config")


def set_shell(user, shell):
    """A login shell: /etc is one for all hosts."""
    run("login", "usermod", "--shell", shell, user)


def left_over(*users):
    """What is still there of these users, as a text; empty where nothing is."""
    lines = [f"job {' '.join(row)}" for user in users for row in jobs(user)]
    lines += [str(p) for user in users for p in processes(user) if p.host != "client"]
    return "\n".join(lines)


def nothing_left(*users, limit=15):
    eventually(limit, lambda: "still there:\n" + left_over(*users), lambda: not left_over(*users))


def clear(*users):
    """Make an end by force, so that one journey's failure does not become the next one's."""
    for user in users:
        run("login", "scancel", "--user", user, ok=False)
    def gone():
        for user in users:
            for process in processes(user):
                kill(process.pid)
        return not left_over(*users)
    eventually(30, lambda: "could not be cleared:\n" + left_over(*users), gone)


def log_text(service):
    return (STATE / "log" / service).read_text(errors="replace")


def log_of(service, lines=15):
    """A service's last words."""
    return "\n".join(log_text(service).splitlines()[-lines:])
