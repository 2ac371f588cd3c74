"""Account for a run's samples: each is trained on, quarantined or filtered exactly once.

Each rank keeps a pending record of the samples that it has quarantined or filtered since the last checkpoint. `settle`
merges the pending records of all ranks into `progress`, which the next checkpoint stores, and writes the quarantined
samples to quarantine.jsonl. Each rank also writes the samples of each step to a ledger (`sclip.train.ledger`).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sclip.data.batches import Batch, Record
from sclip.train.collectives import gather_json
from sclip.train.launcher import Launcher, TrainJob
from sclip.train.ledger import Ledger
from sclip.train.run_folder import RunFolder

__all__ = ["RunCounters", "SampleAccounts", "TooManyQuarantined"]

_log = logging.getLogger("sclip.train")
_MIN_SAMPLES_TO_JUDGE = 100
"""Minimum number of samples seen before the share of quarantined ones can stop a run."""


class TooManyQuarantined(RuntimeError):
    """More samples are unreadable or missing than `data.max_quarantined` allows."""


@dataclass
class RunCounters:
    """Counters of the whole run, equal on all ranks. `settle` completes them, and each checkpoint stores them."""

    step: int = 0
    """Number of finished steps of the run's order (`sclip.data.order`); it is also the position in the data."""
    samples: int = 0
    """Samples trained on."""
    quarantined: int = 0
    """Samples set aside; the unreadable rest of a broken shard counts as one sample."""
    filtered: int = 0
    """Samples left out because none of their captions passes data.min_objects, min_attributes and min_relations."""
    skipped: int = 0
    """Steps without an update because loss or gradient was not finite; their samples count as trained on."""
    rests: int = 0
    """Those of `quarantined` that are the unreadable rest of a broken shard, which may be any number of samples."""
    missing: int = 0
    """Recorded samples that the shards did not hold."""
    beyond: dict[str, int] = field(default_factory=dict)
    """Number of samples beyond a shard's recorded count, by schedule entry (number of a visit). They are trained on
    last."""
    unread: dict[str, int] = field(default_factory=dict)
    """Number of images and texts that were not read, by suffix."""
    cleaned: dict[str, int] = field(default_factory=dict)
    """Number of cleaned captions, by kind of change."""
    foreign: dict[str, int] = field(default_factory=dict)
    """Number of unused texts and graphs that came with the data, by the reason why they are unused."""

    def add_end(self, end: Mapping[str, Any]) -> None:
        """Add the counts that a reader reported at the end of a shard."""
        self.missing += end["missing"]
        if end["more"]:
            self.beyond[str(end["entry"])] = end["more"]
        for name in ("unread", "cleaned", "foreign"):
            setattr(self, name, dict(Counter(getattr(self, name)) + Counter(end[name])))


class SampleAccounts:
    """One rank's pending record and ledger, and the counters of the run. All ranks create it together.

    `state` is the state of the checkpoint that the run resumes from; its "progress" holds the counters. None for a new
    run.
    """

    def __init__(self, job: TrainJob, launcher: Launcher, state: dict[str, Any] | None) -> None:
        self._job, self._folder, self._rank = job, RunFolder(job.folder), launcher.rank
        self.progress = RunCounters(**state["progress"]) if state else RunCounters()
        self.quarantined, self.filtered = self.progress.quarantined, self.progress.filtered
        """Counts over all ranks, including what was pending at the last call of `count`."""
        self.missing = self.progress.missing
        self._pending = Record()
        self._filtered_places: tuple[list[int], list[int]] = ([], [])
        self._ledger = Ledger(
            job.folder, job.order.schedule, launcher.rank, launcher.world_size, self.progress.step
        )

    def receive(self, batch: Batch) -> tuple[int, int, int]:
        """Record a batch's quarantined, filtered and missing samples; return how many of each this rank has pending."""
        self._filtered_places = self._pending.passed(batch)
        return len(self._pending.rejected), self._pending.filtered, self._pending.missing

    def count(self, quarantined: int, filtered: int, missing: int, rows: int) -> None:
        """Store the pending counts, summed over all ranks; `rows` is the number of rows in the coming step.

        Raises TooManyQuarantined on every rank if too many samples are unreadable or missing, and at the last step if
        all samples were unreadable. Unreadable samples are compared with the samples seen so far. Missing samples are
        noticed only at a shard's end, all at once, so they are compared with the samples of the whole run.
        """
        self.quarantined = self.progress.quarantined + quarantined
        self.filtered = self.progress.filtered + filtered
        self.missing = self.progress.missing + missing
        seen = self.progress.samples + rows + self.filtered + self.quarantined
        limit = self._job.config.data.max_quarantined
        is_judged = seen >= _MIN_SAMPLES_TO_JUDGE and self.quarantined > limit * seen
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
        """Merge the pending records of all ranks into `progress` and quarantine.jsonl. All ranks call it together.

        Returns the quarantined samples, and the shards with missing samples. `step` is the step of the checkpoint that
        will count them; each line holds it, and a resume from an earlier checkpoint removes the line.
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
    """Return the quarantine line of a shard with missing samples; its index is that of the first missing sample."""
    missing, rows = end["missing"], end["rows"]
    reason = f"{missing} of the {end['recorded']} recorded samples are missing"
    return {"entry": end["entry"], "index": rows, "key": "", "reason": reason, "missing": missing}
