"""The scale benchmark: CPU cost of every process, and cluster models from these costs. No test asserts a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sclip.benchmark.scale import DEMANDS, GPUS, NAMES, Cost, cores, fitted
from sclip.benchmark.scale_stream import SHARED, Load
from support.paths import ROOT
from support.processes import environment


def test_the_fit_separates_the_cost_of_a_worker_from_the_cost_of_a_sample() -> None:
    rates = ((1, 3000.0), (2, 3100.0), (4, 2900.0))
    loads = [Load(workers, per_s, 0.1 * workers + 2e-5 * per_s) for workers, per_s in rates]
    assert fitted(loads) == pytest.approx(Cost(worker=0.1, sample=2e-5))
    shared = [
        Load(n, r, 0.3 + 0.1 * n + 2e-5 * r) for n, r in ((1, 1500.0), (2, 1600.0), (4, 1500.0), (4, 700.0))
    ]
    assert fitted(shared, is_shared=True) == pytest.approx(Cost(worker=0.1, sample=2e-5, constant=0.3))
    falling = fitted([Load(1, 3000.0, 0.2), Load(4, 3000.0, 0.1)])
    assert falling.worker == 0 < falling.sample


def test_a_worker_process_serves_one_gpu_a_node_process_eight_and_a_cluster_process_all() -> None:
    costs = dict.fromkeys(NAMES, Cost(worker=0.5, sample=1e-3))
    cluster_cores = dict.fromkeys(("gcs", "statistics", "driver"), 64 * (2 * 0.5 + 1.0))
    node_cores = dict.fromkeys(("raylet", "agents"), 8 * (2 * 0.5 + 1.0))
    stream_cores = dict.fromkeys(("coordinator", "reader"), 0.5 + 1.0 / 2)
    assert cores(costs, gpus=64, per_s=1000) == {"worker": 2.0} | stream_cores | node_cores | cluster_cores
    assert cores(costs, gpus=4, per_s=1000)["raylet"] == 4 * (2 * 0.5 + 1.0)
    costs = dict.fromkeys(NAMES, Cost(worker=0.0, sample=0.0, constant=0.3))
    assert cores(costs, gpus=64, per_s=1000)["gcs"] == 0.3


JOB = """
import sys
from sclip.benchmark import scale_stream
from sclip.cli import main
scale_stream._IDLE_S = 0.5  # of each of four measurements
sys.exit(main(["benchmark", *sys.argv[1:]]))
"""


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_the_job_measures_every_process_and_models_clusters_from_the_figures(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    options = f"scale --samples 512 --share 16 --workers 1 2 --image-size 32 --json {out}"
    command = [sys.executable, "-c", JOB, *options.split()]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = {row["what"]: row for row in json.loads(out.read_text())["rows"]}
    assert all(title in done.stdout for title in rows)
    figures = {kind: rows[f"microseconds a sample, {name}"]["figures"] for kind, name in NAMES.items()}
    costs = {}
    for kind, kind_figures in figures.items():
        loads = [Load(*load) for load in zip(*(kind_figures[name] for name in Load._fields), strict=True)]
        assert [load.workers for load in loads] == [1, 2, 2]
        assert all(load.per_s > 0 and load.cores >= 0 for load in loads)
        costs[kind] = fitted(loads, kind in SHARED)
        recorded = [kind_figures[name][0] for name in ("core_of_worker", "sample_s", "constant")]
        assert recorded == pytest.approx(list(costs[kind]))
    busy = {"worker", "coordinator", "reader", "encoder"}
    assert not [kind for kind in busy if not any(figures[kind]["cores"])]
    # CPU time is counted in ticks of 10 ms; one of Ray's own processes may use less than one tick
    assert any(any(figures[kind]["cores"]) for kind in ("gcs", "raylet", "agents"))
    assert len([title for title in rows if title.startswith("modelled: ")]) == len(DEMANDS) * len(GPUS)
    row = rows["modelled: 64 GPUs, 15,000 images a second each, ViT-B/32 at half an H100's peak"]
    needed = cores(costs, gpus=64, per_s=15_000)
    modelled = {name.removesuffix("_cores"): v[0] for name, v in row["figures"].items() if name != "share"}
    assert modelled == pytest.approx(needed)
    assert row["figures"]["share"] == pytest.approx([1 / max(1, *needed.values())])
    assert NAMES[max(needed, key=needed.__getitem__)] in row["found"]
