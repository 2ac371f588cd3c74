"""The job as a user starts it: no cluster, no arguments of its own but a smaller set of scenes."""

from __future__ import annotations

import json
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


def job(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "jobs/pretrain.py", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment(**variables), capture_output=True, text=True)


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
    small = ("scenes.train_samples=64", "scenes.heldout_samples=8", "train.epochs=1", "train.batch_size=32")
    often = ("run.progress_every_s=0.1", "train.log_every=1")
    done = job(f"run.storage={tmp_path}", "run.name=demo", *small, *often, RAY_TMPDIR=str(ray_tmpdir))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "training on generated scenes (yours: data.shards=" in done.stdout
    assert re.search(r"step \d+/\d+  epoch 1\.00  loss \d", done.stdout)
    assert "relation/accuracy" in done.stdout
    assert "models:/structure-clip/1, alias candidate" in done.stdout
    assert f"ui --backend-store-uri sqlite:///{tmp_path}/mlflow.db" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_cluster_that_is_named_and_gone_is_one_error_and_no_local_run(
    log_format: str, tmp_path: Path
) -> None:
    gone = f"127.0.0.1:{free_port()}"
    done = job(f"run.storage={tmp_path}", f"run.log_format={log_format}", RAY_ADDRESS=gone)
    assert done.returncode == 2
    if log_format == "json":
        assert done.stderr == ""
        record = json.loads(done.stdout)
        assert record["levelname"] == "ERROR"
        assert record["message"].startswith(f"no Ray cluster answers at {gone}")
    else:
        assert re.fullmatch(r"pretrain: no Ray cluster answers at 127.*unset RAY_ADDRESS.*\n", done.stderr)
    assert not list(tmp_path.iterdir())
