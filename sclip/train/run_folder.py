"""The folder of a run: what it was started with, its checkpoints, what was set aside, whether it is done.

    config.json       the resolved config, compared when the run is started again
    shards.json       shards and their sample counts, fixed for the life of the run
    step-00000500/    a checkpoint (`sclip.train.checkpoint`)
    quarantine.jsonl  samples that could not be trained on: step, shard, key, reason
    complete.json     written when every sample was trained on
    model/            the exported model

Every file is written under another name and then renamed, so that a reader never sees half of one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from sclip.config import ConfigError
from sclip.config_loader import difference
from sclip.train import checkpoint

RESUMABLE = {
    "run.compare_with", "run.max_failures", "run.progress_every_s",
    "data.actors_min", "data.actors_max", "data.actor_cpus", "data.read_cpus", "data.readers", "data.annotations",
    "train.num_workers", "train.use_gpu", "train.worker_cpus", "train.worker_threads", "train.sharding",
    "train.micro_batch", "train.pack_text",
    "train.log_every", "train.checkpoint_every", "train.keep_checkpoints",
    "tracking.offline",
}  # fmt: skip
"""Keys that may differ when a run is started again: they say where and how it runs, not what is learned."""


class RunFolder:
    """Paths and small files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = path / "model"
        self.quarantine = path / "quarantine.jsonl"

    def compare(self, config: dict[str, Any], shards: dict[str, int]) -> None:
        """Raise ConfigError, with one line for each key that differs, where the run was begun with another config.

        Keys in RESUMABLE may differ; the shards, and the number of samples in each, may not.
        """
        before, known = self._read("config.json"), self._read("shards.json")
        if before is None:
            return
        lines = [line for line in difference(before, config) if line.partition(":")[0] not in RESUMABLE]
        if known is not None and known != shards:
            changed = sorted(url for url in known.keys() | shards.keys() if known.get(url) != shards.get(url))
            lines.append(f"shards: {len(changed)} differ, the first is {changed[0]}")
        if lines:
            raise ConfigError(
                f"run.name={self.path.name!r}: a run of this name was started with another config:\n  "
                + "\n  ".join(lines)
                + "\nname another run, or take these changes back to resume it"
            )

    def start(self, config: dict[str, Any], shards: dict[str, int]) -> None:
        """Record what the run is started with; what an earlier start recorded stays."""
        self.path.mkdir(parents=True, exist_ok=True)
        if not (self.path / "config.json").exists():
            self._write("shards.json", shards)
            self._write("config.json", config)

    def step_path(self, step: int) -> Path:
        """Return where the checkpoint of an optimizer step stands."""
        return self.path / f"step-{step:08d}"

    def latest(self) -> tuple[Path, int] | None:
        """Return the newest complete checkpoint and its step."""
        for path in sorted(self.path.glob("step-*"), reverse=True):
            if checkpoint.is_complete(path):
                return path, int(path.name.removeprefix("step-"))
        return None

    def roll_back(self) -> list[str]:
        """Set aside what a crash left behind; only while no worker is alive. Return one line for each.

        Half-written checkpoints are removed, damaged ones (by their checksums) renamed, and quarantine
        lines of steps after the newest good checkpoint taken back: those samples come again.
        """
        notes = []
        for path in sorted(self.path.glob("step-*"), reverse=True):
            if not checkpoint.is_complete(path):
                shutil.rmtree(path)
            elif damage := checkpoint.verify(path):
                aside = path.with_name(f"damaged-{path.name}")
                shutil.rmtree(aside, ignore_errors=True)  # of the same step, before
                path.rename(aside)
                notes.append(f"{path}: {damage}; set aside, the checkpoint before it is used")
            else:
                break
        latest = self.latest()
        step = latest[1] if latest else 0
        if self.quarantine.exists():
            lines = self.quarantine.read_text().splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            _replace(self.quarantine, "".join(kept))
        return notes

    def set_aside(self, step: int, rejected: Sequence[dict[str, str]]) -> None:
        """Add quarantined samples, of the checkpoint of `step`, to quarantine.jsonl."""
        if rejected:
            with self.quarantine.open("a") as file:
                file.writelines(
                    json.dumps({"step": step} | entry, sort_keys=True) + "\n" for entry in rejected
                )

    @property
    def complete(self) -> dict[str, Any] | None:
        """What was trained, once every sample was; None before."""
        return self._read("complete.json")

    def finish(self, summary: dict[str, Any]) -> None:
        """Record that every sample was trained on."""
        self._write("complete.json", summary)

    @property
    def result(self) -> dict[str, Any] | None:
        """Scores and registered version, once both stand; None before."""
        return self._read("result.json")

    def record_result(self, result: dict[str, Any]) -> None:
        """Record scores and registered version, the last thing that a run does."""
        self._write("result.json", result)

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        return cast(dict[str, Any], json.loads(path.read_text())) if path.exists() else None

    def _write(self, name: str, value: Any) -> None:
        _replace(self.path / name, json.dumps(value, indent=1, sort_keys=True) + "\n")


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)
