"""Compute the loss over the global batch: contrastive term, distillation, hinges on negatives, units, positives.

Each rank's features go in; its share of the loss and the global values to log come out. s(I, w) is the cosine of image
and caption, s(I, w-) the cosine of image and negative. DDP and FSDP average gradients over ranks, so `structure_loss`
returns world size * (the rank's sum over rows or negatives) / (their number over all ranks), without padding. The
average is then the gradient that one rank with the whole batch would compute.

A unit is a part of a caption, its foil a false version of the unit. A positive is another wording of a caption.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from sclip.config import LossConfig
from sclip.model.contrastive import (
    GlobalRows,
    contrastive_rows,
    gather,
    gather_with_gradient,
    in_tiles,
    logits_of,
    world,
)
from sclip.model.kee import negatives_unseen

__all__ = ["distil_rows", "hinge_rows", "positive_loss", "structure_loss", "unit_loss"]


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

    sums = [contrastive.detach(), (terms.detach() > 0).sum(), _rows_with_triples(batch, valid)]
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


def _rows_with_triples(batch: Mapping[str, Tensor], valid: Tensor) -> Tensor:
    """Return the number of valid rows with at least one triple."""
    if "triples" not in batch:
        return valid.new_zeros((), dtype=torch.float32)
    return (batch["triples"].flatten(1).ge(0).any(1) & valid).sum()


def distil_rows(features: Mapping[str, Tensor], teacher: Mapping[str, Tensor], rows: GlobalRows) -> Tensor:
    """Return the mean of both directions' KL(teacher || model) [B]; values of padding rows are finite but meaningless.

    The term keeps the model's similarities near those of a frozen teacher. Each row has the same candidates as in the
    contrastive loss. Each mapping holds image_features and text_features [B, D] and its own logit_scale, in fp32. A
    logit bias is ignored: it would not change the softmax.
    """
    ways = (("image_features", "text_features"), ("text_features", "image_features"))
    image_to_text, text_to_image = (_divergence(features, teacher, *way, rows) for way in ways)
    return 0.5 * (image_to_text + text_to_image)


def _divergence(
    features: Mapping[str, Tensor], teacher: Mapping[str, Tensor], own: str, other: str, rows: GlobalRows
) -> Tensor:
    scaled, taught = (side["logit_scale"] * side[own] for side in (features, teacher))
    candidates = [gather_with_gradient(features[other]), gather(teacher[other])]
    tiles = in_tiles(_within_tile, scaled, candidates, rows, taught)
    within, teacher_sums, model_sums = (torch.stack(values) for values in zip(*tiles, strict=True))
    # Chain rule: the KL over tiles, plus the KLs within tiles, weighted by the teacher.
    return (teacher_sums.softmax(0) * within).sum(0) + _kl(teacher_sums, model_sums, dim=0)


def _within_tile(
    own: Tensor, candidates: Sequence[Tensor], rows: GlobalRows, columns: slice, taught: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return KL(teacher || model) within a tile, and log sum exp of the teacher's and the model's logits, each [B].

    `own` (model) and `taught` (teacher) [B, D] include the logit scale. `candidates` are the model's and the teacher's.
    """
    model_logits = logits_of(own, candidates[:1], rows, columns)
    teacher_logits = logits_of(taught, candidates[1:], rows, columns)
    return _kl(teacher_logits, model_logits, dim=1), teacher_logits.logsumexp(1), model_logits.logsumexp(1)


def _kl(teacher: Tensor, model: Tensor, dim: int) -> Tensor:
    excluded = teacher.isinf()
    # -inf minus -inf would be NaN, also in backward.
    log_teacher, log_model = (side.log_softmax(dim).masked_fill(excluded, 0.0) for side in (teacher, model))
    return (log_teacher.exp() * (log_teacher - log_model)).sum(dim)


def unit_loss(
    features: Mapping[str, Tensor], batch: Mapping[str, Tensor], margin: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return this rank's share of the mean of max(0, margin - s(I, unit) + s(I, foil)), and global values to log.

    s is the cosine with the image I. All ranks' shares add up to the mean over all their rows that have a unit. CS-CLIP
    (Kargi et al. 2026, arXiv 2602.23906) uses InfoNCE instead. `features` has image_features [B, D] and unit_features
    [B, 2, D], each unit before its foil. `batch` has valid and has_unit [B].

    Logged, detached: loss_units, share_with_unit (of the valid rows) and, over rows with a unit, unit_won (share whose
    unit scores above its foil) and unit_gap (mean s(I, unit) - s(I, foil)).
    """
    valid, has_unit = batch["valid"], batch["has_unit"] & batch["valid"]
    cosines = (features["image_features"][:, None] * features["unit_features"]).sum(2)
    gap = cosines[:, 0] - cosines[:, 1]
    violation = torch.where(has_unit, (margin - gap).clamp(min=0.0), 0.0)
    counted = torch.where(has_unit, gap, 0.0).detach()
    sums = [valid.sum(), has_unit.sum(), violation.detach().sum(), (counted > 0).sum(), counted.sum()]
    total = torch.stack([value.float() for value in sums])
    if world()[1] > 1:
        dist.all_reduce(total)
    samples, units = total[0].clamp(min=1.0), total[1].clamp(min=1.0)
    return violation.sum() / units, {
        "loss_units": total[2] / units,
        "share_with_unit": total[1] / samples,
        "unit_won": total[3] / units,
        "unit_gap": total[4] / units,
    }


def positive_loss(
    features: Mapping[str, Tensor], batch: Mapping[str, Tensor], has_negative: Tensor, config: LossConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return this rank's share of the two hinges, and global values to log.

    Another wording w+ must score near its caption w, and above the negatives w-. The first hinge is the mean of
    max(0, s(I, w) - positive_margin - s(I, w+)) over all ranks' rows that have a w+. The second is the mean of
    max(0, hinge_margin - s(I, w+) + s(I, w-)) over the negatives of these rows. s is the cosine with the image I. The
    ranks' shares add up to the sum of both means.

    `features` has image_features, text_features [B, D], positive_features [B, 1, D] and, with M negatives per row,
    negative_features [B, M, D]. `batch` has valid and has_positive [B]. has_negative [B, M] excludes padding rows.
    Logged, detached: loss_positives, share_with_positive (of the valid rows), positive_gap (mean s(I, w) - s(I, w+))
    and positive_won (of the negatives in rows with a w+, the share that scores below w+).
    """
    image, valid = features["image_features"], batch["valid"]
    has_positive = batch["has_positive"] & valid
    positive = (image * features["positive_features"][:, 0]).sum(1)
    gap = torch.where(has_positive, (image * features["text_features"]).sum(1) - positive, 0.0)
    lag = torch.where(has_positive, (gap - config.positive_margin).clamp(min=0.0), 0.0)
    pairs = has_negative & has_positive[:, None]
    lead = image.new_zeros(pairs.shape)
    if "negative_features" in features:
        lead = positive[:, None] - (image[:, None] * features["negative_features"]).sum(2)
    violation = torch.where(pairs, (config.hinge_margin - lead).clamp(min=0.0), 0.0)
    sums = [valid.sum(), has_positive.sum(), pairs.sum(), lag.sum(), violation.sum(), gap.sum()]
    sums.append(((lead > 0) & pairs).sum())
    total = torch.stack([value.detach().float() for value in sums])
    if world()[1] > 1:
        dist.all_reduce(total)
    samples, positives, negatives = total[:3].clamp(min=1.0)
    return lag.sum() / positives + violation.sum() / negatives, {
        "loss_positives": total[3] / positives + total[4] / negatives,
        "share_with_positive": total[1] / samples,
        "positive_gap": total[5] / positives,
        "positive_won": total[6] / negatives,
    }
