"""Request a checkpoint before Ray Train restarts the workers, and when a platform announces the removal of a node.

To grow the worker group (`sclip.launch.trainer.fit` says when), Ray Train restarts all workers from the last
checkpoint. Ray Train is also the first to learn that a node will be removed. The callbacks run in its controller.
"""

from __future__ import annotations

from typing import Any

from sclip.launch import ray_internals
from sclip.launch.control import RunControl

_TIMEOUT_S = 120.0
"""Maximum seconds that a restart waits for a new checkpoint. After that, it begins from the last one."""

_ControllerCallback: Any
_WorkerGroupCallback: Any
_ControllerCallback, _WorkerGroupCallback = ray_internals.controller_callback_classes()


class CheckpointBeforeRestart(_ControllerCallback, _WorkerGroupCallback):  # type: ignore[misc]
    """Callbacks that request a checkpoint before the number of workers changes, and at a node's preemption notice."""

    def __init__(self, control: RunControl) -> None:
        self._control = control
        self._trains = self._has_notice = False

    def after_worker_group_training_start(self, worker_group: Any) -> None:
        """Remember that workers are training and can write a checkpoint."""
        self._trains, self._has_notice = True, False

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        """Request a checkpoint at the first preemption notice. Training goes on until the platform removes the node."""
        if worker_group_status.errors or worker_group_status.finished:
            self._trains = False
        if worker_group_status.get_preemption_info() is not None and not self._has_notice:
            self._has_notice = True
            self._control.request("checkpoint")

    def before_controller_execute_resize_decision(self, resize_decision: Any) -> None:
        """If workers are training, request a checkpoint and wait for it. Before the first start, no workers train."""
        if self._trains:
            self._trains = False
            self._control.wait(self._control.request("checkpoint"), _TIMEOUT_S)
