"""A relay inside the job: the server stays on its node's loopback, and nobody dials the node."""
import re
import shutil

import box
import socks
from bootstrap import EXEC, LEGACY, Form, cursor
from box import check, eventually, init_of, nothing_left, processes, run, scontrol
from client import Session
from journey import journey
from journey_3_strangers import dial, server_port

MIB = 1 << 20
IN_JOB = ("--reach", "in-job")


def relay(user="alice"):
    """The relay's process in the job."""
    def find():
        # It stays behind the shell's back, in a session of its own.
        return next((p for p in processes(user) if "--in-job" in p.argv and p.host.startswith("node")), None)
    return eventually(20, "no relay runs in the job", find)


def serves_by_relay(session):
    got = session.answers()
    check(got["job"] == session.job(), f"the server runs in job {got['job']!r}, not in {session.job()}")
    return got["node"].split(".")[0]


def open_addresses(host, user):
    """Where processes of a user listen on a host, but for loopback."""
    uid = next(p.uid for p in processes(user))
    lines = run(host, "ss", "-Hltne").splitlines()
    local = [line.split()[3] for line in lines if f"uid:{uid} " in line + " "]
    return [at for at in local if not at.startswith(("127.", "[::1]"))]


@journey(13)
def every_form():
    """Every form of the script, and a second server that listens on loopback only: each port leads to its server."""
    for form in (EXEC, LEGACY, cursor("127.0.0.1")):
        with Session(*IN_JOB, form=form) as session:
            for port in session.start():
                socks.http(session.connect(port))
            node = serves_by_relay(session)
            at = open_addresses(node, "alice")
            check(not at, f"alice's processes listen on {at} of {node}")
            session.hang_up()
            status = session.status()
            check(status == 129, f"the client vanished: status {status}, not 129")
    nothing_left("alice")


@journey(13)
def server_that_runs_already():
    """A server that was running on the node's loopback before the session: it is reached, as it never is directly."""
    found = Form("a server that is found", "sh", """
say "Looking for server with pid: 4711"
listeningOn=$(await_text "$HOME/.vscode-server/.found.log" 's/^Extension host agent listening on //p')
""")
    # The session's end does not end it, and the job is not its own.
    run("node1", "sh", "-c", 'setsid "$HOME/.vscode-server/code-standin" --start-server --host=127.0.0.1 --port=0 '
        '>"$HOME/.vscode-server/.found.log" 2>&1 </dev/null &', user="alice")
    server = eventually(10, "the server does not run", lambda: next(
        (p for p in processes("alice") if "--start-server" in p.argv), None))
    try:
        at = ("--salloc-arg=--nodelist=node1",)
        with Session("--reach=direct", *at, form=found) as session:
            session.start()
            check(not socks.all_of(session, session.ports[0]), "the server's loopback is reached from another machine")
            session.err.expect("it was already running and was reused")
        with Session(*IN_JOB, *at, form=found) as session:
            session.start()
            got = session.answers()
            check((got["node"], got["job"]) == ("node1", ""), f"another server answers: {got}")
            socks.echo(session.connect(), 8 * MIB, 1)
    finally:
        box.kill(server.pid)
    nothing_left("alice")


@journey(13)
def where_it_dials():
    """--reach-host and --reach-ports: the one address and a port of the range are what the relay dials."""
    with Session("--reach=in-job", "--reach-host=login", "--reach-ports=50000-50009") as session:
        session.start()
        node = serves_by_relay(session)
        connections = run(node, "ss", "-Htn", "state", "established", "dst", "10.90.0.3")
        check("10.90.0.3:5000" in connections, f"no port of the range is dialled from {node}:\n{connections}")
    nothing_left("alice")


@journey(13)
def bytes_both_ways():
    """Echo, upload and download with checksums, half-close from either end, and 400 connections in one burst."""
    with Session(*IN_JOB, "--backlog=1024") as session:
        session.start()
        socks.echo(session.connect(), 8 * MIB, 1)
        socks.sink(session.connect(), 8 * MIB, 2)
        socks.source(session.connect(), 8 * MIB)
        socks.early(session.connect, MIB, "farewell")
        burst = [session.connect() for _ in range(400)]
        for seed, peer in enumerate(burst):
            socks.echo(peer, 4096, seed)


@journey(13)
def nobody_else():
    """bob reaches the server neither through alice's port nor from any node."""
    with Session(*IN_JOB) as session:
        port = session.start()[0]
        node = serves_by_relay(session)
        check("200 OK" not in dial("login", port, "bob"), "bob is let in on the login node")
        at = server_port(node)
        for host in ("login", "node1", "node2"):
            for address in (node, "10.90.0.3"):
                if host == node and address == node:
                    continue
                answer = dial(host, at, "bob", address)
                check("200 OK" not in answer, f"bob on {host} reads alice's server at {address}: {answer}")
        socks.http(session.connect())


@journey(13)
def no_way_from_login_to_the_nodes():
    """Where the login node may connect to no port of a compute node but slurmd's, everything works."""
    rules = "table inet box { chain input { type filter hook input priority 0; " \
            "ip saddr 10.90.0.3 tcp dport != 6818 ct state new reject; " \
            "ip6 saddr fd00:90::3 tcp dport != 6818 ct state new reject; }; }"
    for host in ("node1", "node2"):
        run(host, "nft", rules)
    try:
        with Session(*IN_JOB) as session:
            session.start()
            node = serves_by_relay(session)
            check("200 OK" not in dial("login", server_port(node), "root", node), "the rules block nothing")
            socks.echo(session.connect(), MIB, "through")
    finally:
        for host in ("node1", "node2"):
            run(host, "nft", "delete table inet box")
    nothing_left("alice")


@journey(13)
def login_shells():
    """bash, dash, zsh and tcsh as the login shell: the relay is started in each, and leaves its streams."""
    try:
        for shell in ("/bin/bash", "/bin/dash", "/usr/bin/zsh", "/usr/bin/tcsh"):
            box.set_shell("alice", shell)
            with Session(*IN_JOB) as session:
                session.start()
                serves_by_relay(session)
    finally:
        box.set_shell("alice", "/bin/bash")
    nothing_left("alice")


@journey(13)
def program_is_not_on_the_node():
    """The nodes do not have the program: a copy of it in the shared home is the relay, made once and used again."""
    cache = box.path("login", "/home/alice/.cache/vscode-shell-proxy")
    shutil.rmtree(cache, ignore_errors=True)
    with box.laid_over_on_the_nodes("/usr/local/bin"):
        made = set()
        for _ in range(2):
            with Session(*IN_JOB) as session:
                session.start()
                serves_by_relay(session)
                at = relay().argv[0]
                check(at.startswith("/home/alice/.cache/vscode-shell-proxy/"), f"the relay is {at}")
                made.add(tuple((copy.name, copy.stat().st_ino) for copy in cache.iterdir()))
            nothing_left("alice")
        check(len(made) == 1 and len(made.pop()) == 1, f"the copies are {made}")
        mode = cache.stat().st_mode & 0o7777
        check(mode == 0o700, f"the copies' directory has mode {mode:o}")


@journey(13)
def nothing_may_be_executed_there():
    """The nodes have no program and a cache that is mounted noexec: in-job refuses before the bootstrap, auto goes directly."""
    cache = box.path("login", "/home/alice/.cache")
    cache.mkdir(mode=0o700, exist_ok=True)
    shutil.chown(cache, "alice", "alice")
    with box.laid_over_on_the_nodes("/usr/local/bin"), box.laid_over_on_the_nodes("/home/alice/.cache", box.NO_EXECUTION):
        with Session(*IN_JOB) as session:
            session.send("echo never\n")
            status = session.status()
            check(status == 1, f"status {status}, not 1")
            session.err.expect("there is no relay in the job, which --reach in-job demands: neither this program nor its copy")
            check("never" not in session.out.text, "the shell got the client's bytes")
        nothing_left("alice")
        with Session("--reach=auto") as session:
            session.start()
            session.err.expect("connections go directly to the node")
            node = session.answers()["node"].split(".")[0]
            check(not [p for p in processes("alice") if "--in-job" in p.argv], "a relay runs")
            check(server_port(node), "no server runs on the node")
            socks.echo(session.connect(), MIB, "directly")
    nothing_left("alice")


@journey(13)
def relay_is_killed():
    """The relay is killed: the shell's session goes on, the log says so, and no connection is made any more."""
    with Session(*IN_JOB) as session:
        session.start()
        serves_by_relay(session)
        box.kill(relay().pid)
        session.err.expect(r"relay")
        check(not socks.all_of(session, session.ports[0]), "bytes came without a relay")
        check(session.ssh.poll() is None, "the session has ended")
    nothing_left("alice")


@journey(13)
def proxy_is_killed():
    """Proxy and keeper are killed, and nobody is left on the login node to say so: the job is gone all the same."""
    with Session(*IN_JOB) as session:
        session.start()
        serves_by_relay(session)
        session.settled()
        keeper, proxy = session.keeper(), session.proxy()
        box.kill(keeper.pid)
        box.kill(proxy.pid)
        nothing_left("alice", limit=75)


def link(up):
    box.run("login", "ip", "link", "set", "eth0", "up" if up else "down")
    if up:
        # The kernel takes addresses of the second family away with the link.
        box.run("login", "ip", "-6", "addr", "replace", "fd00:90::3/64", "dev", "eth0", "nodad", ok=False)


def nodes_respond():
    """slurmctld has asked all nodes again: it gives no job to one that did not answer."""
    scontrol("reconfigure")
    for node in ("node1", "node2"):
        eventually(
            60, lambda: f"{node} does not respond:\n{scontrol('show', 'node', node)}",
            lambda: re.search(r" State=(IDLE|MIXED|ALLOCATED)[ +]", scontrol("show", "node", node)),
        )


@journey(13)
def link_is_down_for_good():
    """The login node's link is cut: after its patience the relay ends what runs on the node, alone."""
    with Session(*IN_JOB) as session:
        session.start()
        serves_by_relay(session)
        session.settled()
        link(up=False)
        try:
            eventually(
                75, lambda: "still on a node:\n" + box.left_over("alice"),
                lambda: not [p for p in processes("alice") if p.host.startswith("node")],
            )
        finally:
            link(up=True)
        # Slurm's controller was cut off too, and srun may never hear of the shell's end.
        session.ssh.kill()
    nothing_left("alice")
    nodes_respond()
