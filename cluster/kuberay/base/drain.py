"""Before a pod ends: tell Ray that its node will go, then wait until nothing of a run is left on it.

    python drain.py SECONDS

Kubernetes runs this as the pod's preStop hook, where a node is taken back, drained or scaled down, and sends SIGTERM
when it returns. Ray Train takes the notice as a preemption: the run writes a checkpoint and goes on without the node.
A node without work ends at once.
"""

from __future__ import annotations

import subprocess
import sys
import time

import psutil

RAYS_OWN = tuple(
    f"ray::{name}" for name in "IDLE SPILL RESTORE DELETE DashboardAgent RuntimeEnvAgent".split()
)
"""Titles of processes that wait for work or serve the node."""


def busy() -> bool:
    """Tell whether a task or actor runs here; Ray writes what a process does into its title."""
    titles = (process.info["cmdline"] or [""] for process in psutil.process_iter(["cmdline"]))
    return any(
        title[0].startswith("ray::") and not title[0].startswith(RAYS_OWN) for title in titles if title
    )


def main() -> int:
    """Return 0: a hook that failed would only end the pod without waiting."""
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
