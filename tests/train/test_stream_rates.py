"""Figures over several steps and of the stream's stages, and which stage is reported as the limit."""

from __future__ import annotations

import math
import time

import pytest
import torch

from sclip.data.columns import Note
from sclip.train import reports, stream_rates
from sclip.train.reports import StepMeter
from sclip.train.stream_rates import StageMeter, limiting_stage

BUSY = {"read_utilisation": 0.3, "encode_utilisation": 0.95, "decode_samples_per_s": 900.0}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The fake time that the meters read, in a list of one element."""
    now = [0.0]
    fake_time = type("Clock", (), {"perf_counter": staticmethod(lambda: now[0])})
    for module in (stream_rates, reports):
        monkeypatch.setattr(module, "time", fake_time)
    return now


def note(samples: int, read_queued: float = 0.0, cut: int = 0, **seconds: float) -> Note:
    return Note(seconds=seconds, samples=samples, cut=cut, read_queued=read_queued, made_at=time.time())


def test_rates_describe_one_process_and_utilisation_and_queues_describe_all(clock: list[float]) -> None:
    figures = StageMeter()
    figures.add([note(60, 30.0, 25, read=1.0, blocked=3.0, decode=2.0, parse=4.0, idle=4.0)], queued=120.0)
    figures.add([note(40, 10.0, read=1.0, blocked=3.0, decode=2.0, parse=4.0, idle=4.0)], queued=80.0)
    clock[0] = 10.0
    rates = figures.take()
    assert rates["decode_samples_per_s"] == pytest.approx(25)
    assert rates["parse_samples_per_s"] == pytest.approx(12.5)
    assert rates["read_utilisation"] == pytest.approx(0.25)
    assert rates["encode_utilisation"] == pytest.approx(0.6)
    assert rates["encoders"] == pytest.approx(2)
    assert "draw_samples_per_s" not in rates
    assert rates["encoded_queue"] == pytest.approx(20)  # 10 samples a second, 2 seconds each
    assert rates["read_queue"] == pytest.approx(4)
    assert rates["captions_cut"] == 0.25
    assert figures.take() == {}


def test_the_limit_is_reported_with_its_remedy() -> None:
    for figures, data_wait, message in (
        (BUSY | {"parse_samples_per_s": 300.0}, 0.5, "parse actors are the limit: add CPUs or annotate"),
        (BUSY | {"parse_samples_per_s": 2000.0}, 0.5, "decode actors are the limit"),
        (BUSY | {"draw_samples_per_s": 20.0}, 0.5, "draw negatives"),
        (BUSY | {"encode_utilisation": 0.3}, 0.5, "readers are the limit: raise data.readers"),
        (BUSY | {"encode_utilisation": 0.3, "read_utilisation": 0.1}, 0.5, "Ray Data's executors"),
        (BUSY, 0.01, "training is the limit"),
    ):
        assert message in limiting_stage(figures, data_wait)
    assert limiting_stage({}, 0.5) == ""


def interval_metrics(meter: StepMeter) -> dict[str, float]:
    interval = meter.take()
    return interval.metrics(interval.sums.tolist())


def test_a_report_has_rates_and_means_of_the_finite_values_since_the_one_before(clock: list[float]) -> None:
    one = StepMeter(torch.device("cpu"))
    for loss, norm, rows in ((1.0, math.nan, 4), (math.nan, math.inf, 0), (2.0, -math.inf, 2)):
        one.add({"loss": torch.tensor(loss), "grad_norm": torch.tensor(norm)}, samples=rows, tokens=20)
    one.wait_s += 1.0
    clock[0] += 4.0
    assert one.steps == 3
    report = interval_metrics(one)
    assert math.isnan(report.pop("grad_norm"))
    assert report == {"loss": 1.5, "samples_per_s": 1.5, "tokens_per_s": 15.0, "data_wait": 0.25}
    one.add({"loss": torch.tensor(7.0)}, samples=2)
    clock[0] += 1.0
    assert interval_metrics(one) == {"loss": 7.0, "samples_per_s": 2.0, "data_wait": 0.0}
