"""Commands of Ray and MLflow, read by their own parsers and not run."""

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
        # click's own way to the subcommand; what is left of the arguments is the subcommand's
        name, found, rest = context.command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        assert found is not None
        context = found.make_context(name, rest, parent=context)
    return context.params
