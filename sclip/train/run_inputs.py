"""What a run was begun with, its config and shards: recorded, compared when it is started again, and read back.

URIs stand in the run's folder without credentials and query values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sclip.config import Config, ConfigError
from sclip.config.loader import difference, from_tree
from sclip.storage.masking import mask, mask_tree
from sclip.storage.paths import StoragePath
from sclip.train.run_folder import RunFolder

__all__ = ["RESUMABLE", "compare_inputs", "read_run_inputs", "record_inputs"]

RESUMABLE = {
    "run.compare_with", "run.max_failures", "run.progress_every_s", "run.log_format",
    "data.actors_min", "data.actors_max", "data.actor_cpus", "data.read_cpus", "data.readers", "data.annotations",
    "data.mix_blocks", "data.block_samples",
    "train.num_workers", "train.min_workers", "train.resize_every_s", "train.use_gpu", "train.worker_cpus",
    "train.worker_threads", "train.sharding",
    "train.shard_ranks", "train.reshard_after_forward", "train.activation_checkpointing", "train.compile",
    "train.micro_batch", "train.pack_text",
    "train.log_every", "checkpoint.every", "checkpoint.keep_last", "checkpoint.keep_best", "checkpoint.best_metric",
    "checkpoint.best_is", "checkpoint.asynchronous", "checkpoint.disk_budget_gb",
    "evaluate.every", "evaluate.suite_beside", "evaluate.cpus", "evaluate.gpus", "evaluate.batch_size",
    "health.on_nonfinite", "health.max_skipped", "health.profile_steps",
    "tracking.offline", "tracking.parent",
}  # fmt: skip
"""Keys that may differ when a run is started again: they say where and how it runs, not what is learned."""


def read_run_inputs(folder: StoragePath) -> tuple[Config, tuple[dict[str, int], ...]]:
    """Return the resolved config, and the samples of each shard of each source.

    Raises ConfigError where the folder is not that of a run which has begun, or of one of another version.
    """
    try:
        tree = json.loads((folder / "config.json").read_text())
        content = json.loads((folder / "shards.json").read_text())
        sources = tuple({str(url): int(n) for url, n in s["shards"].items()} for s in content["sources"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(f"{folder}: not the folder of a run: {error}") from error
    return from_tree(tree, str(folder / "config.json")), sources


def compare_inputs(folder: RunFolder, config: dict[str, Any], sources: Sequence[Mapping[str, int]]) -> None:
    """Raise ConfigError, with one line for each key that differs, where the run was begun with another config.

    Keys in RESUMABLE may differ; the shards, and the number of samples in each, may not.
    """
    before, known = folder.read("config.json"), folder.read("shards.json")
    if before is None:
        return
    lines = [
        line for line in difference(before, mask_tree(config)) if line.partition(":")[0] not in RESUMABLE
    ]
    was = _by_place([source["shards"] for source in known["sources"]]) if known else {}
    if known is not None and was != (is_ := _by_place(sources)):
        changed = sorted(place for place in was.keys() | is_.keys() if was.get(place) != is_.get(place))
        lines.append(f"shards: {len(changed)} differ, the first is {changed[0][1]}")
    if lines:
        raise ConfigError(
            f"run.name={folder.path.name!r}: a run of this name was started with another config:\n  "
            + "\n  ".join(lines)
            + "\nname another run, or take these changes back to resume it"
        )


def record_inputs(folder: RunFolder, config: dict[str, Any], sources: Sequence[Mapping[str, int]]) -> None:
    """Record what the run is started with; what an earlier start recorded stays."""
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.touch()
    if not (folder.path / "config.json").exists():
        weights = config["data"]["weights"] or [1.0] * len(sources)
        found = [
            {"weight": weight, "shards": {mask(url): count for url, count in of_source.items()}}
            for weight, of_source in zip(weights, sources, strict=True)
        ]
        folder.write("shards.json", {"sources": found})
        folder.write("config.json", mask_tree(config))


def _by_place(sources: Sequence[Mapping[str, int]]) -> dict[tuple[int, str], int]:
    return {
        (at, mask(url)): count for at, of_source in enumerate(sources) for url, count in of_source.items()
    }
