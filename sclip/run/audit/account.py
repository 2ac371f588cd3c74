"""Compute what became of every row of a run, from its planned visits, its shards, its ledger and its quarantine.

A visit is one pass over one shard. The ledger is read once, in the order of the steps, so that memory holds only the
rows of visits in progress. The unreadable end of a broken shard, called the rest, counts as one row.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import numpy as np

from sclip.config import ConfigError
from sclip.data.counts import recorded_samples
from sclip.data.patterns import find_shards
from sclip.data.schedule import Visit
from sclip.data.shards import ShardError
from sclip.run.audit.fates import (
    FILTERED_ONCE,
    MISSED,
    QUARANTINED_ONCE,
    REPEATED,
    TRAINED_ONCE,
    Fates,
    ranges,
    words,
)
from sclip.run.audit.run_files import (
    AuditError,
    ExpectedVisits,
    LedgerRows,
    Rejection,
    read_expected_visits,
    read_ledger,
    read_quarantine,
)
from sclip.run.audit.steps import Difference, first_difference
from sclip.run.audit.tars import Tar, count_tars
from sclip.storage.masking import mask
from sclip.storage.paths import StoragePath
from sclip.storage.retries import StorageError

__all__ = ["Audit", "AuditError", "Lost", "Quarantined", "Rows", "StepDifference", "audit"]

_REGULAR = (TRAINED_ONCE, FILTERED_ONCE, QUARANTINED_ONCE)


@dataclass(frozen=True)
class Rows:
    """Rows of one visit that had the same fate."""

    shard: str
    source: int
    pass_: int
    ranges: tuple[tuple[int, int], ...]
    """First and last index of each series of consecutive rows."""
    reason: str = ""
    """What is wrong with the rows; empty means that the name of their list says it, such as `missed_rows`."""


@dataclass(frozen=True)
class Quarantined:
    """A row that the run quarantined."""

    shard: str
    row: int
    """Index in the shard."""
    key: str
    """Sample key; empty for the unreadable rest of a broken shard."""
    reason: str
    passes: int
    """Number of passes in which the row was quarantined."""


@dataclass(frozen=True)
class Lost:
    """A shard that the run could not read completely."""

    shard: str
    reason: str
    samples: int = 0
    """Number of samples known to be missing; 0 means that the number is unknown."""


@dataclass(frozen=True)
class StepDifference:
    """A step whose rows in the ledger differ from the rows in the run's order."""

    step: int
    lacks: tuple[Rows, ...]
    """Rows that the order has in this step and the ledger lacks, without quarantined rows."""
    extra: tuple[Rows, ...]
    """Rows that this step trained on or filtered more often than the order says."""


@dataclass(frozen=True)
class Audit:
    """What became of the rows of a run. A row counts once for each visit of the row's shard."""

    complete: bool
    epochs: int
    expected: int
    trained_once: int
    missed: int
    repeated: int
    quarantined: int
    filtered: int
    unknown: int
    """Number of rows with another fate, such as trained on and quarantined, or beyond the end of the shard."""
    quarantined_rows: tuple[Quarantined, ...]
    missed_rows: tuple[Rows, ...]
    repeated_rows: tuple[Rows, ...]
    unknown_rows: tuple[Rows, ...]
    notes: tuple[str, ...]
    """Faults of the run or its files as a whole, such as a missing ledger file."""
    lost: tuple[Lost, ...] = ()
    """Shards that were left out, that break before their end, or that hold fewer samples than recorded."""
    first_difference: StepDifference | None = None

    @property
    def exact(self) -> bool:
        """True if `missed`, `repeated` and `unknown` are 0 and every step had the rows of the run's order."""
        return not (self.missed or self.repeated or self.unknown or self.first_difference)

    @property
    def order(self) -> str:
        """`exact` if every step had the rows of the run's order, else `differs`."""
        return "differs" if self.first_difference else "exact"


def audit(run: StoragePath, shards: Sequence[str] = ()) -> Audit:
    """Return what became of every row that a run was to visit.

    `shards` are patterns of the run's shards, needed if the recorded URIs lack credentials, or if the data was moved.
    For moved data, give one new pattern for each pattern of data.shards, in the same order.
    Raises AuditError if the run, its ledger or one of its shards cannot be read.
    """
    try:
        expected, notes = read_expected_visits(run, find_shards(shards), len(shards)), list[str]()
    except (ConfigError, ShardError) as error:
        raise AuditError(str(error)) from error
    if not expected.complete:
        notes.append("the run is not complete: rows that it has not trained on yet count as missed")
    rejections = list(read_quarantine(run, expected))
    urls = sorted({expected.url(visit) for visit in expected.visits})
    rests = {expected.url(rejection.visit): rejection.row for rejection in rejections if not rejection.key}
    try:
        tars = count_tars(urls, expected.key_ends_at, rests)
    except StorageError as error:
        raise AuditError(mask(str(error))) from error
    rows = _rows(tars, expected, rejections)
    lost = [Lost(shard, fault) for shard, fault in expected.left_out.items()]
    lost += _lost(tars, rows, expected)
    fates: dict[Visit, Fates] = {}

    def fates_of(visit: Visit) -> Fates:
        if visit not in fates:
            fates[visit] = Fates(rows[expected.url(visit)] if visit in expected.visits else 0)
        return fates[visit]

    def counted() -> Iterator[LedgerRows]:
        for line in read_ledger(run, notes):
            fates_of(line.visit).add(line.kind, line.rows)
            yield line

    ledger = counted()
    groups = _groups(tars, rows, expected, rejections)
    set_aside = {(rejection.visit, rejection.row) for rejection in rejections if rejection.key}
    difference = first_difference(expected, groups, ledger, set_aside)
    deque(ledger, maxlen=0)  # count the remaining lines too
    false_rests = []
    for rejection in rejections:
        url = expected.url(rejection.visit)
        if rejection.key or (url in tars and tars[url].broken and rejection.row == rows[url] - 1):
            fates_of(rejection.visit).add("quarantined", [rejection.row])
        else:
            span = (rejection.row, rejection.row)
            false_rests.append(
                _shard_rows(
                    expected, rejection.visit, [span], "set aside as the unreadable rest, but it is readable"
                )
            )
    result = _sum(expected, tars, rows, fates, rejections, false_rests, notes)
    return dataclasses.replace(
        result,
        lost=tuple(sorted(lost, key=lambda one: one.shard)),
        first_difference=difference and _step_difference(expected, difference),
    )


def _lost(tars: Mapping[str, Tar], rows: Mapping[str, int], expected: ExpectedVisits) -> Iterator[Lost]:
    """Yield each shard that is broken or holds fewer samples than recorded."""
    records = recorded_samples(list(tars))
    for url, tar in tars.items():
        file, samples = records.get(url, ("the run", expected.samples.get(url, 0)))
        readable = rows[url] - tar.broken
        missing = max(0, samples - readable)
        reasons = [f"broken, {tar.why}"] if tar.broken else []
        if missing:
            reasons.append(f"{readable:,} of the {samples:,} samples that {file} records")
        if reasons:
            yield Lost(mask(url), "; ".join(reasons), missing)


def _rows(
    tars: Mapping[str, Tar], expected: ExpectedVisits, rejections: Iterable[Rejection]
) -> dict[str, int]:
    """Return the number of rows of each shard: the samples, plus one for the rest of a broken shard."""
    rests = {expected.url(rejection.visit): rejection.row for rejection in rejections if not rejection.key}
    rows = {}
    for url, tar in tars.items():
        # If the run quarantined the rest under the last group's index, this group is incomplete and part of the rest.
        begins_with_last = tar.groups > 0 and rests.get(url) == tar.groups - 1
        rows[url] = tar.groups + (tar.broken and not begins_with_last)
    return rows


def _groups(
    tars: Mapping[str, Tar],
    rows: Mapping[str, int],
    expected: ExpectedVisits,
    rejections: Iterable[Rejection],
) -> dict[str, int]:
    """Return the number of readable samples of each shard, without shards whose number is unknown."""
    rests = {expected.url(rejection.visit) for rejection in rejections if not rejection.key}
    return {
        url: rows[url] - tar.broken
        for url, tar in tars.items()
        # Unknown if an unfinished run has not met the shard's broken end yet.
        if expected.complete or not tar.broken or url in rests
    }


def _sum(
    expected: ExpectedVisits,
    tars: Mapping[str, Tar],
    rows: Mapping[str, int],
    fates: Mapping[Visit, Fates],
    rejections: Iterable[Rejection],
    false_rests: Sequence[Rows],
    notes: Sequence[str],
) -> Audit:
    counts = np.zeros(128, np.int64)
    missed, repeated, unknown = list[Rows](), list[Rows](), list(false_rests)
    beyond = len(false_rests)
    for visit in sorted(expected.visits | fates.keys()):
        planned, url = visit in expected.visits, expected.url(visit)
        fate = fates.get(visit) or Fates(rows[url])
        codes = fate.codes(with_rest=planned and tars[url].broken)
        counts += np.bincount(codes, minlength=len(counts))
        for code in np.unique(codes).tolist():
            if code in _REGULAR:
                continue
            code_rows = {MISSED: missed, REPEATED: repeated}.get(code, unknown)
            reason = words(code) if code_rows is unknown else ""
            code_rows.append(_shard_rows(expected, visit, ranges(np.flatnonzero(codes == code)), reason))
        if len(indices := fate.beyond()):
            beyond += len(indices)
            reason = f"its tar has {rows[url]} rows" if planned else "the schedule has no such visit"
            unknown.append(_shard_rows(expected, visit, ranges(indices), reason))
    known = {code: int(counts[code]) for code in (MISSED, *_REGULAR, REPEATED)}
    return Audit(
        expected.complete, expected.epochs, expected=int(counts.sum()), trained_once=known[TRAINED_ONCE],
        missed=known[MISSED], repeated=known[REPEATED],
        quarantined=known[QUARANTINED_ONCE], filtered=known[FILTERED_ONCE],
        unknown=int(counts.sum()) - sum(known.values()) + beyond,
        quarantined_rows=_quarantined(expected, rejections),
        missed_rows=tuple(missed), repeated_rows=tuple(repeated), unknown_rows=tuple(unknown),
        notes=tuple(notes),
    )  # fmt: skip


def _shard_rows(
    expected: ExpectedVisits, visit: Visit, spans: Iterable[tuple[int, int]], reason: str = ""
) -> Rows:
    return Rows(mask(expected.url(visit)), visit.source, visit.pass_, tuple(spans), reason)


def _step_difference(expected: ExpectedVisits, difference: Difference) -> StepDifference:
    lacks, extra = (
        tuple(
            _shard_rows(expected, visit, ranges(np.array([row for _, row in visit_rows])))
            for visit, visit_rows in groupby(rows, key=itemgetter(0))
        )
        for rows in (difference.lacks, difference.extra)
    )
    return StepDifference(difference.step, lacks, extra)


def _quarantined(expected: ExpectedVisits, rejections: Iterable[Rejection]) -> tuple[Quarantined, ...]:
    passes = Counter((mask(expected.url(visit)), row, key, reason) for visit, row, key, reason in rejections)
    return tuple(Quarantined(*row, count) for row, count in sorted(passes.items()))
