"""Runs of a sweep that train nothing: Tune's processes are real, what they would train is made up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sclip.run import sweep

FAILS = 0.9
"""A run whose knowledge encoder has this weight or more fails."""


def made_up() -> Callable[..., Any]:
    """Return a trial that leaves, in a moment, what a run would: its scores are its weight and its margin."""
    fails, trial = FAILS, sweep._trial  # what a process of Tune's is given holds no module of the tests

    def run(given: dict[str, Any], **rest: Any) -> dict[str, Any]:
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
            found = Evaluation(config.run.name, {}, results)
            found.write(folder / EVALUATION_FILE)
            trained = {"samples": 1, "steps": 1, "step": 1, "filtered": 0, "quarantined": 0}
            return summary.Summary(folder, trained, found.scores(), "1", [], [], "sqlite:///none")

        pretrain.pretrain = pretend
        return trial(given, **rest)

    return run
