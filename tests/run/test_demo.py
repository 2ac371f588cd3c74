"""The job as a user starts it: no cluster, no arguments of its own but a smaller set of scenes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.paths import ROOT
from support.processes import environment, free_port

pytestmark = pytest.mark.cluster


@pytest.fixture
def ray_tmpdir() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="r-"))  # short: Ray's sockets in it have long names
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_without_a_cluster_the_job_starts_one_and_ends_with_a_registered_model(
    tmp_path: Path, ray_tmpdir: Path
) -> None:
    (ray_tmpdir / "ray").mkdir()
    (ray_tmpdir / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{free_port()}")  # of a head long gone
    command = [sys.executable, "jobs/pretrain.py", f"run.storage={tmp_path}", "run.name=demo"]
    command += [
        "scenes.train_samples=64",
        "scenes.heldout_samples=8",
        "train.epochs=1",
        "train.batch_size=32",
    ]
    command += ["run.progress_every_s=0.1", "train.log_every=1"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(RAY_TMPDIR=str(ray_tmpdir)), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    out = done.stdout
    assert "training on generated scenes (yours: data.shards=" in out
    assert re.search(r"step \d+/\d+  epoch 1\.00  loss \d", out)
    assert "relation/accuracy" in out
    assert "models:/structure-clip/1, alias candidate" in out
    assert f"ui --backend-store-uri sqlite:///{tmp_path}/mlflow.db" in out
    assert done.stderr == ""


def test_a_cluster_that_is_named_and_gone_is_one_error_and_no_local_run(tmp_path: Path) -> None:
    command = [sys.executable, "jobs/pretrain.py", f"run.storage={tmp_path}"]
    env = environment(RAY_ADDRESS=f"127.0.0.1:{free_port()}")
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 2
    assert re.fullmatch(r"pretrain: no Ray cluster answers at 127.*unset RAY_ADDRESS.*\n", done.stderr)
    assert not list(tmp_path.iterdir())
