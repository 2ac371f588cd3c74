"""Record the inputs of a run (config and shards), compare them when the run is started again, and read them back.

Shards are compared by their names and sample counts, so a run can continue after its data was moved.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sclip.config import Config, ConfigError
from sclip.config.loader import difference, from_tree
from sclip.data.schedule import NamedShard
from sclip.storage.masking import mask, mask_tree
from sclip.storage.paths import StoragePath
from sclip.train.run_folder import RunFolder

__all__ = ["RESUMABLE", "compare_inputs", "read_run_inputs", "record_inputs"]

RESUMABLE = {
    "model.hub_folder", "model.attention",
    "run.compare_with", "run.max_failures", "run.progress_every_s", "run.log_format",
    "data.actors_min", "data.actors_max", "data.actor_cpus", "data.read_cpus", "data.readers", "data.annotations",
    "data.block_samples",
    "train.num_workers", "train.min_workers", "train.resize_every_s", "train.collective_timeout_s",
    "train.use_gpu", "train.worker_cpus", "train.worker_threads", "train.sharding",
    "train.shard_ranks", "train.reshard_after_forward", "train.activation_checkpointing", "train.compile",
    "train.deterministic", "train.micro_batch", "train.pack_text",
    "train.log_every", "checkpoint.every", "checkpoint.keep_last", "checkpoint.keep_best", "checkpoint.best_metric",
    "checkpoint.best_is", "checkpoint.asynchronous", "checkpoint.disk_budget_gb",
    "evaluate.every", "evaluate.suite_beside", "evaluate.cpus", "evaluate.gpus", "evaluate.batch_size",
    "health.on_nonfinite", "health.max_skipped", "health.profile_steps",
    "tracking.also", "tracking.offline", "tracking.parent",
}  # fmt: skip
"""Keys that may differ when a run is started again. They say where and how the run works, not what it learns."""


def read_run_inputs(folder: StoragePath) -> tuple[Config, tuple[dict[NamedShard, int], ...]]:
    """Return a run's resolved config, and for each source the sample counts of its shards.

    Raises ConfigError if the folder holds no run, or one that another version of sclip started.
    """
    try:
        tree = json.loads((folder / "config.json").read_text())
        content = json.loads((folder / "shards.json").read_text())
        sources = tuple(
            {NamedShard(name, str(row["url"])): int(row["samples"]) for name, row in source["shards"].items()}
            for source in content["sources"]
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(f"{folder}: not the folder of a run: {error}") from error
    return from_tree(tree, str(folder / "config.json")), sources


def compare_inputs(
    folder: RunFolder, config: dict[str, Any], sources: Sequence[Mapping[NamedShard, int]]
) -> list[str]:
    """Raise ConfigError if the inputs differ from those of the run's first start, except keys in RESUMABLE.

    Shards may have moved; then a note for the user is returned.
    """
    before, known = folder.read("config.json"), folder.read("shards.json")
    if before is None:
        return []
    lines = [
        line for line in difference(before, mask_tree(config)) if line.partition(":")[0] not in RESUMABLE
    ]
    notes: list[str] = []
    if known is not None:
        was, now = _counts(folder, known), {s.name: n for shards in sources for s, n in shards.items()}
        if changed := sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name)):
            lines.append(f"shards: {len(changed)} differ, the first is {changed[0]}")
        else:
            notes = [line for line in lines if line.startswith("data.shards:")]
            lines = [line for line in lines if line not in notes]
    if lines:
        raise ConfigError(
            f"run.name={folder.path.name!r}: a run of this name was started with another config:\n  "
            + "\n  ".join(lines)
            + "\nchoose another run.name, or undo these changes to resume the run"
        )
    return [f"the data was moved; its shards kept their names and counts: {note}" for note in notes]


def record_inputs(
    folder: RunFolder, config: dict[str, Any], sources: Sequence[Mapping[NamedShard, int]]
) -> None:
    """Record the inputs of the run's first start. Later starts change only the URIs of the shards."""
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.touch()
    before, tree = folder.read("config.json"), mask_tree(config)
    if before is not None:
        tree = before | {"data": before["data"] | {"shards": tree["data"]["shards"]}}
    if tree != before:
        weights = config["data"]["weights"] or [1.0] * len(sources)
        source_records = [
            {
                "weight": weight,
                "shards": {s.name: {"url": mask(s.url), "samples": n} for s, n in shards.items()},
            }
            for weight, shards in zip(weights, sources, strict=True)
        ]
        folder.write("shards.json", {"sources": source_records})
        folder.write("config.json", tree)


def _counts(folder: RunFolder, known: Mapping[str, Any]) -> dict[str, int]:
    try:
        return {name: row["samples"] for source in known["sources"] for name, row in source["shards"].items()}
    except (LookupError, TypeError, AttributeError):
        raise ConfigError(
            f"run.name={folder.path.name!r}: a run of this name was started by another version of sclip; "
            "continue with that version, or choose another run.name"
        ) from None
