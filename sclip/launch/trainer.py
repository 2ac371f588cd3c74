"""Run Ray Train around the worker loop: start, restart and grow the worker group.

Each worker builds its own streams (`sclip.launch.worker`). They deliver this worker's rows of one batch after another,
from the step of the newest checkpoint on.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
import ray.train
from ray.train.torch import TorchTrainer
from ray.util.queue import Queue

from sclip.config import ConfigError
from sclip.data import stream
from sclip.data.shards import ShardError
from sclip.launch import ray_internals
from sclip.launch.checkpoint_before_restart import CheckpointBeforeRestart
from sclip.launch.cluster import beside_driver
from sclip.launch.control import RunControl
from sclip.launch.rendezvous import BoundTorchConfig
from sclip.launch.worker import WorkerArguments, train_worker
from sclip.model import ModelError
from sclip.scenegraph import ParserError
from sclip.storage.masking import mask
from sclip.storage.paths import StoragePath, ray_storage
from sclip.train.health import TrainingDiverged
from sclip.train.launcher import TrainJob
from sclip.train.manifest import CheckpointError, NotWritten
from sclip.train.run_folder import RunFolder
from sclip.train.sample_accounts import TooManyQuarantined

FATAL_ERRORS = (
    CheckpointError, ConfigError, ModelError, ParserError, ShardError, TooManyQuarantined, TrainingDiverged,
)  # fmt: skip
"""Fatal errors that a worker restart would only reproduce. NotWritten is excluded: storage may recover."""


class TrainingFailed(RuntimeError):
    """Error for training that ended before it had used every sample; the message says why."""


def fit(
    plan: stream.StreamPlan,
    folder: RunFolder,
    on_report: Callable[[dict[str, Any]], None],
    control: RunControl,
) -> None:
    """Train on every sample of the plan, unless a request stops the training. Restart the workers if one is lost.

    `RunFolder.complete` is set only after every sample was trained on. If train.min_workers is set, a restart does not
    wait for all workers: it begins with as many as fit on the cluster, but at least train.min_workers. Every
    train.resize_every_s seconds, Ray Train checks whether more workers fit, and adds them after a checkpoint.

    Args:
        plan: the stream of the run.
        folder: folder of the run; training resumes from its newest checkpoint.
        on_report: called in a thread of the driver with each report of the worker loop.
        control: accepts requests for a checkpoint or a stop.

    Raises TrainingFailed when Ray Train gives up: at a fatal error, or at the first loss of workers after
    run.max_failures restarts.
    """
    train, run = plan.config.train, plan.config.run
    resources = {"CPU": train.worker_cpus} | ({"GPU": 1} if train.use_gpu else {})
    if train.min_workers:
        # Ray Train still counts the CPUs of a lost node for some seconds, and would wait a minute for them.
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "15")
    ray_internals.start_data_actors()
    with _reports(on_report) as queue:
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={"arguments": WorkerArguments(job_of(plan, folder.path), plan, queue, control)},
            # In addition to nccl, gloo adds up row counts on the CPU, without waiting for the GPU.
            torch_config=BoundTorchConfig(
                backend="cpu:gloo,cuda:nccl" if train.use_gpu else "gloo",
                timeout_s=train.collective_timeout_s,
                deterministic=train.deterministic,
                records=str(folder.path / "collectives-") if isinstance(folder.path, Path) else "",
            ),
            scaling_config=ray.train.ScalingConfig(
                num_workers=(train.min_workers, train.num_workers)
                if train.min_workers
                else train.num_workers,
                use_gpu=train.use_gpu,
                resources_per_worker=resources,
                elastic_resize_monitor_interval_s=train.resize_every_s,
            ),
            run_config=ray.train.RunConfig(
                name=folder.path.name,
                **ray_storage(folder.path.parent),
                failure_config=ray.train.FailureConfig(max_failures=run.max_failures),
                callbacks=[WorkerErrors(queue), CheckpointBeforeRestart(control)],
            ),
        )
        try:
            trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise TrainingFailed(_first_line(error)) from error


def job_of(plan: stream.StreamPlan, path: StoragePath) -> TrainJob:
    """Return the part of a plan that the training loop needs, with the credentials in the shards' URIs masked."""
    shards = tuple(tuple(s._replace(url=mask(s.url)) for s in source) for source in plan.sources)
    return TrainJob(plan.config, plan.order, shards, plan.image_size, path)


class WorkerErrors(ray.train.UserCallback):  # type: ignore[misc]
    """Callback that tells the driver when workers are lost, and ends the run at a fatal error (`FATAL_ERRORS`)."""

    def __init__(self, reports: Queue) -> None:
        self._reports = reports

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raise a worker's fatal error if there is one; otherwise put a report about the lost workers on the queue."""
        for error in worker_exceptions.values():
            fatal = _fatal_cause(error)
            if fatal is not None:
                raise fatal
        for rank, error in sorted(worker_exceptions.items())[:1]:
            more = f", and {len(worker_exceptions) - 1} more" if len(worker_exceptions) > 1 else ""
            self._reports.put_nowait({"kind": "lost", "reason": f"worker {rank}{more}: {_cause(error)}"})


def _fatal_cause(error: BaseException | None) -> BaseException | None:
    while error is not None:
        if isinstance(error, FATAL_ERRORS) and not isinstance(error, NotWritten):
            return error
        inner = ray_internals.wrapped_error(error) or getattr(error, "cause", None)
        inner = inner or getattr(error, "controller_failure", None) or error.__cause__
        error = inner if inner is not error else None
    return None


def _first_line(error: Exception) -> str:
    fatal = _fatal_cause(error)
    if fatal is not None:
        return f"{type(fatal).__name__}: {fatal}"
    failures = getattr(error, "worker_failures", {})
    for rank, failure in sorted(failures.items()):
        return f"worker {rank}: {_cause(failure)}"
    return str(error).strip().splitlines()[0]


def _cause(failure: Exception) -> str:
    inner = ray_internals.wrapped_error(failure) or failure
    return f"{type(inner).__name__}: {(str(inner).strip().splitlines() or [''])[0]}"


@contextmanager
def _reports(on_report: Callable[[dict[str, Any]], None]) -> Iterator[Queue]:
    """Yield a queue of reports. A thread calls `on_report` with each; the `with` block ends when the queue is empty."""
    queue = Queue(actor_options=beside_driver())
    has_ended = threading.Event()

    def pump() -> None:
        while True:
            try:
                report = queue.get()
            except ray.exceptions.RayActorError:
                if has_ended.is_set():
                    return
                time.sleep(1)  # a killed queue restarts; only the reports on it are lost
                continue
            if report is None:
                return
            on_report(report)

    thread = threading.Thread(target=pump, name="reports", daemon=True)
    thread.start()
    try:
        yield queue
    finally:
        has_ended.set()
        while thread.is_alive():
            try:
                queue.put(None)
                break
            except ray.exceptions.RayActorError:  # must not hide the error that ended the training
                time.sleep(1)
        thread.join()
        queue.shutdown()
