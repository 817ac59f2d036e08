"""What the user is told of the job: while it waits, before its time is up, and why it ended."""
import re

import box
from box import check, jobs, nothing_left, run, scontrol
from client import PROXY, Session
from journey import journey
from journey_2_ends import BOTH, full_cluster, resume


def said(session, pattern, start=0, limit=30):
    """A line of the program's own on stderr."""
    return session.err.expect(rf"(?m)^{PROXY}: {pattern}$", start, limit)


@journey(12, *BOTH)
def lines_about_a_waiting_job():
    """A full queue: lines with the job's state and reason, and a summary when its turn comes."""
    with full_cluster(), Session("--status-interval=1") as session:
        job, end = session.job(), 0
        for _ in range(3):
            line = said(session, rf"waiting for \d+ s: job {job} is PENDING \((\w+)\)(, expected to start \S+)?", end)
            end = line.end()
            check(line.group(1) in ("None", "Resources", "Priority"), f"an unexpected reason: {line.group(0)}")
        check(line.group(2), f"no start is expected: {line.group(0)}")
        run("login", "scancel", "--user=bob")
        session.ask(f"echo ready: {session.ident}", f"ready: {session.ident}\n", limit=60)
        node = "login" if not box.interactive_step() else "node[12].*"
        said(session, rf"job {job} runs on {node}, after \d+ s", end)
        session.hang_up()
    nothing_left("alice")


@journey(12, *BOTH)
def a_time_limit_is_warned_of_and_told():
    """A short time limit: a warning at once, and the reason when it is reached."""
    with Session("--salloc-arg=--time=4") as session:
        session.ask("echo ready", "ready\n")
        job = session.job()
        said(session, rf"job {job} reaches its time limit in (3 min \d\d? s|4 min)")
        scontrol("update", f"JobId={job}", "EndTime=now")
        # slurmctld looks every 30 s.
        said(session, rf"job {job} has reached its time limit \(.*", limit=60)
        session.wait()
    nothing_left("alice")


@journey(12, *BOTH)
def a_cancelled_job_is_told():
    """A job that is cancelled, running or waiting: a line says so."""
    with Session() as session:
        session.ask("echo ready", "ready\n")
        run("login", "scancel", session.job())
        session.wait()
        said(session, rf"job {session.job()} was cancelled.*")
    nothing_left("alice")
    with full_cluster(), Session() as session:
        run("login", "scancel", session.job())
        session.wait()
        said(session, rf"job {session.job()} was cancelled.*")
    nothing_left("alice")


@journey(12, *BOTH)
def a_lost_node_is_told():
    """A job that loses its node: a line says so."""
    with Session() as session:
        session.ask("echo ready", "ready\n")
        job, _, _, node = jobs("alice")[0]
        scontrol("update", f"NodeName={node}", "State=DOWN", "Reason=journey")
        try:
            said(session, rf"job {job} has lost its node")
            session.wait()
        finally:
            resume(node)
    nothing_left("alice")


@journey(12, *BOTH)
def an_end_of_its_own_needs_no_reason():
    """A shell that leaves by itself: nothing is said, and its status comes back at once."""
    with Session() as session:
        session.ask("echo ready", "ready\n")
        session.send("exit 7\n")
        check(session.wait() == 7, f"the shell's status 7 came back as {session.wait()}")
        lines = re.findall(rf"(?m)^{PROXY}: job .*", session.err.text)
        check(not lines, f"it is told: {lines}")
    nothing_left("alice")
