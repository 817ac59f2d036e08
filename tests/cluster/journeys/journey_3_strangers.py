"""What another user can reach: bob on the login node, bob on the compute node."""
import box
import socks
from box import check, run
from client import Session
from journey import journey

# Asks for an HTTP page as a stranger would; prints what came.
DIAL = """
import socket, sys
try:
    peer = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10)
    peer.sendall(b"GET / HTTP/1.1\\r\\n\\r\\n")
    print("answer:", peer.recv(4096))
except OSError as error:
    print("answer:", error)
"""


def dial(host, port, user, address="127.0.0.1"):
    return run(host, "/usr/bin/python3", "-c", DIAL, address, str(port), user=user)


@journey(3)
def bob_on_the_login_node():
    """bob on the login node gets nothing through alice's port; alice gets her page."""
    with Session() as session:
        port = session.start()[0]
        check("200 OK" in dial("login", port, "alice"), "alice herself is not let in")
        answer = dial("login", port, "bob")
        check("200 OK" not in answer, f"bob reads alice's server through her port: {answer}")
        answer = dial("login", port, "root")
        check("200 OK" not in answer, f"root is let in without --admit root: {answer}")
        for host in ("node1", "client"):
            answer = dial(host, port, "bob", "10.90.0.3")
            check("200 OK" not in answer, f"the port is open on the login node's network address: {answer}")
        socks.http(session.connect())


@journey(3)
def bob_while_the_job_waits():
    """bob connects before there is a server: he is turned away at once, and alice's connections are served."""
    with Session("--backlog=4") as session:
        session.opening()
        port = int(run("login", "bash", "-c", "ss -Hltn src 127.0.0.1 | awk '{print $4}'").split(":")[-1])
        for _ in range(20):
            check("200 OK" not in dial("login", port, "bob"), "bob is let in")
        session.burst()
        check(session.announced() == [port], "the port announced is not the one that was bound before")
        socks.http(session.connect())


@journey(3)
def bob_on_the_compute_node():
    """bob on the compute node reaches the server itself; without a relay from any node: only its token protects it there (as documented)."""
    for reach in ("auto", "direct"):
        with Session(f"--reach={reach}") as session:
            session.start()
            node = session.answers()["node"].split(".")[0]
            port = server_port(node)
            check("200 OK" in dial(node, port, "bob"), "the server on the node is not reached by its own loopback")
            other = "node2" if node == "node1" else "node1"
            from_there = "200 OK" in dial(other, port, "bob", node)
            check(from_there == (reach == "direct"), f"{reach}: from another node bob gets {'in' if from_there else 'nothing'}")


def server_port(node):
    """The port of the stand-in server on a node, from the kernel's table."""
    lines = run(node, "ss", "-Hltnp").splitlines()
    return next(int(line.split()[3].rsplit(":", 1)[1]) for line in lines if "code-standin" in line or "python3" in line)
