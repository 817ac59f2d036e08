"""--self-test on the cluster, and ports that a user forwards by hand."""
import secrets
import socket
import subprocess

import box
import socks
from box import check, nothing_left, run
from client import PROXY, Session, free_port
from journey import journey
from journey_3_strangers import server_port
from journey_4_options import remote


def passes(*words):
    status, out, err = remote("--self-test", *words)
    check(status == 0, f"--self-test {' '.join(words)}: status {status}\n{out}\n{err}")
    nothing_left("alice")
    return out


@journey(5)
def through_salloc():
    """--self-test through salloc."""
    passes()
    passes("--salloc-arg=--nodelist=node2", "-b", "64")


@journey(5)
def through_srun():
    """--self-test -- srun …"""
    passes("--", "srun", "--pty", "bash")


@journey(5, "local")
def without_the_interactive_step():
    """--self-test where salloc's shell runs on the login node, and with srun as the remedy."""
    passes()
    passes("--", "salloc", "srun", "--pty", "bash")


@journey(5)
def hidden_from_the_compute_node():
    """--self-test where the compute nodes do not have the program at its path: it goes by way of the home."""
    with box.laid_over_on_the_nodes("/usr/local/bin"):
        check(run("node1", "ls", "/usr/local/bin") == "", "the program is not hidden")
        passes()
        passes("--", "srun", "--pty", "bash")
    copies = run("login", "ls", f"/home/alice/.cache/{PROXY}").split()
    check(len(copies) == 1, f"the copies in the home are {copies}")


@journey(5)
def a_port_forwarded_by_hand():
    """`ssh -L` through the session's own connection reaches a service on the node."""
    control = f"/tmp/control-{secrets.token_hex(4)}"  # a killed master leaves its socket behind
    # A service that listens for other machines, as the server does without a relay.
    with Session("--reach=direct", ssh=["-o", "ControlMaster=yes", "-o", f"ControlPath={control}"]) as session:
        session.start()
        node = session.answers()["node"].split(".")[0]
        here = free_port()
        forward = f"127.0.0.1:{here}:{node}:{server_port(node)}"
        done = subprocess.run(box.enter("client", "laptop") + ["ssh", "-o", f"ControlPath={control}", "-O", "forward", "-L", forward, "alice@login"],
                              capture_output=True, text=True, timeout=20)
        check(done.returncode == 0, f"ssh -O forward: {done.stderr}")
        body = socks.http(socket.create_connection(("127.0.0.1", here), timeout=10))
        check(body.startswith(f"node={node}"), f"the forwarded port leads to {body!r}")
