"""Train on this rank's rows of the run, and write checkpoints.

`train` runs on every rank, and all ranks make each step together. A step's number determines its rows
(`sclip.data.order`), so a run continues with the step after its newest checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from sclip.config import Config, ConfigError
from sclip.data import columns as col
from sclip.data.batches import Batches, Columns
from sclip.data.order import Order
from sclip.model import Tokenizer, build_model
from sclip.model.structure_clip import StructureCLIP
from sclip.seeding import digest64
from sclip.train import manifest, sharding
from sclip.train.flops import StepFlops
from sclip.train.health import ProfilerTrace
from sclip.train.launcher import Launcher, TrainJob, report
from sclip.train.manifest import CheckpointError
from sclip.train.optimizer import EMA, make_optimizer
from sclip.train.prefetch import Prefetcher, ReadyBatch, prefetch_batches
from sclip.train.ranks import in_unison, use_deterministic_algorithms
from sclip.train.reports import StepReports
from sclip.train.run_checkpoints import RunCheckpoints
from sclip.train.run_folder import RunFolder
from sclip.train.sample_accounts import SampleAccounts
from sclip.train.step import TrainStep, unwrapped
from sclip.train.teacher import build_teacher, weights_digest

__all__ = ["train"]

_log = logging.getLogger("sclip.train")


def train(job: TrainJob, launcher: Launcher) -> None:
    """Train until every sample is trained on, or until the driver requests a stop.

    After a stop, a checkpoint holds the progress, and `RunFolder.complete` stays None. Every rank calls it. Raises
    ConfigError if the first step does not fit into the GPU's memory, and the errors of the functions that it calls.
    """
    folder = RunFolder(job.folder)
    step, beyond = _position(folder, launcher)
    order = job.order
    if step >= order.recorded_steps:  # by then, readers have found all rows beyond the recorded counts
        order = dataclasses.replace(order, beyond=beyond)
    with contextlib.ExitStack() as stack:
        # Request the first blocks now, so that readers and encoders start up while the model is built.
        feeds = _started(launcher.feeds(order, step), stack)
        run = _Run(job, launcher)
        stack.enter_context(contextlib.closing(run.accounts))
        try:
            run.train(order, feeds)
        except torch.OutOfMemoryError as error:
            if run.accounts.progress.step > step:  # earlier steps did fit, so a restart may succeed
                raise
            raise _too_large(job.config, launcher.world_size, error) from error


def _queues(device: torch.device) -> bool:
    """Return whether the host continues while the device computes a step."""
    return device.type == "cuda"


def _too_large(config: Config, world_size: int, error: torch.OutOfMemoryError) -> ConfigError:
    share, needed = -(-config.train.batch_size // world_size), ". ".join(str(error).split(". ")[:2])
    return ConfigError(
        f"train.micro_batch={config.train.micro_batch}: a step does not fit into the GPU's memory ({needed}); set it "
        f"to a smaller divisor of a worker's {share} rows, or set train.activation_checkpointing=block "
        f"(now {config.train.activation_checkpointing}) or train.sharding=fsdp (now {config.train.sharding})"
    )


def _position(folder: RunFolder, launcher: Launcher) -> tuple[int, dict[int, int]]:
    """Clean up after a crash; return the newest checkpoint's step and its `RunCounters.beyond`.

    Raises on every rank: CheckpointError if training cannot resume from the checkpoint, OSError if storage fails.
    """

    def on_rank_0() -> dict[str, Any]:
        try:
            return _newest(folder, launcher) if launcher.rank == 0 else {}
        except OSError as error:
            return {"storage": str(error)}

    position, *_ = in_unison(on_rank_0, CheckpointError)
    if "storage" in position:
        raise OSError(position["storage"])
    return position["step"], {int(entry): rows for entry, rows in position["beyond"].items()}


def _newest(folder: RunFolder, launcher: Launcher) -> dict[str, Any]:
    for line in folder.roll_back():
        _log.warning("%s", line)
        report(launcher, "note", line=line)
    latest = folder.latest()
    if latest is None:
        return {"step": 0, "beyond": {}}
    state = manifest.read_state(latest[0])
    if "position" in state:
        raise CheckpointError(
            f"{latest[0]}: written by another version of sclip, which orders the data differently; continue with "
            "that version, or choose another run.name"
        )
    return {"step": latest[1], "beyond": state["progress"]["beyond"]}


def _started(feeds: Iterable[Iterable[Columns]], stack: contextlib.ExitStack) -> list[Iterator[Columns]]:
    """Return iterators over the feeds. A thread for each feed fetches one block ahead until `stack` is closed."""
    prefetchers = [Prefetcher(functools.partial(next, iter(feed), None)) for feed in feeds]
    return [iter(stack.enter_context(feed).next, None) for feed in prefetchers]


class _Sums(NamedTuple):
    """Values that the ranks add up in each step."""

    rows: int
    tokens: int
    gflops: int
    written: int
    """Number of ranks that have written the checkpoint in progress."""
    checkpoint: int
    """1 if the driver requests a checkpoint after this step, else 0. Only rank 0 gets requests."""
    stop: int
    """1 if training must stop after this checkpoint, else 0."""
    quarantined: int
    filtered: int
    missing: int

    def start_adding(self) -> Callable[[], _Sums]:
        """Start to add up the values of all ranks; return a function that waits for the sums."""
        total = torch.tensor(self)
        work = dist.all_reduce(total, async_op=True)  # on CPUs: the sums need not wait for the GPUs

        def sums() -> _Sums:
            work.wait()
            return _Sums(*total.tolist())

        return sums


class _Run:
    def __init__(self, job: TrainJob, launcher: Launcher) -> None:
        config, device = job.config, launcher.device
        if device.type == "cpu":
            torch.set_num_threads(config.train.worker_threads)
        if config.train.deterministic:
            use_deterministic_algorithms()
        self.job, self.launcher, self.folder = job, launcher, RunFolder(job.folder)
        plain = _build_model(job, self.folder)
        teacher = build_teacher(config, self.folder) if config.loss.distil else None
        self.flops = functools.partial(StepFlops(plain, config, teacher), world_size=launcher.world_size)
        start = {"teacher": teacher, "towers": plain.clip if config.model.lora.rank else None}
        digests = {
            name: weights_digest(module)
            for name, module in start.items()
            if module is not None and launcher.rank == 0
        }
        model = sharding.apply(plain, config.train, device)
        if teacher is not None:
            teacher = sharding.apply_frozen(teacher, model, config.train, device)
        self.step = TrainStep(model, make_optimizer(model, config.train), config, teacher)
        self.ema = EMA(unwrapped(model), config.train.ema_decay) if config.train.ema_decay else None
        self.checkpoints = RunCheckpoints(
            self.folder, config.checkpoint, self.step, self.ema, launcher, digests
        )
        state = self.checkpoints.resume()
        self.accounts = SampleAccounts(job, launcher, state)
        self.reports = StepReports(job, launcher, self.step, self.accounts, self.checkpoints.last_good)

    def train(self, order: Order, feeds: Sequence[Iterator[Columns]]) -> None:
        """Train to the last step and complete the run, or stop earlier if the driver requests it."""
        launcher, progress = self.launcher, self.accounts.progress
        _log.info(
            "one of %d workers begins, on %s", launcher.world_size, launcher.device, extra={"step": progress.step}
        )  # fmt: skip
        report(launcher, "start", workers=launcher.world_size, **vars(progress))
        profiled = self.job.config.health.profile_steps
        trace = ProfilerTrace(profiled, self.folder.trace_path(profiled[0], launcher.rank))
        with contextlib.closing(trace):
            is_complete = self._loop(order, feeds, trace)
            if is_complete and not order.beyond and (beyond := self._beyond()):
                order = dataclasses.replace(order, beyond=beyond)
                with contextlib.ExitStack() as stack:
                    feeds = _started(launcher.feeds(order, progress.step), stack)
                    is_complete = self._loop(order, feeds, trace)
        if is_complete:
            self._complete()

    def _beyond(self) -> dict[int, int]:
        """Return the number of rows beyond the shards' recorded counts that all ranks found, by schedule entry."""
        accounts = self.accounts
        accounts.settle(accounts.progress.step)
        return {int(entry): rows for entry, rows in accounts.progress.beyond.items()}

    def _loop(self, order: Order, feeds: Sequence[Iterator[Columns]], trace: ProfilerTrace) -> bool:
        """Make the remaining steps of the order; return False if the driver requests a stop before its end."""
        progress, reports = self.accounts.progress, self.reports
        stopped = False
        with self._batches(order, feeds) as batches:
            while progress.step < order.steps and not stopped:
                stopped = self._step(order, batches, trace)
        reports.begin()
        reports.finish()
        return not stopped

    def _step(self, order: Order, batches: Prefetcher[ReadyBatch], trace: ProfilerTrace) -> bool:
        """Do one step, then the reports and checkpoints that are due; return whether the driver requests a stop."""
        config, launcher = self.job.config, self.launcher
        accounts, checkpoints, reports = self.accounts, self.checkpoints, self.reports
        progress = accounts.progress
        with reports.waiting():
            ready = batches.next(self._tell_wait)
            reports.receive(ready)
            added = _Sums(
                ready.batch.rows, ready.tokens, ready.gflops, checkpoints.is_written, *launcher.requested(),
                *accounts.receive(ready.batch),
            ).start_adding()  # fmt: skip
            # On a GPU, a rank with rows queues the step before the sums are known. Otherwise the rank needs the sums:
            # if no rank has rows, no rank makes the step.
            has_rows = bool(_queues(launcher.device) and ready.batch.rows) or added().rows > 0
        trace.before(progress.step + 1)
        if has_rows:
            # Seed by step, so that dropout is the same after a resume.
            torch.manual_seed(digest64("step", config.run.seed, progress.step, launcher.rank))
            metrics = self.step(ready.on_device(), progress.step / order.steps)
        with reports.waiting():  # for ranks that still wait for their rows
            sums = added()
        if sums.written == launcher.world_size:
            checkpoints.finish()  # called at the same step on all ranks, so all of them raise its errors
        accounts.count(sums.quarantined, sums.filtered, sums.missing, sums.rows)
        accounts.trained(ready.batch, sums.rows)
        if sums.rows:
            if self.ema is not None:
                self.ema.update(progress.step, metrics["skipped"])
            reports.add(metrics, ready, sums.rows, sums.tokens, sums.gflops)
        reports.finish()
        if progress.step % config.train.log_every == 0:
            reports.begin()
        if sums.checkpoint or progress.step % config.checkpoint.every == 0:
            reports.settle()
            checkpoints.start(accounts, reports.metrics)
        if sums.checkpoint:
            checkpoints.finish()
            launcher.fulfil()
        return bool(sums.stop)

    def _tell_wait(self, waited_s: float) -> None:
        line = (
            f"worker {self.launcher.rank} has waited {waited_s:.0f} s for rows; its readers and encoders are starting, "
            "or find no free CPUs: each worker needs its own encoder (data.actor_cpus, data.read_cpus)"
        )
        self.launcher.report({"kind": "note", "line": line})  # from the rank that waits, not only from rank 0

    def _batches(self, order: Order, feeds: Sequence[Iterator[Columns]]) -> Prefetcher[ReadyBatch]:
        config, world_size = self.job.config, self.launcher.world_size
        share = -(-config.train.batch_size // world_size)
        batches = Batches(
            feeds, order, self.accounts.progress.step, _blank_row(self.job), rank=self.launcher.rank,
            world_size=world_size,
            parts=max(1, share // config.train.micro_batch) if config.train.micro_batch else 1,
        )  # fmt: skip
        packs_text = unwrapped(self.step.model).packs_text
        return prefetch_batches(batches, config, packs_text, self.launcher.device, self.flops)

    def _complete(self) -> None:
        accounts, checkpoints, progress = self.accounts, self.checkpoints, self.accounts.progress
        if progress.step > checkpoints.started_step:
            checkpoints.start(accounts, self.reports.metrics)
        checkpoints.finish()
        if not progress.samples:
            raise ConfigError(
                f"data.min_objects, min_attributes, min_relations = {self.job.config.data.least}: none of the "
                f"{progress.filtered} samples has a caption that passes; lower these limits"
            )
        if self.launcher.rank == 0:
            path = self.folder.step_path(checkpoints.saved_step)
            self.folder.finish(vars(progress) | {"checkpoint": path.name})


def _build_model(job: TrainJob, folder: RunFolder) -> StructureCLIP:
    torch.manual_seed(job.config.run.seed)  # every rank starts from the same random weights
    # A checkpoint's weights are loaded later. A checkpoint of low-rank updates does not hold the weights of the towers.
    if folder.latest() is not None and not job.config.model.lora.rank:
        return build_model(job.config.model, load_weights=False)
    with folder.starting(job.config.model) as initialised:
        return build_model(initialised)


def _blank_row(job: TrainJob) -> dict[str, Any]:
    """Return the columns of a row without a sample, which fills up a batch."""
    tokenizer = Tokenizer(job.config.model)
    text, triples = tokenizer.text([""])[0], tokenizer.triples([[]])[0]
    negatives = job.config.loss.negatives_per_caption
    units = {
        col.UNIT_TEXT: np.stack(2 * [np.zeros_like(text)]), col.UNIT_TRIPLES: np.stack(2 * [triples]),
        col.HAS_UNIT: np.zeros((), bool),
    }  # fmt: skip
    positive = {
        col.POSITIVE_TEXT: np.zeros_like(text)[None], col.POSITIVE_TRIPLES: triples[None],
        col.HAS_POSITIVE: np.zeros((), bool),
    }  # fmt: skip
    loss = job.config.loss
    return (units if loss.units else {}) | (positive if loss.positives else {}) | {
        col.IMAGE: np.zeros((3, job.image_size, job.image_size), np.uint8),
        col.TEXT: text, col.NEGATIVE_TEXT: np.stack(negatives * [np.zeros_like(text)]),
        col.TRIPLES: triples, col.NEGATIVE_TRIPLES: np.stack(negatives * [triples]),
        col.HAS_NEGATIVE: np.zeros(negatives, bool), col.IMAGE_DIGEST: np.array(-1, np.int64),
    }  # fmt: skip
