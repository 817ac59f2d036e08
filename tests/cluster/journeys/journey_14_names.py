"""The way to the node: by which of its names the login node reaches it."""
from contextlib import contextmanager

import socks
from box import check, nothing_left, path, run
from client import Session
from journey import journey

DIRECT = ("-v", "--reach=direct", "--salloc-arg=--nodelist=node2")


@contextmanager
def hosts_on_login(*lines):
    """The login node has a hosts file of its own, with these lines for the nodes."""
    text = "\n".join(["127.0.0.1 localhost", "10.90.0.2 client", "10.90.0.3 login", *lines, ""])
    path("login", "/run/hosts").write_text(text)
    run("login", "mount", "--bind", "/run/hosts", "/etc/hosts")
    try:
        yield
    finally:
        run("login", "umount", "/etc/hosts")


def goes_by(name, *lines, options=()):
    """A session in which connections reach node2 by this name; what the log says of the names before it."""
    with hosts_on_login(*lines), Session(*DIRECT, *options) as session:
        session.start()
        for _ in range(3):
            socks.http(session.connect())
        node = session.answers()["node"]
        check(node == "node2.box.test", f"the server runs on {node}")
        session.err.expect(rf"info: the node answers as {name}\n")
        session.hang_up()
        status = session.status()
        check(status == 129, f"the client vanished: status {status}, not 129")
        said = session.err.text
    nothing_left("alice")
    return said


@journey(14)
def own_name():
    """The login node knows the node's own name: nothing else is asked for."""
    said = goes_by(r"node2\.box\.test \(uname -n\)", "10.90.0.12 node2.box.test")
    check("trying" not in said, "another name is tried")


@journey(14)
def no_name_resolves():
    """The login node knows no name of the node: connections take the address that Slurm has."""
    said = goes_by(r"10\.90\.0\.12 \(NodeAddr of Slurm\)")
    for name in (r"node2.box.test (uname -n)", "node2 (SLURMD_NODENAME)"):
        check(f"{name} has no address here" in said, f"nothing is said of {name}")


@journey(14)
def name_of_nobody():
    """The node's own name leads to an address where nobody is: SLURMD_NODENAME takes over."""
    said = goes_by(r"node2 \(SLURMD_NODENAME\)", "10.90.0.99 node2.box.test", "10.90.0.12 node2")
    check("warn: node2.box.test (uname -n) does not answer" in said, "nothing is said of the own name")


@journey(14)
def sites_own_names():
    """Slurm tells nothing of the node: the names that the site has for it lead there."""
    run("login", "mount", "--bind", "/bin/false", "/usr/bin/scontrol")
    try:
        said = goes_by(r"node2\.site\.test \(node-domain\)", "10.90.0.12 node2.site.test", options=["--node-domain=site.test"])
        check("scontrol" in said, "Slurm was not asked before")
        goes_by(r"node2-fast \(node-address\)", "10.90.0.12 node2-fast",
                options=["--node-domain=site.test", "--node-address=%n-fast"])
    finally:
        run("login", "umount", "/usr/bin/scontrol")
