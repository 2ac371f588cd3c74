"""The job as a user starts it: no cluster, no arguments of its own but a smaller set of scenes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, environment

pytestmark = pytest.mark.cluster


def test_without_a_cluster_the_job_starts_one_and_ends_with_a_registered_model(tmp_path: Path) -> None:
    command = [sys.executable, "jobs/pretrain.py", f"run.storage={tmp_path}", "run.name=demo"]
    command += [
        "scenes.train_samples=64",
        "scenes.heldout_samples=8",
        "train.epochs=1",
        "train.batch_size=32",
    ]
    command += ["run.progress_every_s=0.1", "train.log_every=1"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    out = done.stdout
    assert "training on generated scenes (yours: data.shards=" in out
    assert re.search(r"step \d+/\d+  epoch 1\.00  loss \d", out)
    assert "relation/accuracy" in out
    assert "models:/structure-clip/1, alias candidate" in out
    assert f"ui --backend-store-uri sqlite:///{tmp_path}/mlflow.db" in out
    assert done.stderr == ""
