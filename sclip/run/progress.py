"""Show the progress of a run: one live line in a terminal, else a plain line every few seconds."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text


class Progress:
    """Print the reports of a run as they arrive.

    `samples` counts all epochs. `every_s` is the time between two lines if the output is not a terminal.
    """

    def __init__(self, samples: int, batch_size: int, every_s: float, console: Console | None = None) -> None:
        self._samples, self._batch_size, self._every_s = samples, batch_size, every_s
        self.console = console or Console()
        self._live = Live(console=self.console, transient=True, auto_refresh=False)
        self._printed_at = float("-inf")
        self._waiting: Text | None = None
        self._rate = 0.0

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self._live.stop()
        elif self._waiting is not None:  # the last line says where the training ended
            self.console.print(self._waiting, soft_wrap=True)

    def report(self, report: dict[str, Any]) -> None:
        """Show one report of the worker loop."""
        kind = report["kind"]
        if kind == "start":
            position = (
                f"at step {report['step']} ({report['samples']:,} samples)"
                if report["step"]
                else "from the start"
            )
            self.say(f"training with {report['workers']} workers {position}")
        elif kind == "lost":
            self.say(f"lost {report['reason']}; the workers start again from the last checkpoint")
        elif kind == "note":
            self.say(report["line"])
        elif kind == "waiting":
            self.say(f"waiting for the storage: {report['reason']}")
        elif kind == "metrics":
            self._line(report)

    def say(self, text: str) -> None:
        """Print a permanent line above the live line."""
        self.console.print(Text(text), soft_wrap=True)

    def _line(self, report: dict[str, Any]) -> None:
        metrics = report["metrics"]
        filtered = metrics.get("filtered", 0)
        steps = max(report["step"], -(-self._samples // self._batch_size))
        # assume that the same share of samples passes the filter as before
        samples_remaining = round((steps - report["step"]) * report["samples"] / report["step"])
        # smooth the rate, which varies a lot from one report to the next
        self._rate = (
            0.8 * self._rate + 0.2 * metrics["samples_per_s"] if self._rate else metrics["samples_per_s"]
        )
        text = (
            f"step {report['step']}/{steps}  epoch {metrics['epoch']:.2f}  loss {metrics['loss']:.3f}  "
            f"{metrics['samples_per_s']:.0f} samples/s  data wait {metrics['data_wait']:.0%}  "
            f"ETA {_duration(samples_remaining / max(self._rate, 1e-9))}"
        )
        if filtered:
            text += f"  filtered {filtered:.0f}"
        if metrics.get("quarantined"):
            text += f"  quarantined {metrics['quarantined']:.0f}"
        if metrics.get("missing"):
            text += f"  missing {metrics['missing']:.0f}"
        if metrics.get("skipped"):
            text += f"  skipped steps {metrics['skipped']:.0f}"
        if report["limit"]:
            text += f"  {report['limit']}"
        if self.console.is_terminal:
            self._live.update(Text(text), refresh=True)
        elif time.monotonic() - self._printed_at >= self._every_s:
            self._printed_at, self._waiting = time.monotonic(), None
            self.console.print(Text(text), soft_wrap=True)
        else:
            self._waiting = Text(text)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
