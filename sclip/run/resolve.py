"""Resolve a user's config into the run's name, storage, counted shards and starting weights.

The config says where to look. Before anything is scheduled, this module finds what is there: the shards, their
samples, the layout of the weights. `sclip.run.pretrain` records the results.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from rich.console import Console

from sclip import registry, tracking
from sclip.config import Config, ConfigError, DataConfig
from sclip.data.counts import count_samples, recorded_samples
from sclip.data.order import Order
from sclip.data.patterns import find_shards
from sclip.data.schedule import NamedShard, Schedule
from sclip.data.shards import Sample, read_shard, shard_errors
from sclip.data.sniff import unreadable
from sclip.data.tar import Tally
from sclip.model import architecture, most_words
from sclip.model.architecture import pretrained_source, with_quick_gelu
from sclip.model.build import check_fit, resolved
from sclip.model.weights import WEIGHTS_FILE, read, save
from sclip.prepare import annotate, scenes
from sclip.run.shard_losses import Losses, judged
from sclip.storage.filesystem import filesystem, parts
from sclip.storage.masking import mask
from sclip.storage.paths import address, check_writable, fetch, send, staged, storage_path
from sclip.train.run_folder import RunFolder

__all__ = ["TrainingData", "bring_initial_weights", "read_data", "resolve_config"]

_SEARCHED_SAMPLES = 64
"""Number of samples that are searched for a field, at the start of the first shard of each folder."""


@dataclass(frozen=True)
class TrainingData:
    """The shards of a run with their sample counts, and the order of their samples.

    With data.weights, each pattern of data.shards is a source of its own; else all shards form one source.
    """

    sources: tuple[dict[NamedShard, int], ...]
    """Sample count of each shard, sorted by name; one mapping for each source."""
    order: Order
    stamp: str
    """Stamp (parser versions) of the annotations that the run uses; empty if the run parses captions itself."""
    expected: tuple[tuple[int, ...], ...] = ()
    """Number of samples that each shard of each source should hold; -1 means unknown."""
    losses: Losses = field(default_factory=Losses)
    """Lost samples and wrong sample counts that are known before training."""

    @property
    def samples(self) -> int:
        """Number of samples in all epochs together."""
        return self.order.recorded

    @property
    def shards(self) -> list[str]:
        """Paths or URIs of all shards, one source after the other."""
        return [shard.url for source in self.sources for shard in source]


def read_data(config: Config) -> TrainingData:
    """Find the shards and count their samples. Raises ConfigError for unsuitable and ShardError for missing shards."""
    data = config.data
    sources: list[dict[NamedShard, int]]
    if data.shards:
        sources, expected, losses = _read_sources(config)
    else:
        sources = [{NamedShard("0/scenes", "scenes"): config.scenes.train_samples}]
        expected, losses = (), Losses()
    counts = [list(source.values()) for source in sources]
    schedule = Schedule.weighted(config.run.seed, config.train.epochs, counts, data.weights)
    shards = [shard.url for source in sources for shard in source]
    stamp = annotate.usable_stamp(data, shards, most_words(config.model)) if data.shards else ""
    if data.shards:
        _check_foreign_fields(data, shards)
    order = Order(schedule, tuple(map(tuple, counts)), data.open_shards, config.train.batch_size)
    return TrainingData(tuple(sources), order, stamp, expected, losses)


def _read_sources(config: Config) -> tuple[list[dict[NamedShard, int]], tuple[tuple[int, ...], ...], Losses]:
    """Return `sources`, `expected` and `losses` of `TrainingData`, the first two without unreadable shards."""
    data = config.data
    patterns = [(pattern,) for pattern in data.shards] if data.weights else [data.shards]
    shard_lists = [find_shards(source, first) for first, source in enumerate(patterns)]
    for shards in shard_lists:
        if repeated := [url for url, n in Counter(mask(shard.url) for shard in shards).items() if n > 1]:
            raise ConfigError(
                f"data.shards: several shards are recorded as {repeated[0]}, because a run records no credentials and "
                "query values; give each shard a path of its own, and name it once"
            )
    urls = [shard.url for shards in shard_lists for shard in shards]
    if len(urls) > len(set(urls)):
        raise ConfigError(
            f"data.shards={mask(str(list(data.shards)))}: with data.weights, a shard may belong to only one source"
        )
    with shard_errors():
        not_tars = unreadable(urls, data)
    records = recorded_samples(urls, data.shards)
    counts = count_samples([url for url in urls if url not in not_tars], data, records)
    losses = judged(data, not_tars, counts, records)
    kept = [[shard for shard in shards if mask(shard.url) not in losses.unreadable] for shards in shard_lists]
    sources = [{shard: counts.samples[shard.url] for shard in shards} for shards in kept]
    for source_patterns, source, shards in zip(patterns, sources, shard_lists, strict=True):
        if not sum(source.values()):
            raise ConfigError(
                f"data.shards={mask(str(list(source_patterns)))}: {len(shards)} shards without a sample"
            )
    return sources, tuple(tuple(counts.expected(shard.url) for shard in shards) for shards in kept), losses


def _check_foreign_fields(data: DataConfig, shards: Sequence[str]) -> None:
    """Raise ConfigError if a key such as data.negatives_field names a field that no searched sample has."""
    counts, samples = Counter[str](), 0
    if not data.foreign_fields:
        return
    firsts = {parts(url)[0].rpartition("/")[0]: url for url in reversed(shards)}
    for shard in firsts.values():
        tally = Tally()
        samples += sum(
            isinstance(item, Sample) for item in islice(read_shard(shard, data, tally), _SEARCHED_SAMPLES)
        )
        counts += tally.foreign
    for key, names in data.foreign_fields.items():
        if samples and counts[f"samples without {', '.join(names)}"] >= samples:
            raise ConfigError(
                f"data.{key}={getattr(data, key)!r}: none of the first {samples} samples has this field "
                f"({', '.join(map(mask, firsts.values()))}); name a field of their .json, a column or .SUFFIX, or "
                "leave it empty"
            )


def resolve_config(config: Config, console: Console) -> Config:
    """Fill in the run's name, make folders absolute, and generate scenes if data.shards is empty."""
    _check_storage(config.run.storage)
    storage = storage_path(config.run.storage)
    name = config.run.name or f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{os.urandom(2).hex()}"
    hub = config.model.hub_folder and str(Path(config.model.hub_folder).expanduser().absolute())
    config = dataclasses.replace(
        config,
        run=dataclasses.replace(config.run, name=name, storage=address(storage)),
        model=dataclasses.replace(config.model, hub_folder=hub),
    )
    if config.data.shards:
        return config
    console.print(
        "no data.shards given: training on generated scenes (your own data: data.shards='/data/*.tar')",
        soft_wrap=True,
    )
    paths = scenes.generate(storage / "scenes", config.scenes, config.run.seed)
    evaluate = dataclasses.replace(config.evaluate, suite=config.evaluate.suite or address(paths.suite))
    return dataclasses.replace(
        config, data=dataclasses.replace(config.data, shards=(str(paths.train),)), evaluate=evaluate
    )


def _check_storage(storage: str) -> None:
    path = storage_path(storage)
    if isinstance(path, Path):
        try:
            check_writable(path)
        except OSError as error:
            raise ConfigError(str(error)) from error
    else:
        try:
            filesystem(storage)
        except (ValueError, ImportError) as error:
            raise ConfigError(f"run.storage={mask(storage)!r}: {mask(str(error), storage)}") from None
        if storage.startswith("http"):
            raise ConfigError(
                f"run.storage={mask(storage)!r}: HTTP storage cannot be written to; use s3:// or gs://"
            )


def bring_initial_weights(config: Config, folder: RunFolder, console: Console) -> Config:
    """Copy the starting weights, if there are any, into one safetensors file in the run's folder.

    Return the config with the name of the architecture whose activation fits the weights.
    """
    source = config.run.init_from
    path, _ = pretrained_source(config.model)
    if (source or path) and not folder.init.exists():
        # A LoRA checkpoint needs the weights that its run started from; the source may hold others by now.
        if config.model.lora.rank and folder.latest() is not None:
            raise ConfigError(folder.no_start)
        with tempfile.TemporaryDirectory() as fetched:
            if source:
                weights = read(_weights(config, Path(fetched)), f"run.init_from={mask(source)!r}")
            else:
                weights = read(path or source, f"model.pretrained={mask(config.model.pretrained)!r}")
            notes = "".join(f"; {note}" for note in check_fit(config.model, weights))
            folder.path.mkdir(parents=True, exist_ok=True)
            with staged(folder.path) as staging:
                partial = staging / f".{folder.init.name}"
                save(
                    weights.tensors,
                    partial,
                    with_quick_gelu(architecture(config.model, weights.source, weights.quick_gelu)),
                )
                partial.replace(staging / folder.init.name)
                send(staging, folder.path, [folder.init.name])
        line = f"starting from {weights.source}: {len(weights.tensors)} tensors{notes}"
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    with folder.starting(config.model) as model:
        return dataclasses.replace(config, model=resolved(model))


def _weights(config: Config, fetched: Path) -> Path:
    """Return the file or folder that `run.init_from` names: a registered model, a run's model, or a path."""
    source = config.run.init_from
    if source.startswith("models:/"):
        return registry.download(source, tracking.store_uri(config, config.run.storage), fetched)
    path = storage_path(source)
    models = (run / "model" for run in (path, storage_path(config.run.storage) / "runs" / source))
    weights = next((model for model in models if (model / WEIGHTS_FILE).is_file()), path)
    if not weights.exists():
        raise ConfigError(
            f"run.init_from={mask(source)!r}: not a file or folder of weights, a finished run or models:/NAME@alias"
        )
    if isinstance(weights, Path):
        return weights
    if weights.is_file():
        fetch(weights.parent, fetched, [weights.name])
        return fetched / weights.name
    fetch(weights, fetched)
    return fetched
