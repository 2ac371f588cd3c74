"""What the benchmark of a step runs: a batch of random pictures and captions, our step, and open_clip's own.

Captions have the lengths of COCO's (13 tokens, deviation 3.4, start and end included) or fill the context; their words
are random, which changes nothing of what is computed. No Ray, spaCy or table library: this runs where torch and
open_clip do.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from torch import Tensor

from sclip.config import Config, KEEConfig, LossConfig, ModelConfig, TrainConfig
from sclip.model import build_model, image_size
from sclip.model.packing import pack
from sclip.train.flops import StepFlops
from sclip.train.optimizer import make_optimizer
from sclip.train.step import TrainStep

__all__ = ["SMALL_NAME", "Case", "Ours", "add_small_model", "columns_of", "peer"]

SMALL_NAME = "benchmark-vit"
SMALL = {
    "embed_dim": 256,
    "vision_cfg": {"image_size": 112, "patch_size": 16, "width": 256, "layers": 6},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 256, "heads": 4, "layers": 6},
}
"""A ViT that two cores train a batch of in a second."""

CONTEXT, START, END = 77, 49406, 49407
COCO_TOKENS, COCO_DEVIATION = 13.0, 3.4
"""Of the captions of val2017 in CLIP's tokens."""
NEGATIVES, TRIPLES = 0.8, (1, 4)
"""Share of captions with a negative, and fewest and most triples of one: about COCO's."""


@dataclass(frozen=True)
class Case:
    """One model, batch and precision."""

    model: str
    rows: int
    device: torch.device
    precision: Literal["fp32", "bf16"]
    micro_batch: int = 0
    kee: bool = False
    """With one negative for most captions, too."""
    full: bool = False
    """Captions fill the context."""


def add_small_model() -> None:
    """Let open_clip know the small model by its name."""
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
        "key": np.arange(rows), "valid": np.ones(rows, bool),
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


class Ours:
    """Our training step on one batch, which lies on the device."""

    def __init__(self, case: Case) -> None:
        """Build the model from random weights."""
        width = open_clip.get_model_config(case.model)["text_cfg"]["width"]
        config = Config(
            model=ModelConfig(name=case.model, kee=KEEConfig(enabled=case.kee, heads=width // 64)),
            loss=LossConfig(negatives="semantic" if case.kee else "none"),
            train=TrainConfig(batch_size=case.rows, micro_batch=case.micro_batch, precision=case.precision),
        )  # fmt: skip
        torch.manual_seed(0)
        model = build_model(config.model)
        columns = columns_of(case)
        self.flops = StepFlops(model, config)(columns)
        """Operations of a step."""
        model = model.to(case.device)
        self.model, self.optimizer = model, make_optimizer(model, config.train)
        self._step = TrainStep(model, self.optimizer, config)
        parts = case.rows // case.micro_batch if case.micro_batch else 1
        packed = pack(columns, parts)
        self._batch = {
            name: torch.from_numpy(np.ascontiguousarray(column)).to(case.device)
            for name, column in packed.items()
        }

    def __call__(self) -> None:
        """Train one step."""
        self._step(self._batch, 0.5)


def peer(case: Case, steps: int) -> Callable[[], None]:
    """Return `open_clip_train.train.train_one_epoch` over some batches, with the optimizer of its main program."""
    from open_clip_train.train import train_one_epoch  # type: ignore[import-untyped]

    logging.getLogger().setLevel(logging.ERROR)
    torch.manual_seed(0)
    model = open_clip.create_model(case.model, output_dict=True, device=case.device)
    columns = columns_of(case)
    image = torch.from_numpy(columns["image"]).to(case.device).float().div_(255)
    text = torch.from_numpy(columns["text"]).long().to(case.device)
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for name, p in named if p.ndim >= 2]
    kept = [p for name, p in named if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": kept, "weight_decay": 0.0}, {"params": decayed, "weight_decay": 0.1}],
        lr=2e-6,
        betas=(0.9, 0.98),
        eps=1e-6,
    )
    args = argparse.Namespace(
        device=str(case.device), precision="amp_bf16" if case.precision == "bf16" else "fp32", distill=False,
        accum_freq=1, skip_scheduler=True, horovod=False, grad_clip_norm=1.0, log_every_n_steps=1 << 30, wandb=False,
        batch_size=case.rows, world_size=1, rank=0, local_rank=0, distributed=False, log_local=False,
    )  # fmt: skip
    data = {"train": _Data(image, text, steps)}
    loss = open_clip.ClipLoss()
    return lambda: train_one_epoch(model, data, loss, 0, optimizer, None, None, None, args)


class _Data:
    """A data source of one batch several times, as that function wants it."""

    def __init__(self, image: Tensor, text: Tensor, times: int) -> None:
        self.batch = (image, text)
        self.dataloader = self
        self.num_batches, self.num_samples = times, times * len(image)

    def set_epoch(self, epoch: int) -> None:
        """Take the number of the epoch, which changes nothing here."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter([self.batch] * self.num_batches)
