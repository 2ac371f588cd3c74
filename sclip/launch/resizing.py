"""A checkpoint before the workers go: what Ray Train's controller is about to do, or was told of, in; an order out.

Ray Train restarts all workers to grow, from the last checkpoint; and it knows before anybody else when a node of theirs
is about to be taken away. Runs in its controller.
"""

from __future__ import annotations

from typing import Any

from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback

from sclip.launch.orders import Orders

__all__ = ["CheckpointFirst"]

_PATIENCE_S = 120.0
"""A checkpoint that takes longer is not waited for: what was trained after the one before it is trained again."""


class CheckpointFirst(ControllerCallback, WorkerGroupCallback):  # type: ignore[misc]
    """Orders a checkpoint before a restart for another number of workers, and when a node has notice to go."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._trains = self._has_notice = False

    def after_worker_group_training_start(self, worker_group: Any) -> None:
        """Remember that there are workers, which can be asked."""
        self._trains, self._has_notice = True, False

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        """Ask for a checkpoint at the first sign that a node will go, which Ray then waits for, as long as it may."""
        if worker_group_status.errors or worker_group_status.finished:
            self._trains = False
        if worker_group_status.get_preemption_info() is not None and not self._has_notice:
            self._has_notice = True
            self._orders.give("checkpoint")

    def after_worker_group_shutdown(self, worker_group_context: Any) -> None:
        """End the stream of the workers that were shut down.

        Ray Train lets go of it once the next workers have their places; until then its encoders keep their CPUs, and
        where one is on the node of a worker to be, the workers were waited for in vain (seen for eight minutes).
        """
        self._orders.end_stream()

    def after_worker_group_abort(self, worker_group_context: Any) -> None:
        """The same of workers that did not answer any more."""
        self._orders.end_stream()

    def before_controller_execute_resize_decision(self, resize_decision: Any) -> None:
        """Wait for a checkpoint, where workers that can write one are there; at a start there are none."""
        if self._trains:
            self._trains = False
            self._orders.wait(self._orders.give("checkpoint"), _PATIENCE_S)
