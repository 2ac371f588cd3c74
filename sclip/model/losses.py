"""The two terms of the loss over the global batch (method, section 4).

Each rank's features go in; out come its share of the loss and the global values to log. A rank gathers the
others' features with their gradient and scores only its own rows against them (open_clip's local loss), so
memory and work grow with B * N and not with N * N, for N = world size * B.

Scaling: gradients are averaged over ranks by DDP and FSDP, so a rank returns world size * (sum of its rows) /
(global number of rows that count). The average is then the gradient that one rank with the whole batch has,
also where ranks hold different numbers of such rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from sclip.config import LossConfig

__all__ = ["contrastive_rows", "gather_with_gradient", "hinge_rows", "structure_loss"]


class _Gather(torch.autograd.Function):
    """All-gather whose backward gives each rank the sum of all ranks' gradients of its part."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        return _all_gather(local)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        local = gradient.new_empty(gradient.shape[0] // dist.get_world_size(), *gradient.shape[1:])
        dist.reduce_scatter_tensor(local, gradient)
        return local


def _all_gather(local: Tensor) -> Tensor:
    local = local.contiguous()
    gathered = local.new_empty(local.shape[0] * dist.get_world_size(), *local.shape[1:])
    dist.all_gather_into_tensor(gathered, local)
    return gathered


def _world() -> tuple[int, int]:
    """Return (rank, world size); (0, 1) without a process group."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def gather_with_gradient(local: Tensor) -> Tensor:
    """Return the rows [N, ...] of all ranks in rank order for this rank's [B, ...], differentiable."""
    return _Gather.apply(local) if _world()[1] > 1 else local


def contrastive_rows(
    queries: Tensor, candidates: Tensor, scale: Tensor, *, target: Tensor, excluded: Tensor
) -> Tensor:
    """Return the cross entropy [B] of each query against all candidates.

    `queries` [B, D] and `candidates` [N, D] are unit length, `target` int64 [B] is each query's own candidate,
    `excluded` bool [B, N] marks candidates that are no negatives of it; never its target.
    """
    logits = (scale * queries @ candidates.T).masked_fill(excluded, -torch.inf)
    return F.cross_entropy(logits, target, reduction="none")


def hinge_rows(positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """Return max(0, margin - s(I, w) + s(I, w-)) for cosines [B]."""
    return (margin - positive + negative).clamp(min=0.0)


def structure_loss(
    features: Mapping[str, Tensor], batch: Mapping[str, Tensor], config: LossConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return this rank's loss, to be averaged over ranks, and the values of the global batch to log.

    `features` as `StructureCLIP` returns them (negative features only with negatives); of `batch`: valid bool
    [B] (False: padding, counts nowhere), key int64 [B] (equal keys are the same image), has_negative bool [B],
    and triples [B, K, 3, T] if there are any. B is the same on every rank. With no valid row at all, or no
    negative, the term is 0 and so is its gradient.

    Logged, detached scalars: loss, loss_contrastive, loss_hinge, samples (valid rows), share_with_negative,
    share_with_triples, and of the rows with a negative: hinge_active (share above 0) and negative_gap (mean
    s(I, w) - s(I, w-)).
    """
    rank, world_size = _world()
    image, text = features["image_features"].float(), features["text_features"].float()
    scale, rows = features["logit_scale"], image.shape[0]
    valid, has_negative = batch["valid"], torch.zeros_like(batch["valid"])
    if "negative_features" in features:
        has_negative = batch["has_negative"] & valid

    facts = torch.stack([batch["key"], valid.long(), has_negative.long()], dim=1)
    facts = _all_gather(facts) if world_size > 1 else facts
    all_keys, all_valid = facts[:, 0], facts[:, 1].bool()
    samples, negatives = facts[:, 1].sum().float(), facts[:, 2].sum().float()

    all_image, all_text = gather_with_gradient(torch.cat([image, text], dim=1)).chunk(2, dim=1)
    target = torch.arange(rank * rows, (rank + 1) * rows, device=image.device)
    excluded = ~all_valid[None, :] | (batch["key"][:, None] == all_keys[None, :])
    # Its own column stays for every row, padding too: a row of nothing but -inf is NaN, also backward.
    excluded.scatter_(1, target[:, None], False)
    contrastive = 0.5 * (
        contrastive_rows(image, all_text, scale, target=target, excluded=excluded)
        + contrastive_rows(text, all_image, scale, target=target, excluded=excluded)
    )
    contrastive = torch.where(valid, contrastive, 0.0).sum() / samples.clamp(min=1.0)

    sums = [contrastive.detach(), _triples(batch, valid)]
    loss = contrastive
    if "negative_features" in features:
        positive = (image * text).sum(1)
        negative = (image * features["negative_features"].float()).sum(1)
        violation = torch.where(has_negative, hinge_rows(positive, negative, config.hinge_margin), 0.0)
        hinge = violation.sum() / negatives.clamp(min=1.0)
        loss = loss + config.hinge_weight * hinge
        gap = torch.where(has_negative, positive - negative, 0.0).detach().sum()
        sums += [hinge.detach(), (violation.detach() > 0).sum(), gap]
    total = torch.stack([value.float() for value in sums])
    if world_size > 1:
        dist.all_reduce(total)

    metrics = {
        "loss_contrastive": total[0],
        "samples": samples,
        "share_with_triples": total[1] / samples.clamp(min=1.0),
    }
    metrics["loss"] = total[0]
    if "negative_features" in features:
        metrics["loss"] = total[0] + config.hinge_weight * total[2]
        metrics["loss_hinge"] = total[2]
        metrics["share_with_negative"] = negatives / samples.clamp(min=1.0)
        metrics["hinge_active"] = total[3] / negatives.clamp(min=1.0)
        metrics["negative_gap"] = total[4] / negatives.clamp(min=1.0)
    return world_size * loss, metrics


def _triples(batch: Mapping[str, Tensor], valid: Tensor) -> Tensor:
    """Return the number of valid rows that have a triple."""
    if "triples" not in batch:
        return valid.new_zeros((), dtype=torch.float32)
    return (batch["triples"].flatten(1).ge(0).any(1) & valid).sum()
