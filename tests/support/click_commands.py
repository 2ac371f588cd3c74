"""Parse commands of Ray and MLflow with the programs' own parsers, without running them."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import click


def parse_click(command: Sequence[str]) -> dict[str, Any]:
    """Return the options of a `ray ..` or `mlflow ..` command. Raises click.UsageError as the program itself would."""
    name, *rest = command
    program = importlib.import_module({"ray": "ray.scripts.scripts", "mlflow": "mlflow.cli"}[name]).cli
    context = program.make_context(name, rest)
    while isinstance(context.command, click.Group):
        # click itself finds subcommands this way; the remaining arguments belong to the subcommand
        name, subcommand, rest = context.command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        assert subcommand is not None
        context = subcommand.make_context(name, rest, parent=context)
    return context.params
