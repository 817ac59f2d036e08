"""Grid Engine on the cluster's hosts: qmaster on the login node, an execution daemon on each compute node.

It is there for one journey, and leaves nothing: Debian's packages, unpacked by gridengine/install, are laid over
/usr in the hosts' own mount namespaces; the cell and its spool lie on the cluster's own tmpfs.
"""
import os
import shutil
from contextlib import contextmanager

import box
from box import Failed, eventually, kill, path, run
from journey import Skipped

UNPACKED = "/srv/target/gridengine"
ROOT = "/mnt/gridengine"
NODES = ("node1", "node2")


@contextmanager
def grid_engine():
    """The scheduler, both nodes ready, for as long as the block takes."""
    reason = os.environ.get("JOURNEYS_GRID_ENGINE", "it was not asked for")
    if reason != "installed":
        raise Skipped(reason)
    hosts = ("login", *NODES)
    laid = []
    try:
        for host in hosts:
            try:
                run(host, "mount", "-t", "overlay", "-o", f"lowerdir={UNPACKED}/usr:/usr", "gridengine", "/usr")
            except Failed as error:
                raise Skipped(f"packages cannot be laid over /usr here: {error}") from None
            laid.append(host)
            # What the hosts share lies below /usr too.
            run(host, "mount", "--bind", "/mnt/bin", "/usr/local/bin")
        run("login", "bash", "/srv/tests/cluster/gridengine/up", limit=30)
        for node in NODES:
            run(node, "sge_execd")
        eventually(20, "a node is not ready", lambda: _ready() == len(NODES))
        yield
    finally:
        for daemon in _daemons():
            kill(daemon.pid)
        eventually(10, "Grid Engine's daemons do not end", lambda: not _daemons())
        for host in laid:
            # The program that does it lies below /usr itself, so the place is busy until that has ended.
            run(host, "umount", "--lazy", "--recursive", "/usr", ok=False)
        path("login", "/etc/default/gridengine").unlink(missing_ok=True)
        shutil.rmtree(path("login", ROOT), ignore_errors=True)


def _ready():
    """How many nodes have reported to qmaster: those of the queue whose load is known."""
    lines = run("login", "qstat", "-f", ok=False).splitlines()
    return sum(line.startswith("main.q@") and "-NA-" not in line for line in lines)


def _daemons():
    """qmaster, execution daemons and the jobs' shepherds."""
    names = ("sge_qmaster", "sge_execd", "sge_shepherd")
    return [p for p in box.processes("root") if p.host in box.HOSTS and p.argv[0].rsplit("/", 1)[-1].startswith(names)]


def requests(user):
    """qstat's lines about a user's jobs, waiting or running: the number is the first word, the state the fifth."""
    return [line for line in run("login", "qstat", "-u", user).splitlines() if line.split()[0].isdigit()]


def nothing_left(user, limit=15):
    """No request, no process of the user's, on any host but the client's."""
    left = lambda: "\n".join(requests(user) + [str(p) for p in box.processes(user) if p.host != "client"])
    eventually(limit, lambda: f"still there:\n{left()}\n{_traces()}", lambda: not left())


def _traces(lines=12):
    """The last words of the shepherds, of the jobs that run."""
    traces = path("login", f"{ROOT}/spool/execd").glob("*/active_jobs/*/trace")
    return "\n".join(line for trace in traces for line in trace.read_text(errors="replace").splitlines()[-lines:])
