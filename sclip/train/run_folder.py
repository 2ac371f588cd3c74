"""The folder of a run: its config and shards, its checkpoints, its quarantine, and whether it is complete.

    config.json       the resolved config, compared when the run is started again
    shards.json       name, URI and sample count of each source's shards. Only URIs may change later. URIs here and in
                      config.json have no credentials and no query values
    step-00000500/    a checkpoint (`sclip.train.checkpoint`)
    alive             touched while the run continues
    lease/            names the process that owns the run (`sclip.run.lease`); removed when the run ends
    held-step-*       marks a checkpoint that is being evaluated
    init.safetensors  the starting weights, if they came from a file, a folder or the registry
    losses.json       lost samples known before training: unreadable shards, wrong counts (`sclip.run.shard_losses`)
    quarantine.jsonl  samples that could not be trained on: step, source, pass, name, shard, index, key, reason. For a
                      shard that lacks recorded samples, "missing" holds their number
    ledger/           what each rank trained on in each step (`sclip.train.sample_accounts`)
    trace-*.json.gz   profiler traces of chosen steps, one file per rank (`health.profile_steps`)
    collectives-*     each rank's last collectives, written on GPUs if one exceeds `train.collective_timeout_s`
    complete.json     written when every sample was trained on
    model/            the exported model
    evaluation.json   evaluation of the exported model; evaluation-before.json is that of the starting weights
    report.html       the evaluation as a page; comparison.html compares it with the starting weights or another run
    tracking.jsonl    events for MLflow (`sclip.tracking`)
    tensorboard/      metrics for TensorBoard; wandb/ holds them for `wandb sync` if W&B is offline
    result.json       scores and registered version, the last thing that a run writes

JSON files are written atomically. The folder may be in an object store. A node then writes a checkpoint to its own disk
before the upload, and downloads it before reading (`sclip.storage.paths`).
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
"""File touched at every report of a running training."""
_ALIVE_S = 60.0  # between two touches in an object store
LEASE = "lease"
"""Folder of the lease file, which the run's owner process rewrites every few seconds."""


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
        """Yield `model` with this node's copy of init.safetensors as `pretrained`. Without that file, yield `model`.

        Raises ModelError if the run trains low-rank updates (`model.lora`) and has no starting weights.
        """
        with local_copy(self.path, names=[self.init.name]) as folder:
            file = folder / self.init.name
            if model.lora.rank and not file.exists() and not model.pretrained:
                raise ModelError(self.no_start)
            yield dataclasses.replace(model, pretrained=str(file)) if file.exists() else model

    @property
    def no_start(self) -> str:
        """Error message for a run with low-rank updates (`model.lora`) whose starting weights are gone."""
        return (
            f"{self.init}: no such file; with model.lora.rank the run's checkpoints hold only updates of these "
            "weights: restore the file, or choose another run.name"
        )

    def step_path(self, step: int) -> StoragePath:
        """Return the path of the checkpoint after step `step`."""
        return self.path / f"step-{step:08d}"

    def trace_path(self, step: int, rank: int) -> StoragePath:
        """Return the path of a rank's profiler trace that begins at step `step`."""
        return self.path / f"trace-{step:08d}-rank-{rank}.json.gz"

    def latest(self) -> tuple[StoragePath, int] | None:
        """Return the newest complete checkpoint and its step, or None."""
        for path in self.checkpoints():
            return path, int(path.name.removeprefix("step-"))
        return None

    def checkpoints(self) -> list[StoragePath]:
        """Return the complete checkpoints, newest first."""
        return [path for path in self.step_folders() if manifest.is_complete(path)]

    def step_folders(self) -> list[StoragePath]:
        """Return the folders of all checkpoints, including incomplete ones, newest first."""
        return sorted(self.path.glob("step-*"), key=lambda path: path.name, reverse=True)

    def hold(self, name: str) -> None:
        """Protect a checkpoint from `run_checkpoints.prune` while it is read, but not from `make_room` there."""
        (self.path / f"{_HELD}{name}").touch()

    def is_held(self, name: str) -> bool:
        """Return whether a checkpoint is held."""
        return (self.path / f"{_HELD}{name}").exists()

    def release(self, name: str = "step-*") -> None:
        """Release a held checkpoint; by default all of them."""
        for path in self.path.glob(f"{_HELD}{name}"):
            path.unlink(missing_ok=True)

    def touch(self) -> None:
        """Leave a sign of life of the run, for `sclip clean`."""
        if isinstance(self.path, Path):
            (self.path / ALIVE).touch()
        elif time.monotonic() > self._touched + _ALIVE_S:
            self._touched = time.monotonic()
            with contextlib.suppress(OSError):  # the next touch may succeed
                (self.path / ALIVE).touch()

    def roll_back(self) -> list[str]:
        """Clean up after a crash, before training resumes. Return one line for each damaged checkpoint.

        Removes incomplete checkpoints, and renames damaged ones to damaged-*. Removes the quarantine lines of steps
        after the newest good checkpoint, because these steps are trained again.
        """
        notes = []
        for path in self.step_folders():
            if not manifest.is_complete(path):
                remove(path)
            elif damage := manifest.verify(path):
                aside = path.with_name(f"damaged-{path.name}")
                remove(aside)  # an earlier damaged checkpoint of the same step
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
        """Append quarantined samples to quarantine.jsonl. Each has the "step" of the checkpoint that counts it."""
        if rejected:
            append(self.quarantine, "".join(json.dumps(entry, sort_keys=True) + "\n" for entry in rejected))

    @property
    def complete(self) -> dict[str, Any] | None:
        """Summary of the training once every sample was trained on; None before."""
        return self.read("complete.json")

    def finish(self, summary: dict[str, Any]) -> None:
        """Record that every sample was trained on."""
        self.write("complete.json", summary)

    @property
    def result(self) -> dict[str, Any] | None:
        """Scores and registered version once both are recorded; None before."""
        return self.read("result.json")

    def record_result(self, result: dict[str, Any]) -> None:
        """Record scores and registered version, the last thing that a run does."""
        self.write("result.json", result)

    def read(self, name: str) -> dict[str, Any] | None:
        """Return the content of a JSON file in the folder, or None if the file does not exist."""
        path = self.path / name
        return cast(dict[str, Any], json.loads(path.read_text())) if path.exists() else None

    def write(self, name: str, value: Any) -> None:
        """Write a JSON file in the folder atomically."""
        write(self.path / name, json.dumps(value, indent=1, sort_keys=True) + "\n")


def size_of(path: StoragePath) -> int:
    """Return the bytes of all files below a folder."""
    return sum(sizes(path).values())
