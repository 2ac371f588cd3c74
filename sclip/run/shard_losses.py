"""Find the samples that a run loses through faulty shards. Refuse the run if too many are lost, else report them.

`losses.json` in the run's folder holds what is known before training: unreadable shards that are left out, wrong
records (stored sample counts), and tars that break before their end. `quarantine.jsonl` holds what readers find later.
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
_NAMED = 3  # shards that one line names


@dataclass(frozen=True)
class Losses:
    """Lost samples and wrong records (stored sample counts) that are known before training."""

    unreadable: dict[str, str] = field(default_factory=dict)
    """Fault of each shard that is left out, by the shard's URL without credentials."""
    unreadable_samples: int = 0
    """Recorded number of samples in the unreadable shards."""
    unreadable_line: str = ""
    wrong: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    """File, recorded count and true count of each shard whose record is wrong."""
    broken: dict[str, str] = field(default_factory=dict)
    """Reason why a shard cannot be read to its end, by the shard's URL without credentials."""
    absent: dict[str, str] = field(default_factory=dict)
    """Shards that are recorded but do not exist, each with a text such as "100 samples in index.json"."""
    empty: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return lines about the losses, which the user sees at the start and at the end of the run."""
        lines = [f"left out    {self.unreadable_line}"] if self.unreadable else []
        if self.absent:
            lines.append(f"absent      recorded but missing: {_named(self.absent)}")
        if self.empty:
            lines.append(f"empty       {len(self.empty):,} shards hold no sample (first {self.empty[0]})")
        if self.wrong:
            (shard, (file, says, holds)), *rest = self.wrong.items()
            more = f" and {len(rest):,} more counts are wrong" if rest else ""
            lines.append(
                f"counted     {file} records {says:,} samples, {shard} holds {holds:,}{more}; every shard was "
                "counted, and the schedule follows the counts"
            )
        if self.broken:
            lines.append(f"cut short   {_named(self.broken)}")
        return lines


def judged(
    data: DataConfig, unreadable: Mapping[str, NotATar], counts: Counts, records: Mapping[str, Record]
) -> Losses:
    """Return the losses of the shards.

    Args:
        data: has the limits of losses (`max_unreadable_shards`, `max_quarantined`).
        unreadable: unreadable shards, with the fault of each.
        counts: sample counts of the other shards.
        records: stored sample counts, also of shards that do not exist.

    Raises ConfigError if more is lost than the config allows, or if every shard is unreadable.
    """
    # A shard without samples is lost too if it is broken, or if its record says that it has samples.
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
            f"data.shards: {line}; replace them, name only the others, or leave them out with "
            f"data.max_unreadable_shards={len(lost)}"
        )
    rest = {url: count for url, count in counts.samples.items() if url not in lost}
    short = {url: counts.expected(url) - count for url, count in rest.items() if counts.expected(url) > count}
    lost_samples = {url: records[url].samples for url in lost if url in records}
    absent = {url: record.samples for url, record in records.items() if url not in lost and url not in rest}
    missing_by_shard = short | lost_samples | absent
    missing = sum(missing_by_shard.values())
    counted = sum(rest.values())
    if missing > data.max_quarantined * (missing + counted):
        first, *_ = missing_by_shard
        why = counts.broken.get(first) or str(lost.get(first, "")) or "the tar is complete"
        why = "the shard is missing" if first in absent else why
        raise ConfigError(
            f"data.shards: {missing:,} of {missing + counted:,} recorded samples are missing, above "
            f"data.max_quarantined={data.max_quarantined}, in {len(missing_by_shard):,} shards: {mask(first)} "
            f"holds {rest.get(first, 0):,} of {records[first].samples:,} in {records[first].file} ({why}); download "
            f"them again, correct {records[first].file}, or raise data.max_quarantined"
        )
    wrong = {
        mask(url): (records[url].file, records[url].samples, counts.samples[url])
        for url in counts.wrong() if url not in lost
    }  # fmt: skip
    broken = {mask(url): why for url, why in counts.broken.items() if url not in lost}
    empty = sorted(mask(url) for url, samples in rest.items() if not samples)
    faults = {mask(url): str(fault) for url, fault in sorted(lost.items())}
    gone = {mask(url): f"{samples:,} samples in {records[url].file}" for url, samples in absent.items()}
    return Losses(faults, sum(lost_samples.values()), line, wrong, broken, gone, empty)


def closing_lines(folder: StoragePath, trained: Mapping[str, Any]) -> list[str]:
    """Return the lines that the user sees at the end of the run about samples that were not trained on."""
    path = folder / LOSSES_FILE
    losses = Losses(**json.loads(path.read_text())) if path.exists() else Losses()
    rests, short = dict(losses.broken), dict[str, tuple[int, str]]()
    set_aside = folder / "quarantine.jsonl"
    if trained["quarantined"] or trained.get("missing"):
        # A line without a key is about a shard.
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
        lines.append(f"missing     {losses.unreadable_samples:,} recorded samples of the shards left out")
    if short:
        total = sum(missing for missing, _ in short.values())
        shard_list = _named({shard: reason for shard, (_, reason) in short.items()})
        lines.append(f"missing     {total:,} recorded samples are not in {shard_list}: {shown(set_aside)}")
    if beyond := trained.get("beyond"):
        lines.append(
            f"more        {sum(beyond.values()):,} samples beyond the recorded counts were trained on, at the end"
        )
    tally = Tally(*(Counter(trained.get(name)) for name in ("unread", "cleaned", "foreign")))
    return [*lines, *tally.lines()]


def _named(shards: Mapping[str, str]) -> str:
    some: Sequence[str] = [f"{shard}: {text}" for shard, text in sorted(shards.items())[:_NAMED]]
    more = f", and {len(shards) - _NAMED:,} more" if len(shards) > _NAMED else ""
    return f"{len(shards):,} shards ({'; '.join(some)}{more})"
