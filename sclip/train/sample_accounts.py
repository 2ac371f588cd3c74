"""The accounts of a run's samples: every one is trained on, quarantined or filtered exactly once.

What a rank has done since the last checkpoint is pending. `settle` merges the pending parts of all ranks into the
progress, which the next checkpoint holds, and writes the quarantined samples to quarantine.jsonl. The ledger records
the same steps independently (`sclip.train.ledger`).
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
"""Samples seen before the share of quarantined ones may stop a run."""


class TooManyQuarantined(RuntimeError):
    """More of the data is unreadable than `data.max_quarantined` allows."""


@dataclass
class RunCounters:
    """Counters of the whole run at its last settlement, the same on every rank; each checkpoint holds them."""

    step: int = 0
    """Also where the data stands: the steps of the run's order that are done (`sclip.data.order`)."""
    samples: int = 0
    """Trained on."""
    quarantined: int = 0
    """Set aside, the rests of shards that break among them."""
    filtered: int = 0
    """Left out because none of their captions passes data.min_objects, min_attributes and min_relations."""
    skipped: int = 0
    """Steps without an update, their loss or gradient being not finite; their samples count as trained on."""
    rests: int = 0
    """Of those set aside, the rests of shards, of unknown size."""
    missing: int = 0
    """Samples that are recorded of the shards and were not in them."""
    beyond: dict[str, int] = field(default_factory=dict)
    """By entry of the schedule, samples that were in the shard and are not recorded; they are trained on last."""
    unread: dict[str, int] = field(default_factory=dict)
    """Images and texts that were not read, by their suffix."""
    cleaned: dict[str, int] = field(default_factory=dict)
    """Captions that were cleaned, by what was taken out of them."""
    foreign: dict[str, int] = field(default_factory=dict)
    """What came with the captions and was not used, by what it is."""

    def add_end(self, end: Mapping[str, Any]) -> None:
        """Count what the end of a shard tells."""
        self.missing += end["missing"]
        if end["more"]:
            self.beyond[str(end["entry"])] = end["more"]
        for name in ("unread", "cleaned", "foreign"):
            setattr(self, name, dict(Counter(getattr(self, name)) + Counter(end[name])))


class SampleAccounts:
    """One rank's pending samples, its ledger, and the settled counts of the run; made by all ranks together.

    `state` is that of the checkpoint which the run resumes from, with "progress"; None at the start.
    """

    def __init__(self, job: TrainJob, launcher: Launcher, state: dict[str, Any] | None) -> None:
        self._job, self._folder, self._rank = job, RunFolder(job.folder), launcher.rank
        self.progress = RunCounters(**state["progress"]) if state else RunCounters()
        self.quarantined, self.filtered = self.progress.quarantined, self.progress.filtered
        """Of all ranks, with what is pending at the last `count`."""
        self.missing = self.progress.missing
        self._pending = Record()
        self._filtered_places: tuple[list[int], list[int]] = ([], [])
        self._ledger = Ledger(
            job.folder, job.order.schedule, launcher.rank, launcher.world_size, self.progress.step
        )

    def receive(self, batch: Batch) -> tuple[int, int, int]:
        """Note the quarantined, filtered and missing samples of a batch; return the pending counts of this rank."""
        self._filtered_places = self._pending.passed(batch)
        return len(self._pending.rejected), self._pending.filtered, self._pending.missing

    def count(self, quarantined: int, filtered: int, missing: int, rows: int) -> None:
        """Take over the pending counts of all ranks, and the rows of the step to come.

        Raises TooManyQuarantined on every rank if too many samples are unreadable or missing, and at the last step if
        nothing but unreadable ones were found. A shard's missing samples come all at once: they are held against the
        samples of the whole run.
        """
        self.quarantined = self.progress.quarantined + quarantined
        self.filtered = self.progress.filtered + filtered
        self.missing = self.progress.missing + missing
        seen = self.progress.samples + rows + self.filtered + self.quarantined
        limit = self._job.config.data.max_quarantined
        is_judged = seen >= _MIN_SAMPLES_TO_JUDGE and self.quarantined > limit * seen
        of_run = max(seen, self._job.order.recorded) + self.missing
        is_lost = self.missing > 0 and self.quarantined + self.missing > limit * of_run
        is_last = self.progress.step + 1 >= self._job.order.recorded_steps
        if is_judged or is_lost or (is_last and seen == self.quarantined > 0):
            rejected = self.settle(self.progress.step + 1)
            reasons = "; ".join(f"{entry['key'] or 'a shard'}: {entry['reason']}" for entry in rejected[:5])
            absent = f" and {self.missing} that are recorded are missing" if self.missing else ""
            raise TooManyQuarantined(
                f"{self.quarantined} of {seen} samples cannot be trained on{absent}, above "
                f"data.max_quarantined={limit}; for instance {reasons}; all are in {self._folder.quarantine}"
            )

    def trained(self, batch: Batch, rows: int) -> None:
        """Note that a step is done, on this rank's batch and `rows` samples of all ranks; without any, of no update."""
        self.progress.step += 1
        self.progress.samples += rows
        places = batch.entries.tolist(), batch.indices.tolist()
        self._ledger.add(self.progress.step, places, self._filtered_places)

    def settle(self, step: int) -> list[dict[str, Any]]:
        """Merge what every rank has done since the last call into progress and quarantine.jsonl.

        Called by all ranks together. Returns the quarantined samples, and the shards with missing ones. `step` is that
        of the checkpoint which will hold them: a resume from an earlier one takes their lines back.
        """
        taken = self._pending.take()
        if taken.rejected:
            _log.warning("%d samples set aside", len(taken.rejected), extra={"step": step})
        rejected: list[dict[str, Any]] = []
        short: list[dict[str, Any]] = []
        for of_rank in gather_json(
            {"rejected": taken.rejected, "filtered": taken.filtered, "ends": taken.ends}
        ):
            self.progress.filtered += of_rank["filtered"]
            rejected += of_rank["rejected"]
            for end in of_rank["ends"]:
                self.progress.add_end(end)
                if end["missing"]:
                    short.append(_short(end))
        self.progress.quarantined += len(rejected)
        self.progress.rests += sum(not sample["key"] for sample in rejected)
        if self._rank == 0:
            self._folder.set_aside([{"step": step} | self._line(sample) for sample in [*rejected, *short]])
        return [*rejected, *short]

    def sync(self) -> None:
        """Bring the ledger into the storage."""
        self._ledger.sync()

    def close(self) -> None:
        """Close the ledger."""
        self._ledger.close()

    def _line(self, sample: dict[str, Any]) -> dict[str, Any]:
        of_sample = {name: value for name, value in sample.items() if name != "entry"}
        return self._job.location(sample["entry"]) | of_sample


def _short(end: Mapping[str, Any]) -> dict[str, Any]:
    """Return the line of a shard with missing samples; its index is the first that is not there."""
    missing, rows = end["missing"], end["rows"]
    reason = f"{missing} of the {end['recorded']} samples that are recorded are missing"
    return {"entry": end["entry"], "index": rows, "key": "", "reason": reason, "missing": missing}
