"""A relay inside the job under strain: the link is down for a while, strangers crowd in, all sessions come at once."""
import os
import re
import signal
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path

import box
import socks
from box import check, eventually, kill, nothing_left, processes, run
from client import Session
from journey import journey
from journey_13_reach import IN_JOB, link, nodes_respond, serves_by_relay

MIB = 1 << 20


class Task:
    """Something that goes on beside the journey; its error is the journey's."""

    def __init__(self, work, *args):
        self.error = None
        self.thread = threading.Thread(target=self._run, args=(work, args), daemon=True)
        self.thread.start()

    def _run(self, work, args):
        try:
            work(*args)
        except Exception as error:
            self.error = error

    def is_under_way(self):
        if self.error:
            raise self.error
        return self.thread.is_alive()

    def end(self, limit):
        self.thread.join(limit)
        check(not self.thread.is_alive(), f"it is still under way after {limit} s")
        if self.error:
            raise self.error


def used_before(session, words):
    """A connection that echoes, over which something has gone already."""
    peer = session.connect()
    peer.sendall(b"ECHO\n" + words)
    check(socks.exactly(peer, len(words)) == words, "the echo differs")
    return peer


def cut(seconds, during=lambda: None):
    """The login node's link is down for so long.  Time itself is what is waited for."""
    link(up=False)
    try:
        during()
        time.sleep(seconds)
    finally:
        link(up=True)


def carried(host):
    """What a host's network has received and sent, in bytes."""
    words = next(line.split() for line in run(host, "cat", "/proc/net/dev").splitlines() if "eth0:" in line)
    return int(words[1]) + int(words[9])


@journey(15)
def link_is_down_during_a_transfer():
    """The login node's link is down for 10 s during transfers both ways: they go on, and every byte is right."""
    with Session(*IN_JOB) as session:
        session.start()
        serves_by_relay(session)
        idle = used_before(session, b"before the cut")
        way = [session.connect() for _ in range(3)]
        for peer in way:
            peer.settimeout(60)
        tasks = [Task(socks.source, way[0], 256 * MIB), Task(socks.sink, way[1], 128 * MIB, 1),
                 Task(socks.echo, way[2], 64 * MIB, 2)]
        before = carried("node1"), carried("node2")
        eventually(20, "nothing is under way", lambda: carried("node1") + carried("node2") > sum(before) + 16 * MIB)
        cut(10, lambda: check(all(task.is_under_way() for task in tasks), "a transfer was over before the cut"))
        for task in tasks:
            task.end(120)
        socks.echo_on(idle, MIB, 3, before=b"before the cut")
        socks.http(session.connect())
        session.hang_up()
    nothing_left("alice")
    nodes_respond()


@journey(15)
def link_is_down_while_idle():
    """The login node's link is down for 28 s while nothing happens: session and connections are as they were."""
    with Session(*IN_JOB) as session:
        session.start()
        serves_by_relay(session)
        session.settled()
        idle = [used_before(session, b"before the cut") for _ in range(5)]
        cut(28)
        # A connection that the kernel gives up for its silence is given up now, before anything is said over it.
        time.sleep(5)
        for seed, peer in enumerate(idle):
            peer.settimeout(60)
            socks.echo_on(peer, MIB, seed, before=b"before the cut")
        socks.http(session.connect())
        check("gone" not in session.err.text, "the relay was given up")
        session.hang_up()
    nothing_left("alice")
    nodes_respond()


@journey(15)
def proxy_is_killed():
    """The proxy alone is killed with SIGKILL: the keeper ends the job, and the relay leaves with it."""
    with Session(*IN_JOB) as session:
        session.start()
        serves_by_relay(session)
        session.settled()
        kill(session.proxy().pid)
        nothing_left("alice")
        check(session.status() == 137, f"the status is {session.status()}, not 137")


def kill_on_login(user):
    """Everything of a user on the login node, at one blow: as when their control group is killed whole."""
    victims = sorted((p.pid for p in processes(user) if p.host == "login"), reverse=True)
    for sig in (signal.SIGSTOP, signal.SIGKILL):
        # The younger first: the kernel continues who is orphaned while it is stopped, with SIGHUP, and salloc
        # would release its job.
        for victim in victims:
            kill(victim, sig)


def scancel_runs(user, where):
    return lambda: any(p.argv[0].endswith("scancel") and p.host.startswith(where) for p in processes(user))


@contextmanager
def settled_session():
    with Session(*IN_JOB) as session:
        session.start()
        serves_by_relay(session)
        session.settled()
        yield session


@contextmanager
def slurmctld_away(cancelling):
    """slurmctld is away until some seconds after somebody has begun to cancel a job there."""
    box.cluster("stop", "slurmctld")
    try:
        yield
        eventually(60, "nobody cancels the job", scancel_runs("alice", cancelling))
        time.sleep(5)
    finally:
        box.cluster("start", "slurmctld")


@journey(15)
def all_of_the_login_side_is_killed():
    """All of the session on the login node is killed at one blow, salloc too: the relay ends the job."""
    with settled_session():
        kill_on_login("alice")
        nothing_left("alice", limit=75)


@journey(15)
def slurmctld_is_away_then():
    """The same, and slurmctld is away when the relay wants the job cancelled: it asks again."""
    with settled_session():
        kill_on_login("alice")
        with slurmctld_away("node"):
            pass
        nothing_left("alice", limit=30)


@journey(15)
def slurmctld_is_away_at_the_end():
    """slurmctld is away when the client goes, and salloc cannot release the job: the keeper has it cancelled."""
    with settled_session() as session:
        with slurmctld_away("login"):
            session.hang_up()
        nothing_left("alice", limit=30)


# Connects COUNT times: keeps every tenth one open and silent for a while, says noise over others, closes the rest.
JUNK = """
import os, socket, sys, threading
at, count = (sys.argv[1], int(sys.argv[2])), int(sys.argv[3])
made = []
def crowd(number):
    silent = []
    for turn in range(count // 8):
        try:
            peer = socket.create_connection(at, timeout=30)
            made.append(number)
            if turn % 10 == 0:
                silent.append(peer)
            else:
                if turn % 2:
                    peer.sendall(os.urandom(300))
                peer.close()
        except OSError:
            pass
        del silent[:-50]
crowd_of = [threading.Thread(target=crowd, args=(number,)) for number in range(8)]
for one in crowd_of: one.start()
for one in crowd_of: one.join()
print(len(made))
"""


def where_it_dials():
    """The port of the login node at which the relay dials the proxy."""
    lines = run("login", "ss", "-Hltnp").splitlines()
    # As the proxy calls itself.
    at = [line.split()[3] for line in lines if '"vscode-session"' in line]
    at = [one.rsplit(":", 1)[1] for one in at if not one.startswith("127.")]
    check(len(at) == 1, f"the proxy does not listen for a relay at one port, but at {at}:\n" + "\n".join(lines))
    return at[0]


@journey(15, limit=300)
def junk_where_the_relay_dials():
    """10,000 connections of a stranger where the relay dials: transfers and new connections go on, nothing grows."""
    with Session(*IN_JOB) as session:
        session.start()
        serves_by_relay(session)
        port = where_it_dials()
        proxy = session.proxy()
        base = f"/proc/{proxy.pid}"
        resident = lambda: int(re.search(r"VmRSS:\s+(\d+)", Path(base, "status").read_text()).group(1))
        files = lambda: len(os.listdir(f"{base}/fd"))
        socks.echo(session.connect(), 8 * MIB, 0)
        before = resident(), files()
        made, began = [], time.monotonic()
        words = ("/usr/bin/python3", "-c", JUNK, "10.90.0.3", port, "10000")
        junk = Task(lambda: made.append(int(run("node2", *words, user="bob", limit=200))))
        peer = session.connect()
        peer.settimeout(120)
        transfer = Task(socks.source, peer, 512 * MIB)
        most, connections = before, 0
        while junk.is_under_way():
            most = max(most[0], resident()), max(most[1], files())
            peer = session.connect()
            peer.settimeout(60)
            socks.echo(peer, 4096, connections)
            connections += 1
        junk.end(1)
        took = time.monotonic() - began
        transfer.end(120)
        print(f"    {made[0]} junk connections in {took:.0f} s, {connections} good ones meanwhile; "
              f"resident {before[0]} to {most[0]} KiB, descriptors {before[1]} to {most[1]}")
        check(made[0] > 9000, f"only {made[0]} of 10000 junk connections were made")
        check(connections >= 3, f"only {connections} connections were served meanwhile")
        # 16 strangers at a time; the transfer and one connection, each with two ends and up to two pipes.
        check(most[1] - before[1] <= 16 + 4 + 8, f"{most[1] - before[1]} more descriptors")
        check(most[0] - before[0] <= 2048, f"{most[0] - before[0]} KiB more resident")
        lines = session.err.text.count("refused a connection from")
        check(1 <= lines <= took / 60 + 1, f"{lines} lines in {took:.0f} s about strangers")
        socks.http(session.connect())
        session.hang_up()
    nothing_left("alice")


@journey(15, limit=600)
def a_hundred_at_once():
    """100 sessions started at once by one user: each has its own relay and its own server, and leaves nothing."""
    failures, nodes = Counter(), Counter()
    ready = threading.Barrier(100)
    with ExitStack() as sessions:
        opened = [None] * 100

        def begin(number):
            ready.wait(60)
            session = opened[number] = Session(*IN_JOB)
            session.send(f"echo ready: {session.ident}\n")
            session.out.expect(f"ready: {session.ident}\n", limit=300)
            session.burst()
            session.announced(limit=300)
            peer = session.connect()
            peer.settimeout(120)
            body = dict(word.split("=", 1) for word in socks.http(peer).split())
            check(body["job"] == session.job(), f"served from job {body['job']}, not {session.job()}")
            nodes[body["node"].split(".")[0]] += 1

        tasks = [Task(begin, number) for number in range(100)]
        for number, task in enumerate(tasks):
            try:
                task.end(400)
            except Exception as error:
                reason = opened[number].err.text.strip().splitlines()[-1:] if opened[number] else []
                failures[f"{error}: {reason}"] += 1
        for session in opened:
            if session:
                sessions.enter_context(session)
        print(f"    {sum(nodes.values())} of 100 sessions, {dict(nodes)}")
        relays = [p for p in processes("alice") if "--in-job" in p.argv]
        check(not failures, f"{sum(failures.values())} of 100 have failed: {dict(failures)}")
        check(len(relays) == 100, f"{len(relays)} relays run")
        for seed, session in enumerate(opened):
            peer = session.connect()
            peer.settimeout(60)
            socks.echo(peer, 65536, seed)
    nothing_left("alice", limit=180)
