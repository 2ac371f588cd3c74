"""Scores from features: cosine similarities in, accuracies and recalls out. No files, no model.

A tie counts against the model everywhere, and so does a NaN: a model that gives every caption the same
feature, or that has diverged, scores 0 and not 100.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

RECALL_AT = (1, 5, 10)
_CHUNK = 512
"""Rows of the similarity matrix at a time: 512 x 25,000 captions are 50 MB."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Accuracy of choosing the true caption, over all cases and by group."""

    correct: dict[str, int]
    """Cases won, by group (relation, or pair of attributes)."""
    cases: dict[str, int]
    """Cases asked, by group."""

    @property
    def accuracy(self) -> float:
        """Share of all cases that were won (micro)."""
        return sum(self.correct.values()) / sum(self.cases.values())

    def macro(self, least_cases: int = 1) -> float | None:
        """Return the mean accuracy of the groups with `least_cases` or more; None without such a group."""
        shares = [self.correct[g] / n for g, n in self.cases.items() if n >= least_cases]
        return sum(shares) / len(shares) if shares else None


def choice(true_scores: Tensor, false_scores: Tensor, groups: Sequence[str]) -> Choice:
    """Return how often the true caption scores strictly higher than the false one, by group.

    ARO takes the argmax over (false, true), which gives a tie to the false caption; this is the same rule.

    Args:
        true_scores: float [N], similarity of the image to its true caption.
        false_scores: float [N], similarity of the same image to its false caption.
        groups: N names.
    """
    correct: dict[str, int] = defaultdict(int)
    cases: dict[str, int] = defaultdict(int)
    for group, won in zip(groups, (true_scores > false_scores).tolist(), strict=True):
        correct[group] += won
        cases[group] += 1
    return Choice(dict(correct), dict(cases))


def recall(image_features: Tensor, text_features: Tensor, owner: Tensor) -> dict[str, float]:
    """Return R@1, R@5 and R@10 in both directions, as COCO and Flickr30k retrieval are reported.

    Image to text: the share of images with any of their captions among the k most similar captions. Text to
    image: the share of captions with their image among the k most similar images.

    Args:
        image_features: float [N, D], unit length.
        text_features: float [M, D], unit length; every image has one caption or more.
        owner: int64 [M], the image of each caption, 0 to N - 1.
    """
    rivals = {
        "image_to_text": _text_rivals(image_features, text_features, owner),
        "text_to_image": _image_rivals(image_features, text_features, owner),
    }
    return {
        f"{direction}_r{k}": (counts < k).double().mean().item()
        for direction, counts in rivals.items()
        for k in RECALL_AT
    }


def _text_rivals(images: Tensor, texts: Tensor, owner: Tensor) -> Tensor:
    """Return int64 [N]: other images' captions that score at least as high as the image's best own one."""
    counts = []
    for start in range(0, len(images), _CHUNK):
        similarity = images[start : start + _CHUNK] @ texts.T
        own = owner == torch.arange(start, start + len(similarity), device=owner.device)[:, None]
        best = similarity.masked_fill(~own, -torch.inf).amax(dim=1, keepdim=True)
        counts.append((~(similarity < best) & ~own).sum(dim=1))
    return torch.cat(counts)


def _image_rivals(images: Tensor, texts: Tensor, owner: Tensor) -> Tensor:
    """Return int64 [M]: images that score at least as high with the caption as its own image does."""
    counts = []
    for start in range(0, len(texts), _CHUNK):
        similarity = texts[start : start + _CHUNK] @ images.T
        own = similarity.gather(1, owner[start : start + _CHUNK, None])
        counts.append((~(similarity < own)).sum(dim=1) - 1)  # less the image itself
    return torch.cat(counts)
