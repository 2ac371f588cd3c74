"""Rates of one worker, encoder, reader and executor: given by the user, measured by an earlier run, or from a rule.

Measured rates come from the journal of an earlier run in `run.storage` that read the same shards and agrees in the
config keys that `_WORK` matches. The rules assume that a GPU reaches `UTILISATION` of its peak on the operations of a
step (`sclip.train.flops`), and that shards hold photographs of 640 x 480. No rule covers CPU workers or GPUs of unknown
peak. An executor is the process in which Ray Data passes on the blocks of one stream; only a rule gives its rate.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sclip.config import Config, ConfigError
from sclip.config.loader import flatten, to_tree
from sclip.data.stream import rows_of_block
from sclip.launch.capacity import Capacity, demands
from sclip.launch.node_types import NodeType
from sclip.launch.placement import place_bundles
from sclip.model import image_size
from sclip.model.build import meta_model
from sclip.storage.paths import StoragePath, storage_path
from sclip.tracking.journal import history
from sclip.train.flops import StepFlops, peak_flops
from sclip.train.typical_batch import TOKENS, caption_tokens, typical_columns

UTILISATION = 0.2
"""Share of a GPU's dense peak that a step is assumed to reach. Published shares are 0.18 to 0.21 for towers of this
size (LAION's CLAP on GH200, plain DDP) and 0.38 for ViT-g/14 (NVIDIA NeMo on A100). For a small batch per worker, the
lower shares fit better."""

SECONDS = {"parse": 1.13e-3, "draw": 0.33e-3, "decode": 2.72e-3, "tokenise": 0.10e-3}
"""Seconds of one core for each step of encoding a COCO sample (a photograph of 640 x 480 and a caption). They were
measured on a busy server (EPYC, 2 shared cores)."""
READ_S = 0.40e-3
"""Seconds of one core to read a sample (three tar members) from a local disk; tar headers take half of them."""
REMOTE_BYTES_PER_S = 85e6
"""Bytes per second of one stream from an object store, as AWS documents for S3."""
SAMPLE_BYTES, PIXELS = 162e3, 640 * 480
"""Averages of COCO: bytes of a sample, and pixels of an image."""

BLOCKS_PER_S = 100
"""Assumed blocks that one executor passes on per second. A block of any size takes it 6 to 8 ms, so it could pass on
more than 100. On two cores that also ran all other processes, it passed on 31 to 43."""

STAGES = ("worker", "encoder", "reader")
_WORK = re.compile(
    r"(model|loss|scenes)\.|train\.(batch_size|micro_batch|precision|use_gpu|activation_checkpointing|compile|pack_text"
    r"|worker_threads)$|data\.(annotations|crop_scale|spacy_model|actor_cpus)$"
)
"""Pattern of the config keys that the rates depend on, besides data.shards."""
_LATEST = 50
"""Maximum number of runs that are searched, newest first: a sweep may leave thousands of runs."""


@dataclass(frozen=True)
class Rate:
    """Samples per second of one process of a stage, and the source of this figure in words."""

    per_s: float
    source: str


Rates = Mapping[str, Rate]
"""Known rates; the keys are the names in STAGES and "executor"."""


def given(text: str) -> dict[str, Rate]:
    """Parse rates such as `worker=900,encoder=120`. Raises ConfigError for an unknown stage or an invalid rate."""
    rates = {}
    for part in filter(None, re.split(r"[,\s]+", text)):
        stage, _, value = part.partition("=")
        try:
            rate = float(value)
        except ValueError:
            rate = 0.0
        if stage not in STAGES or not 0 < rate < float("inf"):
            raise ConfigError(f"--rates {part!r}: write {'=N, '.join(STAGES)}=N, each in samples per second")
        rates[stage] = Rate(rate, "as given")
    return rates


def find(config: Config, capacity: Capacity, known: Rates, annotated: bool) -> dict[str, Rate]:
    """Return the best known rate of each stage: the user's, else a measured one, else one from a rule.

    Args:
        config: the config that `sclip.launch.capacity.sized` returned.
        capacity: capacity of the cluster.
        known: rates that the user gave.
        annotated: whether graphs and negatives are read from the shards; if not, encoders make them.
    """
    rates = _rules(config, annotated) | _measured(config) | dict(known)
    if "worker" not in rates and config.train.use_gpu and (rate := _gpu(config, capacity)):
        rates["worker"] = rate
    return rates


def _rules(config: Config, annotated: bool) -> dict[str, Rate]:
    pixels = PIXELS if config.data.shards else config.scenes.image_size**2
    longer = caption_tokens(config) / TOKENS
    seconds = {stage: s * longer for stage, s in SECONDS.items()} | {
        "decode": SECONDS["decode"] * pixels / PIXELS
    }
    known = {"parse", "draw"} if annotated or not config.reads_graphs else set()
    if config.loss.positives:  # the run parses for positives, whatever the shards hold
        known.discard("parse")
    work = sum(s for stage, s in seconds.items() if stage not in known)
    core = min(1.0, config.data.actor_cpus)  # an encoder uses at most one core
    remote = any("://" in shard for shard in config.data.shards)
    read_s = SAMPLE_BYTES / REMOTE_BYTES_PER_S if remote else READ_S
    per_s = {"encoder": core / work, "reader": 1 / read_s, "executor": BLOCKS_PER_S * block_samples(config)}
    return {stage: Rate(rate, "rule of thumb") for stage, rate in per_s.items()}


def block_samples(config: Config) -> int:
    """Return the number of samples in a block. The config must be sized."""
    share = config.train.batch_size // max(1, config.train.num_workers)
    return config.data.block_samples or rows_of_block(share, image_size(config.model.name))


def worker_nodes(config: Config, capacity: Capacity) -> list[NodeType]:
    """Return the node types that the workers are placed on. The config must be sized."""
    types = place_bundles(demands(config, config.train.num_workers, 0), capacity.nodes).by_stage["workers"]
    return [node for node in capacity.nodes if node.name in types]


def _gpu(config: Config, capacity: Capacity) -> Rate | None:
    accelerators = {node.accelerator for node in worker_nodes(config, capacity) if node.accelerator}
    peaks = {name: peak_flops(name, config.train.precision) for name in accelerators}
    slowest = min(peaks, key=lambda name: peaks[name] or 0.0, default="")
    peak = peaks.get(slowest)
    if not peak:
        return None
    return Rate(UTILISATION * peak / _flops(config), f"{UTILISATION:.0%} of {slowest}'s peak")


def _flops(config: Config) -> float:
    """Return the floating-point operations of a step per sample, for a typical batch."""
    workers = max(1, config.train.num_workers)
    rows = max(1, config.train.batch_size // workers)
    return StepFlops(meta_model(config.model), config)(typical_columns(config, rows), workers) / rows


def _measured(config: Config) -> dict[str, Rate]:
    """Return the rates that the latest run with the same shards and `_WORK` keys measured; {} if there is none."""
    storage = storage_path(config.run.storage)
    folder = storage / "runs"
    work = _work(to_tree(config), storage)
    config_paths: list[StoragePath] = list(folder.glob("*/config.json"))
    for path in sorted(config_paths, key=_modified, reverse=True)[:_LATEST]:
        try:
            tree = json.loads(path.read_text())
            if _work(tree, storage) != work:
                continue
            rates = _from_curves(history(path.parent), int(tree["train"]["num_workers"]))
        except (OSError, ValueError, LookupError, TypeError, AttributeError):  # other version, or truncated
            continue
        if rates:
            return {stage: Rate(rate, f"as {path.parent.name} measured") for stage, rate in rates.items()}
    return {}


def _modified(path: StoragePath) -> float:
    try:
        return float(path.stat().st_mtime)
    except OSError:  # removed meanwhile
        return 0.0


def _work(tree: dict[str, Any], storage: StoragePath) -> dict[str, Any]:
    keys = {key: value for key, value in flatten(tree).items() if _WORK.match(key)}
    own = str(storage / "scenes")  # `str` masks credentials, as the recorded config does
    keys["data.shards"] = [shard for shard in tree["data"]["shards"] if not shard.startswith(own)]
    return keys


def _from_curves(curves: Mapping[str, list[tuple[int, float]]], workers: int) -> dict[str, float]:
    """Return the samples per second of one process of each stage, from medians over the curves."""

    def typical(name: str) -> float:
        values = [value for _, value in curves.get(name, [])]
        # Use the later half only: at first all stages wait.
        return statistics.median(values[len(values) // 2 :]) if values else 0.0

    rates = {}
    if (rate := typical("train/samples_per_s")) and workers:
        rates["worker"] = rate / max(0.05, 1 - typical("train/data_wait")) / workers
    work = [typical(f"stream/{stage}_samples_per_s") for stage in SECONDS]
    if any(work):
        rates["encoder"] = 1 / sum(1 / rate for rate in work if rate)
    if read := typical("stream/read_samples_per_s"):
        rates["reader"] = read
    return rates
