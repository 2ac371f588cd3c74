"""The training loop: a rank's share of the stream in, trained weights and checkpoints out.

`train` runs on every rank. All ranks step together: before each step they add up how many samples they hold, a rank
whose share has ended takes part with rows that are not valid, and they all stop when none has any left. What was
trained on is recorded after `optimizer.step` and travels into the checkpoint.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from sclip.config import ConfigError
from sclip.data import columns as col
from sclip.data.batches import Batches, Columns
from sclip.model import Tokenizer, build_model
from sclip.model.structure_clip import StructureCLIP
from sclip.seeding import digest64
from sclip.train import sharding
from sclip.train.flops import StepFlops
from sclip.train.health import ProfilerTrace
from sclip.train.launcher import Launcher, TrainJob, report
from sclip.train.optimizer import EMA, make_optimizer
from sclip.train.prefetch import Prefetcher, ReadyBatch, prefetch_batches
from sclip.train.reports import StepReports
from sclip.train.run_checkpoints import RunCheckpoints
from sclip.train.run_folder import RunFolder
from sclip.train.sample_accounts import SampleAccounts
from sclip.train.step import TrainStep, unwrapped

__all__ = ["train"]

_log = logging.getLogger("sclip.train")
"""Ray Train adds run and rank, and writes it as JSON to logs/train/ of its session folder."""


def train(job: TrainJob, launcher: Launcher) -> None:
    """Train until every sample of the stream is trained on; called on every rank.

    If a request stops it earlier, a checkpoint holds what was trained on, and `RunFolder.complete` is None.
    """
    blocks = iter(launcher.blocks(2 * job.config.train.batch_size // launcher.world_size))
    # The stream starts with the first block that is asked for: readers and encoders come up while the model is built.
    with Prefetcher(functools.partial(next, blocks, None)) as prefetcher:
        run = _Run(job, launcher)
        with contextlib.closing(run.accounts):
            run.train(iter(prefetcher.next, None))


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
        self.job, self.launcher, self.folder = job, launcher, RunFolder(job.folder)
        plain = _build_model(job, self.folder)
        self.flops = functools.partial(StepFlops(plain, config), world_size=launcher.world_size)
        model = sharding.apply(plain, config.train, device)
        self.step = TrainStep(model, make_optimizer(model, config.train), config)
        self.ema = EMA(unwrapped(model), config.train.ema_decay) if config.train.ema_decay else None
        self.checkpoints = RunCheckpoints(self.folder, config.checkpoint, self.step, self.ema, launcher)
        state = self.checkpoints.resume()
        self.accounts = SampleAccounts(job, launcher, state)
        self.reports = StepReports(job, launcher, self.step, self.accounts, self.checkpoints.last_good)

    def train(self, blocks: Iterator[Columns]) -> None:
        """Train from the first block to the last step, then complete the run, unless a request stopped it."""
        launcher, progress = self.launcher, self.accounts.progress
        _log.info(
            "one of %d workers begins, on %s", launcher.world_size, launcher.device, extra={"step": progress.step}
        )  # fmt: skip
        report(launcher, "start", workers=launcher.world_size, **vars(progress))
        profiled = self.job.config.health.profile_steps
        trace = ProfilerTrace(profiled, self.folder.trace_path(profiled[0], launcher.rank))
        with self._batches(blocks) as batches, contextlib.closing(trace):
            is_complete = self._loop(batches, trace)
        if is_complete:
            self._complete()

    def _loop(self, batches: Prefetcher[ReadyBatch], trace: ProfilerTrace) -> bool:
        """Step until no rank has a sample left and return True; False if a request stopped it before."""
        config, launcher = self.job.config, self.launcher
        accounts, checkpoints, reports = self.accounts, self.checkpoints, self.reports
        progress = accounts.progress
        while True:
            with reports.waiting():
                ready = batches.next()
                reports.receive(ready)
                sums = _Sums(
                    ready.batch.rows, ready.tokens, ready.gflops, checkpoints.is_written, *launcher.requested(),
                    *accounts.receive(ready.batch),
                ).over_ranks()  # fmt: skip
                if sums.written == launcher.world_size:
                    checkpoints.finish()  # at the same step on all ranks: what it raises is raised on every rank
            accounts.count(sums.quarantined, sums.filtered, sums.missing, sums.rows)
            if not sums.rows:
                # What was filtered after the last step belongs to its checkpoint, unless that was already started.
                is_started = checkpoints.started_step == progress.step
                accounts.end(progress.step + 1 if is_started else progress.step)
                break

            trace.before(progress.step + 1)
            # What a model drops at random follows from the step, and so is the same after a resume.
            torch.manual_seed(digest64("step", config.run.seed, progress.step, launcher.rank))
            trained_share = (progress.samples + accounts.filtered) / self.job.samples
            metrics = self.step(ready.on_device(), min(trained_share, 1.0))
            accounts.trained(ready.batch, sums.rows)
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
            if sums.stop:
                break
        reports.send()
        return not sums.rows

    def _batches(self, blocks: Iterator[Columns]) -> Prefetcher[ReadyBatch]:
        """Return this rank's batches, each made ready while the one before it is trained on."""
        config, world_size = self.job.config, self.launcher.world_size
        share, rest = divmod(config.train.batch_size, world_size)
        batches = Batches(
            blocks, share + (self.launcher.rank < rest), self.checkpoints.saved_step, _blank_row(self.job),
            width=share + (rest > 0), mixed=config.data.mix_blocks,
        )  # fmt: skip
        packs_text = unwrapped(self.step.model).packs_text
        return prefetch_batches(batches, config, packs_text, self.launcher.device, self.flops)

    def _complete(self) -> None:
        """Write the last checkpoint and record that every sample was trained on."""
        accounts, checkpoints, progress = self.accounts, self.checkpoints, self.accounts.progress
        if progress.step > checkpoints.started_step:
            checkpoints.start(accounts, self.reports.metrics)
        else:  # what was left out after the last sample still belongs to the run, but to no checkpoint
            accounts.sync()
            accounts.settle(progress.step + 1)
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
    """Return the plain model with the weights that a new run starts from; a checkpoint's are loaded later."""
    torch.manual_seed(job.config.run.seed)  # every rank starts from the same random weights
    if folder.latest() is not None:
        return build_model(job.config.model, load_weights=False)
    with folder.starting(job.config.model) as initialised:
        return build_model(initialised)


def _blank_row(job: TrainJob) -> dict[str, Any]:
    """Return one row of each model column, which fills up the batches of a rank whose share has ended."""
    tokenizer = Tokenizer(job.config.model.name, job.config.model.kee)
    text, triples = tokenizer.text([""])[0], tokenizer.triples([[]])[0]
    negatives = job.config.loss.negatives_per_caption
    return {
        col.IMAGE: np.zeros((3, job.image_size, job.image_size), np.uint8),
        col.TEXT: text, col.NEGATIVE_TEXT: np.stack(negatives * [np.zeros_like(text)]),
        col.TRIPLES: triples, col.NEGATIVE_TRIPLES: np.stack(negatives * [triples]),
        col.HAS_NEGATIVE: np.zeros(negatives, bool), col.IMAGE_DIGEST: np.array(-1, np.int64),
    }  # fmt: skip
