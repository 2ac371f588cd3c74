"""Compute each row's contrastive loss against the global batch, in three forms (method, section 4).

This rank's unit features and the `GlobalRows` of all ranks go in; one loss value for each of this rank's rows
comes out. All three forms use the same candidates: the row itself, and valid rows of other images. Each scores this
rank's B rows against the N = world size * B rows of all ranks (open_clip's local loss), so work grows with B * N.

- InfoNCE (CLIP) is the cross entropy among all candidates.
- The margin loss of Structure-CLIP's released code counts only the hardest candidate.
- SigLIP's sigmoid loss (Zhai et al. 2023) decides for each image and text separately whether they match.

Above TILE logits, each form is computed for one tile of candidates at a time (`in_tiles`), so memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sclip.config import LossConfig
from sclip.model.feature_exchange import gather, gather_with_gradient, world

__all__ = ["GlobalRows", "contrastive_rows", "in_tiles", "logits_of"]

TILE = 1 << 24
"""Maximum logits of a tile: 64 MiB in fp32, of which backward holds about five copies.

Peak memory of loss, features and their gradients was counted on fake tensors, for 65,536 rows of width 768 on eight
ranks. In GiB, with tiles (and with all logits at once): InfoNCE 1.0 (9.2), InfoNCE with one negative per row as a
further text 1.4 (15.0), max_margin 0.8 (7.4).
"""
_ALL = slice(None)
"""All candidates."""

T = TypeVar("T")


@dataclass(frozen=True)
class GlobalRows:
    """What every rank knows of each row of the global batch: N rows in rank order, B of them from each rank."""

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
        """Gather each rank's columns [B] and [B, M]; return the columns of the global batch."""
        rows = gather(torch.cat([image_digest[:, None], valid[:, None].long(), has_negative.long()], dim=1))
        return cls(rows[:, 0], rows[:, 1].bool(), rows[:, 2:].bool(), world()[0], len(image_digest))

    @property
    def target(self) -> Tensor:
        """Indices of this rank's rows in the global batch, int64 [B]."""
        first = self.rank * self.count
        return torch.arange(first, first + self.count, device=self.image_digest.device)

    def itself(self, columns: slice) -> Tensor:
        """Return bool [B, C], for the C candidates at `columns`: whether the candidate is the row itself."""
        candidates = torch.arange(len(self.image_digest), device=self.image_digest.device)[columns]
        return candidates == self.target[:, None]

    def excluded(self, columns: slice) -> Tensor:
        """Return bool [B, C], for the C candidates at `columns`: whether the row ignores the candidate.

        A row ignores padding, and other rows of its image. No row ignores itself: a softmax over only -inf is NaN.
        """
        same_image = self.image_digest[columns] == self.image_digest[self.target][:, None]
        return (~self.valid[columns] | same_image) & ~self.itself(columns)


def tile_width(own: Tensor, candidates: Sequence[Tensor], rows: GlobalRows) -> int:
    """Return how many of the N rows form one tile of candidates, at least 1 (see `in_tiles`)."""
    logits = rows.count * sum(tensor.numel() for tensor in candidates) // own.shape[1]
    return max(1, len(rows.valid) * TILE // logits)


def in_tiles(
    operation: Callable[..., T], own: Tensor, candidates: Sequence[Tensor], rows: GlobalRows, *more: Any
) -> list[T]:
    """Call `operation(own, tile, rows, columns, *more)` for each tile of candidates; return the results in order.

    `own` is [B, D]. `candidates` are [N, D], or [N, M, D] with M candidates for each of the N rows. A tile has at most
    TILE logits, but at least one column. With several tiles, backward computes each tile again, so that no logits
    are kept.
    """
    width = tile_width(own, candidates, rows)
    if width >= len(rows.valid):
        return [operation(own, candidates, rows, _ALL, *more)]
    # One split, not a slice for each tile: the gradient of a slice is as large as the whole tensor.
    tiles = zip(*(torch.split(tensor, width) for tensor in candidates), strict=True)
    columns = (slice(first, first + width) for first in range(0, len(rows.valid), width))
    return [
        checkpoint(operation, own, tile, rows, span, *more, use_reentrant=False, preserve_rng_state=False)
        for tile, span in zip(tiles, columns, strict=True)
    ]


def contrastive_rows(
    features: Mapping[str, Tensor], rows: GlobalRows, config: LossConfig, progress: float
) -> Tensor:
    """Return the contrastive loss [B] of this rank's rows; the values of padding rows are finite but meaningless.

    `features` are the model's outputs in fp32. `progress` is the share of the run's samples already trained on.
    """
    image, text, scale = (features[name] for name in ("image_features", "text_features", "logit_scale"))
    if config.contrastive == "sigmoid":
        return _sigmoid(scale * image, text, features["logit_bias"], rows)
    if config.contrastive == "max_margin":
        averaged = progress < config.contrastive_warmup
        return _max_margin(image, text, rows, config.contrastive_margin, averaged)
    negative = features.get("negative_features") if config.negatives_as_texts else None
    return _info_nce(image, text, scale, rows, negative)


def _info_nce(
    image: Tensor, text: Tensor, scale: Tensor, rows: GlobalRows, negative: Tensor | None
) -> Tensor:
    """Return the mean cross entropy of both directions.

    With negatives, an image chooses among the captions and negatives of all ranks, its own negatives included, as in
    NegCLIP (Yuksekgonul et al. 2023).
    """
    all_image, *all_texts = (
        gather_with_gradient(tensor) for tensor in (image, text, negative) if tensor is not None
    )
    image_loss = _cross_entropy(scale * image, text, all_texts, rows)
    return 0.5 * (image_loss + _cross_entropy(scale * text, image, [all_image], rows))


def _cross_entropy(own: Tensor, pair: Tensor, candidates: Sequence[Tensor], rows: GlobalRows) -> Tensor:
    """Return -log softmax [B] of each row's pair among its candidates.

    `own` [B, D] is multiplied by the logit scale, `pair` [B, D] is not.
    """
    if tile_width(own, candidates, rows) >= len(rows.valid):
        return F.cross_entropy(logits_of(own, candidates, rows, _ALL), rows.target, reduction="none")
    return torch.stack(in_tiles(_log_sum_exp, own, candidates, rows)).logsumexp(0) - (own * pair).sum(1)


def _log_sum_exp(own: Tensor, candidates: Sequence[Tensor], rows: GlobalRows, columns: slice) -> Tensor:
    """Return log sum exp of a tile's logits [B]; -inf, with gradients of 0, where the row ignores the whole tile."""
    return logits_of(own, candidates, rows, columns).logsumexp(1)


def logits_of(own: Tensor, candidates: Sequence[Tensor], rows: GlobalRows, columns: slice) -> Tensor:
    """Return the products of rows and candidates, [B, C] or [B, C + C * M] with negatives; -inf where ignored."""
    texts, *negatives = candidates
    excluded = rows.excluded(columns)
    if negatives:
        texts = torch.cat([texts, negatives[0].flatten(0, 1)])
        excluded_negatives = (excluded[:, :, None] | ~rows.has_negative[columns]).flatten(1)
        excluded = torch.cat([excluded, excluded_negatives], dim=1)
    return (own @ texts.T).masked_fill(excluded, -torch.inf)


def _max_margin(image: Tensor, text: Tensor, rows: GlobalRows, margin: float, averaged: bool) -> Tensor:
    """Return the sum over both directions of max(0, margin - s(own pair) + s(hardest candidate)).

    With `averaged`, each caption is compared with the mean over its candidate images, its own image included. Images
    are still compared with the hardest caption. The released code starts its training this way. A row without
    candidates gets 0.
    """
    all_image, all_text = gather_with_gradient(image), gather_with_gradient(text)
    own, hardest_text = (image * text).sum(1), _hardest(image, all_text, rows)
    image_score = (_average if averaged else _hardest)(text, all_image, rows)
    both = (margin - own + hardest_text).clamp(min=0.0) + (margin - own + image_score).clamp(min=0.0)
    return torch.where(hardest_text.isneginf(), 0.0, both)


def _hardest(own: Tensor, candidates: Tensor, rows: GlobalRows) -> Tensor:
    """Return each row's highest product with a candidate other than itself, [B]; -inf if there is none.

    Candidates with equal products share the gradient, even across tiles, so the order of ranks does not matter.
    """
    hardest, ties = (
        torch.stack(tiles) for tiles in zip(*in_tiles(_hardest_of, own, [candidates], rows), strict=True)
    )
    lower = hardest < hardest.amax(0)
    ties = ties.to(hardest.dtype).masked_fill(lower, 0.0)
    return (ties / ties.sum(0) * hardest).masked_fill(lower, 0.0).sum(0)


def _hardest_of(
    own: Tensor, candidates: Sequence[Tensor], rows: GlobalRows, columns: slice
) -> tuple[Tensor, Tensor]:
    """Return the highest product in a tile, and how many candidates reach this product, both [B]."""
    ignored = rows.excluded(columns) | rows.itself(columns)
    products = (own @ candidates[0].T).masked_fill(ignored, -torch.inf)
    hardest = products.amax(1)
    return hardest, (products.detach() == hardest.detach()[:, None]).sum(1)


def _average(own: Tensor, candidates: Tensor, rows: GlobalRows) -> Tensor:
    """Return the mean [B] of each row's products with its candidates, which include the row itself."""
    total, count = (
        torch.stack(tiles).sum(0) for tiles in zip(*in_tiles(_sum_of, own, [candidates], rows), strict=True)
    )
    return total / count


def _sum_of(
    own: Tensor, candidates: Sequence[Tensor], rows: GlobalRows, columns: slice
) -> tuple[Tensor, Tensor]:
    excluded = rows.excluded(columns)
    return (own @ candidates[0].T).masked_fill(excluded, 0.0).sum(1), (~excluded).sum(1)


def _sigmoid(own: Tensor, text: Tensor, bias: Tensor, rows: GlobalRows) -> Tensor:
    """Return each image's sum over all texts of -log sigmoid(±(scale * s + bias)), [B]; the own text's sign is +.

    `own` holds scaled image features. All texts are gathered at once. SigLIP's exchange between neighbors would save
    the memory of N rows (0.19 GiB for 65,536 of width 768), but needs world size - 1 steps, one after the other.
    """
    return torch.stack(in_tiles(_sigmoid_of, own, [gather_with_gradient(text)], rows, bias)).sum(0)


def _sigmoid_of(
    own: Tensor, candidates: Sequence[Tensor], rows: GlobalRows, columns: slice, bias: Tensor
) -> Tensor:
    logits = own @ candidates[0].T + bias
    signed = torch.where(rows.itself(columns), logits, -logits)
    return -F.logsigmoid(signed).masked_fill(rows.excluded(columns), 0.0).sum(1)
