"""Features set by hand, so that a test decides which pictures and captions are similar."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from sclip.evaluate.features import Features
from sclip.evaluate.picture import Picture


def at_angles(pictures: Mapping[Picture, float], captions: Mapping[str, float]) -> Features:
    """Return features on the unit circle at the given angles; closer angles are more similar."""

    def rows(angles: Mapping[object, float]) -> torch.Tensor:
        return torch.tensor([[math.cos(angle), math.sin(angle)] for angle in angles.values()])

    return Features(_numbers(pictures), _numbers(captions), rows(pictures), rows(captions), {})


def cosines(similarity: Mapping[tuple[Picture, str], float]) -> Features:
    """Return features whose dot products are `similarity`, and 0 for other pairs. They are not normalized."""
    pictures = dict.fromkeys(picture for picture, _ in similarity)
    captions = dict.fromkeys(caption for _, caption in similarity)
    text = torch.tensor([[similarity.get((p, c), 0.0) for p in pictures] for c in captions])
    return Features(_numbers(pictures), _numbers(captions), torch.eye(len(pictures)), text, {})


def _numbers(names: Mapping[object, object]) -> dict[object, int]:
    return {name: number for number, name in enumerate(names)}


def brute_force(images: list[list[float]], texts: list[list[float]], owner: list[int]) -> dict[str, float]:
    """Compute recall from its definition, in plain Python."""

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    scores = {}
    for k in (1, 5, 10):
        image_top = [
            sorted(range(len(texts)), key=lambda t: -cosine(image, texts[t]))[:k] for image in images
        ]
        hits = [any(owner[t] == i for t in ranked) for i, ranked in enumerate(image_top)]
        scores[f"image_to_text_r{k}"] = sum(hits) / len(images)
        text_top = [sorted(range(len(images)), key=lambda i: -cosine(images[i], text))[:k] for text in texts]
        hits = [owner[t] in ranked for t, ranked in enumerate(text_top)]
        scores[f"text_to_image_r{k}"] = sum(hits) / len(texts)
    return scores
