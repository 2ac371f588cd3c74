"""The worker loop: its share of the stream in, trained weights and checkpoints out.

Runs in every Ray Train worker. All workers step together: before each step they add up how many samples
they hold, a worker whose share has ended takes part with rows that are not valid, and when nobody has any
left they all stop. What was trained on is recorded after `optimizer.step` and travels into the checkpoint.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray.train
import torch
import torch.distributed as dist
from ray.train.torch import get_device
from ray.util.queue import Queue
from torch import nn

from sclip.config import ConfigError
from sclip.data import columns as col
from sclip.data.batches import Batches, Columns, Record
from sclip.data.position import Position
from sclip.data.stream import StreamPlan
from sclip.launch.orders import Attention, Orders
from sclip.model import Tokenizer, build_model
from sclip.seeding import digest64
from sclip.storage.masking import mask
from sclip.storage.paths import StoragePath
from sclip.train import checkpoint, sharding
from sclip.train.collectives import gather_json, in_unison
from sclip.train.ema import EMA
from sclip.train.flops import StepFlops, peak_flops
from sclip.train.health import Trace, Watch, parameter_norms
from sclip.train.ledger import Ledger
from sclip.train.manifest import CheckpointError
from sclip.train.meter import Meter
from sclip.train.optimizer import make_optimizer
from sclip.train.prefetch import Ahead, Ready, prefetched
from sclip.train.run_folder import RunFolder
from sclip.train.stages import Stages, limit
from sclip.train.step import TrainStep, unwrapped

DATASET = "train"
_log = logging.getLogger("sclip.train")
"""Ray Train adds run and rank, and writes it as JSON to logs/train/ of its session folder."""
_FEWEST_TO_JUDGE = 100
"""Samples seen before the share of quarantined ones may stop a run."""


class TooManyQuarantined(RuntimeError):
    """More of the data is unreadable than `data.max_quarantined` allows."""


@dataclass(frozen=True, repr=False)
class TrainJob:
    """What a worker is given; without a repr, as Ray Train keeps that in the state that its dashboard shows.

    The config and the shards in it may hold credentials.
    """

    plan: StreamPlan
    folder: StoragePath
    samples: int
    """Samples of all epochs together, by which the schedule of the learning rate runs."""
    reports: Queue
    """Dictionaries for the driver, from rank 0: `start`, `metrics` and `checkpoint`."""
    orders: Orders | None = None
    """What the driver asks for while training goes on."""


@dataclass
class _Progress:
    """Counters of the whole run, the same on every rank; in the checkpoint."""

    step: int = 0
    samples: int = 0
    """Trained on."""
    quarantined: int = 0
    filtered: int = 0
    """Left out because none of their captions passes data.min_objects, min_attributes and min_relations."""
    skipped: int = 0
    """Steps that made no update, their loss or gradient being not finite; their samples count as trained on."""


def train_worker(job: TrainJob) -> None:
    """Train until every sample of the stream is trained on; called by Ray Train on every worker.

    It returns before where it was asked to stop: what was trained on is in a checkpoint, `RunFolder.complete` is None.
    """
    config, world_size = job.plan.config, ray.train.get_context().get_world_size()
    two_batches = 2 * config.train.batch_size // world_size
    blocks = ray.train.get_dataset_shard(DATASET).iter_batches(
        batch_size=None,
        batch_format="numpy",
        prefetch_batches=max(2, two_batches // config.data.block_samples),
    )
    # The stream starts with the first block that is asked for: readers and encoders come up while the model is built.
    with Ahead(functools.partial(next, iter(blocks), None)) as ahead:
        worker = _Worker(job)
        with contextlib.closing(worker.ledger), contextlib.closing(worker.attention):
            worker.run(iter(ahead.next, None))


class _Worker:
    def __init__(self, job: TrainJob) -> None:
        config = job.plan.config
        context = ray.train.get_context()
        self.job, self.config = job, config
        self.rank, self.world = context.get_world_rank(), context.get_world_size()
        self.device = get_device()
        if self.device.type == "cpu":
            torch.set_num_threads(config.train.worker_threads)
        torch.manual_seed(config.run.seed)  # every rank starts from the same random weights
        self.folder = RunFolder(job.folder)
        if self.folder.latest() is None:
            with self.folder.starting(config.model) as of_run:
                plain = build_model(of_run)
        else:
            plain = build_model(config.model, load_weights=False)
        self._flops = functools.partial(StepFlops(plain, config), world_size=self.world)
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else ""
        self._peak_flops = peak_flops(name, config.train.precision)
        model = sharding.apply(plain, config.train, self.device)
        optimizer = make_optimizer(model, config.train)
        self.step = TrainStep(model, optimizer, config)
        self.ema = EMA(unwrapped(model), config.train.ema_decay) if config.train.ema_decay else None
        self.progress, self.position = _Progress(), Position()
        self.metrics: dict[str, float] = {}
        self.saver = checkpoint.Saver()
        self.checkpoint_bytes = checkpoint.size_bytes(model, self.ema is not None)
        self.saved_step = self.started_step = self._resume(model, optimizer)
        self._make_room()
        self.record = Record()
        self.ledger = Ledger(job.folder, job.plan.schedule, self.rank, self.world, self.saved_step)
        self.stages = Stages()
        self.attention = Attention(job.orders if self.rank == 0 else None)
        self.watch = Watch(config.health, lambda entry: mask(job.plan.shard(entry)))

    def run(self, blocks: Iterator[Columns]) -> None:
        _log.info(
            "one of %d workers begins, on %s", self.world, self.device, extra={"step": self.progress.step}
        )
        self._report("start", workers=self.world, **vars(self.progress))
        share, rest = divmod(self.config.train.batch_size, self.world)
        batches = Batches(
            blocks, share + (self.rank < rest), self.saved_step, self._blank(),
            width=share + (rest > 0), mixed=self.config.data.mix_blocks,
        )  # fmt: skip
        steps = self.config.health.profile_steps
        trace = Trace(steps, self.folder.trace_path(steps[0], self.rank))
        packs_text = unwrapped(self.step.model).packs_text
        with (
            prefetched(batches, self.config, packs_text, self.device, self._flops) as ahead,
            contextlib.closing(trace),
        ):
            if not self._train(ahead, trace):
                return
        if self.progress.step > self.started_step:
            self._save()
        else:  # what was left out after the last sample still belongs to the run, but to no checkpoint
            self.ledger.sync()
            self._take_record(self.progress.step + 1)
        if self.started_step > self.saved_step:
            self._saved()
        if not self.progress.samples:
            raise ConfigError(
                f"data.min_objects, min_attributes, min_relations = {self.config.data.least}: no caption of "
                f"{self.progress.filtered} samples passes; lower them"
            )
        if self.rank == 0:
            self.folder.finish(
                vars(self.progress) | {"checkpoint": self.folder.step_path(self.saved_step).name}
            )

    def _train(self, ahead: Ahead[Ready], trace: Trace) -> bool:
        """Step until no rank has a sample left, and return True; False where it was asked to stop before."""
        meter = Meter(self.device)
        while True:
            waiting = time.perf_counter()
            ready = ahead.next()
            step = self.progress.step + 1
            filtered_here = self.record.passed(ready.batch)
            self.stages.add(ready.batch.notes, ready.batch.queued)
            rows, tokens, gflops, written, asked, stop, *left_out = self._sum(
                ready.batch.rows, ready.tokens, ready.gflops, int(self.saver.is_done), *self.attention.hear(),
                len(self.record.rejected), self.record.filtered,
            )  # fmt: skip
            if written == self.world:  # all at the same step: what it raises is raised on every rank
                self._saved()
            meter.wait_s += time.perf_counter() - waiting
            quarantined = self.progress.quarantined + left_out[0]
            filtered = self.progress.filtered + left_out[1]
            self._judge(quarantined, self.progress.samples + rows + filtered)
            if not rows:
                at_end = step if self.started_step == self.progress.step else self.progress.step
                self.ledger.add(at_end, ([], []), filtered_here)
                break
            progress = (self.progress.samples + filtered) / self.job.samples
            trace.before(step)
            # What a model drops at random follows from the step, and so is the same after a resume.
            torch.manual_seed(digest64("step", self.config.run.seed, self.progress.step, self.rank))
            metrics = self.step(ready.on_device(), min(progress, 1.0))
            self.record.trained(ready.batch)
            places = ready.batch.entries.tolist(), ready.batch.indices.tolist()
            self.ledger.add(step, places, filtered_here)
            self.progress.step = step
            self.progress.samples += rows
            if self.ema is not None:
                self.ema.update(self.progress.step, metrics["skipped"])
            meter.add(metrics, samples=rows, tokens=tokens, gflops=gflops)
            self.watch.add(self.progress.step, metrics, ready.batch.entries)
            if self.progress.step % self.config.train.log_every == 0:
                self._log(meter, quarantined, filtered)
            if asked or self.progress.step % self.config.checkpoint.every == 0:
                self._look()
                self._save()
            if asked:
                if self.started_step > self.saved_step:
                    self._saved()
                self.attention.answer()
            if stop:
                break
        if meter.steps:
            self._log(meter, quarantined, filtered)
        return not rows

    def _resume(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        latest = self.folder.latest()
        if latest is None:
            return 0
        path, step = latest
        state = checkpoint.load(path, model, optimizer, self.ema)
        self.progress = _Progress(**state["progress"])
        self.position = Position.from_json(state["position"])
        return step

    def _blank(self) -> dict[str, Any]:
        tokenizer = Tokenizer(self.config.model.name, self.config.model.kee)
        text, triples = tokenizer.text([""])[0], tokenizer.triples([[]])[0]
        negatives = self.config.loss.negatives_per_caption
        side = self.job.plan.image_size
        return {
            col.IMAGE: np.zeros((3, side, side), np.uint8),
            col.TEXT: text, col.NEGATIVE_TEXT: np.stack(negatives * [np.zeros_like(text)]),
            col.TRIPLES: triples, col.NEGATIVE_TRIPLES: np.stack(negatives * [triples]),
            col.HAS_NEGATIVE: np.zeros(negatives, bool), col.KEY: np.array(-1, np.int64),
        }  # fmt: skip

    def _sum(self, *numbers: int) -> tuple[int, ...]:
        """Add up numbers over the ranks, on the CPU: it must not wait for the GPU."""
        total = torch.tensor(numbers)
        dist.all_reduce(total)
        return tuple(total.tolist())

    def _judge(self, quarantined: int, samples: int) -> None:
        seen = quarantined + samples
        limit = self.config.data.max_quarantined
        if (seen >= _FEWEST_TO_JUDGE and quarantined > limit * seen) or seen == quarantined > 0:
            rejected = self._take_record(self.progress.step + 1)
            reasons = "; ".join(f"{entry['key']}: {entry['reason']}" for entry in rejected[:5])
            raise TooManyQuarantined(
                f"{quarantined} of {seen} samples cannot be trained on, above data.max_quarantined={limit}; "
                f"for instance {reasons}; all are in {self.folder.quarantine}"
            )

    def _save(self) -> None:
        """Begin a checkpoint of what every rank has trained on; it is there once `_saved` returns."""
        started = time.perf_counter()
        if self.started_step > self.saved_step:
            self._saved()
        # Its quarantine before the manifest: lines without a checkpoint are taken back, the reverse is lost.
        self._take_record(self.progress.step)
        self.ledger.sync()
        self._make_room()
        state = {
            "progress": dict(vars(self.progress)),
            "position": self.position.to_json(),
            "metrics": {name: value for name, value in self.metrics.items() if math.isfinite(value)},
        }
        path = self.folder.step_path(self.progress.step)
        self.started_step = self.progress.step
        self.saver.start(
            path, self.step.model, self.step.optimizer, state, self.ema,
            afterwards=lambda: self.folder.prune(self.config.checkpoint),
        )  # fmt: skip
        self.stood_still_s = time.perf_counter() - started
        if not self.config.checkpoint.asynchronous:
            self._saved()
            self.stood_still_s = time.perf_counter() - started

    def _make_room(self) -> None:
        def here() -> dict[str, Any]:
            if self.rank == 0:
                self.folder.touch()
                self.folder.make_room(self.checkpoint_bytes, self.config.checkpoint)
            return {}

        in_unison(here, CheckpointError)

    def _saved(self) -> None:
        """Wait until the checkpoint that was begun is whole on every rank, and tell of it."""
        self.saver.wait()
        self.saved_step = self.started_step
        _log.info("the checkpoint is whole", extra={"step": self.saved_step})
        path = self.folder.step_path(self.saved_step)
        self._report("checkpoint", path=str(path), step=self.saved_step, seconds=self.stood_still_s)

    def _take_record(self, step: int) -> list[dict[str, Any]]:
        """Merge what every rank has done since the last call into position, progress and quarantine.jsonl.

        Returns what was set aside. `step` is that of the checkpoint which holds it: a resume from an earlier one takes
        the lines back.
        """
        record, rejected, filtered = self.record.take()
        if rejected:
            _log.warning("%d samples set aside", len(rejected), extra={"step": step})
        merged: list[dict[str, Any]] = []
        for payload in gather_json(
            {"position": record.to_json(), "rejected": rejected, "filtered": filtered}
        ):
            self.position.merge(Position.from_json(payload["position"]))
            self.progress.filtered += payload["filtered"]
            merged += payload["rejected"]
        self.progress.quarantined += len(merged)
        if self.rank == 0:
            self.folder.set_aside([{"step": step} | self._place(found) for found in merged])
        return merged

    def _place(self, rejected: dict[str, Any]) -> dict[str, Any]:
        entry = rejected["entry"]
        visit = self.job.plan.schedule.visit(entry)
        place = {"source": visit.source, "pass": visit.pass_, "shard": mask(self.job.plan.shard(entry))}
        return place | {name: rejected[name] for name in ("index", "key", "reason")}

    def _look(self) -> None:
        """Count the steps that made no update; before a report and a checkpoint, so that neither holds too many.

        Raises TrainingDiverged on every rank.
        """
        self.progress.skipped += self.watch.look(self.progress.skipped, self._last_good)

    def _last_good(self) -> str:
        if self.started_step > self.saved_step:
            self._saved()
        return str(self.folder.step_path(self.saved_step)) if self.saved_step else "none yet"

    def _log(self, meter: Meter, quarantined: int, filtered: int) -> None:
        self._look()
        metrics = meter.take()
        if self._peak_flops:
            metrics["mfu"] = metrics["gflops_per_s"] * 1e9 / (self.world * self._peak_flops)
        metrics |= {name: float(norm) for name, norm in parameter_norms(self.step.model).items()}
        done = self.progress.samples + filtered
        metrics["epoch"] = done / self.job.samples * self.config.train.epochs
        metrics |= {"quarantined": quarantined, "filtered": filtered, "skipped": self.progress.skipped}
        keep = self.config.checkpoint
        if keep.keep_best and keep.best_metric not in metrics:
            raise ConfigError(
                f"checkpoint.best_metric={keep.best_metric!r}: no such metric; one of {', '.join(sorted(metrics))}"
            )
        self.metrics = metrics
        if self.rank == 0:
            self.folder.touch()
        stream = self.stages.take()
        self._report(
            "metrics", step=self.progress.step, samples=self.progress.samples, metrics=metrics, stream=stream,
            limit=limit(stream, metrics["data_wait"]),
        )  # fmt: skip

    def _report(self, kind: str, **values: Any) -> None:
        if self.rank == 0:
            self.job.reports.put_nowait({"kind": kind} | values)
