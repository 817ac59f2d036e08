"""Login shells: the stepwise opening, then the script, in each shell that a user may have."""
import socks
from bootstrap import EXEC, LEGACY
from box import check, nothing_left, run, set_shell
from client import Session
from journey import journey

SHELLS = ["/bin/bash", "/bin/dash", "/usr/bin/zsh", "/usr/bin/tcsh"]
FISH = "/usr/bin/fish"


def each_of(shells):
    try:
        for shell in shells:
            set_shell("alice", shell)
            for form in (EXEC, LEGACY):
                with Session(form=form) as session:
                    try:
                        answers = session.opening()
                        check(answers[2].group(1) == shell, f"SHELL is {answers[2].group(1)} in the job, not the user's {shell}")
                        session.burst()
                        session.announced()
                        socks.http(session.connect())
                    except Exception as error:
                        error.add_note(f"with the login shell {shell}, {form.name}")
                        raise
    finally:
        set_shell("alice", "/bin/bash")
    nothing_left("alice")


@journey(7)
def every_login_shell():
    """bash, dash, zsh, tcsh and fish as the login shell: opening, script, connection."""
    each_of([*SHELLS, FISH])


@journey(7, "local")
def login_shells_without_the_interactive_step():
    """bash, dash, zsh and tcsh on the login node; fish, which salloc starts whatever SHELL says, is told the remedy."""
    set_shell("erin", FISH)
    try:
        with Session(user="erin") as session:
            session.send("echo ready\n")
            each_of(SHELLS)
            # fish reads its input to the end before it runs a line: the program says so after a minute.
            remedy = session.err.expect(r"warn: .*\(fish\): .*-- (salloc srun --pty bash)", limit=90).group(1)
        with Session("--", *remedy.split(), user="erin") as session:
            session.start()
            socks.http(session.connect())
    finally:
        set_shell("erin", "/bin/bash")
    nothing_left("erin")


@journey(7)
def noisy_start_up_files():
    """Start-up files that print, ask, and change directory stand in nobody's way."""
    noise = "echo 'Welcome to the cluster'; printf 'no newline here> '; cd /tmp; echo listeningOn in a motd; read -t 0 answer\n"
    run("login", "bash", "-c", f"printf '%s' \"$1\" > ~/.bashrc.noise; printf '. ~/.bashrc.noise\\n' >> ~/.bashrc", "-", noise, user="alice")
    run("login", "bash", "-c", "sed -i '1i . ~/.bashrc.noise' ~/.bashrc", user="alice")
    try:
        with Session() as session:
            session.start()
            socks.http(session.connect())
    finally:
        run("login", "cp", "/etc/skel/.bashrc", "/home/alice/.bashrc", user="alice")
