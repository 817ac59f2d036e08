"""Every way in which a session can end: nothing is left anywhere, and the status is the documented one.

In Slurm's `interactive` variant the shell runs in the job; in `local` it runs on the login node, and has
started children that ignore SIGTERM and lead sessions of their own, which only the program can find.
"""
import ctypes
import os
import signal
from contextlib import contextmanager
from pathlib import Path

import box
import socks
from box import below, check, eventually, jobs, kill, nothing_left, run, scontrol
from client import Session
from journey import journey

BOTH = ("interactive", "local")

# What the launch command ends with when its job is taken away, measured with salloc alone (Slurm 22.05): 1 where
# --kill-command ended its own command, 143 where srun of the interactive step was faster, and 0 where srun was
# and lost its node.
JOB_TAKEN = {143, 1}
NODE_LOST = {143, 1, 0}


@contextmanager
def session_with_stubborn_children(*options):
    with Session(*options) as session:
        session.opening()
        local = not box.interactive_step()
        if local:
            session.ask("""sh -c 'trap "" TERM HUP INT; setsid sh -c "sleep 86401; :" & sleep 86402; :' & echo started""", "started")
        session.burst()
        session.announced()
        socks.http(session.connect())
        session.settled()
        eventually(10, "the stubborn children have not started",
                   lambda: not local or {"86401", "86402"} <= {p.argv[-1] for p in box.processes("alice")})
        yield session


def ended(session, wanted, by):
    nothing_left("alice")
    status = session.status()
    check(status in wanted, f"after {by} the status is {status}, not {' or '.join(map(str, sorted(wanted)))}")


@journey(2, *BOTH)
def ssh_is_killed():
    """The client's ssh is killed: 129."""
    with session_with_stubborn_children() as session:
        session.hang_up()
        ended(session, {129}, "the client's death")


@journey(2, *BOTH)
def sshd_is_killed():
    """The connection's sshd is killed on the login node: 129."""
    with session_with_stubborn_children() as session:
        sshd = session.wrapper().parent
        kill(sshd)
        ended(session, {129}, "sshd's death")


@journey(2, *BOTH)
def proxy_is_terminated():
    """The proxy gets SIGTERM: 143."""
    with session_with_stubborn_children() as session:
        kill(session.proxy().pid, signal.SIGTERM)
        ended(session, {143}, "SIGTERM")


@journey(2, *BOTH)
def proxy_is_killed():
    """The proxy is killed with SIGKILL."""
    with session_with_stubborn_children() as session:
        kill(session.proxy().pid)
        ended(session, {137}, "SIGKILL")


@journey(2, *BOTH)
def keeper_is_killed():
    """The keeper is killed with SIGKILL: 1."""
    with session_with_stubborn_children() as session:
        kill(session.keeper().pid)
        ended(session, {1}, "the keeper's death")


@journey(2, *BOTH)
def proxy_and_keeper_are_killed():
    """Proxy and keeper are both killed, the keeper first: what is left is salloc's death signal."""
    # Children that hide from a signal can be found by nobody then; so there are none.
    with Session() as session:
        session.start()
        session.settled()
        proxy, keeper = session.proxy(), session.keeper()
        # Stopped first, so that it cannot do what the journey of the keeper alone shows.
        kill(proxy.pid, signal.SIGSTOP)
        kill(keeper.pid)
        kill(proxy.pid)
        session.hang_up()
        eventually(15, lambda: f"the job is still there: {jobs('alice')}", lambda: not jobs("alice"))


@journey(2, *BOTH)
def job_is_cancelled():
    """The job is cancelled with scancel."""
    with session_with_stubborn_children() as session:
        run("login", "scancel", session.job())
        session.err.expect("allocation .*revoked")
        ended(session, JOB_TAKEN, "scancel")


@journey(2, *BOTH)
def time_limit_is_reached():
    """The job's time limit is reached."""
    with session_with_stubborn_children() as session:
        job = session.job()
        scontrol("update", f"JobId={job}", "EndTime=now")
        # slurmctld looks every 30 s.
        eventually(50, "slurmctld has not ended the job", lambda: "TIMEOUT" in scontrol("show", "job", job))
        ended(session, JOB_TAKEN, "the time limit")


def resume(node):
    """A node that was set down is there again."""
    # One that answers may have come back by itself, and cannot be resumed then.
    run("login", "scontrol", "update", f"NodeName={node}", "State=RESUME", ok=False)
    # sinfo was seen to call such a node otherwise for as long as 30 s, which slurmctld called idle.
    eventually(
        30, lambda: f"{node} does not come back:\n{scontrol('show', 'node', node)}",
        lambda: " State=IDLE" in scontrol("show", "node", node),
    )


@journey(2, *BOTH)
def node_goes_down():
    """The job's node is set down."""
    with session_with_stubborn_children() as session:
        node = jobs("alice")[0][3]
        scontrol("update", f"NodeName={node}", "State=DOWN", "Reason=journey")
        try:
            ended(session, NODE_LOST, "the node's loss")
        finally:
            resume(node)


# ptrace(2)'s requests.
PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH = 0x4206, 0x4207, 17


def ptrace(request, thread):
    if ctypes.CDLL(None, use_errno=True).ptrace(request, thread, None, None):
        raise OSError(ctypes.get_errno(), f"ptrace request {request:#x} for {thread}")


@contextmanager
def held(thread):
    """One thread does nothing meanwhile; the others of its process go on."""
    ptrace(PTRACE_SEIZE, thread)
    ptrace(PTRACE_INTERRUPT, thread)
    os.waitpid(thread, 0)
    try:
        yield
    finally:
        ptrace(PTRACE_DETACH, thread)


@journey(2, *BOTH)
def salloc_overlooks_the_end():
    """salloc overlooks the end of its command, whose job is revoked in the same moment: 1."""
    with session_with_stubborn_children() as session:
        salloc = next(p for p in below(session.keeper().pid) if p.argv[0].endswith("salloc"))
        command = next(p for p in below(salloc.pid) if p.parent == salloc.pid)
        # Of salloc's threads the one that hears of the revocation asks for the command too.  Where it is the
        # first to do so, the one that waits for the command does so for ever, and in a busy loop.
        with held(salloc.pid):
            kill(command.pid)
            run("login", "scancel", session.job())
            session.err.expect("allocation .*revoked")
            eventually(10, "salloc has not taken its command's end", lambda: not Path(f"/proc/{command.pid}").exists())
        ended(session, {1}, "the end that salloc has overlooked")


@journey(2, *BOTH)
def shell_exits_by_itself():
    """The shell leaves with a status of its own."""
    with Session() as session:
        session.ask("echo ready", "ready\n")
        session.send("exit 7\n")
        check(session.wait() == 7, f"the shell's status 7 came back as {session.wait()}")
        ended(session, {7}, "exit 7")


@journey(2, *BOTH)
def launch_is_refused():
    """salloc refuses: its own words reach stderr, its status is ours."""
    with Session("--salloc-arg=--partition=nowhere") as session:
        status = session.wait()
        check(status == 1, f"salloc's status 1 came back as {status}")
        session.err.expect("(?i)invalid partition")
    nothing_left("alice")


@contextmanager
def full_cluster():
    """Every CPU is bob's, so that alice waits."""
    run("login", "sbatch", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=exec sleep 3600", user="bob")
    eventually(20, lambda: f"bob's job does not run: {jobs('bob')}", lambda: [j[2] for j in jobs("bob")] == ["R"])
    try:
        yield
    finally:
        run("login", "scancel", "--user=bob")
        nothing_left("bob", limit=30)


@journey(2, *BOTH)
def waiting_in_the_queue():
    """Waiting in the queue: what the client says meanwhile is kept, and the session begins when its turn comes."""
    with full_cluster(), Session() as session:
        session.send(f"echo ready: {session.ident}\n")
        job = session.job()
        check([j[2] for j in jobs("alice") if j[0] == job] == ["PD"], "alice's job does not wait")
        run("login", "scancel", "--user=bob")
        session.out.expect(f"ready: {session.ident}\n", limit=60)
        session.start()
        socks.http(session.connect())
    nothing_left("alice")


@journey(2, *BOTH)
def giving_up_while_waiting():
    """Waiting in the queue and giving up: the client leaves, or a signal comes, and the request is withdrawn."""
    with full_cluster():
        for give_up, wanted in ((lambda s: s.hang_up(), 129),
                                (lambda s: kill(s.proxy().pid, signal.SIGTERM), 143),
                                (lambda s: kill(s.proxy().pid), 137),
                                (lambda s: kill(s.keeper().pid), 1)):
            with Session() as session:
                job = session.job()
                check([j[2] for j in jobs("alice") if j[0] == job] == ["PD"], "alice's job does not wait")
                session.proxy(), session.keeper()
                give_up(session)
                ended(session, {wanted}, "giving up")


@journey(2, *BOTH)
def cancelled_while_waiting():
    """The request is cancelled while it waits: salloc's status is ours."""
    with full_cluster(), Session() as session:
        run("login", "scancel", session.job())
        status = session.wait()
        check(status == 1, f"salloc's status 1 came back as {status}")
        nothing_left("alice")


@journey(2, *BOTH)
def slurmctld_is_restarted():
    """slurmctld is restarted: the session goes on, and its end still frees the node."""
    with Session() as session:
        session.start()
        box.cluster("stop", "slurmctld")
        try:
            socks.echo(session.connect(), 1 << 20, 1)
        finally:
            box.cluster("start", "slurmctld")
        check([j[0] for j in jobs("alice")] == [session.job()], "the job has not survived the restart")
        socks.echo(session.connect(), 1 << 20, 2)
        session.hang_up()
        ended(session, {129}, "the client's death")
