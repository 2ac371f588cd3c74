"""Define what the step benchmark runs: a batch of random images and captions, our step, and open_clip's step.

Captions have the lengths of COCO's or fill the context. Their words are random, which does not change the amount of
computation. This module needs no large libraries other than torch and open_clip.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import open_clip
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from sclip.config import Config, KEEConfig, LossConfig, ModelConfig, RunConfig, TrainConfig
from sclip.model import build_model, image_size
from sclip.model.packing import pack
from sclip.train.flops import StepFlops
from sclip.train.optimizer import make_optimizer
from sclip.train.sharding import apply, apply_frozen
from sclip.train.step import TrainStep

__all__ = ["SMALL_NAME", "Case", "Ours", "Peer", "add_small_model", "columns_of", "process_group"]

SMALL_NAME = "benchmark-vit"
SMALL = {
    "embed_dim": 256,
    "vision_cfg": {"image_size": 112, "patch_size": 16, "width": 256, "layers": 6},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 256, "heads": 4, "layers": 6},
}
"""A ViT small enough for two cores to train a batch in a second."""

CONTEXT, START, END = 77, 49406, 49407
COCO_TOKENS, COCO_DEVIATION = 13.0, 3.4
"""Mean and standard deviation of caption lengths in COCO's val2017, in CLIP's tokens."""
NEGATIVES, TRIPLES = 0.8, (1, 4)
"""Share of captions with a negative, and (minimum, maximum) triples per caption: about as with COCO's captions."""


@dataclass(frozen=True)
class Case:
    """Model, batch, and settings of a step."""

    model: str
    rows: int
    """Batch size, or the maximum if `sized_by_memory` holds on a GPU."""
    device: Literal["cpu", "cuda"]
    precision: Literal["fp32", "bf16"]
    sized_by_memory: bool = True
    parts: int = 1  # of the batch, equal (GradCache)
    kee: bool = False
    """Whether the step has the knowledge encoder, and one negative for most captions."""
    distil: bool = False
    """Whether the step distils from a frozen copy of the starting weights (`loss.distil`)."""
    full: bool = False  # captions fill the context
    compile: bool = False
    attention: Literal["lean", "plain"] = "lean"
    checkpointing: Literal["none", "block", "selective"] = "none"
    sharding: Literal["none", "ddp", "fsdp"] = "none"
    """How the model is distributed; unless "none", over a process group of this process alone."""


def add_small_model() -> None:
    """Register the architecture `SMALL` with open_clip, as `SMALL_NAME`."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, f"{SMALL_NAME}.json").write_text(json.dumps(SMALL))
        open_clip.add_model_config(folder)


def columns_of(case: Case, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Return the columns of a batch on the host."""
    random = np.random.default_rng(seed)
    side, rows = image_size(case.model), case.rows
    lengths = np.clip(random.normal(COCO_TOKENS, COCO_DEVIATION, rows).round(), 5, CONTEXT).astype(int)
    lengths = np.full(rows, CONTEXT) if case.full else lengths
    places = np.arange(CONTEXT)
    text = random.integers(300, 40_000, (rows, CONTEXT)).astype(np.int32)
    text[:, 0] = START
    text[places >= lengths[:, None]] = 0
    text[np.arange(rows), lengths - 1] = END
    columns: dict[str, NDArray[Any]] = {
        "image": random.integers(0, 256, (rows, 3, side, side), dtype=np.uint8), "text": text,
        "image_digest": np.arange(rows), "valid": np.ones(rows, bool),
    }  # fmt: skip
    if case.kee:
        kee = KEEConfig()
        triples = random.integers(300, 40_000, (rows, kee.triples, 3, kee.phrase_tokens)).astype(np.int32)
        triples[:, :, :, 2:] = -1
        count = random.integers(TRIPLES[0], TRIPLES[1] + 1, rows)
        triples[np.arange(kee.triples) >= count[:, None]] = -1
        has_negative = random.random((rows, 1)) < NEGATIVES
        columns |= {
            "triples": triples, "has_negative": has_negative, "negative_text": text[:, None] * has_negative[:, :, None],
            "negative_triples": np.where(has_negative[:, :, None, None, None], triples[:, None, :, ::-1], -1),
        }  # fmt: skip
    return columns


@contextlib.contextmanager
def process_group(case: Case) -> Iterator[None]:
    """Make this process the only rank of a process group if the case is sharded."""
    if case.sharding == "none":
        yield
        return
    for backend in ("GLOO", "NCCL"):
        os.environ.setdefault(f"{backend}_SOCKET_IFNAME", "lo")
    backend = "nccl" if case.device == "cuda" else "gloo"
    store = dist.HashStore()  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Ours:
    """Our training step on one batch that is already on the device; call `load` first."""

    def __init__(self, case: Case) -> None:
        self.case, self._device = case, torch.device(case.device)
        width = open_clip.get_model_config(case.model)["text_cfg"]["width"]
        sharding: Literal["ddp", "fsdp"] = "ddp" if case.sharding == "ddp" else "fsdp"
        train = TrainConfig(
            precision=case.precision, compile=case.compile, activation_checkpointing=case.checkpointing,
            sharding=sharding,
        )  # fmt: skip
        self._config = Config(
            model=ModelConfig(
                name=case.model, attention=case.attention, kee=KEEConfig(enabled=case.kee, heads=width // 64)
            ),
            loss=LossConfig(negatives="semantic" if case.kee else "none", distil=float(case.distil)),
            run=RunConfig(init_from="random weights" if case.distil else ""),
            train=train,
        )
        torch.manual_seed(0)
        with self._device:  # a CPU takes seconds to draw hundreds of millions of random weights
            model = build_model(self._config.model)
        teacher = copy.deepcopy(model) if case.distil else None
        self._count = StepFlops(model, self._config, teacher)
        self.model = apply(model, train, self._device)
        self._teacher = teacher and apply_frozen(teacher, self.model, train, self._device)
        self.optimizer = make_optimizer(self.model, train)

    def load(self, rows: int) -> None:
        """Make a batch of `rows` rows to train on."""
        columns = columns_of(replace(self.case, rows=rows))
        self.flops = self._count(columns)  # of one step
        micro_batch = rows // self.case.parts if self.case.parts > 1 else 0
        train = replace(self._config.train, batch_size=rows, micro_batch=micro_batch)
        config = replace(self._config, train=train)
        self.step = TrainStep(self.model, self.optimizer, config, self._teacher)
        round_rows = self._device.type == "cuda" or self.case.compile  # as `sclip.train.prefetch` does
        self._batch = {
            name: torch.from_numpy(np.ascontiguousarray(column)).to(self._device)
            for name, column in pack(columns, self.case.parts, round_rows=round_rows).items()
        }

    def __call__(self) -> None:
        """Train one step."""
        self.step(self._batch, 0.5)


class Peer:
    """`open_clip_train.train.train_one_epoch` on one batch, with the optimizer that `open_clip_train.main` makes."""

    def __init__(self, case: Case) -> None:
        logging.getLogger().setLevel(logging.ERROR)
        self.case, self._device = case, torch.device(case.device)
        torch.manual_seed(0)
        with self._device:
            self._model = open_clip.create_model(case.model, output_dict=True, device=case.device)
        named = [(name, p) for name, p in self._model.named_parameters() if p.requires_grad]
        decayed = [p for name, p in named if p.ndim >= 2]
        kept = [p for name, p in named if p.ndim < 2]
        self._optimizer = torch.optim.AdamW(
            [{"params": kept, "weight_decay": 0.0}, {"params": decayed, "weight_decay": 0.1}],
            lr=2e-6,
            betas=(0.9, 0.98),
            eps=1e-6,
        )

    def load(self, rows: int) -> None:
        """Make a batch of `rows` rows to train on."""
        columns = columns_of(replace(self.case, rows=rows))
        image = torch.from_numpy(columns["image"]).to(self._device).float().div_(255)
        self._batch = (image, torch.from_numpy(columns["text"]).long().to(self._device))

    def __call__(self, steps: int = 1) -> None:
        """Train an epoch of `steps` steps on the same batch."""
        from open_clip_train.train import train_one_epoch  # type: ignore[import-untyped]

        image, text = self._batch
        args = argparse.Namespace(
            device=self.case.device, precision="amp_bf16" if self.case.precision == "bf16" else "fp32",
            distill=False, accum_freq=1, skip_scheduler=True, horovod=False, grad_clip_norm=1.0,
            log_every_n_steps=1 << 30, wandb=False, batch_size=len(image), world_size=1, rank=0, local_rank=0,
            distributed=False, log_local=False,
        )  # fmt: skip
        data = {"train": _Epoch(image, text, steps)}
        train_one_epoch(self._model, data, open_clip.ClipLoss(), 0, self._optimizer, None, None, None, args)


class _Epoch:  # stands in for open_clip's data
    def __init__(self, image: Tensor, text: Tensor, times: int) -> None:
        self.batch = (image, text)
        self.dataloader = self
        self.num_batches, self.num_samples = times, times * len(image)

    def set_epoch(self, epoch: int) -> None:
        """Do nothing; `train_one_epoch` calls this for each epoch."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter([self.batch] * self.num_batches)
