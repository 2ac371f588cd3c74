"""What training kept of what the model knew before."""

from __future__ import annotations

import dataclasses

import pytest

from sclip.evaluate.result import Result, Score
from sclip.run.evaluation_tasks import retention
from support.evaluations import evaluation, result


def benchmark(name: str, kind: str, value: float) -> Result:
    return dataclasses.replace(
        result(name), kind=kind, headline="r1", scores={"r1": Score(value, value, value, 0.1)}
    )


def test_retention_is_the_share_of_each_retrieval_and_zero_shot_figure_that_is_left() -> None:
    before = evaluation(
        benchmark("coco", "retrieval", 0.5),
        benchmark("held-out", "shards", 0.4),
        benchmark("imagenet", "zero-shot", 0.6),
    )
    after = evaluation(
        benchmark("imagenet", "zero-shot", 0.45),
        benchmark("coco", "retrieval", 0.55),
        benchmark("held-out", "shards", 0.4),
    )
    found = retention(before, after)
    assert found == pytest.approx(
        {"retention/imagenet": 0.75, "retention/coco": 1.1, "retention/held-out": 1.0, "retention/mean": 0.95}
    )


def test_other_benchmarks_and_those_without_a_figure_before_have_no_retention() -> None:
    before = evaluation(benchmark("relation", "vg-relation", 0.5), benchmark("coco", "retrieval", 0.0))
    after = evaluation(
        benchmark("relation", "vg-relation", 0.9),
        benchmark("coco", "retrieval", 0.5),
        benchmark("new", "retrieval", 0.5),
    )
    assert retention(before, after) == {}
