"""Compute each row's contrastive loss against the global batch, in three forms (method, section 4).

This rank's unit features and the `GlobalRows` of all ranks go in; one loss value for each of this rank's rows
comes out. All three forms use the same candidates: the row itself, and valid rows of other images.

- InfoNCE (CLIP) scores this rank's rows against gathered ones (open_clip's local loss): memory and work grow with
  B * N instead of N * N, for N = world size * B.
- The margin loss of Structure-CLIP's released code scores the same rows, but counts only the hardest candidate.
- SigLIP's sigmoid loss (Zhai et al. 2023) needs no softmax over all candidates. Texts travel around a ring of ranks, so
  forward and backward hold only one block [B, B] of logits at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sclip.config import LossConfig
from sclip.model.feature_exchange import gather, gather_with_gradient, ring_with_gradient, world

__all__ = ["GlobalRows", "contrastive_rows"]


@dataclass(frozen=True)
class GlobalRows:
    """Columns of the global batch that every rank knows: N rows in rank order, B of each rank."""

    image_digest: Tensor
    """int64 [N]; rows with equal digests show the same image."""
    valid: Tensor
    """bool [N]; False marks padding, which is no candidate for other rows."""
    has_negative: Tensor
    """bool [N, M]; True only in valid rows."""
    rank: int
    count: int
    """B, the number of rows of each rank."""

    @classmethod
    def gathered(cls, image_digest: Tensor, valid: Tensor, has_negative: Tensor) -> GlobalRows:
        """Return the rows of all ranks, gathered from each rank's columns [B] and [B, M]."""
        rows = gather(torch.cat([image_digest[:, None], valid[:, None].long(), has_negative.long()], dim=1))
        return cls(rows[:, 0], rows[:, 1].bool(), rows[:, 2:].bool(), world()[0], len(image_digest))

    @property
    def target(self) -> Tensor:
        """Indices of this rank's rows in the global batch, int64 [B]."""
        first = self.rank * self.count
        return torch.arange(first, first + self.count, device=self.image_digest.device)

    def excluded(self, of: int | None = None) -> Tensor:
        """Return the candidates that this rank's rows ignore, as a bool mask: all [B, N], or those of rank `of` [B, B].

        No row ignores itself, not even padding: a softmax over only -inf is NaN, also in backward.
        """
        first, last = (0, len(self.image_digest)) if of is None else (of * self.count, (of + 1) * self.count)
        own = self.target[:, None]
        candidates = torch.arange(first, last, device=self.image_digest.device)[None, :]
        same_image = self.image_digest[candidates] == self.image_digest[own]
        return (~self.valid[candidates] | same_image) & (candidates != own)


def contrastive_rows(
    features: Mapping[str, Tensor], rows: GlobalRows, config: LossConfig, progress: float
) -> Tensor:
    """Return the contrastive loss [B] of this rank's rows; the values of padding rows are finite but meaningless.

    `features` are the model's outputs in fp32. `progress` is the share of the run's samples already trained on.
    """
    image, text, scale = (features[name] for name in ("image_features", "text_features", "logit_scale"))
    if config.contrastive == "sigmoid":
        return _sigmoid(image, text, scale, features["logit_bias"], rows)
    if config.contrastive == "max_margin":
        averaged = progress < config.contrastive_warmup
        return _max_margin(image, text, rows, config.contrastive_margin, averaged)
    negative = features.get("negative_features") if config.negatives_as_texts else None
    return _info_nce(image, text, scale, rows, negative)


def _info_nce(
    image: Tensor, text: Tensor, scale: Tensor, rows: GlobalRows, negative: Tensor | None
) -> Tensor:
    """Return the mean cross entropy of both directions.

    With negatives, as in NegCLIP (Yuksekgonul et al. 2023), an image chooses among the captions and negatives of all
    ranks, including its own negatives.
    """
    features = [image[:, None], text[:, None]] + ([] if negative is None else [negative])
    gathered = gather_with_gradient(torch.cat(features, dim=1))  # [N, 2 + M, D]
    all_image, texts = gathered[:, 0], [gathered[:, 1], gathered[:, 2:].flatten(0, 1)]
    excluded = of_texts = rows.excluded()
    if negative is not None:
        of_negatives = (excluded[:, :, None] | ~rows.has_negative).flatten(1)
        of_texts = torch.cat([excluded, of_negatives], dim=1)
    of_image = _cross_entropy(scale * image @ torch.cat(texts).T, rows.target, of_texts)
    return 0.5 * (of_image + _cross_entropy(scale * text @ all_image.T, rows.target, excluded))


def _cross_entropy(logits: Tensor, target: Tensor, excluded: Tensor) -> Tensor:
    return F.cross_entropy(logits.masked_fill(excluded, -torch.inf), target, reduction="none")


def _max_margin(image: Tensor, text: Tensor, rows: GlobalRows, margin: float, averaged: bool) -> Tensor:
    """Return the sum over both directions of max(0, margin - s(own pair) + s(hardest candidate)).

    With `averaged`, each caption is compared with the mean over its candidate images, including its own image; images
    are still compared with the hardest caption. The released code starts its training this way. A row without
    candidates gets 0.
    """
    all_image, all_text = gather_with_gradient(torch.cat([image, text], dim=1)).chunk(2, dim=1)
    own, excluded = (image * text).sum(1), rows.excluded()
    masked = excluded.scatter(1, rows.target[:, None], True)
    of_text = text @ all_image.T
    # amax, not max: candidates with equal scores share the gradient, so the order of ranks does not matter.
    hardest_text = (image @ all_text.T).masked_fill(masked, -torch.inf).amax(1)
    if averaged:
        image_score = of_text.masked_fill(excluded, 0.0).sum(1) / (~excluded).sum(1)
    else:
        image_score = of_text.masked_fill(masked, -torch.inf).amax(1)
    both = (margin - own + hardest_text).clamp(min=0.0) + (margin - own + image_score).clamp(min=0.0)
    return torch.where(masked.all(1), 0.0, both)


def _sigmoid(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, rows: GlobalRows) -> Tensor:
    """Return each image's sum over all texts of -log sigmoid(±(scale * s + bias)), [B]; the own text's sign is +."""
    total = torch.zeros_like(image[:, 0])
    for rank, texts in ring_with_gradient(text):
        block = (image, texts, scale, bias, rows, rank)
        if world()[1] == 1:
            total = total + _sigmoid_block(*block)
        else:  # recompute blocks in backward: kept together, they would take [B, N] memory
            total = total + checkpoint(_sigmoid_block, *block, use_reentrant=False, preserve_rng_state=False)
    return total


def _sigmoid_block(
    image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, rows: GlobalRows, rank: int
) -> Tensor:
    """Return the same sums [B] as `_sigmoid`, over the texts of one rank."""
    logits = scale * image @ text.T + bias
    sign = 2.0 * torch.eye(len(image), device=image.device) - 1.0 if rank == rows.rank else -1.0
    return -F.logsigmoid(sign * logits).masked_fill(rows.excluded(rank), 0.0).sum(1)
