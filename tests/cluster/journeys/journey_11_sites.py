"""contrib/sites: the files whose launch can be had here, as they stand there."""
import shutil

import box
import socks
from box import check, eventually, kill, nothing_left, path, processes, run
from client import Session
from journey import journey

SITES = "/srv/contrib/sites"


def serves(file, *options, host="node"):
    """A session with that file; what is to be done with it at its end is up to the caller."""
    session = Session("--config", f"{SITES}/{file}", *options)
    with session:
        session.start()
        check(session.answers()["node"].startswith(host), f"{file} serves from {session.answers()['node']}")
        socks.echo(session.connect(), 1 << 20, 11)
        check("warn:" not in session.err.text, f"{file} is warned about: {session.err.text!r}")
        session.hang_up()
        check(session.status() == 129, f"{file}: status {session.status()}")
    return session


@journey(11)
def slurm():
    """slurm.conf and slurm-srun.conf: a job with the profile's arguments, and with the user's behind them."""
    serves("slurm.conf", "--profile=main")
    nothing_left("alice")
    serves("slurm.conf", "--profile=main", "--launch-arg=--nodelist=node2", host="node2")
    nothing_left("alice")
    serves("slurm-srun.conf", "--profile=main", "--launch-arg=--nodelist=node2", host="node2")
    nothing_left("alice")


@journey(11, "local")
def slurm_without_the_interactive_step():
    """slurm-salloc-srun.conf: the job's shell runs in the job where salloc alone would start it here."""
    serves("slurm-salloc-srun.conf", "--profile=main", "--launch-arg=--nodelist=node2", host="node2")
    nothing_left("alice")


@journey(11)
def plain_ssh():
    """ssh.conf: a session on a fixed node without a scheduler, whose remains vscode-cleanup ends."""
    keys = path("login", "/home/alice/.ssh")
    keys.mkdir(exist_ok=True)
    shutil.copy(path("client", "/home/laptop/.ssh/id_ed25519"), keys)
    run("login", "chown", "-R", "alice:", "/home/alice/.ssh")
    run("node1", "/usr/sbin/sshd", "-E", "/tmp/sshd")
    try:
        eventually(10, "sshd does not answer on node1", lambda: "open" in run("node1", "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/22 && echo open", ok=False))
        session = serves("ssh.conf", "--launch-arg=-oStrictHostKeyChecking=no", host="node1")
        eventually(15, "something is left on the login node", lambda: all(p.host != "login" for p in processes("alice")))
        # No scheduler ends it: the script goes on until it has to write, which nobody reads any more.
        sleep = next((p for p in processes("alice") if p.argv[-1] == f"180.0{session.ident}"), None)
        if sleep:
            kill(sleep.pid)
        # VS Code's own server looks for its script's process now and then; the stand-in is what stays behind.
        eventually(15, "the script has not ended", lambda: all("code-standin" in " ".join(p.argv) for p in processes("alice")))
        run("node1", "vscode-cleanup", "--age", "0", "--kill", user="alice")
        nothing_left("alice")
    finally:
        run("node1", "bash", "-c", "kill $(cat /run/sshd.pid)")
        shutil.rmtree(keys)
