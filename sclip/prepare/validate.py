"""Find the samples that a training run would quarantine, before the run starts and with the code of the run.

    shards -> (Ray Data: one task per shard) -> findings of each -> merged -> quarantine.jsonl, report.json, report.html

As in a run, `read_shard` reads each shard and `random_crop` decodes each image. There is no other check, so a run
trains on the samples that pass here. A shard's record is its sample count in a file beside the shard
(`sclip.data.counts.recorded_samples`).
"""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from braceexpand import braceexpand

from sclip.config import DataConfig
from sclip.data import annotation
from sclip.data.annotation import AnnotationError
from sclip.data.counts import INDEX, Record, recorded_samples
from sclip.data.images import ImageError, open_image, random_crop
from sclip.data.names import ANNOTATION_SUFFIX
from sclip.data.patterns import expand
from sclip.data.shards import Rejected, Sample, ShardError, read_shard
from sclip.data.tar import Tally
from sclip.prepare.actor_pool import ActorPool
from sclip.prepare.annotate import stamp
from sclip.report.page import render
from sclip.scenegraph import Parser
from sclip.storage.masking import mask
from sclip.storage.paths import shown

_NAMED = 10
_WORDS = re.compile(r"\+words-\d+")
"""Part of a stamp that names a word limit ("+words-90"). Stamps are compared without this part."""


@dataclass(slots=True)
class Findings:
    """Findings of one shard, or of all shards together."""

    shards: int = 0
    samples: int = 0
    """Samples that a run would train on."""
    captions: int = 0
    bytes: int = 0
    """Bytes of all members of the samples that a run would train on."""
    stamps: dict[str, int] = field(default_factory=dict)
    """Number of samples by annotation stamp. The key "" means no annotation, "?" an unreadable annotation."""
    widths: dict[int, int] = field(default_factory=dict)
    """Number of images that a run would train on, by width in pixels as stored."""
    heights: dict[int, int] = field(default_factory=dict)
    quarantined: list[dict[str, Any]] = field(default_factory=list)
    """One entry (shard, key, index, reason) per quarantined sample and per unreadable rest of a shard (empty key)."""
    unreachable: list[str] = field(default_factory=list)
    """One message per shard that the storage did not deliver completely."""
    groups: dict[str, int] = field(default_factory=dict)
    """Number of samples of each shard, usable or not."""
    wrong: list[dict[str, Any]] = field(default_factory=list)
    """One entry (shard, file of the record, recorded, samples) per shard with a wrong record."""
    absent: list[str] = field(default_factory=list)
    """Shards that have a record but do not exist."""
    missing: int = 0
    """Number of recorded samples that the shards have lost."""
    unread: dict[str, int] = field(default_factory=dict)
    """This and the next two fields sum the readers' `Tally` (`sclip.data.tar`)."""
    cleaned: dict[str, int] = field(default_factory=dict)
    foreign: dict[str, int] = field(default_factory=dict)
    malformed: list[dict[str, Any]] = field(default_factory=list)
    """One entry (shard, key, index, reason) per sample with an unreadable field of data.foreign_fields."""

    def merge(self, other: Findings) -> None:
        """Add the findings of another shard."""
        for name in ("shards", "samples", "captions", "bytes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("stamps", "widths", "heights", "unread", "cleaned", "foreign"):
            setattr(self, name, dict(Counter(getattr(self, name)) + Counter(getattr(other, name))))
        self.groups |= other.groups
        self.quarantined += other.quarantined
        self.malformed += other.malformed
        self.unreachable += other.unreachable

    def compare(self, records: Mapping[str, Record], absent: Iterable[str] = ()) -> None:
        """Set `wrong`, `absent` and `missing` by comparison with `records`. Shard names are free of credentials."""
        self.absent = sorted(absent)
        rests = {entry["shard"] for entry in self.rests}
        for shard, samples in sorted((dict.fromkeys(self.absent, 0) | self.groups).items()):
            file, recorded = records.get(shard, Record("", samples))
            if recorded != samples:
                self.wrong.append({"shard": shard, "file": file, "recorded": recorded, "samples": samples})
                # A run has the same rule. Any other tar is complete, and another program's record of it is wrong.
                if file == INDEX or not samples or shard in rests:
                    self.missing += max(0, recorded - samples)

    @property
    def is_clean(self) -> bool:
        """Whether all shards are complete, not empty and correctly recorded, and a run uses everything unchanged."""
        losses = (self.quarantined, self.unreachable, self.wrong, self.empty)
        return not any((*losses, self.unread, self.cleaned, self.foreign))

    @property
    def rests(self) -> list[dict[str, Any]]:
        """Entries of `quarantined` for shards that are unreadable from some point on."""
        return [entry for entry in self.quarantined if not entry["key"]]

    @property
    def empty(self) -> list[str]:
        """Shards that are readable to their end and hold no sample."""
        rests = {entry["shard"] for entry in self.rests}
        return sorted(shard for shard, samples in self.groups.items() if not samples and shard not in rests)

    @property
    def share(self) -> float:
        """Share of all samples that are quarantined or missing. data.max_quarantined limits a similar share."""
        lost = len(self.quarantined) + self.missing
        return lost / max(1, self.samples + lost)

    def reasons(self) -> list[tuple[str, int, dict[str, Any]]]:
        """Return each kind of reason with its count and one example, the most frequent kind first."""
        kinds: dict[str, list[dict[str, Any]]] = {}
        for entry in self.quarantined:
            kinds.setdefault(kind(entry["reason"]), []).append(entry)
        rows = [(name, len(entries), entries[0]) for name, entries in kinds.items()]
        return sorted(rows, key=lambda row: (-row[1], row[0]))

    def pixels(self) -> dict[str, list[int]]:
        """Return the smallest, median and largest width and height; empty if there is no image."""
        sizes = {}
        for name, counts in (("width", self.widths), ("height", self.heights)):
            if counts:
                sizes[name] = [min(counts), _median(counts), max(counts)]
        return sizes

    def notes(self, stamp: str) -> list[str]:
        """Return lines of notes for the report; `stamp` is this installation's annotation stamp."""
        lines = [
            f"{self.samples:,} samples of {self.shards:,} shards are trained on, "
            f"{self.captions / max(1, self.samples):.1f} captions each, {self.bytes / 2**20:,.1f} MiB",
            f"{len(self.quarantined) - len(self.rests):,} samples are set aside and {len(self.rests):,} shards cannot "
            f"be read to their end, {100 * self.share:.2f} % (data.max_quarantined)",
            *(f"{entry['shard']}: {entry['reason']}" for entry in self.rests[:_NAMED]),
            *(
                f"{entry['shard']}: {entry['file']} records {entry['recorded']:,} samples, "
                f"there are {entry['samples']:,}"
                for entry in self.wrong[:_NAMED]
            ),
        ]
        if self.empty:
            lines.append(f"{len(self.empty):,} shards hold no sample (first {self.empty[0]})")
        if self.absent:
            lines.append(f"{len(self.absent):,} recorded shards are missing (first {self.absent[0]})")
        if self.missing:
            lines.append(
                f"{self.missing:,} recorded samples are missing, in {len(self.wrong):,} shards with wrong counts"
            )
        lines += Tally(Counter(self.unread), Counter(self.cleaned), Counter(self.foreign)).lines()
        lines += [f"{entry['shard']}: {entry['key']}: {entry['reason']}" for entry in self.malformed[:_NAMED]]
        lines += [f"{name}s {least}, {median}, {most} pixels: smallest, median, largest"
                  for name, (least, median, most) in self.pixels().items()]  # fmt: skip
        ours = {s for s in self.stamps if s and _WORDS.sub("", s) == stamp}
        own, none = sum(self.stamps[s] for s in ours), self.stamps.get("", 0)
        if own:
            lines.append(f"{own:,} samples are annotated under this installation's stamp")
        if other := self.samples - own - none:
            stamps = ", ".join(sorted(set(self.stamps) - ours - {""}))
            lines.append(
                f"{other:,} samples are annotated under another stamp ({stamps}): annotate them again"
            )
        if none:
            lines.append(f"{none:,} samples are not annotated: a run parses their captions")
        return lines


def _median(counts: Mapping[int, int]) -> int:
    """Return the lower median, given the count of each value."""
    remaining = (sum(counts.values()) + 1) // 2
    for value in sorted(counts):
        remaining -= counts[value]
        if remaining <= 0:
            break
    return value


def reachable(patterns: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the shards of all paths, globs and URIs, and one message per name without a shard."""
    shards: set[str] = set()
    failures = []
    for pattern in patterns:
        try:
            shards.update(expand([pattern]))
        except ShardError as error:
            names = list(braceexpand(pattern)) if "{" in pattern and "}" in pattern else []
            if len(names) < 2:
                failures.append(str(error))
            else:  # one of several names fails; look up each alone
                expanded = reachable(names)
                shards.update(expanded[0])
                failures += expanded[1]
    return sorted(shards), failures


def kind(reason: str) -> str:
    """Replace the parts of a reason that differ between samples: numbers and quoted names."""
    reason = re.sub(r"'[^']*'|\"[^\"]*\"", "'…'", reason.partition("\n")[0])
    return re.sub(r"\b0x[0-9a-f]+|(?<![A-Z]-)\d[\d.,]*", "N", reason)[:160]


def examine(
    patterns: Sequence[str],
    data: DataConfig,
    size: int,
    pool: ActorPool,
    cpus: Callable[[], float],
    say: Callable[[Findings, int, float], None],
    out: Path | None,
) -> tuple[Findings, list[str]]:
    """Validate the shards that can be reached, and write the report into the folder `out` unless it is None.

    `cpus` connects to the cluster and returns its CPUs. `say` is called after each shard with the merged findings, the
    number of shards and the samples per second. Returns the findings, unreachable shards included, and lines of notes.
    Raises ParserError, the errors of `validate`, and OSError if the report cannot be written.
    """
    shards, failures = reachable(patterns)
    if out:
        out.mkdir(parents=True, exist_ok=True)  # fail before the hours of reading
    findings, seconds = Findings(), 0.0

    def rate(findings: Findings) -> float:
        return (findings.samples + len(findings.quarantined)) / max(seconds, 1e-9)

    def on_shard(findings: Findings) -> None:
        nonlocal seconds
        seconds = time.monotonic() - started
        say(findings, len(shards), rate(findings))

    if shards:
        connected = cpus()
        started = time.monotonic()
        findings = validate(shards, data, size, pool, connected, on_shard, patterns)
        seconds = time.monotonic() - started
    findings.unreachable[:0] = failures
    notes = findings.notes(stamp(Parser(data.spacy_model)) if any(findings.stamps) else "")
    notes.append(
        f"{rate(findings):,.0f} samples a second at {size} pixels, including the start of the actors"
    )
    if out:
        notes.append(f"look at it: {shown(write(findings, out, 'Validation of shards', notes, seconds))}")
    return findings, notes


def validate(
    shards: Sequence[str],
    data: DataConfig,
    size: int,
    pool: ActorPool,
    cpus: float,
    on_shard: Callable[[Findings], None],
    patterns: Sequence[str] = (),
) -> Findings:
    """Read all shards on the connected cluster, which has `cpus` CPUs; return the findings of all shards together.

    After each shard, `on_shard` gets the findings so far. `patterns` are the patterns that gave `shards`. A recorded
    shard that matches a pattern but does not exist is absent. Raises ConfigError if no actor fits on the cluster.
    """
    findings = Findings()
    for row in pool.run(Validator, (data, size), shards, cpus):
        findings.merge(_from_json(row["findings"]))
        on_shard(findings)
    records = recorded_samples(shards, patterns)
    absent = [mask(url) for url in records.keys() - set(shards)]
    findings.compare({mask(url): record for url, record in records.items()}, absent)
    order = {mask(url): number for number, url in enumerate(shards)}
    findings.quarantined.sort(key=lambda entry: (order[entry["shard"]], entry["index"]))
    findings.unreachable.sort()
    return findings


def _from_json(text: str) -> Findings:
    value = json.loads(text)
    counts = {name: {int(k): count for k, count in value[name].items()} for name in ("widths", "heights")}
    return Findings(**value | counts)


class Validator:
    """Ray Data actor that validates shards: a callable for `map_batches`."""

    def __init__(self, data: DataConfig, size: int) -> None:
        self._data, self._size = data, size

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Read the shards in the column `shard`; return the `Findings` of each as JSON in the column `findings`."""
        findings = [json.dumps(asdict(self._shard(url))) for url in batch["shard"].to_pylist()]
        return pa.table({"findings": findings})

    def _shard(self, url: str) -> Findings:
        stamps, widths, heights, tally = Counter[str](), Counter[int](), Counter[int](), Tally()
        findings, groups = Findings(shards=1), 0
        try:
            for item in self._judged(url, tally):
                groups += bool(item.key)
                if isinstance(item, Rejected):
                    findings.quarantined.append({"shard": mask(url)} | asdict(item))
                    continue
                findings.samples += 1
                findings.captions += len(item.captions)
                findings.bytes += sum(map(len, item.members.values()))
                width, height = open_image(item.image).size
                if item.fault:
                    location = {"shard": mask(url), "key": item.key, "index": item.index}
                    findings.malformed.append(location | {"reason": item.fault})
                stamps[_stamp(item)] += 1
                widths[width] += 1
                heights[height] += 1
            findings.groups[mask(url)] = groups
        except ShardError as error:
            findings.unreachable.append(str(error))
        for name in ("unread", "cleaned", "foreign"):
            setattr(findings, name, dict(getattr(tally, name)))
        findings.stamps, findings.widths, findings.heights = dict(stamps), dict(widths), dict(heights)
        return findings

    def _judged(self, url: str, tally: Tally) -> Iterator[Sample | Rejected]:
        """Yield the samples of `read_shard`; a sample whose image cannot be decoded becomes a `Rejected`."""
        rng = random.Random(0)  # any seed will do: every crop decodes the whole image
        for item in read_shard(url, self._data, tally):
            judged: Sample | Rejected = item
            if isinstance(item, Sample):
                try:
                    random_crop(item.image, self._size, self._data.crop_scale, rng)
                except ImageError as error:
                    judged = Rejected(item.index, item.key, str(error))
            yield judged


def _stamp(sample: Sample) -> str:
    if ANNOTATION_SUFFIX not in sample.members:
        return ""
    try:
        return annotation.read(sample)[0]
    except AnnotationError:
        return "?"


def write(findings: Findings, folder: Path, title: str, notes: Sequence[str], seconds: float) -> Path:
    """Write quarantine.jsonl, report.json and report.html into a new or existing folder; return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(entry, sort_keys=True) + "\n" for entry in findings.quarantined]
    (folder / "quarantine.jsonl").write_text("".join(lines), encoding="utf-8")
    reasons = [{"reason": name, "count": count, "example": example}
               for name, count, example in findings.reasons()]  # fmt: skip
    value: Mapping[str, Any] = {
        "title": title, "shards": findings.shards, "samples": findings.samples, "captions": findings.captions,
        "bytes": findings.bytes, "quarantined": len(findings.quarantined), "share_quarantined": findings.share,
        "unreadable": findings.rests, "wrong_counts": findings.wrong, "absent": findings.absent,
        "missing": findings.missing, "unread": findings.unread, "cleaned": findings.cleaned,
        "foreign": findings.foreign, "malformed": findings.malformed,
        "pixels": findings.pixels(), "stamps": findings.stamps, "unreachable": findings.unreachable,
        "seconds": seconds, "reasons": reasons,
    }  # fmt: skip
    (folder / "report.json").write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    page = folder / "report.html"
    html = render("validate.html", title=title, notes=notes, found=findings, reasons=reasons)
    page.write_text(html, encoding="utf-8")
    return page
