"""Compute the distillation loss, which keeps the model's similarities near those of a frozen teacher.

This rank's features from the model and the teacher go in; one value for each of this rank's rows comes out. Each row
has the same candidates as in the contrastive loss. A logit bias is ignored: it would not change the softmax.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sclip.model.contrastive import GlobalRows, in_tiles, logits_of
from sclip.model.feature_exchange import gather, gather_with_gradient

__all__ = ["distil_rows"]


def distil_rows(features: Mapping[str, Tensor], teacher: Mapping[str, Tensor], rows: GlobalRows) -> Tensor:
    """Return the mean of both directions' KL(teacher || model) [B]; values of padding rows are finite but meaningless.

    Each mapping holds image_features and text_features [B, D] and its own logit_scale, in fp32.
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
