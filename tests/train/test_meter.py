"""What is reported of several steps: means of the finite ones, rates of all."""

from __future__ import annotations

import math

import pytest
import torch

from sclip.train import reports
from sclip.train.reports import StepMeter


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the meter sees, to be moved on by a test."""
    now = [100.0]
    monkeypatch.setattr(reports.time, "perf_counter", lambda: now[0])
    return now


def test_a_report_has_means_and_rates_since_the_one_before(clock: list[float]) -> None:
    one = StepMeter(torch.device("cpu"))
    for loss, rows in ((1.0, 4), (2.0, 2)):
        one.add({"loss": torch.tensor(loss), "grad_norm": torch.tensor(0.5)}, samples=rows, tokens=30)
    one.wait_s += 1.0
    clock[0] += 4.0
    assert one.steps == 2
    assert one.take() == {
        "loss": 1.5, "grad_norm": 0.5, "samples_per_s": 1.5, "tokens_per_s": 15.0, "data_wait": 0.25,
    }  # fmt: skip
    one.add({"loss": torch.tensor(7.0)}, samples=2)
    clock[0] += 1.0
    assert one.take() == {"loss": 7.0, "samples_per_s": 2.0, "data_wait": 0.0}


def test_a_value_that_is_not_finite_is_in_no_mean(clock: list[float]) -> None:
    one = StepMeter(torch.device("cpu"))
    for loss, norm in ((1.0, math.nan), (math.nan, math.inf), (math.inf, math.nan), (2.0, -math.inf)):
        one.add({"loss": torch.tensor(loss), "grad_norm": torch.tensor(norm)})
    clock[0] += 1.0
    found = one.take()
    assert found["loss"] == 1.5
    assert math.isnan(found["grad_norm"])
