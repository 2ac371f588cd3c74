"""What the controller requests of the workers: a checkpoint before a restart, and at a notice that a node will go."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sclip.launch.checkpoint_before_restart import CheckpointBeforeRestart


class RecordedControl:
    """Keeps the requests, and fulfils them at once."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    def request(self, kind: str) -> int:
        self.seen.append((kind, 0))
        return len(self.seen)

    def wait(self, number: int, timeout_s: float) -> bool:
        assert timeout_s > 0
        self.seen.append(("waited", number))
        return True


def status(notice: bool = False, errors: bool = False, finished: bool = False) -> Any:
    info = SimpleNamespace(deadline_ms=None) if notice else None
    return SimpleNamespace(errors=errors, finished=finished, get_preemption_info=lambda: info)


@pytest.fixture
def control() -> RecordedControl:
    return RecordedControl()


@pytest.fixture
def callback(control: RecordedControl) -> CheckpointBeforeRestart:
    handle: Any = control
    return CheckpointBeforeRestart(handle)


def test_at_a_start_nobody_is_asked(control: RecordedControl, callback: CheckpointBeforeRestart) -> None:
    callback.before_controller_execute_resize_decision(None)
    assert control.seen == []


def test_workers_write_a_checkpoint_before_they_are_restarted_as_more(
    control: RecordedControl, callback: CheckpointBeforeRestart
) -> None:
    callback.after_worker_group_training_start(None)
    callback.after_worker_group_poll_status(status())
    callback.before_controller_execute_resize_decision(None)
    assert control.seen == [("checkpoint", 0), ("waited", 1)]
    callback.before_controller_execute_resize_decision(None)  # of workers that are gone by now
    assert len(control.seen) == 2


@pytest.mark.parametrize("ended", [status(errors=True), status(finished=True)])
def test_workers_that_died_or_are_done_are_not_waited_for(
    control: RecordedControl, callback: CheckpointBeforeRestart, ended: Any
) -> None:
    callback.after_worker_group_training_start(None)
    callback.after_worker_group_poll_status(ended)
    callback.before_controller_execute_resize_decision(None)
    assert control.seen == []


def test_a_notice_is_one_request_and_not_waited_for(
    control: RecordedControl, callback: CheckpointBeforeRestart
) -> None:
    callback.after_worker_group_training_start(None)
    for _ in range(3):
        callback.after_worker_group_poll_status(status(notice=True))
    assert control.seen == [("checkpoint", 0)]
    callback.after_worker_group_training_start(None)  # the next workers, and another node's notice
    callback.after_worker_group_poll_status(status(notice=True))
    assert control.seen == 2 * [("checkpoint", 0)]
