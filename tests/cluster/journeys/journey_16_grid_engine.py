"""contrib/sites/sge.conf on a real Grid Engine: sessions through qrsh, and all their ends."""
import signal

import socks
from box import check, eventually, kill, run
from client import Session
from gridengine import grid_engine, nothing_left, requests
from journey import journey
from journey_4_options import remote

FILE = "/srv/contrib/sites/sge.conf"


@journey(16)
def self_test():
    """Grid Engine: --self-test through qrsh, with a relay in the job and without."""
    with grid_engine():
        for words in ([], ["--profile=main"], ["--reach=direct"]):
            status, out, err = remote("--config", FILE, *words, "--self-test")
            check(status == 0 and "PASSED" in out, f"--self-test {' '.join(words)}: status {status}\n{out}\n{err}")
            nothing_left("alice")


@journey(16)
def sessions():
    """Grid Engine: every byte both ways, a session of each way to reach the server, and qrsh's status."""
    with grid_engine():
        # In pairs, so that each byte stands before each other one.
        pairs = bytes(byte for first in range(256) for second in range(256) for byte in (first, second))
        with Session("--config", FILE) as session:
            session.ask(f"echo reading; head -c {len(pairs)}; echo; echo done; echo apart >&2", "reading\n")
            start = len(session.out.text)
            session.send(pairs)
            session.out.expect("\ndone\n", start)
            back = session.out.text[start:start + len(pairs)].encode("latin-1")
            check(back == pairs, "what came back is not what was sent")
            session.err.expect("apart\n")
            session.send("exit 7\n")
            # qrsh has the status by then, but asks qmaster for the job once more, and takes one that qmaster has
            # forgotten already for one that never began (8.1.9, source/clients/qsh/qsh.c).  What it says and ends
            # with is the client's, as of any launch command.
            status = session.wait()
            wanted = 1 if "request could not be scheduled" in session.err.text else 7
            check(status == wanted, f"qrsh's status {wanted} came back as {status}")
        nothing_left("alice")
        for reach in ("in-job", "direct"):
            with Session("--config", FILE, f"--reach={reach}", "--profile=main") as session:
                session.start()
                answers = session.answers()
                check(answers["node"].startswith("node"), f"the server runs on {answers['node']}")
                socks.echo(session.connect(), 1 << 20, 16)
                check("warn:" not in session.err.text, f"there is a warning: {session.err.text!r}")
                session.hang_up()
                check(session.status() == 129, f"after the client's death the status is {session.status()}")
                nothing_left("alice")


@journey(16)
def ends():
    """Grid Engine: however a session ends, no request and no process stays, and the status is the documented one."""
    ways = [
        ("SIGTERM", 143, lambda session: kill(session.proxy().pid, signal.SIGTERM)),
        ("the proxy's death", 137, lambda session: kill(session.proxy().pid)),
        ("the keeper's death", 1, lambda session: kill(session.keeper().pid)),
        ("qdel", 137, lambda session: run("login", "qdel", "-u", "alice")),
    ]
    with grid_engine():
        for by, wanted, end in ways:
            with Session("-vvv", "--config", FILE) as session:
                session.start()
                session.settled()
                check(len(requests("alice")) == 1, f"alice's requests are {requests('alice')}")
                end(session)
                nothing_left("alice")
                check(session.status() == wanted, f"after {by} the status is {session.status()}, not {wanted}")


@journey(16)
def waiting():
    """Grid Engine: who gives up while the queue is full leaves no request behind, and who waits gets the session."""
    ways = [
        ("the client's death", 129, lambda session: session.hang_up()),
        ("SIGTERM", 143, lambda session: kill(session.proxy().pid, signal.SIGTERM)),
        ("the proxy's death", 137, lambda session: kill(session.proxy().pid)),
        ("the keeper's death", 1, lambda session: kill(session.keeper().pid)),
    ]
    waits = lambda: [line for line in requests("alice") if line.split()[4] == "qw"]
    with grid_engine():
        run("login", "qmod", "-d", "main.q")
        for by, wanted, end in ways:
            with Session("--config", FILE) as session:
                eventually(20, "no request waits", waits)
                end(session)
                nothing_left("alice")
                check(session.status() == wanted, f"after {by} the status is {session.status()}, not {wanted}")
        with Session("--config", FILE) as session:
            eventually(20, "no request waits", waits)
            run("login", "qmod", "-e", "main.q")
            session.start()
            check(session.answers()["node"].startswith("node"), "the server runs elsewhere")
            session.hang_up()
            nothing_left("alice")
