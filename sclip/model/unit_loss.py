"""Compute the hinge between a unit (a part of the caption) and its foil, a false version of it (Kargi et al. 2026)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from sclip.model.feature_exchange import world

__all__ = ["unit_loss"]


def unit_loss(
    features: Mapping[str, Tensor], batch: Mapping[str, Tensor], margin: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return this rank's share of the mean of max(0, margin - s(I, unit) + s(I, foil)), and global values to log.

    s is the cosine with the image I. All ranks' shares add up to the mean over all their rows that have a unit. CS-CLIP
    (arXiv 2602.23906) uses InfoNCE instead. `features` has image_features [B, D] and unit_features [B, 2, D], each unit
    before its foil. `batch` has valid and has_unit [B].

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
