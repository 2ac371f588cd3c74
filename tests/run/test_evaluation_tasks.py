"""Retention: the share of the earlier scores that a model keeps after training."""

from __future__ import annotations

import dataclasses

import pytest

from sclip.evaluate.result import Evaluation, Score
from sclip.run.evaluation_tasks import retention
from support.evaluations import evaluation, result


def scored(**values: tuple[str, float]) -> Evaluation:
    """Return an evaluation of benchmarks; `values` maps each name to kind and score."""
    scores = {name: {"r1": Score(value, value, value, 0.1)} for name, (_, value) in values.items()}
    return evaluation(
        *(dataclasses.replace(result(n), kind=values[n][0], headline="r1", scores=scores[n]) for n in values)
    )


def test_retention_is_the_share_of_each_retrieval_and_zero_shot_figure_that_is_left() -> None:
    before = {"coco": ("retrieval", 0.5), "held": ("shards", 0.4), "imagenet": ("zero-shot", 0.6)}
    after = {"imagenet": ("zero-shot", 0.45), "coco": ("retrieval", 0.55), "held": ("shards", 0.4)}
    uncounted = {"relation": ("vg-relation", 0.5), "blind": ("retrieval", 0.0)}
    expected = {"imagenet": 0.75, "coco": 1.1, "held": 1.0, "mean": 0.95}
    shares = retention(scored(**before, **uncounted), scored(**after, **uncounted, new=("retrieval", 0.5)))
    assert shares == pytest.approx({f"retention/{name}": kept for name, kept in expected.items()})
    assert retention(scored(**uncounted), scored(**uncounted)) == {}
