"""Progress lines of a run whose output is not a terminal."""

import io
from typing import Any

from rich.console import Console

from sclip.run.progress import Progress


def lines(*reports: dict[str, Any], samples: int = 5, every_s: float = 0.0) -> list[str]:
    """Return the lines printed for reports; each step has one sample."""
    with Progress(samples, 1, every_s, Console(file=(out := io.StringIO()))) as progress:
        for report in reports:
            progress.report(report)
    return out.getvalue().splitlines()


def step(trained: int, filtered: int = 0, limit: str = "", **more: float) -> dict[str, Any]:
    metrics = {"epoch": 0.5, "loss": 1.0, "samples_per_s": 1.0, "data_wait": 0.0, "filtered": filtered} | more
    counts = {"step": trained + filtered, "samples": trained}
    return counts | {"kind": "metrics", "metrics": metrics, "limit": limit}


def test_the_time_left_counts_only_samples_that_will_pass_the_filter() -> None:
    # The last line says where the run ended.
    first, last = lines(step(1), step(2), step(3, 1), every_s=1000.0)
    assert "step 1/5" in first
    assert "step 4/5" in last
    whole, half = lines(step(60), step(30, 30), samples=120)
    assert "step 60/120" in whole
    assert "ETA 1:00" in whole
    assert "filtered" not in whole
    assert "ETA 0:30  filtered 30" in half


def test_skipped_steps_limits_losses_and_notes_are_shown_once_there_are_any() -> None:
    none, skipped, limit, lost, note = lines(
        step(1, skipped=0), step(1, skipped=2), step(1, limit="parse actors are the limit"),
        {"kind": "lost", "reason": "worker 1: ActorDiedError: killed"},
        {"kind": "note", "line": "step-00000005: another SHA-256; set aside"},
    )  # fmt: skip
    assert "skipped" not in none
    assert skipped.endswith("  skipped steps 2")
    assert limit.endswith("  parse actors are the limit")
    assert lost.startswith("lost worker 1: ActorDiedError: killed")
    assert note == "step-00000005: another SHA-256; set aside"
