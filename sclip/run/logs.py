"""Write the log of a run's driver as JSON, one object per line.

Lines have Ray's format and the fields `run_name` and `component`. The workers' lines have them too, so one query finds
all lines. Ray Train writes the workers' lines to logs/train/ in Ray's session folder on the worker's node.
Credentials of URIs are masked in every field.
"""

from __future__ import annotations

import io
import logging
import math
import sys
from typing import Any, TextIO, cast

from rich.console import Console

from sclip.launch import ray_internals
from sclip.storage.masking import mask_tree

__all__ = ["JsonProgress", "json_console", "name_run"]

_log = logging.getLogger("sclip")
_JSONFormatter: Any = ray_internals.json_formatter_class()
_KINDS = {
    "start": "training begins", "metrics": "trained", "checkpoint": "checkpoint is complete",
    "lost": "workers lost, they start again from the last checkpoint", "note": "note on the resume",
    "waiting": "waiting for the storage",
}  # fmt: skip
_WARNINGS = ("lost", "note", "waiting")


def json_console(file: TextIO) -> Console:
    """Make this process log JSON to a file; return a console that logs each of its lines as a record."""
    handler = logging.StreamHandler(file)
    handler.setFormatter(_Formatter())
    logging.getLogger().addHandler(handler)  # for the warnings of libraries
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    _log.propagate = False
    sys.excepthook = lambda *error: _log.critical("ended by an unexpected error", exc_info=error)
    return Console(file=cast(TextIO, _Lines()), width=sys.maxsize)


def name_run(name: str) -> None:
    """Set the run name in all later lines of the log."""
    _Formatter.run_name = name


class JsonProgress:
    """Log the reports of a run as JSON, in place of `sclip.run.progress.Progress`."""

    def __enter__(self) -> JsonProgress:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def report(self, report: dict[str, Any]) -> None:
        """Log one report of the worker loop with its figures."""
        kind = report["kind"]
        figures = {name: _finite(value) for name, value in report.items() if name != "kind"}
        _log.log(logging.WARNING if kind in _WARNINGS else logging.INFO, _KINDS[kind], extra=figures)

    def say(self, text: str) -> None:
        """Log a line."""
        _log.info("%s", text)


class _Formatter(_JSONFormatter):  # type: ignore[misc]
    run_name = ""

    def generate_record_format_attrs(
        self, record: logging.LogRecord, exclude_default_standard_attrs: bool
    ) -> dict[str, Any]:
        attributes = super().generate_record_format_attrs(record, exclude_default_standard_attrs)
        masked: dict[str, Any] = mask_tree(attributes | {"run_name": self.run_name, "component": "driver"})
        return masked


class _Lines(io.TextIOBase):
    def __init__(self) -> None:
        self._begun = ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in filter(str.strip, lines):
            _log.info("%s", line.rstrip())
        return len(text)


def _finite(value: Any) -> Any:
    """Replace NaN and infinity, which JSON lacks, by None."""
    if isinstance(value, dict):
        return {name: _finite(nested) for name, nested in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
