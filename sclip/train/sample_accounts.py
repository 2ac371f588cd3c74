"""Account for the samples of a run: trained on, quarantined (unreadable) or filtered (too few objects, say).

Between checkpoints, each rank records the samples that it has quarantined or filtered. `settle` adds these records of
all ranks to `progress`, which the next checkpoint stores, and to quarantine.jsonl.

The ledger is the evidence of each step's rows, which `sclip.run.audit` reads. Each rank writes its own files.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sclip.data.batches import Batch, Record
from sclip.data.schedule import Schedule
from sclip.storage.paths import StoragePath
from sclip.train.launcher import Launcher, TrainJob
from sclip.train.ranks import gather_json
from sclip.train.run_folder import RunFolder

__all__ = ["Ledger", "RunCounters", "SampleAccounts", "TooManyQuarantined"]

_log = logging.getLogger("sclip.train")
_MIN_SAMPLES_TO_JUDGE = 100


class TooManyQuarantined(RuntimeError):
    """More samples are unreadable or missing than `data.max_quarantined` allows."""


@dataclass
class RunCounters:
    """Counters of the whole run, equal on all ranks. Each checkpoint stores them."""

    step: int = 0
    """Number of finished steps."""
    samples: int = 0
    """Samples trained on."""
    quarantined: int = 0
    """Samples that could not be trained on. The unreadable rest of a broken shard counts as one sample."""
    filtered: int = 0
    """Samples left out because none of their captions reaches data.min_objects, min_attributes and min_relations."""
    skipped: int = 0
    """Steps without an update because loss or gradient was not finite; their samples count as trained on."""
    rests: int = 0
    """Broken shards whose unreadable rest counts as one sample of `quarantined`."""
    missing: int = 0
    """Recorded samples that the shards did not hold."""
    beyond: dict[str, int] = field(default_factory=dict)
    """Number of samples that a shard holds beyond its recorded count, by schedule entry (one reading of a shard)."""
    unread: dict[str, int] = field(default_factory=dict)
    """Number of unread tar members that may be images or texts, by suffix."""
    cleaned: dict[str, int] = field(default_factory=dict)
    """Number of cleaned captions, by kind of change."""
    foreign: dict[str, int] = field(default_factory=dict)
    """Number of unused texts and graphs of the data set, by reason."""

    def add_end(self, end: Mapping[str, Any]) -> None:
        """Add the counts that a reader reported at the end of a shard."""
        self.missing += end["missing"]
        if end["more"]:
            self.beyond[str(end["entry"])] = end["more"]
        for name in ("unread", "cleaned", "foreign"):
            setattr(self, name, dict(Counter(getattr(self, name)) + Counter(end[name])))


class SampleAccounts:
    """One rank's ledger (rows of each step), its unusable samples since the last checkpoint, and the run's counters.

    All ranks create it together. `state` is that of the checkpoint to resume from; None for a new run.
    """

    def __init__(self, job: TrainJob, launcher: Launcher, state: dict[str, Any] | None) -> None:
        self._job, self._folder, self._rank = job, RunFolder(job.folder), launcher.rank
        self.progress = RunCounters(**state["progress"]) if state else RunCounters()
        self.quarantined, self.filtered = self.progress.quarantined, self.progress.filtered
        """Counts over all ranks up to the last call of `count`, not only up to the last checkpoint as in `progress`."""
        self.missing = self.progress.missing
        self._pending = Record()
        self._filtered_places: tuple[list[int], list[int]] = ([], [])
        self._ledger = Ledger(
            job.folder, job.order.schedule, launcher.rank, launcher.world_size, self.progress.step
        )

    def receive(self, batch: Batch) -> tuple[int, int, int]:
        """Record a batch's quarantined, filtered and missing samples; return this rank's numbers since `settle`."""
        self._filtered_places = self._pending.passed(batch)
        return len(self._pending.rejected), self._pending.filtered, self._pending.missing

    def count(self, quarantined: int, filtered: int, missing: int, rows: int) -> None:
        """Take the sums over all ranks of the numbers from `receive`; `rows` is the number of rows in this step.

        Raises TooManyQuarantined on every rank if too many samples are unreadable or missing, and at the last step if
        all samples were unreadable.
        """
        self.quarantined = self.progress.quarantined + quarantined
        self.filtered = self.progress.filtered + filtered
        self.missing = self.progress.missing + missing
        seen = self.progress.samples + rows + self.filtered + self.quarantined
        limit = self._job.config.data.max_quarantined
        is_judged = seen >= _MIN_SAMPLES_TO_JUDGE and self.quarantined > limit * seen
        # Missing samples are noticed all at once, at a shard's end, so they are compared with those of the whole run.
        run_samples = max(seen, self._job.order.recorded) + self.missing
        is_lost = self.missing > 0 and self.quarantined + self.missing > limit * run_samples
        is_last = self.progress.step + 1 >= self._job.order.recorded_steps
        if is_judged or is_lost or (is_last and seen == self.quarantined > 0):
            rejected = self.settle(self.progress.step + 1)
            reasons = "; ".join(f"{entry['key'] or 'a shard'}: {entry['reason']}" for entry in rejected[:5])
            absent = f" and {self.missing} recorded samples are missing" if self.missing else ""
            raise TooManyQuarantined(
                f"{self.quarantined} of {seen} samples cannot be trained on{absent}, above "
                f"data.max_quarantined={limit}; examples: {reasons}; {self._folder.quarantine} lists all of them"
            )

    def trained(self, batch: Batch, rows: int) -> None:
        """Count a finished step with `rows` rows on all ranks, and write this rank's batch to the ledger."""
        self.progress.step += 1
        self.progress.samples += rows
        places = batch.entries.tolist(), batch.indices.tolist()
        self._ledger.add(self.progress.step, places, self._filtered_places)

    def settle(self, step: int) -> list[dict[str, Any]]:
        """Add the records of all ranks to `progress` and quarantine.jsonl. All ranks call it together.

        Returns the quarantined samples, and the shards with missing samples. `step` is that of the next checkpoint; a
        resume from an earlier one removes their lines.
        """
        pending = self._pending.take()
        if pending.rejected:
            _log.warning("%d samples set aside", len(pending.rejected), extra={"step": step})
        rejected: list[dict[str, Any]] = []
        losses: list[dict[str, Any]] = []
        for rank_pending in gather_json(
            {"rejected": pending.rejected, "filtered": pending.filtered, "ends": pending.ends}
        ):
            self.progress.filtered += rank_pending["filtered"]
            rejected += rank_pending["rejected"]
            for end in rank_pending["ends"]:
                self.progress.add_end(end)
                if end["missing"]:
                    losses.append(_short(end))
        self.progress.quarantined += len(rejected)
        self.progress.rests += sum(not sample["key"] for sample in rejected)
        if self._rank == 0:
            self._folder.set_aside([{"step": step} | self._line(sample) for sample in [*rejected, *losses]])
        return [*rejected, *losses]

    def sync(self) -> None:
        """Make the ledger's lines durable."""
        self._ledger.sync()

    def close(self) -> None:
        """Close the ledger."""
        self._ledger.close()

    def _line(self, sample: dict[str, Any]) -> dict[str, Any]:
        fields = {name: value for name, value in sample.items() if name != "entry"}
        return self._job.location(sample["entry"]) | fields


def _short(end: Mapping[str, Any]) -> dict[str, Any]:
    """Return the line of quarantine.jsonl for a shard that ended before its recorded count."""
    missing, rows = end["missing"], end["rows"]
    reason = f"{missing} of the {end['recorded']} recorded samples are missing"
    return {"entry": end["entry"], "index": rows, "key": "", "reason": reason, "missing": missing}


class Ledger:
    """One rank's files of the rows that it trained on in each step. All ranks create it together.

    ledger/ATTEMPT-RANK.jsonl    {"attempt", "rank", "world_size", "from_step"}, then a line for each step with rows:
                                 {"step", "trained": [[source, pass, shard, [indices]], ...], "filtered": [...]}

    An attempt is one start of the workers. If it resumes from step N, it undoes the steps after N of earlier attempts.
    A line is written after `optimizer.step`, and lists the rows that really arrived in the batch. Rows in "filtered"
    arrived but were not trained on, because their captions do not reach data.min_objects, min_attributes and
    min_relations. Files in an object store cannot grow. There, each checkpoint writes another file,
    ATTEMPT-RANK-PART.jsonl.

    `folder` is the run's folder, `from_step` the step of the checkpoint that the attempt resumes from.
    """

    def __init__(
        self, folder: StoragePath, schedule: Schedule, rank: int, world_size: int, from_step: int
    ) -> None:
        self._schedule = schedule
        path: StoragePath = folder / "ledger"
        path.mkdir(parents=True, exist_ok=True)
        attempts = [int(file.name.partition("-")[0]) for file in path.glob("*.jsonl")] if rank == 0 else []
        # Only rank 0 chooses the attempt's number: the other ranks might already see rank 0's new file.
        attempt = gather_json({"attempt": max(attempts, default=-1) + 1})[0]["attempt"]
        head = {"attempt": attempt, "rank": rank, "world_size": world_size, "from_step": from_step}
        name = f"{attempt:04d}-{rank:05d}"
        self._lines = (
            _LocalLines(path / f"{name}.jsonl") if isinstance(path, Path) else _ObjectLines(path, name)
        )
        self._lines.begin(_ledger_line(head))

    def add(
        self,
        step: int,
        trained: tuple[Sequence[int], Sequence[int]],
        filtered: tuple[Sequence[int], Sequence[int]],
    ) -> None:
        """Write a line with the rows of a step, or nothing if the step has no rows.

        `trained` and `filtered` each hold the schedule entries of the rows, and the rows' indices in their shards.
        """
        line: dict[str, Any] = {"step": step}
        if trained[0]:
            line["trained"] = self._by_visit(*trained)
        if filtered[0]:
            line["filtered"] = self._by_visit(*filtered)
        if len(line) > 1:
            self._lines.add(_ledger_line(line))

    def sync(self) -> None:
        """Make the written lines survive a crash. Call it before a checkpoint that counts these lines."""
        self._lines.sync()

    def close(self) -> None:
        """Close the files. Lines since the last `sync` may be lost."""
        self._lines.close()

    def _by_visit(self, entries: Sequence[int], indices: Sequence[int]) -> list[list[Any]]:
        groups: dict[int, list[int]] = {}
        for entry, index in zip(entries, indices, strict=True):
            groups.setdefault(entry, []).append(index)
        return [[*self._schedule.visit(entry), entry_indices] for entry, entry_indices in groups.items()]


class _LocalLines:
    def __init__(self, path: Path) -> None:
        self._file = path.open("a")

    def begin(self, head: str) -> None:
        self.add(head)

    def add(self, line: str) -> None:
        self._file.write(line)
        self._file.flush()

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class _ObjectLines:
    """Lines in an object store. Each `sync` with new lines writes another file, which begins with the head line."""

    def __init__(self, folder: StoragePath, name: str) -> None:
        self._folder, self._name = folder, name
        self._head, self._part = "", 0
        self._lines: list[str] = []

    def begin(self, head: str) -> None:
        self._head = head
        self._put()

    def add(self, line: str) -> None:
        self._lines.append(line)

    def sync(self) -> None:
        if self._lines:
            self._put()

    def close(self) -> None:
        self._lines.clear()

    def _put(self) -> None:
        part = self._folder / f"{self._name}-{self._part:05d}.jsonl"
        part.write_text("".join([self._head, *self._lines]))
        self._part += 1
        self._lines.clear()


def _ledger_line(line: dict[str, Any]) -> str:
    return json.dumps(line, separators=(",", ":")) + "\n"
