"""Requests of the controller to the workers: a checkpoint before a restart, and at a notice that a node will go."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from sclip.launch.checkpoint_before_restart import CheckpointBeforeRestart


class RecordedControl:
    """Records the requests, and fulfills them at once."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    def request(self, kind: str) -> int:
        self.seen.append((kind, 0))
        return len(self.seen)

    def wait(self, number: int, timeout_s: float) -> bool:
        self.seen.append(("waited", number))
        return timeout_s > 0


def status(notice: bool = False, errors: bool = False, finished: bool = False) -> Any:
    info = SimpleNamespace(deadline_ms=None) if notice else None
    return SimpleNamespace(errors=errors, finished=finished, get_preemption_info=lambda: info)


class Harness:
    """The controller's callback, and the control that records its requests."""

    def __init__(self) -> None:
        self.control = RecordedControl()
        self.callback = CheckpointBeforeRestart(self.control)  # type: ignore[arg-type]

    def restart_after(self, *statuses: Any) -> list[tuple[str, int]]:
        for ended in statuses:
            self.callback.after_worker_group_poll_status(ended)
        self.callback.before_controller_execute_resize_decision(None)
        return self.control.seen


def test_training_workers_write_a_checkpoint_before_a_restart_with_more_workers() -> None:
    harness = Harness()
    assert harness.restart_after() == []  # at a start there are no workers
    harness.callback.after_worker_group_training_start(None)
    assert harness.restart_after(status()) == [("checkpoint", 0), ("waited", 1)]
    for gone in (
        [],
        [status(errors=True)],
        [status(finished=True)],
    ):  # workers that have ended are not waited for
        assert len(harness.restart_after(*gone)) == 2
        harness.callback.after_worker_group_training_start(None)


def test_a_notice_causes_one_request_that_is_not_waited_for() -> None:
    harness = Harness()
    for _ in range(2):  # the next workers may get the notice of another node
        harness.callback.after_worker_group_training_start(None)
        for _ in range(3):
            harness.callback.after_worker_group_poll_status(status(notice=True))
    assert harness.control.seen == 2 * [("checkpoint", 0)]
