"""Count the floating-point operations of a step, and look up a device's peak FLOP/s; both are needed for the MFU.

The count is what the model needs, not what is executed: recomputation (activation checkpointing, GradCache) does not
count. A multiply-add is two operations. A trained part counts as three forward passes, a frozen part as one, or as two
if a gradient passes through it. For l tokens, a Transformer layer of width W needs

    24 W^2 l  (projections and the MLP of four times the width)  +  4 W l^2  (attention, as if not causal),

the formula of Chowdhery et al. (PaLM, 2022, appendix B); the code uses the actual matrix sizes. For the image tower,
torch's FLOP counter counts the forward pass.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from sclip.config import Config
from sclip.model.architecture import image_size
from sclip.model.packing import text_lengths
from sclip.model.structure_clip import PARTS, Part, StructureCLIP
from sclip.model.towers import sizes
from sclip.train.optimizer import lr_scale

__all__ = ["StepFlops", "peak_flops"]

PEAKS: dict[str, tuple[float, float]] = {
    r"B200": (2250e12, 75e12),
    r"H200": (989.4e12, 66.9e12),
    r"H100 PCIe": (756e12, 51.2e12),
    r"H100 NVL": (835e12, 60e12),
    r"H100": (989.4e12, 66.9e12),
    r"A100": (312e12, 19.5e12),
    r"A10G": (70e12, 35e12),
    r"L40S": (362e12, 91.6e12),
    r"L4": (121e12, 30.3e12),
    r"RTX 4090$": (165.2e12, 82.6e12),  # not the laptop GPU
}
"""Dense peak FLOP/s in bf16 (tensor cores) and fp32, by a pattern of the device name; from NVIDIA's data sheets."""


def peak_flops(device_name: str, precision: str) -> float | None:
    """Return a device's dense peak in operations per second for "bf16" or "fp32"; None if it is unknown."""
    if "MIG" in device_name:  # a slice of a GPU has a lower peak
        return None
    for name, (half, single) in PEAKS.items():
        if re.search(rf"\b{name}\b", device_name):
            return half if precision == "bf16" else single
    return None


class StepFlops:
    """Operations of one step on this rank, computed from the columns of its batch before packing."""

    def __init__(self, model: StructureCLIP, config: Config, teacher: StructureCLIP | None = None) -> None:
        """Count the operations per image, token and triple. `model` is as before `sharding.apply`."""
        # If `teacher` is None, the teacher of `loss.distil` is assumed to have no knowledge encoder.
        train, kee = config.train, model.kee
        self._loss = config.loss
        text = model.text_tower
        # Towers that cannot pack texts also compute the padding, even Hugging Face's, which mask it.
        self._whole_context = not model.packs_text
        has_words = not (config.model.kee.own_embeddings or config.model.lora.rank)
        words = has_words and lr_scale("text", train) > 0
        # Backward costs two forward passes, also of a weight with a low-rank update: its full gradient is computed. For
        # the image tower of ViT-B/32 that is 0.9 % too much, because pixels need no gradient.
        self._passes = {part: 3 if lr_scale(part, train) else 1 for part in PARTS}
        if words and self._passes["kee"] == 1:
            self._passes["kee"] = 2  # the gradient passes through the frozen KEE to the shared word table
        self._image = _counted(model, image_size(config.model.name))
        width, layers, self._features = sizes(text)
        self._token = _per_row(text.transformer)
        self._attention = 4 * width * layers
        self._caption = 2 * width * self._features
        self._triple = self._triple_attention = self._knowledge = 0
        self._on_negatives = config.model.kee.on_negatives
        self._teacher_sees_triples = teacher is not None and teacher.kee is not None
        if kee is not None:
            width = kee.projection.in_features
            self._triple = _per_row(kee.layers) + (0 if kee.join is None else 2 * kee.join.weight.numel())
            self._triple_attention = 4 * width * len(kee.layers)
            self._knowledge = 2 * kee.projection.weight.numel()

    def __call__(self, columns: Mapping[str, NDArray[Any]], world_size: int = 1) -> float:
        """Return the operations of a step. `columns` must hold only the columns that the step reads."""
        # Other ranks are assumed to hold as many rows and negatives as this one.
        valid = columns["valid"]
        samples = int(valid.sum())
        captions = columns["text"][valid]
        triples = columns["triples"][valid] if "triples" in columns else None
        total, negatives = 0.0, 0
        if self._loss.distil:
            teacher_triples = triples if self._teacher_sees_triples else None
            total = self._towers(samples, captions, teacher_triples, dict.fromkeys(PARTS, 1))
            # Logits in both directions: forward and backward of the model's (3), forward of the teacher's (1).
            total += (3 + 1) * samples * 2 * (2 * samples) * self._features * world_size
        if "negative_text" in columns:
            has_negative = columns["has_negative"][valid]
            negatives = int(has_negative.sum())
            captions = np.concatenate([captions, columns["negative_text"][valid][has_negative]])
            if triples is not None and self._on_negatives:
                triples = np.concatenate([triples, columns["negative_triples"][valid][has_negative]])
        for name in ("unit", "positive"):
            if f"{name}_text" not in columns:
                continue
            is_present = columns[f"has_{name}"] & valid
            texts = columns[f"{name}_text"][is_present].reshape(-1, captions.shape[1])
            captions = np.concatenate([captions, texts])
            if triples is not None:
                text_triples = columns[f"{name}_triples"][is_present].reshape(-1, *triples.shape[1:])
                triples = np.concatenate([triples, text_triples])
        total += self._towers(samples, captions, triples, self._passes)
        return float(total + 3 * samples * self._logits(samples, negatives) * world_size)

    def _towers(
        self, images: int, captions: NDArray[Any], triples: NDArray[Any] | None, passes: Mapping[Part, int]
    ) -> float:
        """Return the operations of all towers. `passes`: number of forward passes that each part counts as (1 to 3).

        Token ids are `captions` [captions, tokens] and `triples` [captions, triples, 3 phrases, tokens of a phrase].
        """
        lengths = text_lengths(captions).astype(np.float64)
        if self._whole_context:
            lengths[:] = captions.shape[1]
        total = passes["image"] * images * self._image
        total += passes["text"] * (
            self._token * lengths.sum() + self._attention * (lengths**2).sum() + self._caption * len(captions)
        )
        if triples is not None:
            counts = np.any(triples >= 0, axis=(2, 3)).sum(1).astype(np.float64)
            total += passes["kee"] * (
                self._triple * counts.sum()
                + self._triple_attention * (counts**2).sum()
                + self._knowledge * (counts > 0).sum()
            )
        return float(total)

    def _logits(self, samples: int, negatives: int) -> int:
        """Return the forward operations of one row's contrastive logits against the rows of one rank."""
        # The sigmoid loss has one matrix for both directions.
        candidates = samples if self._loss.contrastive == "sigmoid" else 2 * samples
        if self._loss.negatives_as_texts:
            candidates += negatives
        return 2 * candidates * self._features


def _per_row(layers: nn.Module) -> int:
    """Return the operations per token of the layers' matrices. Embedding tables need none: they are looked up."""
    tables = {id(m.weight) for m in layers.modules() if isinstance(m, nn.Embedding)}
    return sum(2 * p.numel() for p in layers.parameters() if p.ndim == 2 and id(p) not in tables)


def _counted(model: StructureCLIP, side: int) -> int:
    """Return the forward operations of an image of `side` x `side` pixels, counted by torch on meta tensors."""
    visual = model.clip.visual
    state = {
        name: torch.empty_like(tensor, device="meta")
        for name, tensor in [*visual.named_parameters(), *visual.named_buffers()]
    }
    was_training = model.training
    model.train()  # in eval mode torch uses a fused attention that the counter does not count
    # No backward: its counts are too high for grouped convolutions (ConvNeXt-B: 7.9 times forward).
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        functional_call(visual, state, (torch.empty(1, 3, side, side, device="meta"),))
    model.train(was_training)
    return int(counter.get_total_flops())
