"""What moving a sample costs: every process has a row, and clusters follow from these rows; no test looks at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sclip.benchmark.scale import DEMANDS, GPUS, NAMES, cores
from support.commands import command
from support.paths import ROOT
from support.processes import environment


def test_a_process_of_a_worker_serves_one_gpu_that_of_a_node_eight_and_that_of_the_cluster_all() -> None:
    needed = cores(dict.fromkeys(NAMES, 1e-6), gpus=64, per_s=1000, streams=2)
    assert needed == pytest.approx(
        {"worker": 1e-3, "coordinator": 5e-4, "reader": 5e-4, "raylet": 8e-3, "agents": 8e-3}
        | dict.fromkeys(("gcs", "statistics", "driver"), 64e-3)
    )
    assert cores(dict.fromkeys(NAMES, 1e-6), gpus=4, per_s=1000, streams=2)["raylet"] == pytest.approx(4e-3)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--samples", "1000"], "--samples: 32,768 or more, 16 batches for each worker"),
        (["--workers", "0"], "--share, --workers: 1 or more; --image-size: 32 or more"),
    ],
)
def test_the_job_tells_what_it_cannot_measure(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("benchmark")("scale", *arguments) == 2
    assert told in capsys.readouterr().err


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_the_job_measures_every_process_and_models_clusters_by_these_figures(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    options = "scale --samples 512 --share 16 --workers 1 2 --image-size 32"
    done = subprocess.run(
        [sys.executable, "jobs/benchmark.py", *options.split(), "--json", out],
        cwd=ROOT, env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = {row["what"]: row for row in json.loads(out.read_text())["rows"]}
    assert all(what in done.stdout for what in rows)
    measured = {
        kind: rows[f"microseconds of a core a sample, {name}"]["figures"] for kind, name in NAMES.items()
    }
    assert all(set(of_kind) == {"workers_1_s", "workers_2_s"} for of_kind in measured.values())
    most = {
        kind: max(seconds for values in of_kind.values() for seconds in values)
        for kind, of_kind in measured.items()
    }
    assert all(seconds >= 0 for seconds in most.values())
    assert most["reader"] > 0
    assert most["worker"] > 0
    modelled = [row for what, row in rows.items() if what.startswith("modelled: ")]
    assert len(modelled) == len(DEMANDS) * len(GPUS)
    row = rows["modelled: 64 GPUs, 15,000 images a second each, ViT-B/32 at half an H100's peak"]
    needed = {name.removesuffix("_cores"): of[0] for name, of in row["figures"].items() if name != "share"}
    assert needed == pytest.approx(
        {
            "worker": 15_000 * most["worker"],
            "raylet": 8 * 15_000 * most["raylet"],
            "agents": 8 * 15_000 * most["agents"],
        }
        | {kind: 15_000 / 2 * most[kind] for kind in ("coordinator", "reader")}
        | {kind: 64 * 15_000 * most[kind] for kind in ("gcs", "statistics", "driver")}
    )
    assert row["figures"]["share"] == pytest.approx([1 / max(1, *needed.values())])
    busiest = max(needed, key=needed.__getitem__)
    assert NAMES[busiest] in row["found"]
