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


def test_a_report_has_rates_and_means_of_the_finite_values_since_the_one_before(clock: list[float]) -> None:
    one = StepMeter(torch.device("cpu"))
    for loss, norm, rows in ((1.0, math.nan, 4), (math.nan, math.inf, 0), (2.0, -math.inf, 2)):
        one.add({"loss": torch.tensor(loss), "grad_norm": torch.tensor(norm)}, samples=rows, tokens=20)
    one.wait_s += 1.0
    clock[0] += 4.0
    assert one.steps == 3
    found = one.take()
    assert math.isnan(found.pop("grad_norm"))
    assert found == {"loss": 1.5, "samples_per_s": 1.5, "tokens_per_s": 15.0, "data_wait": 0.25}
    one.add({"loss": torch.tensor(7.0)}, samples=2)
    clock[0] += 1.0
    assert one.take() == {"loss": 7.0, "samples_per_s": 2.0, "data_wait": 0.0}
