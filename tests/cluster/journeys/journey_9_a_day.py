"""A day in three minutes: five users whose sessions come and go at random."""
import os
import random
import re
import signal
import threading
import time

import box
import socks
from bootstrap import EXEC, LEGACY, cursor
from box import check, kill, nothing_left, path, run
from client import Session
from journey import journey

USERS = ("alice", "bob", "carol", "dave", "erin")
SECONDS = float(os.environ.get("JOURNEYS_DAY", 180))
# What Slurm's daemons say of a step that was ended, and of their first state file.
USUAL = re.compile(r"\*\*\* STEP .* (CANCELLED|FAILED)|state file|NOTE: Trying backup")
SLURM = ("slurmctld", "slurmd-node1", "slurmd-node2")
SEED = int(os.environ.get("JOURNEYS_SEED", 1))


def one_session(user, chance):
    """A session with a random form, random work and a random end."""
    log = f"/home/{user}/day.log"
    with Session("-q", "-l", log, user=user, form=chance.choice([EXEC, LEGACY, cursor("0.0.0.0")])) as session:
        session.opening()
        session.burst()
        if chance.random() < 0.3:
            session.end_stdin()
        session.announced(limit=60)
        for _ in range(chance.randrange(1, 12)):
            port = chance.choice(session.ports)
            work = chance.randrange(4)
            peer = session.connect(port)
            match work:
                case 0: socks.http(peer)
                case 1: socks.echo(peer, chance.randrange(1, 1 << 19), chance.random())
                case 2: socks.sink(peer, chance.randrange(1, 1 << 19), chance.random())
                case 3: socks.source(peer, chance.randrange(1, 1 << 19))
        session.settled()
        end = chance.choice(["hang up", "in use", "terminate", "kill", "scancel"])
        if end == "in use":
            session.connect().sendall(b"ECHO\nand gone")
        match end:
            case "hang up" | "in use": session.hang_up(); wanted = {129}
            case "terminate": kill(session.proxy().pid, signal.SIGTERM); wanted = {143}
            case "kill": kill(session.proxy().pid); wanted = {137}
            case "scancel": run("login", "scancel", session.job()); wanted = {143, 1}  # as in journey 2
        status = session.status(limit=30)
        check(status in wanted, f"{user}: after '{end}' the status is {status}, not {wanted}")


@journey(9, limit=int(SECONDS) + 120)
def a_day():
    """Five users, sessions that come and go at random; nothing left, no error in any log."""
    end, failures, made = time.monotonic() + SECONDS, [], []
    before = {name: len(box.log_text(name)) for name in SLURM}

    def live(user):
        chance = random.Random(f"{SEED} {user}")
        while time.monotonic() < end and not failures:
            try:
                one_session(user, chance)
                made.append(user)
            except Exception as error:
                error.add_note(f"user {user}, seed {SEED}")
                failures.append(error)

    threads = [threading.Thread(target=live, args=(user,)) for user in USERS]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    if failures:
        raise failures[0]
    nothing_left(*USERS)
    for user in USERS:
        check(made.count(user) >= 3, f"{user} had only {made.count(user)} sessions")
        log = path("login", f"/home/{user}/day.log").read_text()
        # At this level the log holds errors and nothing else.
        check(log == "", f"{user}'s log says:\n{log[:3000]}")
    for name in SLURM:
        said = box.log_text(name)[before[name]:].splitlines()
        wrong = [line for line in said if re.search("error:|fatal:", line) and not USUAL.search(line)]
        check(not wrong, f"{name} says:\n" + "\n".join(wrong[:10]))
    print(f"    {len(made)} sessions", flush=True)
