"""Record the load of the driver's node with MLflow's collectors, as the metrics `system/...` of a run.

MLflow's own monitor gives up if the store does not answer. The metrics of this module go through the journal.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import psutil
from mlflow.environment_variables import MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

PREFIX = "system/"


def monitors() -> list[Any]:
    """Return the collectors of CPU and memory, disk, network and, if present, NVIDIA GPUs."""
    collectors = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with contextlib.suppress(ImportError, RuntimeError):  # no driver or no GPU
        collectors.append(GPUMonitor())
    return collectors


def sample(collectors: list[Any]) -> dict[str, float]:
    """Return the current metrics; each name ends with its unit."""
    metrics: dict[str, float] = {}
    for monitor in collectors:
        monitor.collect_metrics()
        metrics |= {f"{PREFIX}{name}": float(value) for name, value in monitor.aggregate_metrics().items()}
        monitor.clear_metrics()
    return metrics


class Sampler:
    """Daemon thread that takes a sample every few seconds."""

    def __init__(self, log: Callable[[dict[str, float], int], None], step: int) -> None:
        """Start the thread. After one interval, it logs the first sample at `step`."""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(log, step), name="system", daemon=True)
        self._thread.start()

    def _run(self, log: Callable[[dict[str, float], int], None], step: int) -> None:
        collectors = monitors()
        every_s = float(MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL.get() or 10)  # MLflow's default
        while not self._closing.wait(every_s):
            with contextlib.suppress(OSError, psutil.Error):  # a sandbox without /proc
                log(sample(collectors), step)
                step += 1

    def close(self) -> None:
        """Stop the thread."""
        self._closing.set()
        self._thread.join(timeout=1.0)
