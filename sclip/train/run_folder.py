"""The folder of a run: its config and shards, its checkpoints, its quarantine, and whether it is done.

    config.json       the resolved config, compared when the run is started again
    shards.json       names of the shards of each source, where they lie and their sample counts; names and counts are
                      fixed for the life of the run. In both of these URIs stand without credentials and query values
    step-00000500/    a checkpoint (`sclip.train.checkpoint`)
    alive             touched while the run goes on
    lease/            which process runs it (`sclip.run.lease`); gone with its end
    held-step-*       a checkpoint that is being evaluated
    init.safetensors  the weights that it starts from, where a file, a folder or the registry gave them
    losses.json       what is known before of shards that are no tars, and of wrong counts (`sclip.run.shard_losses`)
    quarantine.jsonl  samples that could not be trained on: step, source, pass, name, shard, index, key, reason; and
                      shards in which recorded samples are missing, with how many in "missing"
    ledger/           what each rank trained on in each step (`sclip.train.ledger`)
    trace-*.json.gz   of chosen steps, a file a rank (`health.profile_steps`)
    complete.json     written when every sample was trained on
    model/            the exported model
    evaluation.json   what was measured of it, and evaluation-before.json of the weights that training started from
    report.html       the same as a page, comparison.html beside those or another run
    tracking.jsonl    what MLflow is told (`sclip.tracking`)
    tensorboard/      the same metrics for TensorBoard, and wandb/ for `wandb sync` if that is offline
    result.json       scores and registered version, the last thing that a run writes

Every file is written in one piece, so that a reader never sees half of one. The folder may be one of an object store:
checkpoints are then staged on the disks of the nodes that write and read them (`sclip.storage.paths`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from sclip.config import ModelConfig
from sclip.model.architecture import ModelError
from sclip.storage.paths import StoragePath, append, local_copy, move, remove, sizes, write
from sclip.train import manifest

_HELD = "held-"
ALIVE = "alive"
"""Touched at every report of a run that goes on; in an object store once in `_ALIVE_S`."""
_ALIVE_S = 60.0
LEASE = "lease"
"""Folder of the file by which a process owns the run, written anew every few seconds."""


class RunFolder:
    """Paths and small files of one run."""

    def __init__(self, path: StoragePath) -> None:
        self.path = path
        self._touched = -math.inf
        self.model = path / "model"
        self.init = path / "init.safetensors"
        self.quarantine = path / "quarantine.jsonl"

    @contextlib.contextmanager
    def starting(self, model: ModelConfig) -> Iterator[ModelConfig]:
        """Give the config of the model with the weights that the run starts from on this node's disk, if it has any.

        Raises ModelError where it trains updates of weights (`model.lora`) that are gone.
        """
        with local_copy(self.path, names=[self.init.name]) as folder:
            file = folder / self.init.name
            if model.lora.rank and not file.exists() and not model.pretrained:
                raise ModelError(self.no_start)
            yield dataclasses.replace(model, pretrained=str(file)) if file.exists() else model

    @property
    def no_start(self) -> str:
        """What is wrong where the weights are gone that the checkpoints are updates of."""
        return (
            f"{self.init}: no such file; with model.lora.rank a run's checkpoints are updates of these weights: "
            "bring the file back, or name another run (run.name)"
        )

    def step_path(self, step: int) -> StoragePath:
        """Return where the checkpoint of an optimizer step stands."""
        return self.path / f"step-{step:08d}"

    def trace_path(self, step: int, rank: int) -> StoragePath:
        """Return where a rank's profiler trace that begins with a step goes."""
        return self.path / f"trace-{step:08d}-rank-{rank}.json.gz"

    def latest(self) -> tuple[StoragePath, int] | None:
        """Return the newest complete checkpoint and its step."""
        for path in self.checkpoints():
            return path, int(path.name.removeprefix("step-"))
        return None

    def checkpoints(self) -> list[StoragePath]:
        """Return the complete checkpoints, the newest first."""
        return [path for path in self.step_folders() if manifest.is_complete(path)]

    def step_folders(self) -> list[StoragePath]:
        """Return the folders of all checkpoints, incomplete ones included, the newest first."""
        return sorted(self.path.glob("step-*"), key=lambda path: path.name, reverse=True)

    def hold(self, name: str) -> None:
        """Keep `retention.prune` from a checkpoint that is being read; a disk budget may still remove it."""
        (self.path / f"{_HELD}{name}").touch()

    def is_held(self, name: str) -> bool:
        """Return whether a checkpoint is being read."""
        return (self.path / f"{_HELD}{name}").exists()

    def release(self, name: str = "step-*") -> None:
        """Release a checkpoint that was held; by default all of them."""
        for path in self.path.glob(f"{_HELD}{name}"):
            path.unlink(missing_ok=True)

    def touch(self) -> None:
        """Leave a sign that the run goes on, for `sclip clean`."""
        if isinstance(self.path, Path):
            (self.path / ALIVE).touch()
        elif time.monotonic() > self._touched + _ALIVE_S:
            self._touched = time.monotonic()
            with contextlib.suppress(OSError):  # the next one will do
                (self.path / ALIVE).touch()

    def roll_back(self) -> list[str]:
        """Set aside what a crash left behind; only while no worker is alive. Return one line for each.

        Half-written checkpoints are removed, damaged ones (by their checksums) renamed, and quarantine
        lines of steps after the newest good checkpoint taken back: those samples come again.
        """
        notes = []
        for path in self.step_folders():
            if not manifest.is_complete(path):
                remove(path)
            elif damage := manifest.verify(path):
                aside = path.with_name(f"damaged-{path.name}")
                remove(aside)  # of the same step, before
                move(path, aside, first=manifest.MANIFEST)
                notes.append(f"{path}: {damage}; set aside, the checkpoint before it is used")
            else:
                break
        latest = self.latest()
        step = latest[1] if latest else 0
        if self.quarantine.exists():
            lines = self.quarantine.read_text().splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            write(self.quarantine, "".join(kept))
        return notes

    def set_aside(self, rejected: Sequence[dict[str, Any]]) -> None:
        """Add quarantined samples, each with the step of the checkpoint that it counts from, to quarantine.jsonl."""
        if rejected:
            append(self.quarantine, "".join(json.dumps(entry, sort_keys=True) + "\n" for entry in rejected))

    @property
    def complete(self) -> dict[str, Any] | None:
        """What was trained, once every sample was; None before."""
        return self.read("complete.json")

    def finish(self, summary: dict[str, Any]) -> None:
        """Record that every sample was trained on."""
        self.write("complete.json", summary)

    @property
    def result(self) -> dict[str, Any] | None:
        """Scores and registered version, once both stand; None before."""
        return self.read("result.json")

    def record_result(self, result: dict[str, Any]) -> None:
        """Record scores and registered version, the last thing that a run does."""
        self.write("result.json", result)

    def read(self, name: str) -> dict[str, Any] | None:
        """Return the tree of a JSON file of the folder; None where it is not there."""
        path = self.path / name
        return cast(dict[str, Any], json.loads(path.read_text())) if path.exists() else None

    def write(self, name: str, value: Any) -> None:
        """Write a JSON file of the folder, in one piece."""
        write(self.path / name, json.dumps(value, indent=1, sort_keys=True) + "\n")


def size_of(path: StoragePath) -> int:
    """Return the bytes of all files below a folder."""
    return sum(sizes(path).values())
