"""Show one sample as a training step sees it: what is drawn and encoded for a shard, a key and an epoch.

Every random choice depends only on (seed, epoch, the sample's identity). So this module passes the sample again through
the reader's `row_of` and the `Encoder`, and gets the same row as the run.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass

from sclip.config import Config, ConfigError, DataConfig
from sclip.data.patterns import find_shards
from sclip.data.reader import ReadSettings, row_of
from sclip.data.schedule import NamedShard, Schedule
from sclip.data.shards import Rejected, Sample, read_shard
from sclip.model import most_words
from sclip.prepare.annotate import usable_stamp
from sclip.report.visit import SampleVisit
from sclip.run.sample_view import choices, encoded_row, picture
from sclip.storage.filesystem import parts
from sclip.storage.masking import is_masked, mask
from sclip.storage.paths import storage_path
from sclip.train.run_inputs import read_run_inputs

__all__ = ["InspectionError", "Run", "inspect_sample", "of_run"]


class InspectionError(ValueError):
    """Error for a missing shard, sample or epoch. The message is one line with what was found and what to do."""


@dataclass(frozen=True)
class Run:
    """Config of a run, and the shards that it reads."""

    config: Config
    title: str = "a run of this config"
    sources: tuple[dict[NamedShard, int], ...] = ()
    """Sample count of each shard, one mapping for each source; empty if the run has not begun."""


def of_run(name: str, storage: str) -> Run:
    """Return the run, named by its folder or by its name in the storage folder. Raises ConfigError if there is none."""
    for folder in (storage_path(name), storage_path(storage) / "runs" / name):
        if (folder / "config.json").is_file():
            break
    else:
        raise ConfigError(f"--run {name}: neither the folder of a run nor the name of one in {folder.parent}")
    config, sources = read_run_inputs(folder)
    return Run(config, f"run {folder.name}", sources)


def inspect_sample(run: Run, shard: str, key: str, epoch: int) -> SampleVisit:
    """Return what a training step of the run gets from one sample in one epoch, or the reason why it gets nothing.

    `shard` is the path or URI of one shard. `epoch` is the pass over the shard's source, from 0.
    Raises InspectionError, ShardError, ConfigError, ParserError or ModelError, each with a message for the user.
    """
    config = run.config
    shards = find_shards([shard])
    if len(shards) > 1:
        raise InspectionError(f"{shard}: {len(shards)} shards, the first is {mask(shards[0].url)}; name one")
    url = shards[0].url
    run_shards = [known for source in run.sources for known in source] or find_shards(config.data.shards)
    named, notes = _named(shards[0], run_shards)
    _check_epoch(run, named, epoch)
    # Look for annotations only in the user's shard if the run does not read it, or if recorded URLs lack credentials.
    recorded = [known.url for known in run_shards] if named in run_shards else [url]
    annotated = [url] if any(map(is_masked, recorded)) else recorded
    reading = ReadSettings(config, usable_stamp(config.data, annotated, most_words(config.model)))
    item, duplicates = _item(url, config.data, key)
    notes += [f"sample {other.index} has the same key: {other.reason}" for other in duplicates]
    row = row_of(item, named, reading, epoch)
    facts = [
        ("shard", mask(named.url)), ("identity", named.identity(item.key)),
        ("sample", f"{item.index} in the order of the shard, from 0"),
        ("epoch", f"{epoch}, from 0"), ("drawn by", f"{run.title}, seed {config.run.seed}"),
    ]  # fmt: skip
    seen, reason = encoded_row(row, config, epoch)
    if isinstance(item, Rejected):
        return SampleVisit(key, facts, notes, None, [], None, reason)
    return SampleVisit(key, facts, notes, picture(item.image), choices(item, reading, row), seen, reason)


def _named(shard: NamedShard, read: Sequence[NamedShard]) -> tuple[NamedShard, list[str]]:
    """Return the shard with its name in the run (a seed of random choices), and a note if the run does not read it."""
    if known := next((candidate for candidate in read if _same(candidate.url, shard.url)), None):
        return known, []
    if not read:
        return shard, []
    note = "the run does not read this shard; this is what it would see"
    # A moved copy of a shard of the run: its path still ends with the PATH of the shard's name (NUMBER/PATH).
    path = f"/{parts(shard.url)[0]}"
    names = [candidate.name for candidate in read if path.endswith(f"/{candidate.name.partition('/')[2]}")]
    return (shard._replace(name=names[0]) if len(names) == 1 else shard), [note]


def _same(one: str, other: str) -> bool:
    """Return whether two URLs or paths mean the same shard: credentials are ignored, local links are resolved."""
    one, other = mask(one), mask(other)
    if one == other or os.path.basename(one) != os.path.basename(other):
        return one == other
    return "://" not in one + other and os.path.realpath(one) == os.path.realpath(other)


def _check_epoch(run: Run, shard: NamedShard, epoch: int) -> None:
    data, train = run.config.data, run.config.train
    names = [[known.name for known in shards] for shards in run.sources]
    source = next((number for number, shards in enumerate(names) if shard.name in shards), None)
    last: int | None = train.epochs - 1
    if source is not None:
        samples = [list(shards.values()) for shards in run.sources]
        schedule = Schedule.weighted(run.config.run.seed, train.epochs, samples, data.weights)
        last = _last_pass(schedule, source, names[source].index(shard.name))
    elif data.weights:  # passes depend on the samples of all sources, which are not counted yet
        last = max(epoch, 0)
    if last is None or not 0 <= epoch <= last:
        when = "never" if last is None else f"in epochs 0 to {last}"
        raise InspectionError(
            f"epoch {epoch}: {run.title} reads {mask(shard.url)} {when}, train.epochs={train.epochs}"
        )


def _last_pass(schedule: Schedule, source: int, number: int) -> int | None:
    """Return the last pass that reads the shard; None if none does."""
    visits = (schedule.visit(entry) for entry in reversed(range(len(schedule))))
    return next((visit.pass_ for visit in visits if (visit.source, visit.shard) == (source, number)), None)


def _item(url: str, data: DataConfig, key: str) -> tuple[Sample | Rejected, list[Rejected]]:
    """Return the first sample with the key, and the later ones, which are rejected as duplicates."""
    matches: list[Sample | Rejected] = []
    keys: list[str] = []
    for item in read_shard(url, data):
        keys.append(item.key)
        if item.key == key:
            matches.append(item)
    if not matches:
        near = difflib.get_close_matches(key, keys, n=3) or keys[:3]
        summary = f"{len(keys):,} samples, the nearest are {', '.join(near)}" if keys else "none at all"
        raise InspectionError(f"{mask(url)}: no sample {key!r}; it holds {summary}")
    return matches[0], [item for item in matches[1:] if isinstance(item, Rejected)]
