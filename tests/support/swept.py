"""Sweep runs that train nothing: Tune's processes are real, but the training is faked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sclip.run import sweep

FAILS = 0.9
"""Runs fail if the knowledge encoder's weight is at least this."""


def made_up() -> Callable[..., Any]:
    """Return a trial that instantly writes what a run would write; its scores are its weight and its margin."""
    fails, trial = FAILS, sweep._trial  # so that what Tune pickles refers to no test module

    def run(point: dict[str, Any], **rest: Any) -> dict[str, Any]:
        from sclip.config import ConfigError
        from sclip.evaluate.result import EVALUATION_FILE, Evaluation, Result, Score
        from sclip.run import pretrain, summary

        def pretend(config: Any, console: Any) -> Any:
            weight, margin = config.model.kee.weight, config.loss.hinge_margin
            if weight >= fails:
                raise ConfigError("model.kee.weight: too much")
            folder = Path(config.run.storage, "runs", config.run.name)
            folder.mkdir(parents=True)
            results = [
                Result(
                    name, "vg-relation", "Made up.", "accuracy", {"accuracy": Score(value, value, value, 0.5)},
                    {"cases": 2, "images": 2}, {"a": True, "b": weight > 0.2},
                )
                for name, value in (("relation", weight), ("attribute", margin))
            ]  # fmt: skip
            evaluation = Evaluation(config.run.name, {}, results)
            evaluation.write(folder / EVALUATION_FILE)
            trained = {"samples": 1, "steps": 1, "step": 1, "filtered": 0, "quarantined": 0}
            return summary.Summary(folder, trained, evaluation.scores(), "1", [], [], "sqlite:///none")

        pretrain.pretrain = pretend
        return trial(point, **rest)

    return run
