"""The client: one `ssh -T -D PORT` and what it says to it, as Remote-SSH does."""
import itertools
import os
import re
import secrets
import shlex
import subprocess
import threading

import bootstrap
import socks
from box import Failed, below, check, enter, eventually, left_over, path, processes

PROXY = "vscode-shell-proxy"
PORTS = itertools.count(20000)


def free_port():
    """A port that nobody else takes meanwhile: below those that the kernel gives out (from 32768), and each once."""
    return next(PORTS)


class Stream:
    """What has come from one of ssh's pipes; a thread reads it as it comes."""

    def __init__(self, pipe):
        self.text, self.ended, self.changed = "", False, threading.Condition()
        self.thread = threading.Thread(target=self._read, args=(pipe,), daemon=True)
        self.thread.start()

    def _read(self, pipe):
        while block := os.read(pipe.fileno(), 65536):
            with self.changed:
                self.text += block.decode("latin-1")
                self.changed.notify_all()
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def expect(self, pattern, start=0, limit=30):
        """The first match of `pattern` after position `start`."""
        found = None
        def look():
            nonlocal found
            found = re.compile(pattern).search(self.text, start)
            return found or self.ended
        with self.changed:
            self.changed.wait_for(look, timeout=limit)
        if not found:
            raise Failed(f"{pattern!r} {'never came' if self.ended else f'did not come within {limit} s'}")
        return found


class Session:
    """One ssh connection with the program (or whatever `command` is) as its remote command.

    The remote shell's exit status is kept on the login node by a wrapper, for the ends that leave nobody to
    see it: `status()`.  With `stanza` (configuration file, host) the remote command is the stanza's, unwrapped.
    """

    def __init__(self, *options, user="alice", command=None, ssh=(), form=bootstrap.EXEC, stanza=None, display=None):
        self.user, self.form = user, form
        # The identity is decimal, so that the script's `sleep` can carry it: see settled.
        self.ident, self.token = f"{secrets.randbelow(10**12):012}", secrets.token_hex(16)
        self.socks_port = free_port()
        self.status_file = f"/home/{user}/.status-{self.ident}"
        words = [PROXY, *options] if command is None else list(command)
        self.argv = ["ssh", "-T", "-D", str(self.socks_port), "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", *ssh]
        if stanza:
            self.argv += ["-F", *stanza]
        else:
            self.argv += [f"{user}@login", shlex.join(["record-status", self.status_file, *words])]
        if display:
            self.argv = ["env", f"DISPLAY={display}", *self.argv]
        # exec'ed all the way: the pid is ssh's own.  Output must be read, or ssh stops.
        self.ssh = subprocess.Popen(
            enter("client", "laptop", pid_namespace=False) + self.argv,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
        )
        self.out, self.err = Stream(self.ssh.stdout), Stream(self.ssh.stderr)
        self.ports = []

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if isinstance(error, Exception):
            error.add_note(self.account())
            self.leave()
        else:
            self.hang_up()

    def account(self):
        """Everything one wants to see when it went wrong."""
        def shown(stream):
            return re.sub(r"(#.*that starts a server\.\n)+", "[filler]\n", stream.text)[-3000:] or "(nothing)"
        return (f"── the session of {self.user}: {shlex.join(self.argv)}\n── its stdout\n{shown(self.out)}\n"
                f"── its stderr\n{shown(self.err)}\n── {self.user}'s processes and jobs\n{left_over(self.user)}")

    # ── talking ─────────────────────────────────────────────────────────────────────────────────────

    def send(self, text):
        data = text.encode() if isinstance(text, str) else text
        try:
            self.ssh.stdin.write(data)
        except BrokenPipeError:
            raise Failed("ssh has gone while it was being written to") from None

    def ask(self, line, answer, limit=30):
        """One step: a line, and its answer before anything else is said."""
        start = len(self.out.text)
        self.send(line + "\n")
        return self.out.expect(answer, start, limit)

    def opening(self):
        """The stepwise opening; the answers' match objects."""
        fill = lambda text: text.replace("@ID", self.ident).replace("@SUBSHELL", self.form.subshell)
        return [self.ask(fill(line), fill(answer)) for line, answer in bootstrap.STEPS]

    def burst(self):
        """The script in one piece, without waiting for anything."""
        self.send(bootstrap.script(self.form, self.ident, self.token))

    def announced(self, limit=30):
        """The ports, in the order of the form's keys, as soon as their lines are there."""
        self.ports = []
        for key in self.form.keys:
            line = self.out.expect(rf"(?<![a-zA-Z]){key}==([^\n]*?)==[ \r]*\n", limit=limit).group(1)
            address = re.fullmatch(r"(?:127\.0\.0\.1:)?(\d+)", line)
            check(address, f"{key} announces {line!r}, which the client cannot dial")
            self.ports.append(int(address.group(1)))
        return self.ports

    def start(self):
        """Opening, script, ports: a session that is there to be used."""
        self.opening()
        self.burst()
        return self.announced()

    def end_stdin(self):
        self.ssh.stdin.close()

    # ── connections ─────────────────────────────────────────────────────────────────────────────────

    def connect(self, port=None):
        return socks.connect(self.socks_port, self.ports[0] if port is None else port)

    def answers(self):
        """Who serves: {'node': …, 'job': …}."""
        body = socks.http(self.connect())
        return dict(word.split("=", 1) for word in body.split())

    def settled(self):
        """The script is in its last loop.

        What ends a session waits for this first: a process that is forked in the very moment of the kill is
        Slurm's to find, and without cgroups it may not.
        """
        eventually(20, "the script has not come to its last loop", self._is_settled)

    def _is_settled(self):
        return any(p.argv[-1] == f"180.0{self.ident}" for p in processes(self.user))

    # ── ends ────────────────────────────────────────────────────────────────────────────────────────

    def hang_up(self):
        """The client is gone without a word."""
        if self.ports:
            eventually(20, "the script has not come to its last loop", lambda: self._is_settled() or not self.wrapper())
        self.leave()

    def leave(self):
        """The same, whatever the script is doing."""
        self.ssh.kill()
        self.ssh.wait()
        if not self.ssh.stdin.closed:
            self.ssh.stdin.close()

    def wait(self, limit=20):
        """ssh's own exit status, which is the remote command's."""
        try:
            return self.ssh.wait(limit)
        except subprocess.TimeoutExpired:
            raise Failed(f"ssh has not ended within {limit} s") from None

    def status(self, limit=20):
        """What the remote command ended with, as seen by the wrapper on the login node."""
        file = path("login", self.status_file)
        eventually(limit, "the remote command has not ended", lambda: file.exists() and file.read_text().endswith("\n"))
        return int(file.read_text())

    # ── the processes on the login node ─────────────────────────────────────────────────────────────

    def wrapper(self):
        return next((p for p in processes(self.user) if self.status_file in p.argv and "record-status" in " ".join(p.argv[:2])), None)

    def proxy(self):
        """The program's process."""
        wrapper = eventually(20, "no remote command runs", self.wrapper)
        return eventually(20, "no proxy runs", lambda: next(
            (p for p in below(wrapper.pid) if p.argv[0].endswith(PROXY) and "--internal-keeper" not in p.argv), None))

    def proxy_files(self):
        """What the program's descriptors are."""
        base = f"/proc/{self.proxy().pid}/fd"
        return [os.readlink(f"{base}/{fd}") for fd in os.listdir(base)]

    def keeper(self):
        """The program's second process."""
        proxy = self.proxy()
        return eventually(20, "no keeper runs", lambda: next(
            (p for p in below(proxy.pid) if "--internal-keeper" in p.argv), None))

    def job(self, limit=30):
        """The job's id, from salloc's own words."""
        return self.err.expect(r"(?:Granted|Pending) job allocation (\d+)", limit=limit).group(1)
