"""Log the metrics of a journal to Weights & Biases, through the separate process of `sclip.tracking.wandb_process`.

Each event with metrics is one row; wandb's own step is the row's number, from 0. A run that starts again asks the
server how many rows the server has, and sends only later rows. If a disk failure removed rows from the journal, new
rows have numbers that the server already has, and are not sent. Charts use the column `step` as x axis, because the
scores of a checkpoint come after later steps.

An offline run (WANDB_MODE=offline) cannot ask the server, so each start writes all rows to a new folder. `wandb sync`
of the last folder uploads the whole run.
"""

from __future__ import annotations

import ast
import contextlib
import json
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

from sclip.tracking.journal import Event, Journal

_PROCESS = Path(__file__).with_name("wandb_process.py")
_EVENTS = 500  # at most in a request
_END_S = 5.0
"""Seconds to wait for the process to end. A process that still uploads after this time continues and ends by itself."""


class WandB:
    """Weights & Biases run of a journal."""

    def __init__(self, journal: Journal, project: str) -> None:
        self.name = "Weights & Biases"
        self._journal = journal
        self._project = project
        self._process: subprocess.Popen[str] | None = None
        self._offset = self._row = self._sent = 0

    def send(self, until: int) -> bool:
        """Send the next rows before journal offset `until`; False if none is left. Raises RuntimeError or OSError."""
        if self._offset >= until:
            return False
        try:
            if self._process is None:
                self._begin()
            return self._send()
        except BaseException:
            self._end()
            self._offset = 0
            raise

    def _send(self) -> bool:
        before, rows, status = self._offset, list[tuple[int, dict[str, Any]]](), ""
        for end, event in islice(self._journal.read(before), _EVENTS):
            self._offset, status = end, event.get("status", "")
            if "metrics" in event:
                if self._row >= self._sent:
                    rows.append((self._row, _row(event)))
                self._row += 1
        if rows:
            self._ask({"rows": rows})
        if status not in ("", "RUNNING") and self._offset == self._journal.size:
            self._ask({"finish": int(status != "FINISHED")})
            self._end()  # a later event starts a new process
        return self._offset > before

    def _begin(self) -> None:
        self._offset = self._row = 0
        config: dict[str, str] = {}
        head: Event = {}
        for _, event in self._journal.read():
            head = head or event
            config |= event.get("params", {})
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_PROCESS)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            start_new_session=True,  # Ctrl-C must reach only the driver, which then reports how the run ended
        )  # fmt: skip
        name = head["run"]["name"]
        init = {
            "project": self._project, "name": name, "id": f"{name}-{head['time_ms']:x}",
            "dir": str(self._journal.folder),
            "config": {key: _value(text) for key, text in config.items()},
        }  # fmt: skip
        self._sent = self._ask({"init": init})["rows"]

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer = json.loads(line or '{"error": "the process of wandb ended"}')
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return dict(answer)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                process.communicate(timeout=_END_S)


def _row(event: Event) -> dict[str, Any]:
    return {**event["metrics"], "step": event["step"], "_timestamp": event["time_ms"] / 1000}


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
