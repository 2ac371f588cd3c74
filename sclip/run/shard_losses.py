"""What of its shards a run does not train on: shards and their counts in; refusal, record and the lines about it out.

What is known at the start stands in the run's `losses.json`: unreadable shards that are left out, records that say
another number than the tar holds, tars that break before their end. What readers find stands in `quarantine.jsonl`: the
rest of a shard that breaks, under an empty key; a shard that ends early, with how many samples in "missing".
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sclip.config import ConfigError, DataConfig
from sclip.data.counts import Counts, Record
from sclip.data.sniff import EMPTY_TAR, NotATar, described
from sclip.data.tar import Tally
from sclip.storage.masking import mask
from sclip.storage.paths import StoragePath, shown

__all__ = ["LOSSES_FILE", "Losses", "closing_lines", "judged"]

LOSSES_FILE = "losses.json"
_NAMED = 3
"""Shards of a line."""


@dataclass(frozen=True)
class Losses:
    """What is known at the start of a run to be lost, or to be otherwise than recorded."""

    unreadable: dict[str, str] = field(default_factory=dict)
    """What each shard is that is left out, by its name without credentials."""
    unreadable_samples: int = 0
    """Recorded of them."""
    unreadable_line: str = ""
    wrong: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    """File, what it says, and what was counted, of records that are wrong."""
    broken: dict[str, str] = field(default_factory=dict)
    """Why shards cannot be read to their end."""
    absent: dict[str, str] = field(default_factory=dict)
    """How many samples are recorded, and where, of shards that are not there."""
    empty: list[str] = field(default_factory=list)
    """Shards without a sample."""

    def lines(self) -> list[str]:
        """Return what the user is told at the start and at the end of the run."""
        lines = [f"left out    {self.unreadable_line}"] if self.unreadable else []
        if self.absent:
            lines.append(f"absent      recorded and not there: {_named(self.absent)}")
        if self.empty:
            lines.append(f"empty       {len(self.empty):,} shards hold no sample (first {self.empty[0]})")
        if self.wrong:
            (shard, (file, says, holds)), *others = self.wrong.items()
            more = f" and {len(others):,} more are wrong" if others else ""
            lines.append(
                f"counted     {file} says {says:,}, there are {holds:,} samples in {shard}{more}; every shard was "
                "counted, and the schedule follows the counts"
            )
        if self.broken:
            lines.append(f"cut short   {_named(self.broken)}")
        return lines


def judged(
    data: DataConfig, unreadable: Mapping[str, NotATar], counts: Counts, records: Mapping[str, Record]
) -> Losses:
    """Return what of the shards is lost.

    Args:
        data: with how much may be lost.
        unreadable: shards that are no tars.
        counts: of the others; tars without a sample, of which samples are recorded, are taken for unreadable.
        records: of all shards, those that are recorded and not there among them.

    Raises ConfigError where more is lost than the config allows.
    """
    lost = dict(unreadable)
    lost |= {url: EMPTY_TAR for url in counts.wrong() if not counts.samples[url] and url not in counts.broken}
    lost |= {
        url: NotATar("a file that cannot be read", "download it again", why)
        for url, why in counts.broken.items() if not counts.samples[url]
    }  # fmt: skip
    shards = len(unreadable) + len(counts.samples)
    line = f"{len(lost):,} of {shards:,} shards cannot be read: {described(lost)}" if lost else ""
    if lost and len(lost) == shards:
        raise ConfigError(f"data.shards: {line}")
    if len(lost) > data.max_unreadable_shards:
        raise ConfigError(
            f"data.shards: {line}; bring them, name the others, or leave so many out with "
            f"data.max_unreadable_shards={len(lost)}"
        )
    rest = {url: count for url, count in counts.samples.items() if url not in lost}
    short = {url: counts.expected(url) - count for url, count in rest.items() if counts.expected(url) > count}
    of_lost = {url: records[url].samples for url in lost if url in records}
    absent = {url: of.samples for url, of in records.items() if url not in lost and url not in rest}
    of_missing = short | of_lost | absent
    missing = sum(of_missing.values())
    there = sum(rest.values())
    if missing > data.max_quarantined * (missing + there):
        first, *_ = of_missing
        why = counts.broken.get(first) or str(lost.get(first, "")) or "it is a whole tar"
        why = "it is not there" if first in absent else why
        raise ConfigError(
            f"data.shards: {missing:,} of {missing + there:,} samples that are recorded are missing, above "
            f"data.max_quarantined={data.max_quarantined}, in {len(of_missing):,} shards: {mask(first)} "
            f"holds {rest.get(first, 0):,} of {records[first].samples:,} in {records[first].file} ({why}); download "
            f"them again, correct {records[first].file}, or raise data.max_quarantined"
        )
    wrong = {
        mask(url): (records[url].file, records[url].samples, counts.samples[url])
        for url in counts.wrong() if url not in lost
    }  # fmt: skip
    broken = {mask(url): why for url, why in counts.broken.items() if url not in lost}
    empty = sorted(mask(url) for url, samples in rest.items() if not samples)
    of_kind = {mask(url): str(what) for url, what in sorted(lost.items())}
    gone = {mask(url): f"{samples:,} samples in {records[url].file}" for url, samples in absent.items()}
    return Losses(of_kind, sum(of_lost.values()), line, wrong, broken, gone, empty)


def closing_lines(folder: StoragePath, trained: Mapping[str, Any]) -> list[str]:
    """Return the lines of the closing table about what a run did not train on, from what its folder holds."""
    path = folder / LOSSES_FILE
    losses = Losses(**json.loads(path.read_text())) if path.exists() else Losses()
    rests, short = dict(losses.broken), dict[str, tuple[int, str]]()
    set_aside = folder / "quarantine.jsonl"
    if trained["quarantined"] or trained.get("missing"):
        for line in map(json.loads, set_aside.read_text().splitlines()):
            if not line["key"] and "missing" in line:
                short[line["shard"]] = (line["missing"], line["reason"])
            elif not line["key"]:
                rests[line["shard"]] = line["reason"]
    samples = trained["quarantined"] - trained.get("rests", 0)
    lines = []
    if samples:
        lines.append(f"set aside   {samples:,} samples could not be trained on: {shown(set_aside)}")
    lines += Losses(**asdict(losses) | {"broken": rests}).lines()
    if losses.unreadable_samples:
        lines.append(
            f"missing     {losses.unreadable_samples:,} samples that are recorded of the shards left out"
        )
    if short:
        total = sum(missing for missing, _ in short.values())
        named = _named({shard: reason for shard, (_, reason) in short.items()})
        lines.append(f"missing     {total:,} recorded samples are not in {named}: {shown(set_aside)}")
    if beyond := trained.get("beyond"):
        lines.append(
            f"more        {sum(beyond.values()):,} samples more than recorded were trained on, at the end"
        )
    found = Tally(*(Counter(trained.get(name)) for name in ("unread", "cleaned", "foreign")))
    return [*lines, *found.lines()]


def _named(shards: Mapping[str, str]) -> str:
    """Return how many shards there are, and some of them with what is said of each."""
    some: Sequence[str] = [f"{shard}: {what}" for shard, what in sorted(shards.items())[:_NAMED]]
    more = f", and {len(shards) - _NAMED:,} more" if len(shards) > _NAMED else ""
    return f"{len(shards):,} shards ({'; '.join(some)}{more})"
