"""One sample as a step of a run sees it: the shard, the key and the epoch in, what was drawn and encoded out.

Every random choice follows from (seed, epoch, identity) alone, so the sample goes once more through `row_of` of the
reader and through the `Encoder`, as in the run, and gives the same row. Nothing of either is done here.
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
    """What was asked for is not there; one line with what was found and what to do."""


@dataclass(frozen=True)
class Run:
    """How a run reads and encodes, and what it reads."""

    config: Config
    title: str = "a run of this config"
    sources: tuple[dict[NamedShard, int], ...] = ()
    """Samples of each shard of each source, where the run has begun."""


def of_run(name: str, storage: str) -> Run:
    """Return the run of a folder, or of a name in a storage folder. Raises ConfigError where there is none."""
    for folder in (storage_path(name), storage_path(storage) / "runs" / name):
        if (folder / "config.json").is_file():
            break
    else:
        raise ConfigError(f"--run {name}: neither the folder of a run nor the name of one in {folder.parent}")
    config, sources = read_run_inputs(folder)
    return Run(config, f"run {folder.name}", sources)


def inspect_sample(run: Run, shard: str, key: str, epoch: int) -> SampleVisit:
    """Return what a step of the run is given of one sample in one epoch, or why it is given nothing.

    Args:
        run: whose config decides.
        shard: path or URI of one shard.
        key: of the sample in it; also of one that cannot be trained on.
        epoch: from 0; with data.weights, the pass of the shard's source.

    Raises InspectionError, ShardError, ConfigError, ParserError or ModelError, each with a message for the user.
    """
    config = run.config
    given = find_shards([shard])
    if len(given) > 1:
        raise InspectionError(f"{shard}: {len(given)} shards, the first is {mask(given[0].url)}; name one")
    url = given[0].url
    read = [of for source in run.sources for of in source] or find_shards(config.data.shards)
    named, notes = _named(given[0], read)
    _check_epoch(run, named, epoch)
    # What is recorded opens nothing without its credentials, or where it was moved: then what was named here is read.
    recorded = [of.url for of in read] if named in read else [url]
    annotated = [url] if any(map(is_masked, recorded)) else recorded
    reading = ReadSettings(config, usable_stamp(config.data, annotated, most_words(config.model)))
    item, more = _item(url, config.data, key)
    notes += [f"sample {other.index} has the same key: {other.reason}" for other in more]
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
    """Return the shard as the run knows it, and notes on one that the run does not read from there.

    Such a shard has the name of the one whose path below its fixed folder it ends in, where that is one only: data
    that was moved is drawn from as before.
    """
    if found := next((of for of in read if _same(of.url, shard.url)), None):
        return found, []
    if not read:
        return shard, []
    note = "the run does not read this shard; this is what it would see"
    path = f"/{parts(shard.url)[0]}"
    moved = [of.name for of in read if path.endswith(f"/{of.name.partition('/')[2]}")]
    return (shard._replace(name=moved[0]) if len(moved) == 1 else shard), [note]


def _same(one: str, other: str) -> bool:
    """Tell whether two names mean one shard: without credentials, and local ones may lead there in other ways."""
    one, other = mask(one), mask(other)
    if one == other or os.path.basename(one) != os.path.basename(other):
        return one == other
    return "://" not in one + other and os.path.realpath(one) == os.path.realpath(other)


def _check_epoch(run: Run, shard: NamedShard, epoch: int) -> None:
    """Raise InspectionError where the run does not read the shard in that epoch."""
    data, train = run.config.data, run.config.train
    names = [[of.name for of in of_source] for of_source in run.sources]
    source = next((number for number, of_source in enumerate(names) if shard.name in of_source), None)
    last: int | None = train.epochs - 1
    if source is not None:
        samples = [list(of_source.values()) for of_source in run.sources]
        schedule = Schedule.weighted(run.config.run.seed, train.epochs, samples, data.weights)
        last = _last_pass(schedule, source, names[source].index(shard.name))
    elif data.weights:  # the passes of a source follow from the samples of all, which nobody has counted yet
        last = max(epoch, 0)
    if last is None or not 0 <= epoch <= last:
        when = "never" if last is None else f"in epochs 0 to {last}"
        raise InspectionError(
            f"epoch {epoch}: {run.title} reads {mask(shard.url)} {when}, train.epochs={train.epochs}"
        )


def _last_pass(schedule: Schedule, source: int, number: int) -> int | None:
    """Return the last pass in which a shard is read: of sources with weights the last pass need not be whole."""
    visits = (schedule.visit(entry) for entry in reversed(range(len(schedule))))
    return next((visit.pass_ for visit in visits if (visit.source, visit.shard) == (source, number)), None)


def _item(url: str, data: DataConfig, key: str) -> tuple[Sample | Rejected, list[Rejected]]:
    """Return the sample of a key, and those further on that have the same and are set aside for it."""
    found: list[Sample | Rejected] = []
    keys: list[str] = []
    for item in read_shard(url, data):
        keys.append(item.key)
        if item.key == key:
            found.append(item)
    if not found:
        near = difflib.get_close_matches(key, keys, n=3) or keys[:3]
        told = f"{len(keys):,} samples, the nearest are {', '.join(near)}" if keys else "none at all"
        raise InspectionError(f"{mask(url)}: no sample {key!r}; it holds {told}")
    return found[0], [item for item in found[1:] if isinstance(item, Rejected)]
