"""Measure the stages of the stream from the notes of the encoders: rates, utilization and the limiting stage.

Encoders send notes with their samples (`sclip.data.side_channel`). A note says how long each stage worked and
waited for its samples. The ranks add up the notes, with one small collective per report. So the figures cover the
samples that were trained on, however many actors there are and wherever they run.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist

from sclip.data.side_channel import STAGES, Note

__all__ = ["StageMeter", "limiting_stage"]

_WORK = ("decode", "parse", "draw", "tokenise")
"""Stages inside an encoder, in order."""
_KEEPS_UP = 0.02
"""Maximum share of the time that training may wait for data. Above it, the stream counts as too slow."""
_BUSY = 0.6
"""Minimum utilization of encoders that always have rows. It is below 1: they wait while Ray takes their blocks."""
_STALLED = 0.2
"""Minimum utilization of readers that the next stage does not hold up. It is far below 1, because only half of the
readers read at a time; the others are a round (group of shards) ahead and wait."""
_REMEDIES = {
    "read": "readers are the limit: raise data.readers, or bring the shards nearer",
    "hand_on": "Ray Data's executors are the limit: raise data.block_samples or data.readers",
    "decode": "decode actors are the limit: add CPUs, or pack smaller images",
    "parse": "parse actors are the limit: add CPUs or annotate the shards",
    "draw": "the actors that draw negatives are the limit: add CPUs or annotate the shards",
    "tokenise": "tokenise actors are the limit: add CPUs",
}


class StageMeter:
    """Add up the figures of the stages since the last report."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._started = time.perf_counter()

    def add(self, notes: Sequence[Note], queued: float) -> None:
        """Add the notes of a batch. `queued` sums the seconds that each sample waited for the training worker."""
        self._sums["queued"] += queued
        for note in notes:
            figures = note.seconds | {
                "samples": note.samples, "cut": note.cut, "read_queued": note.read_queued,
            }  # fmt: skip
            for name, value in figures.items():
                self._sums[name] += value

    def take(self) -> dict[str, float]:
        """Return the figures since the last call, over all ranks. All ranks call it together.

        STAGE_samples_per_s: samples that one process handles in a second of work at this stage. read_utilisation and
        encode_utilisation: shares of time in which readers and encoders work. readers and encoders: their numbers.
        read_queue: mean number of samples that wait for an encoder. encoded_queue: the same for the training worker.
        captions_cut: share of captions whose end the text tower does not read (`model.context_length`).
        """
        names = (*STAGES, "samples", "cut", "queued", "read_queued")
        sums = torch.tensor([float(self._sums[name]) for name in names], dtype=torch.float64)
        if dist.is_initialized():
            dist.all_reduce(sums)
        total = dict(zip(names, sums.tolist(), strict=True))
        elapsed = time.perf_counter() - self._started
        self._start()
        samples = total["samples"]
        if not samples:
            return {}
        figures = {f"{name}_samples_per_s": samples / total[name] for name in ("read", *_WORK) if total[name]}
        work = sum(total[name] for name in _WORK)
        read_total, encode_total = total["read"] + total["blocked"], work + total["idle"]
        figures["read_utilisation"] = total["read"] / read_total if read_total else 0.0
        figures["encode_utilisation"] = work / encode_total if encode_total else 0.0
        figures["readers"], figures["encoders"] = read_total / elapsed, encode_total / elapsed
        # Little's law: the number waiting is the arrival rate times the waiting time.
        figures["read_queue"] = total["read_queued"] / elapsed
        figures["encoded_queue"] = total["queued"] / elapsed
        figures["captions_cut"] = total["cut"] / samples
        return figures


def limiting_stage(figures: Mapping[str, float], data_wait: float) -> str:
    """Return a text for the user that names the stage that limits the run's rate, and a remedy; "" if unknown.

    Args:
        figures: what `StageMeter.take` returned.
        data_wait: share of the time that training waited for data.
    """
    if not figures:
        return ""
    if data_wait <= _KEEPS_UP:
        return "training is the limit"
    if figures["encode_utilisation"] < _BUSY:  # encoders wait for rows
        return _REMEDIES["hand_on" if figures["read_utilisation"] < _STALLED else "read"]
    # An encoder's slowest stage handles the fewest samples in a second of work.
    rates = {name: figures[f"{name}_samples_per_s"] for name in _WORK if f"{name}_samples_per_s" in figures}
    return _REMEDIES[min(rates, key=rates.__getitem__)] if rates else ""
