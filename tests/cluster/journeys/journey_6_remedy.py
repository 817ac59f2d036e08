"""A cluster without the interactive step: the warning, and that its remedy works."""
import socks
from box import check, nothing_left
from client import Session
from journey import journey


@journey(6, "local")
def warning_and_remedy():
    """Without use_interactive_step the user is warned, and the command in the warning leads into the job."""
    with Session() as session:
        session.start()
        check(session.answers()["node"] == "login", "this is not the variant without the interactive step")
        remedy = session.err.expect(r"warn: the job's shell runs on this machine.* -- (salloc srun --pty bash)").group(1)
    nothing_left("alice")
    words = remedy.split()
    with Session("--", *words) as session:
        session.start()
        check(session.answers()["node"].startswith("node"), f"{words} serves from {session.answers()['node']}")
        socks.echo(session.connect(), 1 << 20, 1)
        check("warn" not in session.err.text.lower(), "the remedy is warned about too")
        session.hang_up()
        check(session.status() == 129, f"status {session.status()}")
    nothing_left("alice")


@journey(6)
def no_warning_with_the_interactive_step():
    """With use_interactive_step nobody is warned."""
    with Session() as session:
        session.start()
        socks.http(session.connect())
        check("warn:" not in session.err.text, f"stderr says {session.err.text!r}")
