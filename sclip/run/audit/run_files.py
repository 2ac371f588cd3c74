"""Read the files of a run for the audit: its planned visits and their order, its ledger, and its quarantine.

Each attempt of a run writes its own ledger files. If a later attempt continued from step N, steps after N of earlier
attempts do not count: a crash rolled them back with the weights, and they were trained again.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from sclip.data.order import Order
from sclip.data.schedule import NamedShard, Schedule, Visit
from sclip.storage.masking import is_masked, mask
from sclip.storage.paths import StoragePath, local_copy

__all__ = [
    "AuditError",
    "ExpectedVisits",
    "LedgerRows",
    "Rejection",
    "read_expected_visits",
    "read_ledger",
    "read_quarantine",
]

_KINDS = ("trained", "filtered")
_MOST = 2**62  # fits into an int64 array
_MALFORMED = (LookupError, TypeError, ValueError, AttributeError, OverflowError)


class AuditError(Exception):
    """Error for a run that cannot be audited. The message is one line that says what is missing or damaged."""


@dataclass(frozen=True)
class ExpectedVisits:
    """The visits that a run was to make; a visit is one pass over one shard."""

    shards: tuple[tuple[NamedShard, ...], ...]
    """Shards of each source, by shard number, with their current URLs."""
    epochs: int
    visits: frozenset[Visit]
    order: Order
    """Order of the rows, from the sample counts that the run recorded."""
    shuffle_buffer: int
    key_ends_at: str
    """Which dot of a file's name in a tar ends the sample's key: "first_dot" or "last_dot" (`data.key_ends_at`)."""
    complete: bool
    checkpoint: int
    """Step of the newest checkpoint; 0 means that there is none."""
    samples: Mapping[str, int] = field(default_factory=dict)
    """Recorded number of samples of each shard, by URL."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Fault of each shard that the run left out as unreadable, by URL."""

    def url(self, visit: Visit) -> str:
        """Return the URL of a visit's shard; "shard M of source N" if there is no such shard."""
        try:
            return self.shards[visit.source][visit.shard].url
        except IndexError:
            return f"shard {visit.shard} of source {visit.source}"


class LedgerRows(NamedTuple):
    """Rows of one visit in one line of the ledger."""

    step: int
    kind: str
    """What the step did with the rows: "trained" (on them) or "filtered" (left out)."""
    visit: Visit
    rows: list[int]
    """Row indices in the shard."""


class Rejection(NamedTuple):
    """A quarantined row: one line of quarantine.jsonl."""

    visit: Visit
    row: int
    """Index in the shard."""
    key: str
    """Sample key; empty for the unreadable rest of a broken shard."""
    reason: str


@dataclass(frozen=True)
class _LedgerFile:
    path: StoragePath
    attempt: int
    rank: int
    world_size: int
    from_step: int


def read_expected_visits(
    run: StoragePath, replacements: Sequence[NamedShard] = (), patterns: int = 0
) -> ExpectedVisits:
    """Return the visits that a run was to make, with the current URLs of its shards.

    Args:
        run: the run's folder.
        replacements: shards to read instead of the recorded shards with the same URI (credentials are ignored) or, for
            moved data, with the same name.
        patterns: number of patterns given for the replacements. The data counts as moved if data.shards has as many.

    Raises AuditError if the folder holds no run, if the records of the run contradict each other, if a shard was
    recorded without its credentials and is not replaced, or if a replacement is for no shard.
    """
    config, shard_list = (_json(run / name) for name in ("config.json", "shards.json"))
    try:
        train, data, seed = config["train"], config["data"], int(config["run"]["seed"])
        epochs, batch_size = int(train["epochs"]), int(train["batch_size"])
        open_shards, shuffle_buffer = int(data["open_shards"]), int(data["shuffle_buffer"])
        key_ends_at = str(data["key_ends_at"])
        sources = [sorted(source["shards"].items()) for source in shard_list["sources"]]
        weights = [float(source["weight"]) for source in shard_list["sources"]]
        recorded = [[NamedShard(name, str(entry["url"])) for name, entry in source] for source in sources]
        samples = [[int(entry["samples"]) for _, entry in source] for source in sources]
        moved = patterns > 0 and patterns == len(data["shards"])
        schedule = Schedule.weighted(seed, epochs, samples, weights)
        order = Order(schedule, tuple(map(tuple, samples)), open_shards, batch_size)
        entries = len(schedule)
        visits = frozenset(schedule.visit(entry) for entry in range(entries))
        losses = _json(run / "losses.json") if (run / "losses.json").exists() else {"unreadable": {}}
        left_out = {str(url): str(fault) for url, fault in losses["unreadable"].items()}
    except _MALFORMED as error:
        raise AuditError(f"{run}: config.json or shards.json is of another version: {error!r}") from error
    shards = _current_shards(recorded, replacements, by_name=moved)
    if masked := [shard.url for source in shards for shard in source if is_masked(shard.url)]:
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
    complete = (run / "complete.json").is_file()
    whole_checkpoints = [path for path in run.glob("step-*") if (path / "manifest.json").is_file()]
    checkpoint = max((int(path.name.removeprefix("step-")) for path in whole_checkpoints), default=0)
    samples_by_url = {
        shard.url: count
        for source, counts in zip(shards, samples, strict=True)
        for shard, count in zip(source, counts, strict=True)
    }
    return ExpectedVisits(
        shards, epochs, visits, order, shuffle_buffer, key_ends_at, complete, checkpoint, samples_by_url, left_out
    )  # fmt: skip


def _current_shards(
    recorded: Sequence[Sequence[NamedShard]], replacements: Sequence[NamedShard], *, by_name: bool
) -> tuple[tuple[NamedShard, ...], ...]:
    urls_by_masked = {mask(shard.url): shard.url for shard in replacements}
    urls_by_name = {shard.name: shard.url for shard in replacements} if by_name else {}
    shards = tuple(
        tuple(
            s._replace(url=urls_by_masked.get(mask(s.url)) or urls_by_name.get(s.name) or s.url)
            for s in source
        )
        for source in recorded
    )
    used = {shard.url for source in shards for shard in source}
    if foreign := [shard.url for shard in replacements if shard.url not in used]:
        raise AuditError(
            f"--shards: {mask(foreign[0])} is no shard of the run; if its data was moved, give one pattern "
            "for each pattern of data.shards, in the same order"
        )
    return shards


def _json(path: StoragePath) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise AuditError(f"{path}: no such file; name the folder of a run") from None
    except (OSError, ValueError) as error:
        raise AuditError(f"{path}: not readable: {error}") from error


def read_ledger(run: StoragePath, notes: list[str]) -> Iterator[LedgerRows]:
    """Yield the rows of all steps that no crash rolled back, in order; append faults of ledger files to `notes`.

    Raises AuditError if there is no ledger, or if a file is damaged before its last line (a kill may cut that line).
    """
    with local_copy(run / "ledger") as folder:
        yield from _read_ledger(run, folder, notes)


def _read_ledger(run: StoragePath, folder: Path, notes: list[str]) -> Iterator[LedgerRows]:
    attempts: dict[int, list[_LedgerFile]] = {}
    for path in sorted(folder.glob("*-*.jsonl")):
        if (file := _head(path)) is None:
            notes.append(f"{path.name} was cut off within its first line")
        else:
            attempts.setdefault(file.attempt, []).append(file)
    if not attempts:
        raise AuditError(
            f"{run / 'ledger'}: no ledger; the run has not begun to train, or its files are lost"
        )
    for attempt, files in sorted(attempts.items()):
        absent = set(range(max(file.world_size for file in files))) - {file.rank for file in files}
        notes += (f"attempt {attempt}: no ledger of rank {rank}" for rank in sorted(absent))
        later = [file.from_step for number, group in attempts.items() if number > attempt for file in group]
        for step, location, line in heapq.merge(*map(_steps, files), key=itemgetter(0)):
            if later and step > min(later):
                continue
            try:
                entries = [
                    LedgerRows(step, kind, *_places(*rows)) for kind in _KINDS for rows in line.get(kind, ())
                ]
            except _MALFORMED as error:
                raise AuditError(f"{location}: not a step's line: {error!r}") from error
            yield from entries


def _places(source: int, pass_: int, shard: int, indices: list[int]) -> tuple[Visit, list[int]]:
    edges = (source, pass_, shard, min(indices, default=0), max(indices, default=0))
    if {*map(type, edges), *map(type, indices)} != {int} or max(map(abs, edges)) > _MOST:
        raise ValueError("whole numbers are needed")
    return Visit(source, pass_, shard), indices


def _head(path: StoragePath) -> _LedgerFile | None:
    for location, line in _lines(path):
        try:
            numbers = (int(line[name]) for name in ("attempt", "rank", "world_size", "from_step"))
            return _LedgerFile(path, *numbers)
        except _MALFORMED as error:
            raise AuditError(f"{location}: not the head of a ledger: {error!r}") from error
    return None


def _steps(file: _LedgerFile) -> Iterator[tuple[int, str, dict[str, Any]]]:
    lines = _lines(file.path)
    next(lines)
    for location, line in lines:
        try:
            yield int(line["step"]), location, line
        except _MALFORMED as error:
            raise AuditError(f"{location}: not a step's line: {error!r}") from error


def read_quarantine(run: StoragePath, expected: ExpectedVisits) -> Iterator[Rejection]:
    """Yield the quarantined rows of a run. Raises AuditError for a malformed line or an unknown shard."""
    path = run / "quarantine.jsonl"
    numbers = [{shard.name: number for number, shard in enumerate(source)} for source in expected.shards]
    for location, line in _lines(path) if path.exists() else ():
        try:
            if "missing" in line:  # the run's count of lost samples, not a row
                continue
            source = int(line["source"])
            visit = Visit(source, int(line["pass"]), numbers[source][line["name"]])
            rejection = Rejection(visit, int(line["index"]), str(line["key"]), str(line["reason"]))
        except _MALFORMED as error:
            raise AuditError(f"{location}: not a quarantined sample of this run: {error!r}") from error
        yield rejection


def _lines(path: StoragePath) -> Iterator[tuple[str, Any]]:
    """Yield each line's location and JSON value; skip an incomplete last line, which a kill may leave behind."""
    cut = ""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if cut:
                raise AuditError(f"{cut}: not JSON; a kill can only cut the last line of the file")
            location = f"{path} line {number}"
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                cut = location
            else:
                yield location, value
