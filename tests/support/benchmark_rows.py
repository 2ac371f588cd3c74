"""Benchmark rows that end in every possible way, in a module that the measuring processes can import."""

from __future__ import annotations

import os
import signal
import subprocess
import time

from sclip.benchmark.isolated import Figures, Report, Row


def good(case: str, rounds: int, report: Report) -> str:
    for number in range(rounds):
        report({"s": [1.0] * (number + 1)})
    return f"details of {case}"


def failing(case: str, rounds: int, report: Report) -> str:
    raise ValueError("first line\nsecond line")


def exiting(case: str, rounds: int, report: Report) -> str:
    os._exit(3)


def killed(case: str, rounds: int, report: Report) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return ""


def silent(case: str, rounds: int, report: Report) -> str:
    return ""


def hanging(case: str, rounds: int, report: Report) -> str:
    """Report one round with the process ID of a child, then hang."""
    report({"pid": [subprocess.Popen(["sleep", "600"]).pid]})
    time.sleep(600)
    return ""


def words(figures: Figures, compared: Figures) -> str:
    return f"{len(next(iter(figures.values())))} rounds" + (
        f", compared with {dict(compared)}" if compared else ""
    )


def row(measure, case="a case", **options) -> Row:
    return Row(measure.__name__, "peer", "wanted", measure, words, case, rounds=2, limit_s=60, **options)
