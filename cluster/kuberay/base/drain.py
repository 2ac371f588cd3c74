"""Before a pod ends, tell Ray that its node will go, and wait until no task or actor of a run is left on the node.

    python drain.py SECONDS

Kubernetes runs this as the pod's preStop hook when a node is taken back, drained or scaled down, and sends SIGTERM when
the hook returns. Ray Train treats the notice as a preemption: the run writes a checkpoint and continues without the
node. For a node without work, the hook returns at once.
"""

from __future__ import annotations

import subprocess
import sys
import time

import psutil

RAYS_OWN = tuple(
    f"ray::{name}" for name in "IDLE SPILL RESTORE DELETE DashboardAgent RuntimeEnvAgent".split()
)
"""Prefixes of the titles of Ray processes that wait for work or serve the node."""


def busy() -> bool:
    """Return whether a task or actor runs here; Ray writes a process's work into the process's title."""
    titles = (process.info["cmdline"] or [""] for process in psutil.process_iter(["cmdline"]))
    return any(
        title[0].startswith("ray::") and not title[0].startswith(RAYS_OWN) for title in titles if title
    )


def main() -> int:
    """Give notice if the node is busy, and wait. Return 0, because after a failed hook the pod would end at once."""
    seconds = int(sys.argv[1])
    deadline = time.monotonic() + seconds
    if not busy():
        return 0
    notice = ["ray", "drain-node", "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    notice += ["--reason-message", "the pod is ending", "--deadline-remaining-seconds", str(seconds)]
    told = subprocess.run(notice, check=False, timeout=seconds)
    print(f"drain: notice {'given' if told.returncode == 0 else 'refused'}", flush=True)
    while busy() and time.monotonic() < deadline:
        time.sleep(0.5)
    return 0


if __name__ == "__main__":
    sys.exit(main())
