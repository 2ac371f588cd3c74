"""The files of a run, read for the audit: its planned visits, what its ledger says became of rows, its quarantine.

A line of the ledger of one attempt counts up to the step that the later attempts went on from: what a crash threw
away was rolled back with the weights and trained on again.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from sclip.data.schedule import Schedule, Visit
from sclip.storage.masking import is_masked, mask
from sclip.storage.paths import StoragePath, local_copy

__all__ = [
    "AuditError",
    "ExpectedVisits",
    "Rejection",
    "read_expected_visits",
    "read_ledger",
    "read_quarantine",
]

_KINDS = ("trained", "filtered")
_MOST = 2**62  # what fits into an array
_MALFORMED = (LookupError, TypeError, ValueError, AttributeError, OverflowError)


class AuditError(Exception):
    """A run that cannot be audited; one line with what is missing or damaged."""


@dataclass(frozen=True)
class ExpectedVisits:
    """The visits to shards that a run was to make."""

    shards: tuple[tuple[str, ...], ...]
    """Of each source, in the order of their numbers."""
    epochs: int
    visits: frozenset[Visit]
    complete: bool
    """The run says that it is through."""
    samples: Mapping[str, int] = field(default_factory=dict)
    """Of each shard, as the run has counted or believed."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Shards that the run could not read and has no visits of, each with what it was."""

    def url(self, visit: Visit) -> str:
        """Return the shard of a visit, or, of one that no source has, its number."""
        try:
            return self.shards[visit.source][visit.shard]
        except IndexError:
            return f"shard {visit.shard} of source {visit.source}"


class Rejection(NamedTuple):
    """A line of quarantine.jsonl."""

    visit: Visit
    row: int
    """Place in its tar."""
    key: str
    """Empty: the unreadable rest of a broken tar."""
    reason: str


@dataclass(frozen=True)
class _LedgerFile:
    """The ledger of one rank in one attempt."""

    path: StoragePath
    attempt: int
    rank: int
    world_size: int
    from_step: int


def read_expected_visits(run: StoragePath, named: Iterable[str] = ()) -> ExpectedVisits:
    """Return the visits that the run of a folder was to make, its shards by their true URIs where `named` has them.

    Raises AuditError where there is none, one that contradicts itself, or one that names shards which nothing opens.
    """
    true = {mask(url): url for url in named}
    config, shard_list = (_json(run / name) for name in ("config.json", "shards.json"))
    try:
        epochs, seed = int(config["train"]["epochs"]), int(config["run"]["seed"])
        sources = [sorted(source["shards"].items()) for source in shard_list["sources"]]
        weights = [float(source["weight"]) for source in shard_list["sources"]]
        shards = tuple(tuple(true.get(mask(url), url) for url, _ in source) for source in sources)
        schedule = Schedule.weighted(seed, epochs, [[n for _, n in source] for source in sources], weights)
        entries = len(schedule)
        visits = frozenset(schedule.visit(entry) for entry in range(entries))
        samples = {true.get(mask(url), url): int(n) for source in sources for url, n in source}
        losses = _json(run / "losses.json") if (run / "losses.json").exists() else {"unreadable": {}}
        left_out = {str(url): str(what) for url, what in losses["unreadable"].items()}
    except _MALFORMED as error:
        raise AuditError(f"{run}: config.json or shards.json is of another version: {error!r}") from error
    if masked := [url for source in shards for url in source if is_masked(url)]:
        raise AuditError(
            f"{run}: {len(masked)} shards are recorded without their credentials or signatures, the first is "
            f"{masked[0]}; name them as in data.shards: --shards URI.."
        )
    if len(visits) != entries:
        raise AuditError(f"{run}: the schedule has {entries} visits, but only {len(visits)} different ones")
    if len(shards) == 1:
        whole = {Visit(0, pass_, shard) for pass_ in range(epochs) for shard in range(len(shards[0]))}
        if visits != whole:
            raise AuditError(
                f"{run}: the schedule does not visit every shard once in each of {epochs} passes"
            )
    return ExpectedVisits(
        shards, epochs, visits, (run / "complete.json").is_file(), samples, left_out
    )  # fmt: skip


def _json(path: StoragePath) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise AuditError(f"{path}: no such file; name the folder of a run") from None
    except (OSError, ValueError) as error:
        raise AuditError(f"{path}: not readable: {error}") from error


def read_ledger(run: StoragePath, notes: list[str]) -> Iterator[tuple[str, Visit, list[int]]]:
    """Yield what counts of a run's ledger, in the order of the steps.

    That is: "trained" or "filtered", the visit, and the places of rows in its tar. What is amiss with the
    files themselves is added to `notes`.

    Raises AuditError where there is no ledger, or one that is damaged elsewhere than in a last line, which a kill cuts.
    """
    with local_copy(run / "ledger") as folder:
        yield from _read_ledger(run, folder, notes)


def _read_ledger(run: StoragePath, folder: Path, notes: list[str]) -> Iterator[tuple[str, Visit, list[int]]]:
    attempts: dict[int, list[_LedgerFile]] = {}
    for path in sorted(folder.glob("*-*.jsonl")):
        if (file := _head(path)) is None:
            notes.append(f"{path.name} was cut before its first line was whole")
        else:
            attempts.setdefault(file.attempt, []).append(file)
    if not attempts:
        raise AuditError(
            f"{run / 'ledger'}: no ledger; the run has not begun to train, or its files are lost"
        )
    for attempt, files in sorted(attempts.items()):
        absent = set(range(max(file.world_size for file in files))) - {file.rank for file in files}
        notes += (f"attempt {attempt}: no ledger of rank {rank}" for rank in sorted(absent))
        later = [file.from_step for number, of in attempts.items() if number > attempt for file in of]
        for step, place, line in heapq.merge(*map(_steps, files), key=itemgetter(0)):
            if later and step > min(later):
                continue
            try:
                found = [(kind, *_places(*of)) for kind in _KINDS for of in line.get(kind, ())]
            except _MALFORMED as error:
                raise AuditError(f"{place}: not a step's line: {error!r}") from error
            yield from found


def _places(source: int, pass_: int, shard: int, indices: list[int]) -> tuple[Visit, list[int]]:
    edges = (source, pass_, shard, min(indices, default=0), max(indices, default=0))
    if {*map(type, edges), *map(type, indices)} != {int} or max(map(abs, edges)) > _MOST:
        raise ValueError("whole numbers are needed")
    return Visit(source, pass_, shard), indices


def _head(path: StoragePath) -> _LedgerFile | None:
    for place, line in _lines(path):
        try:
            numbers = (int(line[name]) for name in ("attempt", "rank", "world_size", "from_step"))
            return _LedgerFile(path, *numbers)
        except _MALFORMED as error:
            raise AuditError(f"{place}: not the head of a ledger: {error!r}") from error
    return None


def _steps(file: _LedgerFile) -> Iterator[tuple[int, str, dict[str, Any]]]:
    lines = _lines(file.path)
    next(lines)
    for place, line in lines:
        try:
            yield int(line["step"]), place, line
        except _MALFORMED as error:
            raise AuditError(f"{place}: not a step's line: {error!r}") from error


def read_quarantine(run: StoragePath, expected: ExpectedVisits) -> Iterator[Rejection]:
    """Yield the lines of quarantine.jsonl; none where nothing was set aside.

    Raises AuditError where one is malformed or names a shard that the run has not.
    """
    path = run / "quarantine.jsonl"
    numbers = [{mask(url): number for number, url in enumerate(source)} for source in expected.shards]
    for place, line in _lines(path) if path.exists() else ():
        try:
            if "missing" in line:  # no row, and of the run's own account
                continue
            source = int(line["source"])
            visit = Visit(source, int(line["pass"]), numbers[source][mask(line["shard"])])
            rejection = Rejection(visit, int(line["index"]), str(line["key"]), str(line["reason"]))
        except _MALFORMED as error:
            raise AuditError(f"{place}: not a line of a quarantined sample of this run: {error!r}") from error
        yield rejection


def _lines(path: StoragePath) -> Iterator[tuple[str, Any]]:
    """Yield place and value of each line; a last one that is not whole, which a kill leaves behind, is passed over."""
    cut = ""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if cut:
                raise AuditError(f"{cut}: not JSON, and not the last line of the file, which a kill may cut")
            place = f"{path} line {number}"
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                cut = place
            else:
                yield place, value
