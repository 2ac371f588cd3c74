"""A model registry on SQLite with small models, and evaluations with the scores that a test sets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mlflow import MlflowClient

from sclip.evaluate.result import Evaluation, Result, Score
from sclip.registry import register
from support.mlflow_stores import empty_store

NAME = "structure-clip"
RELATION = "vg_relation/macro"
RECALL = "coco/text_to_image_r1"


def evaluation(
    scores: Mapping[str, float], cases: int = 4, suite: str = "small", half: float = 0.02, **facts: str
) -> Evaluation:
    """Return an evaluation of `scores` ("benchmark/score" to value), each with an interval of `half` to either side."""
    results: dict[str, dict[str, Score]] = {}
    for name, value in scores.items():
        benchmark, _, score = name.partition("/")
        results.setdefault(benchmark, {})[score] = Score(value, value - half, value + half, 0.5)
    won = {f"case {number}": bool(number % 2) for number in range(cases)}
    counts = {"cases": cases, "images": 4}
    measured = [
        Result(benchmark, "vg-relation", "Made up.", next(iter(values)), values, counts, won)
        for benchmark, values in results.items()
    ]
    return Evaluation("a model", {"suite": suite} | facts, measured)


class Registry:
    """A separate store, and one exported model from which every version is made."""

    def __init__(self, folder: Path, exported: Path) -> None:
        self.uri = empty_store(folder)
        self.client = MlflowClient(self.uri, self.uri)
        self._exported = exported
        self.experiment = self.client.create_experiment("test", f"{folder}/artifacts")

    def add(
        self, scores: Mapping[str, float] | None, *gates: str, name: str = NAME, cases: int = 4, **facts: str
    ) -> str:
        run = self.client.create_run(self.experiment)
        measured = None if scores is None else evaluation(scores, cases, **facts)
        return register(self.client, run.info.run_id, self._exported, name, measured, gates)

    def aliases(self, name: str = NAME) -> dict[str, str]:
        return {
            alias: str(version) for alias, version in self.client.get_registered_model(name).aliases.items()
        }

    def tags(self, version: str, name: str = NAME) -> dict[str, str]:
        return dict(self.client.get_model_version(name, version).tags)
