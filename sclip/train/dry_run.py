"""Run a training step on fake tensors to find the peak memory of a GPU and the collectives of a step.

Fake tensors have shapes but no values, so one CPU core computes a step of any number of GPUs in seconds. Model,
sharding, loss and step are those of a real run. torch's fake process group replaces the other ranks.

To save time, the step runs twice, with a few and with some more of each tower's blocks. All figures grow linearly with
the number of blocks, so these two runs give the figures of the whole model.

Added by arithmetic: AdamW's moments, averaged weights, the next batch on the device, and DDP's all-reduces.
Not counted: CUDA's context, NCCL's buffers, the allocator's fragmentation, and the memory that `train.compile` saves.
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.distributed.device_mesh import DeviceMesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from sclip.config import Config, KEEConfig
from sclip.model.architecture import image_size
from sclip.model.build import build_model, meta_model, parameter_count
from sclip.model.losses import structure_loss
from sclip.model.packing import pack
from sclip.model.structure_clip import StructureCLIP
from sclip.model.towers import block_lists
from sclip.train import sharding
from sclip.train.optimizer import make_optimizer
from sclip.train.step import TrainStep, passes_of
from sclip.train.step_memory import StepTracker, bytes_of, held_bytes
from sclip.train.typical_batch import typical_columns

__all__ = ["Collectives", "DryRun", "dry_run"]

_CPU = torch.device("cpu")
"""Device of fake tensors: on fake CUDA devices, backward fails without a driver."""
_STRIDES = 5
"""Number of equal strides that a tower's blocks are divided into; the few blocks left over always run."""
_RUN_PASSES = 2
"""Maximum parts of a batch (`train.micro_batch`) that run: the last, and one for all others, which are alike."""
_BUCKET_BYTES = 25 * 2**20
"""Bytes of gradients that DDP sums in one all-reduce."""


@dataclass(frozen=True)
class Collectives:
    """All collectives of one kind in a step."""

    kind: str
    count: int
    size_bytes: int
    """Bytes of all together. Each counts as its input or output on one rank, whichever is larger."""

    @property
    def sent_bytes(self) -> int:
        """Upper bound of the bytes that a rank sends."""
        return self.size_bytes * (2 if self.kind == "all-reduce" else 1)  # all-reduce: in a ring


@dataclass(frozen=True)
class DryRun:
    """Bytes on one GPU at the peak of a step, by their use, and the collectives of a step."""

    parameters: int
    """Bytes of the parameters and buffers of model and teacher (`loss.distil`), and of averages (`train.ema_decay`)."""
    gradients: int
    """Bytes of gradients that the GPU holds at the peak."""
    moments: int
    activations: int
    """All other bytes, such as batches, gathered weights and logits."""
    collectives: tuple[Collectives, ...]

    @property
    def peak(self) -> int:
        """Bytes of all uses together."""
        return self.parameters + self.gradients + self.moments + self.activations

    @property
    def sent_bytes(self) -> int:
        """Upper bound of the bytes that a GPU sends in a step."""
        return sum(collectives.sent_bytes for collectives in self.collectives)


def dry_run(config: Config, ranks_per_node: int, *, all_blocks: bool = False) -> DryRun:
    """Return the peak memory and the collectives of a training step.

    `config` comes from `sclip.launch.capacity.sized`, so train.num_workers is above 0. `all_blocks` runs the step once
    with all blocks, not twice with some of them.
    """
    parameters, world_size = parameter_count(config.model), config.train.num_workers
    autocast = sharding.needs_autocast(meta_model(config.model))
    kind, group = sharding.resolve(config.train, parameters, world_size, ranks_per_node, autocast=autocast)
    if kind == "hsdp":
        group = group or min(ranks_per_node, world_size)
    train = dataclasses.replace(config.train, compile=False, sharding=kind, shard_ranks=group, min_workers=0)
    config = dataclasses.replace(config, train=train)
    if all_blocks:
        return _summary(_figures(config, _STRIDES), config)
    least, more = (_figures(config, strides) for strides in (0, 1))
    return _summary({n: least[n] + _STRIDES * (more[n] - least[n]) for n in least}, config)


_Figures = Mapping[tuple[str, ...], int]
"""Figures of a step by name. ("count", KIND) is the number of collectives of a kind; all other figures are bytes."""


def _summary(figures: _Figures, config: Config) -> DryRun:
    train = config.train
    parameters, trained = figures["parameters",], figures["trained",]
    phase = max((n[1] for n in figures if n[0] == "peak"), key=lambda phase: figures["peak", phase, "Total"])
    gradients = figures["peak", phase, "Gradient"]
    activations = figures["peak", phase, "Total"] - parameters - gradients
    counts = Counter({name[1]: count for name, count in figures.items() if name[0] == "count"})
    sizes = Counter({name[1]: size for name, size in figures.items() if name[0] == "size"})
    if train.sharding == "ddp" and train.num_workers > 1:
        counts["all-reduce"] += -(-trained // _BUCKET_BYTES)
        sizes["all-reduce"] += trained
    collectives = [Collectives(kind, counts[kind], sizes[kind]) for kind in sorted(counts)]
    averages = trained if train.ema_decay else 0
    return DryRun(parameters + averages, gradients, 2 * trained, activations, tuple(collectives))


def _figures(config: Config, strides: int) -> dict[tuple[str, ...], int]:
    """Run a step with `strides` of the 5 strides of each tower; return its figures."""
    train = config.train
    rows = -(-train.batch_size // train.num_workers)
    passes = passes_of(rows, train.micro_batch)
    run_passes = min(passes, _RUN_PASSES)
    model, teacher = _models(config, strides)
    packs = train.pack_text and model.packs_text
    tracker, shapes = StepTracker(), dict[str, torch.Size]()

    def keep_shapes(_: nn.Module, __: object, features: dict[str, Tensor]) -> None:
        shapes.update({name: feature.shape for name, feature in features.items()})

    with _fake_tensors(config), contextlib.ExitStack() as group:
        for module in filter(None, (model, teacher)):
            module.to_empty(device=_CPU)
        if train.sharding != "ddp":
            group.enter_context(_process_group(train.num_workers))
        wrapped = sharding.apply(model, train, _CPU)
        frozen = sharding.apply_frozen(teacher, wrapped, train, _CPU) if teacher else None
        if train.sharding == "ddp":  # after `apply`: the fake group cannot do DDP
            group.enter_context(_process_group(train.num_workers))
            for parameter in _trained(wrapped):
                parameter.grad = torch.zeros_like(parameter)
        optimizer = make_optimizer(wrapped, train)
        # Skip the optimizer's step: one fused kernel, which needs only parameters and moments.
        group.enter_context(mock.patch.object(optimizer, "step"))
        batch, whole_batch = (_batch(config, rows // passes, n, packs) for n in (run_passes, passes))
        wrapped.register_forward_hook(keep_shapes)
        tracker.track_external(wrapped, *filter(None, [frozen]), *batch.values())
        tracker.track_gradients(wrapped)
        with tracker:
            TrainStep(wrapped, optimizer, config, frozen)(batch, 0.5)
        trained = bytes_of(list(_trained(wrapped)))
        parameters = held_bytes(wrapped) + (held_bytes(frozen) if frozen else 0)
        batch_bytes, whole_bytes = (bytes_of(list(columns.values())) for columns in (batch, whole_batch))
        peaks = tracker.peaks
        for uses in peaks.values():
            uses["Total"] += 2 * whole_bytes - batch_bytes  # the next batch is on the device too
        if passes > run_passes:
            # The step above had the loss of the parts that ran.
            loss = _loss_alone(config, rows, shapes, whole_batch)
            stays_whole = sharding.fits_whole(wrapped)
            _add_parts(tracker, loss, passes / run_passes, stays_whole)
            features = sum(4 * shape.numel() for shape in shapes.values())
            for uses in peaks.values():  # features of each part, joined, and their gradients
                uses["Total"] += 3 * (passes - run_passes) * features
            gradients = trained if train.sharding == "ddp" else 0
            in_bf16 = train.precision == "bf16" and not sharding.needs_autocast(model)
            gathered = parameter_count(config.model) * (2 if in_bf16 else 4)
            if train.sharding == "ddp" or not stays_whole:
                gathered = 0
            for phase, uses in loss.peaks.items():
                total = uses["Total"] + whole_bytes + parameters + gradients + gathered
                peaks[f"{phase}, loss of all rows"] = uses | {"Total": total, "Gradient": gradients}
    return {
        ("parameters",): parameters, ("trained",): trained,
        **{("count", kind): count for kind, count in tracker.counts.items()},
        **{("size", kind): size for kind, size in tracker.sizes.items()},
        **{("peak", phase, use): size for phase, uses in peaks.items() for use, size in uses.items()},
    }  # fmt: skip


def _add_parts(tracker: StepTracker, loss: StepTracker, times: float, stays_whole: bool) -> None:
    """Add to `tracker` the collectives of the parts that did not run; there are `times` as many parts as parts run."""
    for kind in tracker.counts:
        # The loss and the model's all-reduces run once. If parameters stay gathered, the other collectives do too.
        again = 1 if stays_whole or kind == "all-reduce" else times
        model_count = tracker.counts[kind] - loss.counts[kind]
        model_size = tracker.sizes[kind] - round(loss.sizes[kind] / times)
        tracker.counts[kind] = loss.counts[kind] + round(again * model_count)
        tracker.sizes[kind] = loss.sizes[kind] + round(again * model_size)


def _models(config: Config, strides: int) -> tuple[StructureCLIP, StructureCLIP | None]:
    """Return the model and the teacher of `loss.distil`, if any, on meta tensors; each tower has `strides` strides."""
    with torch.device("meta"):
        model, teacher = build_model(config.model, load_weights=False), None
        if config.loss.distil:
            plain = dataclasses.replace(config.model, kee=KEEConfig(enabled=False))
            teacher = build_model(plain, load_weights=False)
    for module in filter(None, (model, teacher)):
        for name, blocks in block_lists(module).items():
            container: Any = module.get_submodule(name)
            are_equal = len({tuple(p.shape for p in block.parameters()) for block in blocks}) == 1
            if are_equal and len(container) == len(blocks) and not any(map(block_lists, blocks)):
                stride = (len(blocks) - 1) // _STRIDES
                del container[len(blocks) - (_STRIDES - strides) * stride :]
    return model, teacher


def _batch(config: Config, rows: int, passes: int, packs: bool) -> dict[str, Tensor]:
    columns = typical_columns(config, passes * rows)
    if packs:
        columns = pack(columns, passes, on_negatives=config.model.kee.on_negatives, round_rows=True)
    side = image_size(config.model.name)
    columns["image"] = np.broadcast_to(np.uint8(0), (passes * rows, 3, side, side))
    return {
        name: torch.empty(values.shape, dtype=torch.from_numpy(np.empty(0, values.dtype)).dtype)
        for name, values in columns.items()
    }


def _loss_alone(
    config: Config, rows: int, shapes: Mapping[str, torch.Size], batch: dict[str, Tensor]
) -> StepTracker:
    """Track forward and backward of the loss of `rows` rows. `shapes` has the features' shapes in one part of them."""
    features = {
        name: torch.empty((rows, *shape[1:]) if shape else shape, requires_grad=True)
        for name, shape in shapes.items()
    }
    taught = {name: feature.detach() for name, feature in features.items()} if config.loss.distil else None
    tracker = StepTracker()
    tracker.track_external(*features.values(), *batch.values())
    with tracker:
        loss, _ = structure_loss(features, batch, config.loss, 0.5, taught)
        loss.backward()  # type: ignore[no-untyped-call]
    return tracker


def _trained(model: nn.Module) -> Iterator[nn.Parameter]:
    return (parameter for parameter in model.parameters() if parameter.requires_grad)


@contextlib.contextmanager
def _fake_tensors(config: Config) -> Iterator[None]:
    real_mesh = sharding._mesh

    def mesh(*args: Any) -> DeviceMesh:
        with unset_fake_temporarily():  # a mesh reads the values of its tensor of ranks
            return real_mesh(*args)

    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        mock.patch.object(sharding, "_mesh", mesh),
        # The whole model's count, not that of the few blocks here, decides how to shard.
        mock.patch.object(sharding, "_parameters", return_value=parameter_count(config.model)),
        mock.patch.object(nn.Module, "to", lambda module, *_: module),  # fake parameters cannot be swapped
        warnings.catch_warnings(action="ignore"),
    ):
        yield


@contextlib.contextmanager
def _process_group(world_size: int) -> Iterator[None]:
    """Make this process rank 0 of a group whose other ranks do not exist."""
    dist.init_process_group("fake", rank=0, world_size=world_size, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()
