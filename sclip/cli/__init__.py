"""The command line: `sclip COMMAND ...`, a file of commands for each panel of its help.

A command parses, calls a room and prints; torch, Ray, spaCy and MLflow are imported by the command that needs them, so
that help and mistakes cost no seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from sclip.cli import captions, cluster, models, shards, train  # noqa: F401  (they add their commands)
from sclip.cli.command import PANELS, app, printing

app.registered_commands.sort(key=lambda command: PANELS.index(str(command.rich_help_panel)))


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; return its exit status: 0 done, 2 not started for a mistake, others as the command says."""
    program = typer.main.get_command(app)
    status = 0
    try:
        with printing():
            status = program.main(argv, prog_name="sclip", standalone_mode=False)
    except typer.TyperException as mistake:
        context = getattr(mistake, "ctx", None)
        message = mistake.format_message()
        if context and message:  # there is none where the help was printed
            print(f"{context.get_usage()}\n{context.info_name}: {message}", file=sys.stderr)
        return 2
    return status or 0
