"""Command line `sclip COMMAND ...`, with one file per group of commands.

A command parses its arguments, calls another package and prints. It imports torch, Ray, spaCy and MLflow only when it
needs them, so that the help and error messages appear at once.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Sequence

_ENDS = threading.current_thread() is threading.main_thread()
# Ctrl-C during the imports prints no traceback.
_interrupted = signal.signal(signal.SIGINT, signal.SIG_DFL) if _ENDS else None

import typer  # noqa: E402

from sclip.cli import captions, cluster, evaluation, models, packing, runs, shards, train  # noqa: E402, F401  (they add their commands)
from sclip.cli.command import PANELS, app, printing  # noqa: E402
from sclip.run import stopping  # noqa: E402

if _ENDS:
    signal.signal(signal.SIGINT, _interrupted)

app.registered_commands.sort(key=lambda command: PANELS.index(str(command.rich_help_panel)))


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status, as in the command's help."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    status = 0
    try:
        with stopping.answered(stopping.leave_imports((arguments or ["sclip"])[0])), printing():
            program = typer.main.get_command(app)
            status = program.main(arguments, prog_name="sclip", standalone_mode=False)
    except (KeyboardInterrupt, stopping.Stopped, typer.Abort) as ended:
        return stopping.status_of(ended)
    except typer.TyperException as mistake:
        context = getattr(mistake, "ctx", None)
        message = mistake.format_message()
        if context and message:  # there is no message after a printed help
            print(f"{context.get_usage()}\n{context.info_name}: {message}", file=sys.stderr)
        return 2
    return status or 0
