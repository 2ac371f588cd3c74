"""The accounts of a run's samples: every one is trained on, quarantined or filtered exactly once.

What a rank has done since the last checkpoint is pending. `settle` merges the pending parts of all ranks into the
position and the progress, which the next checkpoint holds, and writes the quarantined samples to quarantine.jsonl. The
ledger records the same steps independently (`sclip.train.ledger`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from sclip.data.batches import Batch, Record
from sclip.data.position import Position
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
    samples: int = 0
    """Trained on."""
    quarantined: int = 0
    filtered: int = 0
    """Left out because none of their captions passes data.min_objects, min_attributes and min_relations."""
    skipped: int = 0
    """Steps without an update, their loss or gradient being not finite; their samples count as trained on."""


class SampleAccounts:
    """One rank's pending samples, its ledger, and the settled counts of the run; made by all ranks together.

    `state` is that of the checkpoint which the run resumes from, with "progress" and "position"; None at the start.
    """

    def __init__(self, job: TrainJob, launcher: Launcher, state: dict[str, Any] | None) -> None:
        self._job, self._folder, self._rank = job, RunFolder(job.folder), launcher.rank
        self.progress, self.position = RunCounters(), Position()
        if state is not None:
            self.progress = RunCounters(**state["progress"])
            self.position = Position.from_json(state["position"])
        self.quarantined, self.filtered = self.progress.quarantined, self.progress.filtered
        """Of all ranks, with what is pending at the last `count`."""
        self._pending = Record()
        self._filtered_places: tuple[list[int], list[int]] = ([], [])
        self._ledger = Ledger(
            job.folder, job.schedule, launcher.rank, launcher.world_size, self.progress.step
        )

    def receive(self, batch: Batch) -> tuple[int, int]:
        """Note the quarantined and filtered samples that came with a batch; return the pending counts of this rank."""
        self._filtered_places = self._pending.passed(batch)
        return len(self._pending.rejected), self._pending.filtered

    def count(self, quarantined: int, filtered: int, rows: int) -> None:
        """Take over the pending counts of all ranks, and the rows of the step to come.

        Raises TooManyQuarantined on every rank if too many samples are unreadable.
        """
        self.quarantined = self.progress.quarantined + quarantined
        self.filtered = self.progress.filtered + filtered
        seen = self.progress.samples + rows + self.filtered + self.quarantined
        limit = self._job.config.data.max_quarantined
        is_judged = seen >= _MIN_SAMPLES_TO_JUDGE and self.quarantined > limit * seen
        if is_judged or seen == self.quarantined > 0:
            rejected = self.settle(self.progress.step + 1)
            reasons = "; ".join(f"{entry['key']}: {entry['reason']}" for entry in rejected[:5])
            raise TooManyQuarantined(
                f"{self.quarantined} of {seen} samples cannot be trained on, above data.max_quarantined={limit}; "
                f"for instance {reasons}; all are in {self._folder.quarantine}"
            )

    def trained(self, batch: Batch, rows: int) -> None:
        """Note a step of the optimizer, on this rank's batch and `rows` samples of all ranks."""
        self._pending.trained(batch)
        self.progress.step += 1
        self.progress.samples += rows
        places = batch.entries.tolist(), batch.indices.tolist()
        self._ledger.add(self.progress.step, places, self._filtered_places)

    def end(self, step: int) -> None:
        """Note in the ledger, under `step`, what was filtered after the last step."""
        self._ledger.add(step, ([], []), self._filtered_places)

    def settle(self, step: int) -> list[dict[str, Any]]:
        """Merge what every rank has done since the last call into position, progress and quarantine.jsonl.

        Called by all ranks together. Returns the quarantined samples. `step` is that of the checkpoint which will hold
        them: a resume from an earlier one takes their lines back.
        """
        position, rejected, filtered = self._pending.take()
        if rejected:
            _log.warning("%d samples set aside", len(rejected), extra={"step": step})
        merged: list[dict[str, Any]] = []
        for of_rank in gather_json(
            {"position": position.to_json(), "rejected": rejected, "filtered": filtered}
        ):
            self.position.merge(Position.from_json(of_rank["position"]))
            self.progress.filtered += of_rank["filtered"]
            merged += of_rank["rejected"]
        self.progress.quarantined += len(merged)
        if self._rank == 0:
            self._folder.set_aside([{"step": step} | self._line(sample) for sample in merged])
        return merged

    def sync(self) -> None:
        """Bring the ledger into the storage."""
        self._ledger.sync()

    def close(self) -> None:
        """Close the ledger."""
        self._ledger.close()

    def _line(self, sample: dict[str, Any]) -> dict[str, Any]:
        return self._job.location(sample["entry"]) | {n: sample[n] for n in ("index", "key", "reason")}
