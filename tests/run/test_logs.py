"""The driver's log as JSON: one object per line with run, level, time and step, and without credentials."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from sclip.run.logs import JsonProgress, json_console, name_run


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def console(out: io.StringIO) -> Iterator[Console]:
    root, ours = logging.getLogger(), logging.getLogger("sclip")
    before = root.handlers[:], ours.handlers[:], ours.level, sys.excepthook
    yield json_console(out)
    root.handlers[:], ours.handlers[:] = before[0], before[1]
    ours.setLevel(before[2])
    ours.propagate, sys.excepthook = True, before[3]
    name_run("")


def log_records(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_reports_are_records_with_their_step_and_figures(console: Console, out: io.StringIO) -> None:
    console.print("before the name is known", soft_wrap=True)
    name_run("first")
    console.print(long := "x" * 500, soft_wrap=True, markup=False)
    reports: list[tuple[str, dict[str, Any]]] = [
        ("INFO", {"kind": "start", "step": 4, "samples": 64, "workers": 2}),
        ("INFO", {"kind": "metrics", "step": 5, "metrics": {"loss": 1.5, "grad_norm": float("inf")}}),
        ("INFO", {"kind": "checkpoint", "step": 5, "path": "/runs/first/step-00000005", "seconds": 0.1}),
        ("WARNING", {"kind": "lost", "reason": "worker 1: killed"}),
        ("WARNING", {"kind": "note", "line": "step-00000005: damaged"}),
        ("WARNING", {"kind": "waiting", "reason": "the bucket is away"}),
    ]
    with JsonProgress() as progress:
        for _, report in reports:
            progress.report(report)
        progress.say("asked to stop")
    before, line, *records, stop = log_records(out)
    assert (before["run_name"], before["message"]) == ("", "before the name is known")
    assert (line["component"], line["levelname"], line["message"]) == ("driver", "INFO", long)
    assert line["asctime"]
    assert stop["message"] == "asked to stop"
    assert records[1]["metrics"].pop("grad_norm") is None  # JSON has no infinity
    reports[1][1]["metrics"].pop("grad_norm")
    for record, (level, report) in zip(records, reports, strict=True):
        del report["kind"]
        assert record.items() >= ({"levelname": level, "run_name": "first"} | report).items()


def test_credentials_are_in_no_field_whoever_logs_them(console: Console, out: io.StringIO) -> None:
    console.print("reading 's3://key:hidden@bucket/*.tar'", soft_wrap=True)
    logging.getLogger("sclip.tracking").warning('"%s" is away', "http://user:hidden@mlflow")
    logging.getLogger("urllib3").warning("retry", extra={"urls": ["https://host/a.tar?sig=hidden"]})
    try:
        raise ValueError("https://user:hidden@host")
    except ValueError:
        logging.getLogger("sclip").exception("failed")
    records = log_records(out)
    assert "hidden" not in out.getvalue()
    assert [record["levelname"] for record in records] == ["INFO", "WARNING", "WARNING", "ERROR"]
    assert "https://***@host" in records[-1]["exc_text"]


def test_a_table_breaks_no_line_and_an_unexpected_error_is_a_record_with_its_trace(
    console: Console, out: io.StringIO
) -> None:
    logging.getLogger("alembic").info("of no interest")
    table = Table("score")
    table.add_row("0.5")
    console.print(table)
    error = LookupError("nobody thought of it")
    sys.excepthook(type(error), error, error.__traceback__)
    *records, record = log_records(out)
    assert "│ 0.5   │" in [record["message"] for record in records]
    assert "of no interest" not in out.getvalue()
    assert record["levelname"] == "CRITICAL"
    assert "nobody thought of it" in record["exc_text"]
