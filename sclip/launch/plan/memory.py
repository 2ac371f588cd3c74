"""Check that a training step fits into the memory of the cluster's GPUs; if not, name the smallest change that fits.

sized config, Capacity -> dry run of a step -> Memory, or a ConfigError with the smallest change that fits

Each change is tested with a dry run of its own. Smaller micro-batches are tried first, because they only cost a second
forward pass. Activation checkpointing comes next, sharding last.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sclip.config import Config, ConfigError
from sclip.launch.capacity import Capacity
from sclip.launch.node_types import memory_bytes
from sclip.launch.plan.rates import worker_nodes

if TYPE_CHECKING:
    from sclip.train.dry_run import DryRun

_log = logging.getLogger("sclip.launch")

GIB = 2**30

USABLE = 0.9
"""Share of a GPU's memory that a step may fill. CUDA, NCCL and the allocator's fragmentation take the rest."""

_LEAST_ROWS = 16
"""Minimum samples of a micro-batch: with fewer samples, a GPU has too little work."""

_UNCHANGED = 0.9
"""If halving the micro-batch leaves more than this share of the activations, it is not halved again."""

_FURTHER: tuple[dict[str, Any], ...] = (
    {}, {"activation_checkpointing": "selective"}, {"activation_checkpointing": "block"}, {"sharding": "fsdp"},
    {"sharding": "fsdp", "activation_checkpointing": "block"},
)  # fmt: skip
"""Changes of `train` to try, each also with smaller micro-batches."""


@dataclass(frozen=True)
class Memory:
    """Memory that a step needs on each GPU."""

    step: DryRun
    accelerator: str
    """Ray's name for the workers' GPUs; with several kinds of GPU, the kind with the least memory."""
    gpu_bytes: float | None
    """Memory of a GPU; None if it is unknown."""


def check_memory(config: Config, capacity: Capacity) -> Memory | None:
    """Return the memory that a step of a sized config needs; None without GPUs, or if the dry run fails.

    Raises ConfigError if the step does not fit on the GPUs. The message names the smallest change that fits.
    """
    nodes = worker_nodes(config, capacity)
    if not config.train.use_gpu or not nodes:
        return None
    ranks_per_node = int(min(node.gpus for node in nodes))
    memories = {node.accelerator: memory_bytes(node.accelerator) for node in nodes}
    accelerator = min(memories, key=lambda name: memories[name] or 0)
    try:
        step = _step(config, ranks_per_node)
    except ConfigError:
        raise
    except Exception as error:  # an operator of a tower may need values, which fake tensors lack
        line = (str(error) or "no message").splitlines()[0]
        _log.warning(
            "the memory of a step is unknown: its dry run failed (%s: %s)", type(error).__name__, line
        )
        return None
    memory = Memory(step, accelerator, memories[accelerator])
    if memory.gpu_bytes is None or memory.step.peak <= USABLE * memory.gpu_bytes:
        return memory
    has = f"{memory.gpu_bytes / GIB:g} GiB"
    problem = (
        f"train.batch_size={config.train.batch_size}: a step needs {memory.step.peak / GIB:.0f} GiB on each of "
        f"{config.train.num_workers} GPUs, but may fill only {USABLE:.0%} of the {has} of {accelerator}"
    )
    for change, step in _fitting(config, ranks_per_node, USABLE * memory.gpu_bytes, memory.step):
        keys = " ".join(f"train.{key}={value}" for key, value in change.items())
        raise ConfigError(f"{problem}; {keys}: fits with {step.peak / GIB:.0f} of {has}")
    suits = f" with train.min_workers={config.train.min_workers}" if config.train.min_workers else ""
    raise ConfigError(
        f"{problem}; no train.micro_batch, activation_checkpointing or sharding fits{suits}: add GPUs"
    )


def _fitting(
    config: Config, ranks_per_node: int, room: float, step: DryRun
) -> Iterator[tuple[dict[str, Any], DryRun]]:
    """Yield the changes of `train` that fit a step into `room` bytes, smallest first; `step` is the unchanged step."""
    for change in _FURTHER:
        if any(getattr(config.train, key) == value for key, value in change.items()):
            continue
        if "sharding" not in change and _fixed(step) > room:
            continue  # only sharding frees parameters and moments
        changed = _with(config, change)
        needed = _step(changed, ranks_per_node) if change else step
        if needed.peak <= room:
            yield change, needed
        rows = micro_batch = _rows_at_a_time(changed)
        while micro_batch % 2 == 0 and micro_batch // 2 >= _LEAST_ROWS:
            micro_batch //= 2
            if not _is_valid(config, {**change, "micro_batch": micro_batch}):
                continue
            # Half of the rows need at least half of the activations: skip dry runs that cannot fit.
            if _fixed(needed) + needed.activations * micro_batch / rows > room:
                continue
            parts = _step(_with(changed, {"micro_batch": micro_batch}), ranks_per_node)
            if parts.peak <= room:
                yield {**change, "micro_batch": micro_batch}, parts
            if parts.activations > _UNCHANGED * needed.activations:
                break  # the loss over all rows takes the memory
            needed, rows = parts, micro_batch


def _step(config: Config, ranks_per_node: int) -> DryRun:
    from sclip.train.dry_run import dry_run  # imports torch's compiler, which takes seconds

    return dry_run(config, ranks_per_node)


def _fixed(step: DryRun) -> int:
    return step.parameters + step.moments


def _rows_at_a_time(config: Config) -> int:
    return config.train.micro_batch or -(-config.train.batch_size // config.train.num_workers)


def _is_valid(config: Config, change: dict[str, Any]) -> bool:
    """Return whether `change` is valid for every number of workers from the config's `min_workers` on."""
    try:
        _with(config, {"min_workers": config.train.min_workers, **change})
    except ConfigError:
        return False
    return True


def _with(config: Config, change: dict[str, Any]) -> Config:
    """Return the config with `change` applied to `train`; by default for a run with all of train.num_workers."""
    settings = {"min_workers": 0, **({"shard_ranks": 0} if "sharding" in change else {}), **change}
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **settings))
