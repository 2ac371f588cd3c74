"""Prometheus metrics of a run, from its reports: counters only grow, gauges stay, and the end shows."""

from __future__ import annotations

import contextlib
import math
import threading
from collections import defaultdict
from typing import Any

import pytest

from sclip.launch import exporter as prometheus
from sclip.launch.exporter import COUNTERS, GAUGES, RunMetrics
from sclip.launch.trainer import TrainingFailed

START = dict.fromkeys("step samples quarantined filtered skipped".split(), 0) | {
    "kind": "start",
    "workers": 2,
}


class Node:
    """The metric values that Ray's agent of the node has for one run."""

    def __init__(self) -> None:
        self.values: defaultdict[str, float] = defaultdict(float)
        self.times_set = 0
        self.set_again = threading.Event()

    def __getitem__(self, name: str) -> float:
        return self.values[f"sclip_{name}"]

    def metric(self, name: str, text: str, labels: tuple[str, ...]) -> Node._Metric:
        return self._Metric(self, name, labels)

    class _Metric:
        def __init__(self, node: Node, name: str, labels: tuple[str, ...]) -> None:
            self._node, self._name, self._labels = node, name, labels

        def set(self, value: float, labels: dict[str, str]) -> None:
            assert tuple(labels) == self._labels
            assert math.isfinite(value)
            self._node.values[self._name] = value
            self._node.times_set += self._name == "sclip_training"
            if self._node.times_set == 3:
                self._node.set_again.set()

        def inc(self, value: float, labels: dict[str, str]) -> None:
            assert tuple(labels) == self._labels
            assert value > 0
            self._node.values[self._name] += value


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    fake_node = Node()
    monkeypatch.setattr(prometheus, "Gauge", fake_node.metric)
    monkeypatch.setattr(prometheus, "Counter", fake_node.metric)
    return fake_node


def trained(step: int, samples: int, **metrics: float) -> dict[str, Any]:
    values = {"loss": 2.0, "samples_per_s": 50.0, "data_wait": 0.1, "quarantined": 3, "skipped": 0} | metrics
    report = {"kind": "metrics", "step": step, "samples": samples, "metrics": values, "limit": ""}
    return report | {"stream": {"encode_utilisation": 0.5}}


def test_every_report_updates_its_metrics(node: Node) -> None:
    with RunMetrics("first", samples=1000) as exported:
        exported.report(START)
        exported.report(trained(10, 100, mfu=0.4))
        exported.report({"kind": "checkpoint", "path": "x", "step": 10, "seconds": 0.5})
        exported.report(trained(30, 300, samples_per_s=100.0, data_wait=0.5))
        # Values that are not finite change nothing.
        exported.report(trained(30, 300, loss=math.nan, grad_norm=math.inf, data_wait=0.5))
        assert node["training"] == 1
    assert node.values.keys() <= GAUGES.keys() | COUNTERS.keys()
    assert "sclip_grad_norm" not in node.values
    expected = {
        "training": 0, "step": 30, "samples": 300, "planned_samples": 1000, "loss": 2.0, "mfu_ratio": 0.4,
        "quarantined_samples": 3, "checkpoint_step": 10, "checkpoint_stall_seconds": 0.5,
        "encode_utilisation_ratio": 0.5, "samples_total": 300, "train_seconds_total": 2 + 2,
        "data_wait_seconds_total": 0.2 + 1,
    }  # fmt: skip
    assert {name: node[name] for name in expected} == pytest.approx(expected)


def test_samples_retrained_after_a_restart_count_again_and_samples_before_the_start_do_not(
    node: Node,
) -> None:
    with RunMetrics("first", samples=1000) as exported:
        exported.report(START | {"step": 50, "samples": 500, "quarantined": 7, "skipped": 2})
        assert (node["quarantined_samples"], node["nonfinite_steps"]) == (7, 2)
        exported.report(trained(60, 600))
        exported.report({"kind": "lost", "reason": "worker 1"})
        exported.report(START | {"workers": 1, "step": 55, "samples": 550, "quarantined": 2})
        assert (node["samples"], node["samples_total"]) == (550, 100)
        exported.report(trained(60, 600))
    assert (node["samples_total"], node["restarts"], node["workers"]) == (150, 1, 1)


@pytest.mark.parametrize(
    ("error", "training", "nonfinite"),
    [
        (TrainingFailed("TrainingDiverged: step 7: loss is nan"), 1, 1),
        (TrainingFailed("worker 0: OSError: no space left"), 1, 0),
        (KeyboardInterrupt(), 0, 0),
    ],
)
def test_only_a_run_that_fails_leaves_its_training_unfinished(
    node: Node, error: BaseException, training: int, nonfinite: int
) -> None:
    exported = RunMetrics("first", samples=1000)
    with contextlib.suppress(type(error)), exported:
        exported.report(START)
        raise error
    assert (node["training"], node["nonfinite_steps"]) == (training, nonfinite)


def test_gauges_are_set_again_without_a_report(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray forgets gauges that are not set again, and the next report may be minutes away."""
    monkeypatch.setattr(prometheus, "_AGAIN_S", 0.01)
    with RunMetrics("first", samples=1000):
        assert node.set_again.wait(20)
