"""Gather the rows of all ranks, and compute each row's contrastive loss against them, in three forms.

This rank's unit features and the `GlobalRows` of all ranks go in; one loss value for each of this rank's rows comes
out. The candidates of a row are the row itself, and the valid rows of other images. Each form scores this rank's B rows
against the N = world size * B rows of all ranks (open_clip's local loss).

- InfoNCE (CLIP) is the cross entropy among all candidates.
- The margin loss of Structure-CLIP's released code counts only the hardest candidate.
- SigLIP's sigmoid loss (Zhai et al. 2023) decides for each image and text separately whether they match.

Above `TILE` scores (logits), the N rows are cut into slices (tiles), and `in_tiles` bounds the memory. Every rank must
call `gather` and `gather_with_gradient` the same number of times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sclip.config import LossConfig

__all__ = [
    "GlobalRows",
    "contrastive_rows",
    "gather",
    "gather_with_gradient",
    "in_tiles",
    "logits_of",
    "world",
]

TILE = 1 << 24
"""Maximum number of logits of a tile. They take 64 MiB in fp32; backward holds about five tensors of this size.

Peak memory of loss, features and gradients in GiB, with tiles / with all logits at once, for 65,536 rows of width 768
on eight ranks (counted on fake tensors): InfoNCE 1.0 / 9.2, max_margin 0.8 / 7.4, InfoNCE with
`loss.negatives_as_texts` and one negative per row 1.4 / 15.0.
"""
_ALL = slice(None)

T = TypeVar("T")


def world() -> tuple[int, int]:
    """Return (rank, world size); (0, 1) without a process group."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def gather(local: Tensor) -> Tensor:
    """Return the rows [N, ...] of all ranks in rank order, given this rank's rows [B, ...]. Passes no gradient."""
    if world()[1] == 1:
        return local
    local = local.contiguous()
    gathered = local.new_empty(local.shape[0] * dist.get_world_size(), *local.shape[1:])
    dist.all_gather_into_tensor(gathered, local)
    return gathered


def gather_with_gradient(local: Tensor) -> Tensor:
    """Return the rows [N, ...] of all ranks in rank order, given this rank's rows [B, ...]. Passes gradients.

    In backward, each rank gets its rows' gradients summed over all ranks.
    """
    # A view is a node of its own for autograd, so one rank adds up gradients in the same order as several.
    return _Gather.apply(local) if world()[1] > 1 else local.view_as(local)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        return gather(local)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        local = gradient.new_empty(gradient.shape[0] // dist.get_world_size(), *gradient.shape[1:])
        dist.reduce_scatter_tensor(local, gradient)
        return local


@dataclass(frozen=True)
class GlobalRows:
    """What every rank knows of each row of the global batch: N rows in rank order, B of them from each rank."""

    image_digest: Tensor
    """int64 [N]; rows with equal digests show the same image."""
    valid: Tensor
    """bool [N]; False marks padding, which is no candidate for other rows."""
    has_negative: Tensor
    """bool [N, M]; whether each of a row's M negatives exists, False in padding rows."""
    rank: int
    count: int  # B

    @classmethod
    def gathered(cls, image_digest: Tensor, valid: Tensor, has_negative: Tensor) -> GlobalRows:
        """Gather the columns of all ranks, given this rank's: `has_negative` is [B, M], the others are [B]."""
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

        A row ignores padding, and other rows of its image. It never ignores itself: a softmax over only -inf is NaN.
        """
        same_image = self.image_digest[columns] == self.image_digest[self.target][:, None]
        return (~self.valid[columns] | same_image) & ~self.itself(columns)


def tile_width(own: Tensor, candidates: Sequence[Tensor], rows: GlobalRows) -> int:
    """Return the number of rows of a tile: at most TILE logits, but at least 1 row (see `in_tiles`)."""
    logits = rows.count * sum(tensor.numel() for tensor in candidates) // own.shape[1]
    return max(1, len(rows.valid) * TILE // logits)


def in_tiles(
    operation: Callable[..., T], own: Tensor, candidates: Sequence[Tensor], rows: GlobalRows, *more: Any
) -> list[T]:
    """Call `operation(own, tile, rows, columns, *more)` for each tile of candidates; return the results in order.

    `own` is [B, D]. `candidates` are [N, D], or [N, M, D] with M candidates for each of the N rows. A tile holds the
    candidates of `columns`, a slice of the N rows. With several tiles, backward computes each again.
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
    """Return both directions' mean cross entropy; images choose among `negative` too (Yuksekgonul et al. 2023)."""
    all_image, *all_texts = (
        gather_with_gradient(tensor) for tensor in (image, text, negative) if tensor is not None
    )
    image_loss = _cross_entropy(scale * image, text, all_texts, rows)
    return 0.5 * (image_loss + _cross_entropy(scale * text, image, [all_image], rows))


def _cross_entropy(own: Tensor, pair: Tensor, candidates: Sequence[Tensor], rows: GlobalRows) -> Tensor:
    """Return -log softmax [B] of each row's pair among its candidates; `own` includes the logit scale."""
    if tile_width(own, candidates, rows) >= len(rows.valid):
        return F.cross_entropy(logits_of(own, candidates, rows, _ALL), rows.target, reduction="none")
    return torch.stack(in_tiles(_log_sum_exp, own, candidates, rows)).logsumexp(0) - (own * pair).sum(1)


def _log_sum_exp(own: Tensor, candidates: Sequence[Tensor], rows: GlobalRows, columns: slice) -> Tensor:
    return logits_of(own, candidates, rows, columns).logsumexp(1)


def logits_of(own: Tensor, candidates: Sequence[Tensor], rows: GlobalRows, columns: slice) -> Tensor:
    """Return logits [B, C] for a tile of C rows, or [B, C + C * M] with M negatives each; -inf where ignored."""
    texts, *negatives = candidates
    excluded = rows.excluded(columns)
    if negatives:
        texts = torch.cat([texts, negatives[0].flatten(0, 1)])
        excluded_negatives = (excluded[:, :, None] | ~rows.has_negative[columns]).flatten(1)
        excluded = torch.cat([excluded, excluded_negatives], dim=1)
    return (own @ texts.T).masked_fill(excluded, -torch.inf)


def _max_margin(image: Tensor, text: Tensor, rows: GlobalRows, margin: float, averaged: bool) -> Tensor:
    """Return the sum over both directions of max(0, margin - s(own pair) + s(hardest candidate)).

    With `averaged`, the mean over all its candidates replaces a caption's hardest image, as at the start of training in
    Structure-CLIP's released code. A row whose only candidate is the row itself gets 0.
    """
    all_image, all_text = gather_with_gradient(image), gather_with_gradient(text)
    own, hardest_text = (image * text).sum(1), _hardest(image, all_text, rows)
    image_score = (_average if averaged else _hardest)(text, all_image, rows)
    both = (margin - own + hardest_text).clamp(min=0.0) + (margin - own + image_score).clamp(min=0.0)
    return torch.where(hardest_text.isneginf(), 0.0, both)


def _hardest(own: Tensor, candidates: Tensor, rows: GlobalRows) -> Tensor:
    """Return each row's highest product [B] with a candidate other than itself; -inf if there is none."""
    hardest, ties = (
        torch.stack(tiles) for tiles in zip(*in_tiles(_hardest_of, own, [candidates], rows), strict=True)
    )
    lower = hardest < hardest.amax(0)
    # Equal candidates share the gradient, also across tiles, so that the order of ranks does not matter.
    ties = ties.to(hardest.dtype).masked_fill(lower, 0.0)
    return (ties / ties.sum(0) * hardest).masked_fill(lower, 0.0).sum(0)


def _hardest_of(
    own: Tensor, candidates: Sequence[Tensor], rows: GlobalRows, columns: slice
) -> tuple[Tensor, Tensor]:
    ignored = rows.excluded(columns) | rows.itself(columns)
    products = (own @ candidates[0].T).masked_fill(ignored, -torch.inf)
    hardest = products.amax(1)
    return hardest, (products.detach() == hardest.detach()[:, None]).sum(1)


def _average(own: Tensor, candidates: Tensor, rows: GlobalRows) -> Tensor:
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
    """Return each image's sum [B] over all texts of -log sigmoid(±(scale * s + bias)), with + for its own text.

    `own` includes the logit scale. All texts are gathered at once. SigLIP's exchange with one rank after the other
    would save their memory (0.19 GiB for 65,536 of width 768), but needs world size - 1 steps.
    """
    return torch.stack(in_tiles(_sigmoid_of, own, [gather_with_gradient(text)], rows, bias)).sum(0)


def _sigmoid_of(
    own: Tensor, candidates: Sequence[Tensor], rows: GlobalRows, columns: slice, bias: Tensor
) -> Tensor:
    logits = own @ candidates[0].T + bias
    signed = torch.where(rows.itself(columns), logits, -logits)
    return -F.logsigmoid(signed).masked_fill(rows.excluded(columns), 0.0).sum(1)
