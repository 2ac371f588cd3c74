"""Compute the loss over the global batch: contrastive term, hinges and distillation.

Each rank's features go in; its share of the loss and the global values to log come out. s(I, w) is the cosine of image
and caption, s(I, w-) the cosine of image and negative. DDP and FSDP average gradients over ranks, so each rank returns
world size * (its sum over rows or negatives) / (their number over all ranks), without padding. The average is then the
gradient that one rank with the whole batch would compute.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from sclip.config import LossConfig
from sclip.model.contrastive import GlobalRows, contrastive_rows
from sclip.model.distil import distil_rows
from sclip.model.feature_exchange import world
from sclip.model.kee import negatives_unseen
from sclip.model.positive_loss import positive_loss
from sclip.model.unit_loss import unit_loss

__all__ = ["hinge_rows", "structure_loss"]


def hinge_rows(positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """Return max(0, margin - s(I, w) + s(I, w-)) for `positive` s(I, w) [B, 1] and `negative` s(I, w-) [B, M]."""
    return (margin - positive + negative).clamp(min=0.0)


def structure_loss(
    features: Mapping[str, Tensor],
    batch: Mapping[str, Tensor],
    config: LossConfig,
    progress: float = 1.0,
    teacher: Mapping[str, Tensor] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return this rank's loss, to be averaged over ranks, and the values of the global batch to log.

    `features` is the output of `StructureCLIP`. `batch` needs valid bool [B] (False: padding, never counted),
    image_digest int64 [B] (equal digests: same image), has_negative bool [B, M] for M negatives per row and, with the
    KEE, triples [B, K, 3, T] and negative_triples [B, M, K, 3, T]. B and M are the same on every rank. `progress` is
    the share of the run's samples already trained on, for `loss.contrastive_warmup` (1: past it). A term without any
    counted row is 0 and has gradient 0. `teacher` holds the frozen model's features of the same rows, without gradient;
    None disables distillation.

    Logged, detached scalars:

    - loss, loss_contrastive, samples (number of valid rows), share_with_triples (of the valid rows);
    - with max_margin: contrastive_active (share of the valid rows with a loss above 0);
    - with negatives: loss_hinge, share_with_negative (of the valid rows), hinge_active (share of the negatives with a
      hinge above 0), negative_gap (mean s(I, w) - s(I, w-));
    - with negatives and their triples: share_negative_unseen_by_kee (of the negatives; see `negatives_unseen`);
    - with a teacher: loss_distil; with units or positives: the values of `unit_loss` or `positive_loss`.
    """
    features = {name: tensor.float() for name, tensor in features.items()}
    image, text = features["image_features"], features["text_features"]
    valid = batch["valid"]
    has_negative = valid.new_zeros(len(valid), 0)
    if "negative_features" in features:
        has_negative = batch["has_negative"] & valid[:, None]
    rows = GlobalRows.gathered(batch["image_digest"], valid, has_negative)
    samples, negatives = rows.valid.sum().float(), rows.has_negative.sum().float()
    with_negative = rows.has_negative.any(1).sum()

    terms = torch.where(valid, contrastive_rows(features, rows, config, progress), 0.0)
    contrastive = terms.sum() / samples.clamp(min=1.0)
    # DDP waits for a gradient of every parameter, so scale and bias get a gradient of 0 where the form ignores them.
    loss = contrastive + sum(
        0.0 * features[name] for name in ("logit_scale", "logit_bias") if name in features
    )

    sums = [contrastive.detach(), (terms.detach() > 0).sum(), _triples(batch, valid)]
    if "negative_features" in features:
        positive = (image * text).sum(1, keepdim=True)
        negative = (image[:, None] * features["negative_features"]).sum(2)
        violation = torch.where(has_negative, hinge_rows(positive, negative, config.hinge_margin), 0.0)
        hinge = violation.sum() / negatives.clamp(min=1.0)
        loss = loss + config.hinge_weight * hinge
        gap = torch.where(has_negative, positive - negative, 0.0).detach().sum()
        sums += [hinge.detach(), (violation.detach() > 0).sum(), gap]
        if "negative_triples" in batch:
            sums.append((negatives_unseen(batch) & has_negative).sum())
    if teacher is not None:
        teacher = {name: tensor.float() for name, tensor in teacher.items()}
        divergence = torch.where(valid, distil_rows(features, teacher, rows), 0.0)
        distil = divergence.sum() / samples.clamp(min=1.0)
        loss = loss + config.distil * distil
        sums.append(distil.detach())
    unit_metrics: dict[str, Tensor] = {}
    if "unit_features" in features:
        units, unit_metrics = unit_loss(features, batch, config.hinge_margin)
        loss = loss + config.units * units
    positive_metrics: dict[str, Tensor] = {}
    if "positive_features" in features:
        positives, positive_metrics = positive_loss(features, batch, has_negative, config)
        loss = loss + config.positives * positives
    total = torch.stack([value.float() for value in sums])
    _, world_size = world()
    if world_size > 1:
        dist.all_reduce(total)

    metrics = {
        "loss": total[0],
        "loss_contrastive": total[0],
        "samples": samples,
        "share_with_triples": total[2] / samples.clamp(min=1.0),
    }
    if config.contrastive == "max_margin":
        metrics["contrastive_active"] = total[1] / samples.clamp(min=1.0)
    if "negative_features" in features:
        metrics["loss"] = metrics["loss"] + config.hinge_weight * total[3]
        metrics["loss_hinge"] = total[3]
        metrics["share_with_negative"] = with_negative / samples.clamp(min=1.0)
        metrics["hinge_active"] = total[4] / negatives.clamp(min=1.0)
        metrics["negative_gap"] = total[5] / negatives.clamp(min=1.0)
        if "negative_triples" in batch:
            metrics["share_negative_unseen_by_kee"] = total[6] / negatives.clamp(min=1.0)
    if teacher is not None:
        metrics["loss"] = metrics["loss"] + config.distil * total[-1]
        metrics["loss_distil"] = total[-1]
    if unit_metrics:
        metrics["loss"] = metrics["loss"] + config.units * unit_metrics["loss_units"]
        metrics |= unit_metrics
    if positive_metrics:
        metrics["loss"] = metrics["loss"] + config.positives * positive_metrics["loss_positives"]
        metrics |= positive_metrics
    return world_size * loss, metrics


def _triples(batch: Mapping[str, Tensor], valid: Tensor) -> Tensor:
    """Return the number of valid rows with at least one triple."""
    if "triples" not in batch:
        return valid.new_zeros((), dtype=torch.float32)
    return (batch["triples"].flatten(1).ge(0).any(1) & valid).sum()
