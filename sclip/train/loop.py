"""The training loop: a rank's share of the order in, trained weights and checkpoints out.

`train` runs on every rank. All ranks step together over the steps of the run's order (`sclip.data.order`): which rows a
step has follows from its number, and the newest checkpoint's step says where to go on. Before each step the ranks add
up how many samples they hold. What was trained on is recorded after `optimizer.step` and travels into the checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from sclip.config import ConfigError
from sclip.data import columns as col
from sclip.data.batches import Batches, Columns
from sclip.data.order import Order
from sclip.model import Tokenizer, build_model
from sclip.model.structure_clip import StructureCLIP
from sclip.seeding import digest64
from sclip.train import manifest, sharding
from sclip.train.collectives import in_unison
from sclip.train.determinism import use_deterministic_algorithms
from sclip.train.flops import StepFlops
from sclip.train.health import ProfilerTrace
from sclip.train.launcher import Launcher, TrainJob, report
from sclip.train.manifest import CheckpointError
from sclip.train.optimizer import EMA, make_optimizer
from sclip.train.prefetch import Prefetcher, ReadyBatch, prefetch_batches
from sclip.train.reports import StepReports
from sclip.train.run_checkpoints import RunCheckpoints
from sclip.train.run_folder import RunFolder
from sclip.train.sample_accounts import SampleAccounts
from sclip.train.step import TrainStep, unwrapped
from sclip.train.teacher import build_teacher, weights_digest

__all__ = ["train"]

_log = logging.getLogger("sclip.train")
"""Ray Train adds run and rank, and writes it as JSON to logs/train/ of its session folder."""


def train(job: TrainJob, launcher: Launcher) -> None:
    """Train until every sample of the order is trained on; called on every rank.

    If a request stops it earlier, a checkpoint holds what was trained on, and `RunFolder.complete` is None.
    """
    folder = RunFolder(job.folder)
    step, beyond = _position(folder, launcher)
    order = job.order
    if step >= order.recorded_steps:  # only now all of these are known
        order = dataclasses.replace(order, beyond=beyond)
    with contextlib.ExitStack() as stack:
        # Streams start with the first block that is asked for: readers and encoders come up while the model is built.
        feeds = _started(launcher.feeds(order, step), stack)
        run = _Run(job, launcher)
        stack.enter_context(contextlib.closing(run.accounts))
        run.train(order, feeds)


def _position(folder: RunFolder, launcher: Launcher) -> tuple[int, dict[int, int]]:
    """Set aside what a crash left behind; return step and rows beyond the recorded ones of the newest checkpoint.

    Raises on every rank CheckpointError for a checkpoint that cannot be gone on from, OSError where the storage fails:
    workers that start again may find it back.
    """

    def on_rank_0() -> dict[str, Any]:
        try:
            return _newest(folder, launcher) if launcher.rank == 0 else {}
        except OSError as error:
            return {"storage": str(error)}

    found, *_ = in_unison(on_rank_0, CheckpointError)
    if "storage" in found:
        raise OSError(found["storage"])
    return found["step"], {int(entry): rows for entry, rows in found["beyond"].items()}


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
            f"{latest[0]}: written by another version of sclip, whose data had another order; go on with that "
            "version, or name another run"
        )
    return {"step": latest[1], "beyond": state["progress"]["beyond"]}


def _started(feeds: Iterable[Iterable[Columns]], stack: contextlib.ExitStack) -> list[Iterator[Columns]]:
    """Return streams whose next block is fetched in a thread, until `stack` is closed."""
    ahead = [Prefetcher(functools.partial(next, iter(feed), None)) for feed in feeds]
    return [iter(stack.enter_context(feed).next, None) for feed in ahead]


class _Sums(NamedTuple):
    """What the ranks add up before each step."""

    rows: int
    tokens: int
    gflops: int
    written: int
    """Ranks that have written the checkpoint in progress."""
    checkpoint: int
    """1 if a checkpoint is requested after this step."""
    stop: int
    """1 if the training is requested to stop after it."""
    quarantined: int
    filtered: int
    missing: int

    def over_ranks(self) -> _Sums:
        """Add up over the ranks, on the CPU: it must not wait for the GPU."""
        total = torch.tensor(self)
        dist.all_reduce(total)
        return _Sums(*total.tolist())


class _Run:
    """One rank of a run: the model that it trains, and the accounts, checkpoints and reports of it."""

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
        """Train from the first block to the last step, then complete the run, unless a request stopped it."""
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
        """Return the rows that all ranks have found beyond the recorded ones, by entry."""
        accounts = self.accounts
        accounts.settle(accounts.progress.step)
        return {int(entry): rows for entry, rows in accounts.progress.beyond.items()}

    def _loop(self, order: Order, feeds: Sequence[Iterator[Columns]], trace: ProfilerTrace) -> bool:
        """Step to the end of the order and return True; False if a request stopped it before."""
        progress, reports = self.accounts.progress, self.reports
        with self._batches(order, feeds) as batches:
            while progress.step < order.steps:
                if self._step(order, batches, trace):
                    reports.send()
                    return False
        reports.send()
        return True

    def _step(self, order: Order, batches: Prefetcher[ReadyBatch], trace: ProfilerTrace) -> bool:
        """Do one step, and what is due after it; return whether a request stops the training here."""
        config, launcher = self.job.config, self.launcher
        accounts, checkpoints, reports = self.accounts, self.checkpoints, self.reports
        progress = accounts.progress
        with reports.waiting():
            ready = batches.next(self._tell_wait)
            reports.receive(ready)
            sums = _Sums(
                ready.batch.rows, ready.tokens, ready.gflops, checkpoints.is_written, *launcher.requested(),
                *accounts.receive(ready.batch),
            ).over_ranks()  # fmt: skip
            if sums.written == launcher.world_size:
                checkpoints.finish()  # at the same step on all ranks: what it raises is raised on every rank
        accounts.count(sums.quarantined, sums.filtered, sums.missing, sums.rows)
        trace.before(progress.step + 1)
        if sums.rows:  # else no sample of the step can be trained on
            # What a model drops at random follows from the step, and so is the same after a resume.
            torch.manual_seed(digest64("step", config.run.seed, progress.step, launcher.rank))
            metrics = self.step(ready.on_device(), progress.step / order.steps)
        accounts.trained(ready.batch, sums.rows)
        if sums.rows:
            if self.ema is not None:
                self.ema.update(progress.step, metrics["skipped"])
            reports.add(metrics, ready, sums.rows, sums.tokens, sums.gflops)
        if progress.step % config.train.log_every == 0:
            reports.send()
        if sums.checkpoint or progress.step % config.checkpoint.every == 0:
            reports.count_skipped()
            checkpoints.start(accounts, reports.metrics)
        if sums.checkpoint:
            checkpoints.finish()
            launcher.fulfil()
        return bool(sums.stop)

    def _tell_wait(self, waited_s: float) -> None:
        """Report from this rank, whichever it is, that its stream gives it nothing: the others wait for it."""
        line = (
            f"worker {self.launcher.rank} has waited {waited_s:.0f} s for rows; its readers and encoders are starting, "
            "or find no free CPUs: each worker needs an encoder of its own (data.actor_cpus, data.read_cpus)"
        )
        self.launcher.report({"kind": "note", "line": line})

    def _batches(self, order: Order, feeds: Sequence[Iterator[Columns]]) -> Prefetcher[ReadyBatch]:
        """Return this rank's batches, each made ready while the one before it is trained on."""
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
        """Write the last checkpoint and record that every sample was trained on."""
        accounts, checkpoints, progress = self.accounts, self.checkpoints, self.accounts.progress
        if progress.step > checkpoints.started_step:
            checkpoints.start(accounts, self.reports.metrics)
        checkpoints.finish()
        if not progress.samples:
            raise ConfigError(
                f"data.min_objects, min_attributes, min_relations = {self.job.config.data.least}: no caption of "
                f"{progress.filtered} samples passes; lower them"
            )
        if self.launcher.rank == 0:
            path = self.folder.step_path(checkpoints.saved_step)
            self.folder.finish(vars(progress) | {"checkpoint": path.name})


def _build_model(job: TrainJob, folder: RunFolder) -> StructureCLIP:
    """Return the plain model with the weights that a new run starts from; a checkpoint's are loaded later.

    A checkpoint of low-rank updates holds no others, and needs these below them.
    """
    torch.manual_seed(job.config.run.seed)  # every rank starts from the same random weights
    if folder.latest() is not None and not job.config.model.lora.rank:
        return build_model(job.config.model, load_weights=False)
    with folder.starting(job.config.model) as initialised:
        return build_model(initialised)


def _blank_row(job: TrainJob) -> dict[str, Any]:
    """Return one row of each model column, which fills up the batches of a rank whose share has ended."""
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
