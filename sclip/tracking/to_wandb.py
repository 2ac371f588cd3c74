"""Log the metrics of a journal to Weights & Biases, through the process that `sclip.tracking.wandb_process` describes.

Each event with metrics is a row, and its number among them is wandb's own step, so the server's next step says how many
rows it has: a start sends the rows from there on, none of them twice. Charts are drawn over the row's column `step`,
because the events of one run do not come in the order of their steps: a checkpoint is measured after later steps were
trained. An offline run (WANDB_MODE=offline) has no server to ask, so each start writes all rows to a folder of its own,
and `wandb sync` of the last one brings the whole run. A journal that lost its last events with the disk that it was on
has fewer rows than the server: as many of the rows that come next are not sent.
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
_EVENTS = 500
"""Most events in a request."""
_END_S = 5.0
"""Seconds to wait for the process to end; one that still uploads is left alone and ends after that."""


class WandB:
    """The run of Weights & Biases that belongs to a journal."""

    def __init__(self, journal: Journal, project: str) -> None:
        self.name = "Weights & Biases"
        self._journal = journal
        self._project = project
        self._process: subprocess.Popen[str] | None = None
        self._offset = self._row = self._sent = 0

    def send(self, until: int) -> bool:
        """Send the next rows before an offset of the journal; return False if none is left.

        Raises RuntimeError or OSError with wandb's message.
        """
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
            self._end()  # a later event begins again
        return self._offset > before

    def _begin(self) -> None:
        """Start the process and the run, or go on with the run of an earlier start."""
        self._offset = self._row = 0
        config: dict[str, str] = {}
        head: Event = {}
        for _, event in self._journal.read():
            head = head or event
            config |= event.get("params", {})
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_PROCESS)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            start_new_session=True,  # Ctrl-C is for the driver, which then tells how the run ended
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
        answer = json.loads(line or '{"error": "its process ended"}')
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return dict(answer)

    def _end(self) -> None:
        """Let the process end; the next event begins with another one."""
        process, self._process = self._process, None
        if process:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                process.communicate(timeout=_END_S)


def _row(event: Event) -> dict[str, Any]:
    return {**event["metrics"], "step": event["step"], "_timestamp": event["time_ms"] / 1000}


def _value(text: str) -> Any:
    """Return the value of a param from the text that the journal holds."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
