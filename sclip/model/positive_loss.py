"""Compute two hinges: another wording must score near its caption, and above the negatives."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from sclip.config import LossConfig
from sclip.model.feature_exchange import world

__all__ = ["positive_loss"]


def positive_loss(
    features: Mapping[str, Tensor], batch: Mapping[str, Tensor], has_negative: Tensor, config: LossConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return this rank's share of the two hinges, and global values to log.

    The first hinge is the mean of max(0, s(I, w) - positive_margin - s(I, w+)) over all ranks' rows that have another
    wording w+ of the caption w. The second is the mean of max(0, hinge_margin - s(I, w+) + s(I, w-)) over the negatives
    w- of these rows. s is the cosine with the image I. The ranks' shares add up to the sum of both means.

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
