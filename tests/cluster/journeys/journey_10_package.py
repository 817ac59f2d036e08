"""The package: installed on the login node as an admin does, used as a user does, and removed without a trace."""
import os
from contextlib import contextmanager
from pathlib import Path

import socks
from box import check, nothing_left, path, run, scontrol
from client import Session
from journey import Skipped, journey

DIST = Path(__file__).parents[3] / "target/dist"
CONFIGURATION = "/etc/vscode-shell-proxy.conf"

# The machine's root is the hosts' root: what dpkg changes outside /etc is laid over it for this journey.
LAID_OVER = ("/usr", "/var/lib/dpkg", "/var/cache/man")


@contextmanager
def a_disk_of_its_own():
    """The login node with directories that can be written to, and without the program in /usr/local/bin."""
    run("login", "mkdir", "-p", "/tmp/over")
    mounted = []
    def mount(target, *words):
        run("login", "mount", *words, target)
        mounted.append(target)
    try:
        for number, directory in enumerate(LAID_OVER):
            if not path("login", directory).is_dir():
                continue
            upper, work = f"/tmp/over/{number}/upper", f"/tmp/over/{number}/work"
            run("login", "mkdir", "-p", upper, work)
            try:
                mount(directory, "-t", "overlay", "-o", f"lowerdir={directory},upperdir={upper},workdir={work}", "overlay")
            except Exception as error:
                raise Skipped(f"this machine lays no directory over another: {error}")
        mount("/usr/local/bin", "-t", "tmpfs", "-o", "mode=755", "own")
        run("login", "cp", "/mnt/bin/record-status", "/usr/local/bin")
        yield
    finally:
        for directory in reversed(mounted):
            run("login", "umount", "--lazy", directory)
        run("login", "rm", "-rf", "/tmp/over", CONFIGURATION)


def files_of_ours():
    """What is there of the program, by name, wherever the package has put something."""
    found = run("login", "find", "/usr/bin", "/usr/lib/systemd", "/usr/share", "/etc", "/var/lib/dpkg/info",
                "-xdev", "-name", "*vscode-shell-proxy*", "-o", "-xdev", "-name", "*vscode-cleanup*")
    return found.split()


@journey(10)
def from_installation_to_removal():
    """dpkg -i, a profile in the configuration, a session with it, the manual, and dpkg -r and -P leave nothing."""
    packages = sorted(DIST.glob("*.deb"))
    if not packages:
        raise Skipped("there is no package: tests/packages makes it")
    with a_disk_of_its_own():
        before = files_of_ours()
        check(not before, f"before the installation there is {before}")
        # The project's place is covered by the hosts' own homes and temporary files.
        package = f"/srv/target/dist/{packages[-1].name}"
        run("login", "dpkg", "-i", package, limit=60)
        check(run("login", "which", "vscode-shell-proxy", "vscode-cleanup").split() == ["/usr/bin/vscode-shell-proxy", "/usr/bin/vscode-cleanup"],
              "the programs are not where the package puts them")
        page = run("login", "man", "-w", "vscode-shell-proxy.conf", ok=False)
        check("man5/vscode-shell-proxy.conf.5" in page or not run("login", "which", "man", ok=False), f"the manual is at {page!r}")
        check(not run("login", "find", "/etc/systemd", "-name", "vscode-cleanup*"), "a unit is enabled")

        # Freshly installed, the file sets nothing; the admin takes away what is in front of a profile's lines.
        shown = run("login", "vscode-shell-proxy", "--show-config", user="alice")
        check(f"# the site's file: {CONFIGURATION}\n" in shown and f"{CONFIGURATION}, line" not in shown, f"in force is\n{shown}")
        file = path("login", CONFIGURATION)
        text = file.read_text()
        file.write_text(text.replace("#[profile cpu]", "[profile cpu]\nsalloc-arg = --comment=from the profile\n#")
                        .replace("#description = 4 cores, 8 GB", "description = 4 cores, 8 GB"))
        check("cpu  4 cores, 8 GB" in run("login", "vscode-shell-proxy", "--list-profiles", user="alice"), "the profile is not listed")
        with Session("--profile", "cpu") as session:
            session.start()
            check(session.answers()["node"].startswith("node"), f"the server runs on {session.answers()['node']}")
            check(os.readlink(f"/proc/{session.proxy().pid}/exe") == "/usr/bin/vscode-shell-proxy", "it is not the installed program")
            check("Comment=from the profile" in scontrol("show", "job", session.job()), "the profile has not reached salloc")
            socks.echo(session.connect(), 1 << 20, 10)
            session.hang_up()
        nothing_left("alice")
        run("login", "vscode-cleanup", "--age", "0")

        run("login", "dpkg", "-r", "vscode-shell-proxy", limit=60)
        check(sorted(files_of_ours()) == [CONFIGURATION, "/var/lib/dpkg/info/vscode-shell-proxy.list"],
              f"removed, there still is {files_of_ours()}")
        check("from the profile" in file.read_text(), "removing has changed the configuration")
        run("login", "dpkg", "-P", "vscode-shell-proxy", limit=60)
        check(files_of_ours() == before, f"purged, there still is {files_of_ours()}")
