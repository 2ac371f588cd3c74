"""What a person sees of a run where the output is no terminal."""

import io

from rich.console import Console

from sclip.run.progress import Progress


def lines(
    reports: list[tuple[int, int]], samples: int, every_s: float = 0.0, limit: str = "", **more: float
) -> list[str]:
    """Return what is printed for reports of (trained, filtered) samples, each a step, at one trained a second."""
    console = Console(file=io.StringIO())
    with Progress(samples, 1, every_s, console) as progress:
        for trained, filtered in reports:
            metrics = {
                "epoch": 0.5,
                "loss": 1.0,
                "samples_per_s": 1.0,
                "data_wait": 0.0,
                "filtered": filtered,
            } | more
            report = {
                "kind": "metrics",
                "step": trained + filtered,
                "samples": trained,
                "metrics": metrics,
                "limit": limit,
            }
            progress.report(report)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_the_time_left_is_of_the_samples_that_will_pass_the_filter() -> None:
    whole, half = lines([(60, 0), (30, 30)], samples=120)
    assert "step 60/120" in whole
    assert "ETA 1:00" in whole
    assert "filtered" not in whole
    assert "step 60/120" in half
    assert "ETA 0:30  filtered 30" in half


def test_the_last_line_says_where_the_training_ended() -> None:
    first, last = lines([(1, 0), (2, 0), (3, 1)], samples=5, every_s=1000.0)
    assert "step 1/5" in first
    assert "step 4/5" in last
    assert len(lines([(1, 0)], samples=5, every_s=1000.0)) == 1


def test_steps_that_made_no_update_are_told_once_there_are_some() -> None:
    assert "skipped" not in lines([(1, 0)], samples=5, skipped=0)[0]
    assert lines([(1, 0)], samples=5, skipped=2)[0].endswith("  skipped steps 2")


def test_the_stage_that_limits_the_rate_is_told_in_words() -> None:
    assert lines([(1, 0)], samples=5, limit="parse actors are the limit")[0].endswith(
        "  parse actors are the limit"
    )


def test_a_loss_of_workers_and_a_damaged_checkpoint_are_told_with_their_cause() -> None:
    console = Console(file=io.StringIO())
    with Progress(5, 1, 0.0, console) as progress:
        progress.report({"kind": "lost", "reason": "worker 1: ActorDiedError: killed"})
        progress.report({"kind": "note", "line": "step-00000005: another SHA-256; set aside"})
    assert isinstance(console.file, io.StringIO)
    lost, note = console.file.getvalue().splitlines()
    assert lost.startswith("lost worker 1: ActorDiedError: killed")
    assert note == "step-00000005: another SHA-256; set aside"
