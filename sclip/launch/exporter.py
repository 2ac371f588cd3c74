"""Export a run's metrics to Prometheus: take them from the worker loop's reports, pass them to Ray's own exporter.

The driver receives these reports anyway, to show and record them. They cover all ranks, so the loop measures nothing
extra for Prometheus. The only label is the name of the run.

Measured with Ray 2.60: Ray exports each metric as `ray_` plus its name here. Ray adds no suffix to a counter whose name
already ends in _total. A gauge disappears 20 s after it was last set, so a thread sets all gauges again. Ray drops NaN.
Ray still sends values that were set just before the process ended.
"""

from __future__ import annotations

import math
import threading
import time
from types import TracebackType
from typing import Any

from ray.util.metrics import Counter, Gauge

from sclip.train.health import TrainingDiverged

GAUGES = {
    "sclip_training": "1 while workers train; 0 after training is complete or was stopped by hand",
    "sclip_workers": "Training workers",
    "sclip_restarts": "Restarts of the workers after a loss",
    "sclip_step": "Optimizer steps",
    "sclip_epoch": "Epochs trained so far, with a fraction",
    "sclip_samples": "Samples that the weights were trained on",
    "sclip_planned_samples": "Samples of all epochs together",
    "sclip_loss": "Mean loss over the steps since the last report",
    "sclip_learning_rate": "Learning rate",
    "sclip_grad_norm": "Norm of the gradient before clipping",
    "sclip_samples_per_second": "Samples trained per second",
    "sclip_tokens_per_second": "Text tokens trained per second",
    "sclip_data_wait_ratio": "Share of the time in which training waited for data",
    "sclip_mfu_ratio": "Model FLOP/s divided by the peak of the GPUs, if the peak is known",
    "sclip_quarantined_samples": "Samples that could not be trained on",
    "sclip_filtered_samples": "Samples left out because of the size of their graphs",
    "sclip_nonfinite_steps": "Steps without an update, because the loss or gradient was not finite",
    "sclip_checkpoint_step": "Step of the newest complete checkpoint",
    "sclip_checkpoint_timestamp_seconds": "Completion time of the newest checkpoint; at first the driver's start",
    "sclip_checkpoint_stall_seconds": "Seconds that training stood still for the newest checkpoint",
    "sclip_read_utilisation_ratio": "Share of the time in which readers read",
    "sclip_encode_utilisation_ratio": "Share of the time in which encoders work",
    "sclip_encoded_queue_samples": "Encoded samples that wait for a worker",
}
COUNTERS = {
    "sclip_samples_total": "Samples trained on, including repeated ones after a restart from a checkpoint",
    "sclip_train_seconds_total": "Reported seconds of training",
    "sclip_data_wait_seconds_total": "Reported seconds in which training waited for data",
}

_METRIC_NAMES = {
    "epoch": "sclip_epoch", "loss": "sclip_loss", "learning_rate": "sclip_learning_rate",
    "grad_norm": "sclip_grad_norm", "samples_per_s": "sclip_samples_per_second",
    "tokens_per_s": "sclip_tokens_per_second", "data_wait": "sclip_data_wait_ratio", "mfu": "sclip_mfu_ratio",
    "quarantined": "sclip_quarantined_samples", "filtered": "sclip_filtered_samples",
    "skipped": "sclip_nonfinite_steps",
}  # fmt: skip
_STREAM_NAMES = {
    "read_utilisation": "sclip_read_utilisation_ratio", "encode_utilisation": "sclip_encode_utilisation_ratio",
    "encoded_queue": "sclip_encoded_queue_samples",
}  # fmt: skip
_AGAIN_S = 5.0  # half of Ray's report interval


class RunMetrics:
    """Context manager that exports the metrics of one run while the run trains.

    sclip_training is 1 during training, and 0 after training is complete or a signal stopped it. If an error ends the
    training, sclip_training stays at 1 until the process ends, so that an alert sees the failure.
    `samples` is the number of samples of all epochs together.
    """

    def __init__(self, run: str, samples: int) -> None:
        self._labels = {"run": run}
        self._gauges = {name: Gauge(name, text, ("run",)) for name, text in GAUGES.items()}
        self._counters = {name: Counter(name, text, ("run",)) for name, text in COUNTERS.items()}
        self._values: dict[str, float] = {
            "sclip_training": 1, "sclip_restarts": 0, "sclip_planned_samples": samples,
            "sclip_checkpoint_timestamp_seconds": time.time(),
        }  # fmt: skip
        self._samples = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._again, name="prometheus", daemon=True)

    def __enter__(self) -> RunMetrics:
        self._set({})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if str(error).startswith(TrainingDiverged.__name__):  # count the step that diverged
            self._set({"sclip_nonfinite_steps": self._values.get("sclip_nonfinite_steps", 0) + 1})
        elif not isinstance(error, Exception):  # training is complete, or a signal ended it
            self._set({"sclip_training": 0})
        self._ended.set()
        self._thread.join()

    def report(self, report: dict[str, Any]) -> None:
        """Set the metrics from one report of the worker loop."""
        kind = report["kind"]
        if kind == "start":
            self._samples = report["samples"]
            self._set(
                {
                    "sclip_workers": report["workers"],
                    "sclip_step": report["step"],
                    "sclip_samples": report["samples"],
                    "sclip_quarantined_samples": report["quarantined"],
                    "sclip_nonfinite_steps": report["skipped"],
                }
            )
        elif kind == "lost":
            self._set({"sclip_restarts": self._values["sclip_restarts"] + 1})
        elif kind == "checkpoint":
            self._set(
                {
                    "sclip_checkpoint_step": report["step"],
                    "sclip_checkpoint_timestamp_seconds": time.time(),
                    "sclip_checkpoint_stall_seconds": report["seconds"],
                }
            )
        elif kind == "metrics":
            self._metrics(report)

    def _metrics(self, report: dict[str, Any]) -> None:
        metrics, stream = report["metrics"], report["stream"]
        values = {"sclip_step": report["step"], "sclip_samples": report["samples"]}
        values |= {_METRIC_NAMES[name]: value for name, value in metrics.items() if name in _METRIC_NAMES}
        values |= {_STREAM_NAMES[name]: value for name, value in stream.items() if name in _STREAM_NAMES}
        self._set(values)
        new, self._samples = report["samples"] - self._samples, report["samples"]
        seconds = new / metrics["samples_per_s"] if new > 0 else 0.0
        self._add("sclip_samples_total", new)
        self._add("sclip_train_seconds_total", seconds)
        self._add("sclip_data_wait_seconds_total", seconds * metrics["data_wait"])

    def _add(self, name: str, value: float) -> None:
        if value > 0:  # Ray rejects other increments
            self._counters[name].inc(value, self._labels)

    def _set(self, values: dict[str, float]) -> None:
        with self._lock:
            self._values |= values
            for name, value in self._values.items():
                if math.isfinite(value):
                    self._gauges[name].set(value, self._labels)

    def _again(self) -> None:
        while not self._ended.wait(_AGAIN_S):
            self._set({})
