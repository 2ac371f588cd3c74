"""Evaluation during training: checkpoints of a run in, their scores at their steps out, while training goes on.

A task on CPUs that are set aside for it before the workers start (`evaluate.cpus`): one that waited for what training
holds would wait for ever. One evaluation at a time; a checkpoint that comes while one goes on is left out, so that a
slow evaluation costs points of the curve and never time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from sclip.config import EvaluateConfig
from sclip.train.run_folder import RunFolder

__all__ = ["CheckpointEvaluator"]

Scores = Mapping[str, float]


class CheckpointEvaluator:
    """Evaluates the newest checkpoint that the cadence asks for, one at a time, while training goes on."""

    def __init__(
        self,
        config: EvaluateConfig,
        folder: RunFolder,
        score: Callable[[str], Scores],
        log: Callable[[Scores, int], None],
        say: Callable[[str], None],
    ) -> None:
        """Set its CPUs and GPUs aside.

        Args:
            config: cadence and resources.
            folder: of the run; a checkpoint that is evaluated is held in it.
            score: from the name of a checkpoint to its scores; runs in a task, and so is pickled by Ray.
            log: called with the scores and their step, in the thread that calls this object.
            say: called with a line for the user.
        """
        self._config, self._folder, self._log, self._say = config, folder, log, say
        folder.release()  # what an earlier driver held when it was killed
        bundle = {"CPU": config.cpus} | ({"GPU": config.gpus} if config.gpus else {})
        self._group: PlacementGroup = placement_group([bundle], name="sclip-evaluation")
        strategy = PlacementGroupSchedulingStrategy(self._group, placement_group_capture_child_tasks=True)
        # A failed evaluation costs a point of the curve; the next checkpoint is worth more than a second attempt.
        self._task = ray.remote(num_cpus=config.cpus, num_gpus=config.gpus, max_retries=0)(_scores).options(
            scheduling_strategy=strategy
        )
        self._score = score
        self._running: tuple[Any, int] | None = None
        self._due = config.every

    def checkpoint(self, name: str, step: int) -> None:
        """Take note of a checkpoint that is whole; its evaluation starts where one is due and none goes on."""
        self.poll()
        if step < self._due:
            return
        self._due = step - step % self._config.every + self._config.every
        if self._running is None:
            self._folder.hold(name)
            self._running = self._task.remote(self._score, name), step
        else:
            self._say(
                f"step {step} is not evaluated: the evaluation of step {self._running[1]} still goes on"
            )

    def poll(self) -> None:
        """Log the scores of an evaluation that has ended since the last call."""
        if self._running and ray.wait([self._running[0]], timeout=0)[0]:
            self._take()

    def close(self) -> None:
        """Wait for the evaluation that goes on, and give its CPUs back."""
        try:
            if self._running:
                self._take()
        finally:
            remove_placement_group(self._group)

    def abandon(self) -> None:
        """End the evaluation that goes on, without its scores, and give its CPUs back."""
        if self._running:
            ray.cancel(self._running[0], force=True)
            self._folder.release()
        remove_placement_group(self._group)

    def _take(self) -> None:
        assert self._running
        task, step = self._running
        self._running = None
        try:
            self._log(ray.get(task), step)
        except ray.exceptions.RayError as error:  # a point of the curve is missing, training goes on
            cause = str(getattr(error, "cause", None) or error).strip().splitlines()
            self._say(f"step {step} was not evaluated: {cause[-1] if cause else type(error).__name__}")
        finally:
            self._folder.release()


def _scores(score: Callable[[str], Scores], name: str) -> dict[str, float]:
    return dict(score(name))
