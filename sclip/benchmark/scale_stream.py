"""The stream with encoders that only copy finished rows, and the processor time of every process that takes part.

Real tars, readers, Ray Data graphs and batches; workers are actors that take batches and do nothing with them. What is
left is what moving a sample costs. Every row brings along when it was read: a stage's processor time is divided by the
rows that it did in that time, however far it runs ahead of the next one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from numpy.typing import NDArray

from sclip.benchmark.worker_stream import batches_of, feeds_of
from sclip.config import Config
from sclip.data import columns as col
from sclip.data.batches import Columns
from sclip.data.reader import READ_SCHEMA
from sclip.data.side_channel import Note
from sclip.data.stream import StreamPlan

__all__ = ["PER_WORKER", "SHARED", "Load", "copying_encoder", "loads"]

_KINDS = {
    "SplitCoordinator": "coordinator", "CopyingEncoder": "encoder", "_Taker": "worker", "_StatsActor": "statistics",
    "gcs_server": "gcs", "raylet/raylet": "raylet", "ray::": "reader", "default_worker.py": "reader",
}  # fmt: skip
"""By a part of its command line; the first one counts. Processes of tasks have no name of their own."""
PER_WORKER = ("worker", "coordinator", "reader", "encoder")
SHARED = ("gcs", "statistics", "driver", "raylet", "agents")
"""agents: Ray's other processes of a node, for its dashboard, logs and environments."""
_IDLE_S, _LOOK_S = 4.0, 0.5
_WARM_UP = 0.2
"""Share of a stage's rows that do not count: its processes start and import while they come."""

Times = NDArray[np.float64]
"""[n, 2]: when it was, in seconds since 1970, and how many rows."""


def copying_encoder(config: Config, image_size: int) -> type[Any]:
    """Return the class of an encoder that gives out copies of finished rows, of the sizes that the real one makes."""
    from sclip.data.encode import Encoder

    nothing = {col.ENTRY: 0, col.PLACE: 0, col.INDEX: 0, col.STATUS: col.END}
    made = Encoder(config, image_size)(pa.Table.from_pylist([nothing], schema=READ_SCHEMA))
    sizes = {name: (made[name].shape[1:], made[name].dtype) for name in col.MODEL_COLUMNS}

    class CopyingEncoder:
        """It takes a block of samples; `image_digest` says when each was read, in microseconds since 1970."""

        def __init__(self, config: Config, image_size: int) -> None:
            rows = config.data.block_samples
            self._columns = {name: np.ones((rows, *shape), dtype) for name, (shape, dtype) in sizes.items()}

        def __call__(self, batch: pa.Table) -> Columns:
            names = [col.ENTRY, col.PLACE, col.INDEX, col.STATUS, col.READ_AT]
            samples = batch.select(names).filter(pc.equal(batch[col.STATUS], col.SAMPLE))
            note = Note(upto=batch[col.PLACE][-1].as_py() + 1, samples=len(samples), made_at=time.time())
            if not len(samples):
                samples = pa.table({name: [0] for name in names} | {col.PLACE: [col.NO_SAMPLE]})
            columns = {name: values[: len(samples)] for name, values in self._columns.items()}
            columns |= {name: samples[name].to_numpy() for name in (col.ENTRY, col.PLACE, col.INDEX)}
            columns[col.IMAGE_DIGEST] = (1e6 * samples[col.READ_AT].to_numpy()).astype(np.int64)
            columns[col.NOTE] = np.array([""] * (len(samples) - 1) + [note.to_json()], object)
            return columns

    return CopyingEncoder


class Load(NamedTuple):
    """What the processes of a kind did together."""

    workers: int
    per_s: float
    """Samples a second of all of them."""
    cores: float


@dataclass(frozen=True)
class _Taken:
    """When the rows of a worker were read, encoded and taken."""

    read: Times
    encoded: Times
    taken: Times


class _Taker:
    """A worker that takes its batches."""

    def ready(self) -> None:
        """Return once the actor is there."""

    def take(self, plan: StreamPlan, rank: int, world_size: int, encoder: type[Any], per_s: float) -> _Taken:
        """Take all batches of a worker, `per_s` rows a second at the most."""
        read, encoded, taken = [np.zeros(0)], [], []
        started, rows = 0.0, 0
        for batch in batches_of(feeds_of(plan, rank, world_size, encoder), plan.order, rank, world_size):
            taken.append((time.time(), batch.rows))
            encoded += [(note.made_at, note.samples) for note in batch.notes]
            read.append(batch.columns[col.IMAGE_DIGEST][: batch.rows] / 1e6)
            if per_s:
                started = started or time.time()
                time.sleep(max(0.0, started + rows / per_s - time.time()))
                rows += batch.rows
        at = np.concatenate(read)
        return _Taken(np.stack([at, np.ones_like(at)], axis=1), np.array(encoded), np.array(taken))


class _CpuRecord:
    """Processor time of this process and of all that it has started, by their kinds, over time."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[int, float], str] = {}
        self._at: list[float] = []
        self._looks: list[dict[tuple[int, float], float]] = []

    def look(self) -> None:
        """Note the time of every process; one that has gone counts up to the last look."""
        import psutil  # Ray brings it along, on a path that is there once Ray is imported

        this = psutil.Process()
        found = dict(self._looks[-1]) if self._looks else {}
        for process in [this, *this.children(recursive=True)]:
            try:
                key, times = (process.pid, process.create_time()), process.cpu_times()
                kind = _kind(process.pid, " ".join(process.cmdline()))
            except psutil.Error:
                continue
            found[key] = times.user + times.system
            if self._kinds.get(key, "reader") == "reader":  # an actor's process has no name at first
                self._kinds[key] = kind
        self._at.append(time.time())
        self._looks.append(found)

    def watch(
        self, pending: Sequence[ray.ObjectRef] = (), for_s: float = float("inf")
    ) -> tuple[float, float]:
        """Look again and again until all is there, or for some seconds; return when it began and ended."""
        self.look()
        started = time.time()
        while time.time() - started < for_s:
            _, waits = (
                ray.wait(list(pending), num_returns=len(pending), timeout=_LOOK_S) if pending else ([], [])
            )
            if not pending:
                time.sleep(_LOOK_S)
            self.look()
            if pending and not waits:
                break
        return started, self._at[-1]

    def seconds(self, kind: str, start: float, stop: float) -> float:
        """Return what the processes of a kind took from one time to another."""
        total = 0.0
        for key, of_process in self._kinds.items():
            if of_process == kind:
                series = [look.get(key, 0.0) for look in self._looks]
                first, last = np.interp([start, stop], self._at, series)
                total += float(last - first)
        return total


def _kind(pid: int, command: str) -> str:
    if pid == os.getpid():
        return "driver"
    return next((kind for part, kind in _KINDS.items() if part in command), "agents")


def loads(
    plan: StreamPlan, workers: int, worker_cpus: float, encoder: type[Any], per_s: float = 0.0
) -> dict[str, Load]:
    """Return what the processes of each kind do while so many workers take the batches of a plan.

    What shared processes do without any stream is left out. All workers together take at most `per_s` samples a
    second; 0: as many as come.
    """
    record = _CpuRecord()
    takers = [ray.remote(num_cpus=worker_cpus)(_Taker).remote() for _ in range(workers)]
    ray.get([taker.ready.remote() for taker in takers])
    idle = record.watch(for_s=_IDLE_S)
    pending = [
        taker.take.remote(plan, rank, workers, encoder, per_s / workers) for rank, taker in enumerate(takers)
    ]
    record.watch(pending)
    taken: list[_Taken] = ray.get(pending)
    for taker in takers:
        ray.kill(taker)
    of_stages = {
        "reader": _joined(of.read for of in taken), "encoder": _joined(of.encoded for of in taken),
        "worker": _joined(of.taken for of in taken),
    }  # fmt: skip
    found = {}
    for kind in (*PER_WORKER, *SHARED):
        stage = "encoder" if kind == "coordinator" else "worker" if kind in SHARED else kind
        start, stop = _window(of_stages[stage])
        rows = _rows(of_stages[stage], start, stop)
        cores = record.seconds(kind, start, stop) / (stop - start)
        if kind in SHARED:  # they serve all stages, which need not keep step
            rows = sum(_rows(times, start, stop) for times in of_stages.values()) / len(of_stages)
            cores -= record.seconds(kind, *idle) / (idle[1] - idle[0])
        found[kind] = Load(workers, rows / (stop - start), max(0.0, cores))
    return found


def _joined(times: Iterable[Times]) -> Times:
    joined = np.concatenate(list(times))
    return joined[np.argsort(joined[:, 0], kind="stable")]


def _window(times: Times) -> tuple[float, float]:
    """Return start and stop of what counts of a stage."""
    rows = np.cumsum(times[:, 1])
    first = int(np.searchsorted(rows, _WARM_UP * rows[-1]))
    return float(times[first, 0]), float(times[-1, 0])


def _rows(times: Times, start: float, stop: float) -> float:
    """Return the rows of a stage after a time up to another."""
    return float(times[(times[:, 0] > start) & (times[:, 0] <= stop), 1].sum())
