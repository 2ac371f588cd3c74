"""Compute recall in retrieval: count the wrong candidates that score at least as high as the right one.

Ties and NaN count against the model. So a model that gives every caption the same feature has recall 0, not 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["RECALL_AT", "Rivals", "chance_of_captions", "rivals"]

RECALL_AT = (1, 5, 10)
_CHUNK = 512
"""Rows of the similarity matrix that are computed at a time: 512 x 25,000 captions take 50 MB."""


@dataclass(frozen=True)
class Rivals:
    """Counts of rivals: wrong candidates that score at least as high as the right one."""

    image_to_text: Tensor
    """For each image, the number of other images' captions that score at least as high as its best own one, int64."""
    text_to_image: Tensor
    """For each caption, the number of other images that score at least as high as its own image, int64."""
    ties: int
    """Number of images and captions with a wrong candidate that scores the same as the right one."""

    def recall(self) -> dict[str, float]:
        """Return R@1, R@5 and R@10 in both directions."""
        return {f"{direction}_r{k}": hits.double().mean().item() for direction, k, hits in self.found()}

    def found(self) -> list[tuple[str, int, Tensor]]:
        """Return (direction, k, hits). `hits` bool [images or captions]: whether a right one is in the top k."""
        return [
            (direction, k, counts < k)
            for direction, counts in (
                ("image_to_text", self.image_to_text), ("text_to_image", self.text_to_image),
            )
            for k in RECALL_AT
        ]  # fmt: skip


def rivals(image_features: Tensor, text_features: Tensor, owner: Tensor) -> Rivals:
    """Count the rivals for every image and caption, from unit-length features [images, D] and [captions, D].

    `owner` int64 [captions]: the index of each caption's image. Every image must have a caption.
    """
    image_to_text, image_ties = _text_rivals(image_features, text_features, owner)
    text_to_image, text_ties = _image_rivals(image_features, text_features, owner)
    return Rivals(image_to_text, text_to_image, image_ties + text_ties)


def chance_of_captions(own: int, captions: int, k: int) -> float:
    """Return the probability that k random captions, out of `captions`, include at least one of an image's `own`."""
    if k > captions - own:
        return 1.0
    return 1 - math.comb(captions - own, k) / math.comb(captions, k)


def _text_rivals(images: Tensor, texts: Tensor, owner: Tensor) -> tuple[Tensor, int]:
    counts, ties = [], 0
    for start in range(0, len(images), _CHUNK):
        similarity = images[start : start + _CHUNK] @ texts.T
        own = owner == torch.arange(start, start + len(similarity), device=owner.device)[:, None]
        best = similarity.masked_fill(~own, -torch.inf).amax(dim=1, keepdim=True)
        counts.append((~(similarity < best) & ~own).sum(dim=1))
        ties += int(((similarity == best) & ~own).any(dim=1).sum())
    return torch.cat(counts), ties


def _image_rivals(images: Tensor, texts: Tensor, owner: Tensor) -> tuple[Tensor, int]:
    counts, ties = [], 0
    for start in range(0, len(texts), _CHUNK):
        similarity = texts[start : start + _CHUNK] @ images.T
        own = similarity.gather(1, owner[start : start + _CHUNK, None])
        counts.append((~(similarity < own)).sum(dim=1) - 1)  # minus the image itself
        ties += int(((similarity == own).sum(dim=1) > 1).sum())
    return torch.cat(counts), ties
