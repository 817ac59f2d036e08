"""What a journey is, and how journeys are run: in the order of their numbers, grouped by Slurm's variant."""
import shutil
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import box

# No wait in a journey is longer than this; a journey that takes longer as a whole hangs somewhere.
LIMIT = 240

_journeys = []


class Skipped(Exception):
    """A journey that cannot be made here, with the reason."""


@dataclass(frozen=True)
class Journey:
    number: int
    variant: str
    name: str
    body: Callable
    limit: int


def journey(number, *variants, limit=LIMIT):
    """Makes a function a journey of that number in each of these variants.  Its first line of doc is its name."""
    def register(body):
        for variant in variants or ("interactive",):
            name = body.__doc__.strip().splitlines()[0].rstrip(".")
            _journeys.append(Journey(number, variant, name, body, limit))
        return body
    return register


def _install(bin_dir):
    """The program in /usr/local/bin of every host, the stand-ins in every home."""
    here = Path(__file__).parent
    local_bin = box.path("login", "/usr/local/bin")
    for name in ("vscode-shell-proxy", "vscode-cleanup"):
        if (bin_dir / name).exists():
            shutil.copy(bin_dir / name, local_bin / name)
    write(local_bin / "record-status", '#!/bin/sh\n# record-status FILE COMMAND…\nfile=$1; shift\n"$@"\nstatus=$?\n'
                                       'echo "$status" >"$file"\nexit "$status"\n')
    for user in ("alice", "bob", "carol", "dave", "erin"):
        server_dir = box.path("login", f"/home/{user}/.vscode-server")
        server_dir.mkdir(exist_ok=True)
        shutil.copy(here / "server.py", server_dir / "code-standin")
        write(server_dir / "multiplex-standin",
              '#!/bin/sh\nexec "$HOME/.vscode-server/code-standin" multiplex --host "$STANDIN_HOST"\n')
        (server_dir / "code-standin").chmod(0o755)
        shutil.chown(server_dir, user, user)


def write(path, text):
    path.write_text(text)
    path.chmod(0o755)


def run_all(bin_dir, wanted):
    """Runs what is wanted; (passed, failed, skipped)."""
    _install(bin_dir)
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    order = ["interactive", "local", "x11"]
    for journey in sorted(_journeys, key=lambda j: (order.index(j.variant), j.number)):
        label = f"{journey.number} [{journey.variant}] {journey.name}"
        if wanted and not any(word == str(journey.number) or (not word.isdigit() and word in label) for word in wanted):
            continue
        counts[_tell(journey, label)] += 1
    return counts


def _tell(journey, label):
    """Runs a journey and prints how it went."""
    began = time.monotonic()
    outcome, text = _run(journey)
    print(f"{outcome:7} {time.monotonic() - began:6.1f} s  journey {label}", flush=True)
    if text:
        print("    " + text.rstrip().replace("\n", "\n    "), flush=True)
    return outcome


def _run(journey):
    def out_of_time(*_):
        raise box.Failed(f"the journey as a whole took more than {journey.limit} s")
    users = ("alice", "bob", "carol", "dave", "erin")
    signal.signal(signal.SIGALRM, out_of_time)
    try:
        signal.alarm(journey.limit)
        box.cluster("variant", journey.variant)
        journey.body()
        return "passed", ""
    except Skipped as reason:
        return "skipped", str(reason)
    except Exception as error:
        signal.alarm(0)
        notes = "\n".join(getattr(error, "__notes__", []))
        where = [frame for frame in traceback.extract_tb(error.__traceback__) if "/journey_" in frame.filename]
        at = "".join(f"\nat {Path(f.filename).name}:{f.lineno}: {f.line}" for f in where)
        kind = "" if isinstance(error, box.Failed) else f"{type(error).__name__}: "
        return "failed", f"{kind}{error}{at}\n{notes}\n── slurmctld\n{box.log_of('slurmctld')}"
    finally:
        signal.alarm(0)
        try:
            box.clear(*users)
        except Exception as error:
            print(f"    and it could not be cleared away: {error}", flush=True)


def main():
    """`python3 journeys BIN_DIR [NUMBER | WORDS]…`, inside the cluster."""
    sys.stdout.reconfigure(errors="replace")
    counts = run_all(Path(sys.argv[1]), sys.argv[2:])
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**counts), flush=True)
    return 1 if counts["failed"] else 0
