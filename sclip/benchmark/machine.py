"""Describe the machine of a measurement: processor, cores, versions."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path


def machine(packages: Sequence[str]) -> dict[str, str]:
    """Return the processor, the cores and the versions of these packages, as text by name."""
    facts = {
        "processor": _processor(),
        "cores": f"{len(os.sched_getaffinity(0))} of {os.cpu_count()}, load {os.getloadavg()[0]:.1f}",
        "python": f"{platform.python_version()} on {platform.system()} {platform.release()}",
    }
    for package in packages:
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            facts[package] = "not installed"
    return facts


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def memory_bytes(name: str) -> int:
    """Return the memory of this process. `name` is VmRSS for the current value, VmHWM for the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (match,) = (line for line in lines if line.startswith(f"{name}:"))
    return 1024 * int(match.split()[1])
