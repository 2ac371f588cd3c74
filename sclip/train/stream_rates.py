"""Measure the stages of the stream from the notes of the encoders: rates, utilization and the limiting stage.

Encoders send notes with their samples (`sclip.data.columns`). A note says how long each stage worked and waited
for these samples. The figures add up the notes of all ranks.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist

from sclip.data.columns import STAGES, Note

__all__ = ["StageMeter", "limiting_stage"]

_WORK = ("decode", "parse", "draw", "tokenise")
"""Stages inside an encoder, in order."""
_KEEPS_UP = 0.02
"""The stream counts as too slow if training waits for data in a higher share of the time."""
_BUSY = 0.6
"""Encoders count as waiting for rows below this utilization. It is not 1: they also wait while Ray takes blocks."""
_STALLED = 0.2
"""Readers count as held up by Ray Data's executors below this utilization. Half of the readers wait in any case."""
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
        """Add the notes of a batch. `queued` is the sum of the seconds that its samples waited for the worker."""
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
    """Return a text for the user: which stage limits the run's rate, and a remedy. "" if unknown.

    `figures` come from `StageMeter.take`. `data_wait` is the share of the time that training waited for data.
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
