"""Compute each row's distillation loss: its similarities to the global batch stay near a frozen teacher's (method, 11).

This rank's features from the model and the teacher go in; one value for each of this rank's rows comes out. The
candidates are the same as in the contrastive loss. A logit bias is ignored: it would not change the softmax.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from sclip.model.contrastive import GlobalRows
from sclip.model.feature_exchange import gather, gather_with_gradient

__all__ = ["distil_rows"]


def distil_rows(features: Mapping[str, Tensor], teacher: Mapping[str, Tensor], rows: GlobalRows) -> Tensor:
    """Return the mean of both directions' KL(teacher || model) [B]; values of padding rows are finite but meaningless.

    Each mapping holds image_features and text_features [B, D] and its own logit_scale, in fp32.
    """
    excluded = rows.excluded()
    of_texts, of_images = _log_shares(features, gather_with_gradient, excluded)
    kept_of_texts, kept_of_images = _log_shares(teacher, gather, excluded)
    return 0.5 * (_divergence(kept_of_texts, of_texts) + _divergence(kept_of_images, of_images))


def _log_shares(
    features: Mapping[str, Tensor], gathered: Callable[[Tensor], Tensor], excluded: Tensor
) -> tuple[Tensor, Tensor]:
    """Return log softmax [B, N] of each image over all texts and of each text over all images; 0 where excluded."""
    image, text, scale = (features[name] for name in ("image_features", "text_features", "logit_scale"))
    all_image, all_text = gathered(torch.cat([image, text], dim=1)).chunk(2, dim=1)
    of_texts, of_images = (
        F.log_softmax((scale * own @ candidates.T).masked_fill(excluded, -torch.inf), dim=1)
        # -inf minus -inf is NaN, also in backward; zeros in teacher and model add nothing to the divergence.
        .masked_fill(excluded, 0.0)
        for own, candidates in ((image, all_text), (text, all_image))
    )
    return of_texts, of_images


def _divergence(teacher: Tensor, model: Tensor) -> Tensor:
    return (teacher.exp() * (teacher - model)).sum(1)
