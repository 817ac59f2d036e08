"""The main job: a bootstrap, its ports, and bytes through them."""
from concurrent.futures import ThreadPoolExecutor

import socks
from bootstrap import EXEC, LEGACY, cursor
from box import check, eventually, nothing_left
from client import Session
from journey import journey

MIB = 1 << 20


def serves_from_the_job(session):
    got = session.answers()
    check(got["node"].startswith("node"), f"the server runs on {got['node']}")
    check(got["job"] == session.job(), f"the server runs in job {got['job']!r}, not in {session.job()}")


@journey(1)
def twenty_sessions():
    """Twenty sessions, each connected to in the instant in which its line is read."""
    for turn in range(20):
        form = [EXEC, LEGACY, cursor("0.0.0.0")][turn % 3]
        with Session(form=form) as session:
            for port in session.start():
                socks.http(session.connect(port))
            serves_from_the_job(session)
            session.hang_up()
            status = session.status()
            check(status == 129, f"the client vanished: status {status}, not 129")
    nothing_left("alice")


@journey(1)
def stdin_that_ends_after_the_script():
    """stdin ends right after the script, in every form, and the session lives on."""
    for form in (EXEC, LEGACY, cursor("0.0.0.0")):
        with Session(form=form) as session:
            session.opening()
            session.burst()
            session.end_stdin()
            for port in session.announced():
                socks.http(session.connect(port))
            serves_from_the_job(session)
            socks.echo(session.connect(), MIB, form.name)
            session.hang_up()
            status = session.status()
            check(status == 129, f"the client vanished: status {status}, not 129")
    nothing_left("alice")


@journey(1)
def bytes_both_ways():
    """Echo, upload and download of 8 MiB with checksums, and half-close from either end."""
    with Session() as session:
        session.start()
        socks.echo(session.connect(), 8 * MIB, 1)
        socks.sink(session.connect(), 8 * MIB, 2)
        socks.source(session.connect(), 8 * MIB)
        socks.early(session.connect, MIB, "farewell")
        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(socks.echo, session.connect(), 4 * MIB, seed) for seed in range(4)]:
                done.result()


@journey(1)
def four_hundred_connections():
    """400 connections that are open at the same time, and each works; afterwards none is left in the proxy."""
    def open_one(_):
        # Answered before the next one: so no more are on their way at once than a small backlog holds.
        peer = session.connect()
        peer.sendall(b"ECHO\nx")
        check(socks.exactly(peer, 1) == b"x", "the first byte's echo is another")
        return peer

    with Session() as session:
        session.start()
        with ThreadPoolExecutor(8) as pool:
            open_ones = list(pool.map(open_one, range(400)))
        with ThreadPoolExecutor(40) as pool:
            list(pool.map(lambda pair: socks.echo_on(pair[1], 4096, pair[0], b"x"), enumerate(open_ones)))
        serves_from_the_job(session)
        sockets = lambda: sum(1 for fd in session.proxy_files() if fd.startswith("socket:"))
        eventually(10, lambda: f"{sockets()} sockets are open in the proxy after 400 connections", lambda: sockets() < 40)


@journey(1)
def a_burst_of_connections():
    """400 connections in one burst, with a backlog that holds them: none is lost."""
    # With a backlog that is too small the kernel falls back to SYN cookies and resets some of those that it had
    # already called connected; no program can see that.
    with Session("--backlog=1024") as session:
        session.start()
        with ThreadPoolExecutor(40) as pool:
            burst = list(pool.map(lambda _: session.connect(), range(400)))
            list(pool.map(lambda pair: socks.echo(pair[1], 4096, pair[0]), enumerate(burst)))


@journey(1)
def cursor_second_server_on_loopback():
    """Without a relay, Cursor's second server on loopback only: its port is refused, the log names the cause, the other works."""
    with Session("--reach=direct", form=cursor("127.0.0.1")) as session:
        multiplex, code = session.start()
        socks.http(session.connect(code))
        check(not socks.all_of(session, multiplex), "bytes came from a server that cannot be reached")
        session.err.expect(r"(?i)refused")
        session.err.expect(r"(?i)loopback")
        socks.http(session.connect(code))
