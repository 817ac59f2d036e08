"""VS Code itself: its own server in the job, a real browser on the client."""
import os
import socket
import subprocess
import threading
from pathlib import Path

import bootstrap
import box
from box import check, eventually, nothing_left, path, run
from client import Session, Stream
from journey import Skipped, journey, write

VSCODE = Path("/srv/target/vscode")  # the project's directory is /srv on every host
HOME = "/home/alice/.vscode-server/bin/code-server"


class Line:
    """A TCP relay before the SOCKS port whose connections can be cut, as a network's failure cuts them."""

    def __init__(self, target):
        self.target, self.listener, self.open, self.made = target, socket.create_server(("127.0.0.1", 0)), set(), 0
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self.target))
            self.open |= {near, far}
            self.made += 1
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source, sink):
        try:
            while block := source.recv(65536):
                sink.sendall(block)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            for end in (source, sink):
                self._abort(end)

    @staticmethod
    def _abort(end):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the other direction was faster

    def cut(self):
        """Ends every connection; how many there were."""
        ends, self.open = self.open, set()
        for end in ends:
            self._abort(end)
        return len(ends) // 2


@journey(8, limit=300)
def vscode_itself():
    """VS Code's workbench in a browser: open, edit, save, reload, lose every connection, go on."""
    work("--reach=direct")


@journey(8, limit=300)
def vscode_through_the_relay():
    """The same through a relay in the job."""
    work("--reach=in-job")


def work(reach):
    reason = os.environ.get("JOURNEYS_VSCODE", "it was not asked for")
    if reason != "installed":
        raise Skipped(reason)
    server = path("login", HOME)
    server.parent.mkdir(exist_ok=True)
    write(server, f'#!/bin/sh\nexec {VSCODE}/node {VSCODE}/node_modules/code-server/lib/vscode/out/server-main.js "$@"\n')
    folder = "/home/alice/project"
    run("login", "bash", "-c", f"mkdir -p {folder} && echo original > {folder}/journey.txt", user="alice")

    def saved(wanted):
        content = lambda: path("login", f"{folder}/journey.txt").read_text()
        eventually(30, lambda: f"the file on the node has {content()!r}, not {wanted!r}", lambda: content() == wanted)

    with Session("-v", reach, form=bootstrap.legacy("$HOME/.vscode-server/bin/code-server")) as session:
        session.opening()
        session.burst()
        port = session.announced(limit=60)[0]
        line = Line(session.socks_port)
        shot = "/tmp/workbench.png"
        url = f"http://127.0.0.1:{port}/?tkn={session.token}&folder={folder}"
        browser = subprocess.Popen(
            box.enter("client", "laptop")
            + ["env", f"PLAYWRIGHT={VSCODE}/node_modules/playwright-core", f"{VSCODE}/node", "/srv/tests/cluster/vscode/workbench.js",
               str(line.port), url, shot],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
        said, complaint = Stream(browser.stdout), Stream(browser.stderr)
        try:
            said.expect("edited\n", limit=120)
            saved("first edit\noriginal\n")
            browser.stdin.write(b"go on\n")
            said.expect("reloaded\n", limit=120)
            saved("after the reload\nfirst edit\noriginal\n")
            made = line.made
            check(line.cut() >= 1, "the workbench had no connection open")
            eventually(60, "the workbench has not connected again", lambda: line.made > made)
            browser.stdin.write(b"go on\n")
            said.expect("renewed\n", limit=120)
            saved("after the cut\nafter the reload\nfirst edit\noriginal\n")
            browser.stdin.write(b"go on\n")
            check(browser.wait(30) == 0, "the browser ended badly")
        except Exception as error:
            error.add_note(f"── the browser's complaint\n{complaint.text[-3000:]}")
            raise
        finally:
            for process in [*box.below(browser.pid), browser]:
                box.kill(process.pid)
            browser.wait()
            picture = path("client", shot)
            if picture.exists():
                (box.STATE / "log" / "workbench.png").write_bytes(picture.read_bytes())
        session.hang_up()
        nothing_left("alice")
