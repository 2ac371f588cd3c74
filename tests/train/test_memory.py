"""A run over many shards takes no more memory in its last epoch than in its second."""

from __future__ import annotations

import io
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from rich.console import Console

from sclip.config.loader import load
from sclip.run import pretrain
from sclip.run.progress import Progress
from support.pictures import picture
from support.ray_head import Head
from support.tars import tar_bytes

pytestmark = pytest.mark.cluster

SHARDS, PER_SHARD, EPOCHS = 120, 4, 5
MB = 2**20
PROCESSES = {"MapWorker": "encoders", "RayTrainWorker": "workers", "SplitCoordinator": "splitter"}


def write_shards(folder: Path) -> None:
    """Write shards of 4 samples; all captions differ."""
    colours = "red green blue yellow purple orange black white".split()
    for number in range(SHARDS):
        members = []
        for index in range(PER_SHARD):
            key = number * PER_SHARD + index
            caption = f"a {colours[key % 8]} dog chasing {number} {colours[key // 8 % 8]} cats"
            members.append((f"{key:06d}.jpg", picture((key % 256, 99, index * 60), (80, 64), "JPEG")))
            members.append((f"{key:06d}.txt", caption.encode()))
        (folder / f"{number:03d}.tar").write_bytes(tar_bytes(members))


def memory() -> dict[str, float]:
    """Return the bytes of the driver, of each kind of process, of Ray's objects, and the bytes that Ray spilled."""
    used: defaultdict[str, float] = defaultdict(float)
    used["driver"] = psutil.Process().memory_info().rss
    for process in psutil.process_iter(["cmdline"]):
        title = " ".join(process.info["cmdline"] or ())
        for name, kind in PROCESSES.items():
            if title.startswith("ray::") and name in title:
                memory = process.memory_info()
                # largest process, without the memory mapped from the object store
                used[kind] = max(used[kind], memory.rss - memory.shared)
    store = ray._private.internal_api.get_memory_info_reply(
        ray._private.internal_api.get_state_from_address()
    ).store_stats
    used["objects"], used["spilled"] = store.object_store_bytes_used, store.spilled_bytes_total
    return used


def test_neither_driver_nor_actors_nor_the_object_store_grow_from_the_second_epoch_to_the_last(
    head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", head.address)
    (shards := tmp_path / "shards").mkdir()
    write_shards(shards)
    epoch_memory: defaultdict[int, list[dict[str, float]]] = defaultdict(list)
    shown = Progress.report

    def report(self: Progress, report: dict[str, Any]) -> None:
        shown(self, report)
        if report["kind"] == "metrics":
            epoch_memory[int(report["metrics"]["epoch"])].append(memory())

    monkeypatch.setattr(Progress, "report", report)
    overrides = (
        f"data.shards={shards}/*.tar", f"run.storage={tmp_path}", "run.name=many", "model.kee.layers=1",
        f"train.epochs={EPOCHS}", "train.batch_size=16", "train.num_workers=1", "train.worker_cpus=0.4",
        "train.log_every=5", "data.actor_cpus=0.4", "data.actors_max=1", "data.block_samples=16", "checkpoint.every=10",
        "evaluate.retrieval_images=8",
    )  # fmt: skip
    # A checkpoint every ten steps: the first ones allocate the buffers that later ones reuse.
    config = load(overrides)
    try:
        summary = pretrain.pretrain(config, Console(file=io.StringIO()))
    finally:
        ray.shutdown()
    assert summary.trained["samples"] == SHARDS * PER_SHARD * EPOCHS
    for kind in ("driver", *PROCESSES.values(), "objects"):
        # the minimum of an epoch, since a checkpoint's buffers come and go
        second, last = (min(m[kind] for m in epoch_memory[epoch]) for epoch in (1, EPOCHS - 1))
        assert second > 0, kind
        share = 0.1 if kind == "workers" else 0.05
        assert last - second < max(share * second, 8 * MB), (kind, second / MB, last / MB)
    spilled = [m["spilled"] for samples in epoch_memory.values() for m in samples]
    assert spilled[0] == spilled[-1]
