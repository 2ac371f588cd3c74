"""Evaluate checkpoints of a run while training continues; log their scores at their steps.

Each evaluation is a Ray task. The CPUs of evaluations (`evaluate.cpus`) are reserved before the training workers start,
because the workers keep their CPUs until training ends. One evaluation runs at a time. A checkpoint that becomes due
during an evaluation is skipped: slow evaluations mean fewer points on the curve of scores, but cost no training time.
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
    """Evaluate a checkpoint every `evaluate.every` steps while training continues."""

    def __init__(
        self,
        config: EvaluateConfig,
        folder: RunFolder,
        score: Callable[[str], Scores],
        log: Callable[[Scores, int], None],
        say: Callable[[str], None],
    ) -> None:
        """Reserve the CPUs and GPUs of the evaluations.

        `score` gets a checkpoint's name and returns the scores; a Ray task runs it, so it must be picklable.
        `log` and `say` (for lines to the user) are called in the thread that calls this object.
        """
        self._config, self._folder, self._log, self._say = config, folder, log, say
        folder.release()  # checkpoints that a killed driver still held
        bundle = {"CPU": config.cpus} | ({"GPU": config.gpus} if config.gpus else {})
        self._group: PlacementGroup = placement_group([bundle], name="sclip-evaluation")
        strategy = PlacementGroupSchedulingStrategy(self._group, placement_group_capture_child_tasks=True)
        # No retry: a failed evaluation costs one point of the curve, and the next checkpoint is worth more.
        self._task = ray.remote(num_cpus=config.cpus, num_gpus=config.gpus, max_retries=0)(_scores).options(
            scheduling_strategy=strategy
        )
        self._score = score
        self._running: tuple[Any, int] | None = None
        self._due = config.every

    def checkpoint(self, name: str, step: int) -> None:
        """Start the evaluation of a complete checkpoint if an evaluation is due and none is running."""
        self.poll()
        if step < self._due:
            return
        self._due = step - step % self._config.every + self._config.every
        if self._running is None:
            self._folder.hold(name)  # training must not prune the checkpoint meanwhile
            self._running = self._task.remote(self._score, name), step
        else:
            self._say(
                f"step {step} is not evaluated: the evaluation of step {self._running[1]} still goes on"
            )

    def poll(self) -> None:
        """Log the scores of an evaluation that ended since the last call."""
        if self._running and ray.wait([self._running[0]], timeout=0)[0]:
            self._take()

    def close(self) -> None:
        """Wait for the running evaluation, then release the CPUs."""
        try:
            if self._running:
                self._take()
        finally:
            remove_placement_group(self._group)

    def abandon(self) -> None:
        """Cancel the running evaluation, drop its scores, and release the CPUs."""
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
        except ray.exceptions.RayError as error:  # the curve lacks a point; training continues
            cause = str(getattr(error, "cause", None) or error).strip().splitlines()
            self._say(f"step {step} was not evaluated: {cause[-1] if cause else type(error).__name__}")
        finally:
            self._folder.release()


def _scores(score: Callable[[str], Scores], name: str) -> dict[str, float]:
    return dict(score(name))
