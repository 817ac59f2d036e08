"""The cluster itself, without the program: what the other journeys take for granted."""
import socks
from bootstrap import LEGACY
from box import check, nothing_left, run
from client import Session
from journey import journey


@journey(0)
def the_hosts_are_apart():
    """Four hosts, each with a loopback, a name and processes of its own."""
    names = [run(host, "uname", "-n").strip() for host in ("client", "login", "node1", "node2")]
    check(names == ["client", "login", "node1", "node2.box.test"], f"names are {names}")
    check("slurmctld" not in run("node1", "ps", "ax"), "a node sees the login node's processes")
    dial = ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/22 && echo open"]
    check("open" in run("login", *dial), "sshd does not listen on the login node's loopback")
    check("open" not in run("node1", *dial, ok=False), "127.0.0.1 on the node is the login node's")


@journey(0)
def salloc_without_the_program():
    """salloc alone as the remote command: a shell in a job, its status, nothing left."""
    with Session(command=["salloc"]) as session:
        session.opening()
        session.ask("uname -n; exit 7", r"node1\n")
        session.end_stdin()
        check(session.wait() == 7, f"status {session.wait()}")
    nothing_left("alice")


@journey(0)
def client_and_server_without_the_program():
    """A shell on the login node and the stand-in server there: both speak their protocol."""
    with Session(command=["bash"], form=LEGACY) as session:
        session.start()
        check(session.answers()["node"] == "login", "the server is not where the shell is")
        socks.echo(session.connect(), 1 << 20, 1)
        socks.sink(session.connect(), 1 << 20, 2)
        socks.source(session.connect(), 1 << 20)
        socks.early(session.connect, 1 << 16, "x")
