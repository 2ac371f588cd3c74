"""A run started as a user starts it, observed from outside: listening sockets, Prometheus metrics, and logs.

Its URIs contain credentials in every possible way. No file and no log line of the run may contain them.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from safetensors.numpy import load_file

from sclip.config import ScenesConfig
from sclip.data.patterns import expand
from sclip.launch.exporter import COUNTERS, GAUGES
from sclip.prepare import scenes
from support.commands import command
from support.paths import ROOT
from support.processes import environment, free_port
from support.runs import TINY
from support.storage_server import Storage, serving

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

PASSWORD, SIGNATURE = "planted-password", "planted-signature"
_LOOK_S = 2.0


@dataclass
class Seen:
    """Observations of the run from outside."""

    folder: Path
    ray: Path
    shards: str
    status: int = -1
    out: str = ""
    error: str = ""
    listening: set[tuple[str, str]] = field(default_factory=set)
    """Address and program of each listening socket."""
    metrics: dict[str, set[str]] = field(default_factory=dict)
    """Values of each metric; the key is the metric's name, a space, and the run's name."""

    def look(self, driver: psutil.Process) -> None:
        """Look once at the driver and at all processes that it started."""
        for process in [driver, *driver.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                name = " ".join(process.cmdline()).strip()
                program = name.split(" ")[0].rpartition("/")[2]
                for connection in process.net_connections("inet"):
                    if connection.status == psutil.CONN_LISTEN:
                        self.listening.add((connection.laddr.ip, program))
                        if "DashboardAgent" in name:
                            self._read_metrics(connection.laddr.port)

    def _read_metrics(self, port: int) -> None:
        """Read Prometheus metrics from a port of the agent. Its other ports do not serve HTTP or have no such page."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
                text = page.read().decode()
            for name, labels, value in re.findall(r"^(ray_sclip_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
                (run,) = re.findall(r'\brun="([^"]*)"', labels)
                self.metrics.setdefault(f"{name} {run}", set()).add(value)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    storage = tmp_path_factory.mktemp("storage")
    made = scenes.generate(
        tmp_path_factory.mktemp("made"), ScenesConfig(train_samples=96, heldout_samples=8), 0
    )
    files = {f"/{number}.tar": Path(tar).read_bytes() for number, tar in enumerate(expand([made.train]))}
    ray = Path(tempfile.mkdtemp(prefix="r-"))  # short, since Ray's sockets in it have long names
    try:
        with serving(Storage(files, user=f"name:{PASSWORD}", signature=f"sig={SIGNATURE}")) as server:
            names = f"{{0..{len(files) - 1}}}.tar"
            shards = f"http://name:{PASSWORD}@{server.host}/{names}?sig={SIGNATURE}"
            observed = Seen(storage / "runs" / "observed", ray, shards)
            _run(observed, storage)
            yield observed
    finally:
        shutil.rmtree(ray, ignore_errors=True)


def _run(seen: Seen, storage: Path) -> None:
    """Run the job to its end, and observe it meanwhile."""
    tracking = {"uri": f"http://name:{PASSWORD}@127.0.0.1:{free_port()}", "offline": True}
    secret = {
        "data": {"shards": [seen.shards]},
        "evaluate": {"retrieval": [seen.shards]},
        "tracking": tracking,
    }
    config = storage.parent / "secret.yaml"
    default = yaml.safe_load((ROOT / "jobs/configs/scenes.yaml").read_text())
    config.write_text(yaml.safe_dump(default | secret))
    command = [sys.executable, "jobs/pretrain.py", "--config", str(config), *TINY, f"run.storage={storage}"]
    command += ["run.name=observed", "run.log_format=json", "train.epochs=4", "checkpoint.every=8"]
    driver = subprocess.Popen(
        command, cwd=ROOT, env=environment(RAY_TMPDIR=str(seen.ray)), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    ended = threading.Event()

    def watch() -> None:
        process = psutil.Process(driver.pid)
        while not ended.wait(_LOOK_S):
            with contextlib.suppress(psutil.NoSuchProcess):
                seen.look(process)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        seen.out, seen.error = driver.communicate(timeout=600)
    finally:
        ended.set()
        watcher.join()
        driver.kill()
    seen.status = driver.returncode


def test_the_run_listens_only_on_this_machine(seen: Seen) -> None:
    def is_loopback(address: str) -> bool:
        ip = ip_address(address)
        mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
        return (mapped or ip).is_loopback

    assert seen.status == 0, seen.out + seen.error
    assert json.loads((seen.folder / "complete.json").read_text())["samples"] == 4 * 96
    assert {"ray::RayTrainWorker", "raylet", "gcs_server"} <= {program for _, program in seen.listening}
    assert sorted(listener for listener in seen.listening if not is_loopback(listener[0])) == []


def test_prometheus_reads_the_metrics_under_the_names_that_the_dashboard_uses(seen: Seen) -> None:
    unknown = {"sclip_mfu_ratio"}  # not reported without a GPU
    expected = {f"ray_{name} observed" for name in (GAUGES.keys() | COUNTERS.keys()) - unknown}
    assert seen.metrics.keys() == expected
    assert seen.metrics["ray_sclip_samples_total observed"] & {f"{4 * 96}.0"}
    assert seen.metrics["ray_sclip_training observed"] <= {"0.0", "1.0"}
    assert seen.metrics["ray_sclip_planned_samples observed"] == {f"{4 * 96}.0"}


def test_driver_and_workers_log_json_with_run_rank_and_step(seen: Seen) -> None:
    records = [json.loads(line) for line in seen.out.splitlines()]
    assert all(record["asctime"] and record["levelname"] and record["message"] for record in records)
    assert {record["run_name"] for record in records} == {"observed"}
    steps = [record["step"] for record in records if record["message"] == "trained"]
    assert steps == list(range(1, len(steps) + 1))
    assert records[-1]["message"] == "finished"
    assert records[-1]["scores"]
    assert seen.error == ""

    files = seen.ray.glob("ray/session_2*/logs/train/ray-train-app-worker-*.log")
    ours: dict[int, list[dict[str, Any]]] = {}
    for record in (json.loads(line) for file in files for line in file.read_text().splitlines()):
        if record["filename"] in ("loop.py", "run_checkpoints.py"):
            ours.setdefault(record["world_rank"], []).append(record)
    assert ours.keys() == {0, 1}
    for rank_records in ours.values():
        assert {record["run_name"] for record in rank_records} == {"observed"}
        assert [record["step"] for record in rank_records][:2] == [0, 8]


def test_no_file_or_log_of_the_run_holds_a_secret_and_no_file_is_a_pickle(
    seen: Seen, capsys: pytest.CaptureFixture[str]
) -> None:
    places = [seen.folder.parent.parent, seen.ray]
    every = [path for folder in places for path in folder.rglob("*")]
    files = [path for path in every if path.is_file() and not path.is_symlink()]
    known = "config.json shards.json evaluation.json report.html tracking.jsonl manifest.json".split()
    assert set(known) <= {path.name for path in files}
    for secret in (PASSWORD, SIGNATURE):
        assert [str(path) for path in files if secret.encode() in path.read_bytes()] == []
        assert secret not in seen.out + seen.error
    for path in (path for path in files if seen.folder in path.parents):
        assert path.suffix in ("", ".json", ".jsonl", ".html", ".safetensors")
        if path.suffix == ".safetensors":
            load_file(path)
        else:
            path.read_text()  # fails for a pickle, which is not text
    assert command("audit")(seen.folder) == 2
    assert "--shards" in capsys.readouterr().err
    assert command("audit")(seen.folder, "--shards", seen.shards) == 0
