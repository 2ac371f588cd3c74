"""Request a checkpoint before Ray Train restarts the workers, and when one of their nodes has notice to go.

To grow (when it looks for room: `sclip.launch.trainer.fit`), Ray Train restarts all workers from the last checkpoint;
and it knows before anybody else when a node is about to be taken away. These callbacks run in its controller.
"""

from __future__ import annotations

from typing import Any

from sclip.launch import ray_internals
from sclip.launch.control import RunControl

_TIMEOUT_S = 120.0
"""The restart does not wait longer for a checkpoint: what was trained after the one before it is trained again."""

_ControllerCallback: Any
_WorkerGroupCallback: Any
_ControllerCallback, _WorkerGroupCallback = ray_internals.controller_callback_classes()


class CheckpointBeforeRestart(_ControllerCallback, _WorkerGroupCallback):  # type: ignore[misc]
    """Requests a checkpoint before a restart with another number of workers, and when a node has notice to go."""

    def __init__(self, control: RunControl) -> None:
        self._control = control
        self._trains = self._has_notice = False

    def after_worker_group_training_start(self, worker_group: Any) -> None:
        """Remember that workers train, which can be asked for a checkpoint."""
        self._trains, self._has_notice = True, False

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        """Request a checkpoint at the first notice that a node will go; Ray keeps the node as long as it may."""
        if worker_group_status.errors or worker_group_status.finished:
            self._trains = False
        if worker_group_status.get_preemption_info() is not None and not self._has_notice:
            self._has_notice = True
            self._control.request("checkpoint")

    def before_controller_execute_resize_decision(self, resize_decision: Any) -> None:
        """Wait for a checkpoint if workers train that can write one; at a start there are none."""
        if self._trains:
            self._trains = False
            self._control.wait(self._control.request("checkpoint"), _TIMEOUT_S)
