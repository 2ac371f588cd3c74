"""How busy this machine is, by MLflow's own collectors, in; `system/...` metrics of a run out.

MLflow's monitor sends them itself and gives up where the store is away; here they go the way of all metrics, and
survive that. Of the driver's node: the stages and steps of the workers are in `stream/...` and `train/...`.
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

_EVERY_S = 10.0
"""MLflow's default; MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL is another."""


def monitors() -> list[Any]:
    """Return the collectors that work here: CPU and memory, disk, network, and NVIDIA's GPUs where there are any."""
    found = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with contextlib.suppress(ImportError, RuntimeError):  # no driver, no GPU
        found.append(GPUMonitor())
    return found


def sample(of: list[Any]) -> dict[str, float]:
    """Return what the collectors see now: percent, megabytes, watts, as each name says."""
    seen: dict[str, float] = {}
    for monitor in of:
        monitor.collect_metrics()
        seen |= {f"{PREFIX}{name}": float(value) for name, value in monitor.aggregate_metrics().items()}
        monitor.clear_metrics()
    return seen


class Sampler:
    """Takes a sample every few seconds, in a daemon thread."""

    def __init__(self, log: Callable[[dict[str, float], int], None], step: int) -> None:
        """Begin; the first sample, at `step`, comes after the first interval."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(log, step), name="system", daemon=True)
        self._thread.start()

    def _run(self, log: Callable[[dict[str, float], int], None], step: int) -> None:
        of, every_s = monitors(), float(MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL.get() or _EVERY_S)
        while not self._over.wait(every_s):
            try:
                log(sample(of), step)
            except (OSError, psutil.Error):  # of a sandbox without /proc; the next time perhaps
                continue
            step += 1

    def close(self) -> None:
        """End the thread."""
        self._over.set()
        self._thread.join(timeout=1.0)
