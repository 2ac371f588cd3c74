"""Run the stream with encoders that do not encode, and measure the CPU time of each of its processes.

The encoders return copies of rows of ones with the shapes of encoded rows. Tars, readers, Ray Data graphs and batches
are real; workers are actors that take batches and discard them. The CPU time is therefore that of moving samples.
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
from sclip.data.columns import Note
from sclip.data.reader import READ_SCHEMA
from sclip.data.stream import StreamPlan

__all__ = ["PER_WORKER", "SHARED", "Load", "copying_encoder", "loads"]

_KINDS = {
    "SplitCoordinator": "coordinator", "CopyingEncoder": "encoder", "_Taker": "worker", "_StatsActor": "statistics",
    # Readers are Ray tasks: their command line shows no class of ours.
    "gcs_server": "gcs", "raylet/raylet": "raylet", "ray::": "reader", "default_worker.py": "reader",
}  # fmt: skip
"""Part of a command line -> kind of the process; the first match counts."""
PER_WORKER = ("worker", "coordinator", "reader", "encoder")
SHARED = ("gcs", "statistics", "driver", "raylet", "agents")
"""Kinds that all workers share. `agents` are Ray's other processes: dashboard, logs and environments."""
_IDLE_S, _LOOK_S = 4.0, 0.5
_WARM_UP = 0.2
"""Share of a stage's first rows that is not counted, because its processes are still starting."""

Times = NDArray[np.float64]
"""[n, 2]: time in seconds since 1970, and number of rows at this time."""


def copying_encoder(config: Config, image_size: int) -> type[Any]:
    """Return an encoder class that returns rows of ones with the shapes and dtypes of the real encoder's rows."""
    from sclip.data.encode import Encoder

    end_row = {col.ENTRY: 0, col.PLACE: 0, col.INDEX: 0, col.STATUS: col.END}
    encoded = Encoder(config, image_size)(pa.Table.from_pylist([end_row], schema=READ_SCHEMA))
    sizes = {name: (encoded[name].shape[1:], encoded[name].dtype) for name in col.MODEL_COLUMNS}

    class CopyingEncoder:
        """Encoder that copies rows of ones. In `image_digest`, it returns the read time in microseconds since 1970."""

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
    """Samples per second and cores that all processes of a kind use together, in a run with `workers` workers."""

    workers: int
    per_s: float
    cores: float


@dataclass(frozen=True)
class _Taken:
    read: Times
    encoded: Times
    taken: Times


class _Taker:
    def ready(self) -> None:
        """Return once the actor has started."""

    def take(self, plan: StreamPlan, rank: int, world_size: int, encoder: type[Any], per_s: float) -> _Taken:
        read, encoded, arrivals = [np.zeros(0)], [], []
        started, rows = 0.0, 0
        for batch in batches_of(feeds_of(plan, rank, world_size, encoder), plan.order, rank, world_size):
            arrivals.append((time.time(), batch.rows))
            encoded += [(note.made_at, note.samples) for note in batch.notes]
            read.append(batch.columns[col.IMAGE_DIGEST][: batch.rows] / 1e6)
            if per_s:
                started = started or time.time()
                time.sleep(max(0.0, started + rows / per_s - time.time()))
                rows += batch.rows
        times = np.concatenate(read)
        return _Taken(np.stack([times, np.ones_like(times)], axis=1), np.array(encoded), np.array(arrivals))


class _CpuRecord:
    def __init__(self) -> None:
        self._kinds: dict[tuple[int, float], str] = {}
        self._at: list[float] = []
        self._looks: list[dict[tuple[int, float], float]] = []

    def look(self) -> None:
        """Record the CPU time of this process and its descendants; one that has ended keeps its last value."""
        import psutil  # bundled with Ray; importing Ray adds it to the path

        this = psutil.Process()
        snapshot = dict(self._looks[-1]) if self._looks else {}
        for process in [this, *this.children(recursive=True)]:
            try:
                key, times = (process.pid, process.create_time()), process.cpu_times()
                kind = _kind(process.pid, " ".join(process.cmdline()))
            except psutil.Error:
                continue
            snapshot[key] = times.user + times.system
            if self._kinds.get(key, "reader") == "reader":  # an actor's process has no name at first
                self._kinds[key] = kind
        self._at.append(time.time())
        self._looks.append(snapshot)

    def watch(
        self, pending: Sequence[ray.ObjectRef] = (), for_s: float = float("inf")
    ) -> tuple[float, float]:
        """Call `look` until `pending` is complete or `for_s` seconds passed; return (start, end) times."""
        self.look()
        started = time.time()
        while time.time() - started < for_s:
            _, unfinished = (
                ray.wait(list(pending), num_returns=len(pending), timeout=_LOOK_S) if pending else ([], [])
            )
            if not pending:
                time.sleep(_LOOK_S)
            self.look()
            if pending and not unfinished:
                break
        return started, self._at[-1]

    def seconds(self, kind: str, start: float, stop: float) -> float:
        total = 0.0
        for key, process_kind in self._kinds.items():
            if process_kind == kind:
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
    """Return the load of each kind of process while `workers` workers take the batches of a plan.

    Each worker reserves `worker_cpus` CPUs of the Ray cluster. All workers together take at most `per_s` samples a
    second; 0 means no limit. What shared processes use while the workers are idle is subtracted.
    """
    record = _CpuRecord()
    takers = [ray.remote(num_cpus=worker_cpus)(_Taker).remote() for _ in range(workers)]
    ray.get([taker.ready.remote() for taker in takers])
    idle = record.watch(for_s=_IDLE_S)
    pending = [
        taker.take.remote(plan, rank, workers, encoder, per_s / workers) for rank, taker in enumerate(takers)
    ]
    record.watch(pending)
    results: list[_Taken] = ray.get(pending)
    for taker in takers:
        ray.kill(taker)
    stage_times = {
        "reader": _joined(worker.read for worker in results), "encoder": _joined(worker.encoded for worker in results),
        "worker": _joined(worker.taken for worker in results),
    }  # fmt: skip
    by_kind = {}
    for kind in (*PER_WORKER, *SHARED):
        stage = "encoder" if kind == "coordinator" else "worker" if kind in SHARED else kind
        start, stop = _window(stage_times[stage])  # the stage's own: it may run ahead of the next
        rows = _rows(stage_times[stage], start, stop)
        cores = record.seconds(kind, start, stop) / (stop - start)
        if kind in SHARED:  # shared processes serve all stages, which may run at different speeds
            rows = sum(_rows(times, start, stop) for times in stage_times.values()) / len(stage_times)
            cores -= record.seconds(kind, *idle) / (idle[1] - idle[0])
        by_kind[kind] = Load(workers, rows / (stop - start), max(0.0, cores))
    return by_kind


def _joined(times: Iterable[Times]) -> Times:
    joined = np.concatenate(list(times))
    return joined[np.argsort(joined[:, 0], kind="stable")]


def _window(times: Times) -> tuple[float, float]:
    rows = np.cumsum(times[:, 1])
    first = int(np.searchsorted(rows, _WARM_UP * rows[-1]))
    return float(times[first, 0]), float(times[-1, 0])


def _rows(times: Times, start: float, stop: float) -> float:
    return float(times[(times[:, 0] > start) & (times[:, 0] <= stop), 1].sum())
