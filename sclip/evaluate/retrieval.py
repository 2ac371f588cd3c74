"""Score retrieval of captions for a picture, and of pictures for a caption: R@1, R@5 and R@10.

These are the scores of COCO and Flickr30k (Karpathy and Fei-Fei, CVPR 2015). R@k from image to text is the
share of pictures with one of their captions among the k most similar captions. R@k from text to image is the
share of captions with their picture among the k most similar pictures. A tie counts against the model.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch

from sclip.evaluate import examples
from sclip.evaluate.benchmarks import About, BenchmarkDataError, left
from sclip.evaluate.features import Features
from sclip.evaluate.interval import scored
from sclip.evaluate.picture import Picture
from sclip.evaluate.recall import Rivals, chance_of_captions, rivals
from sclip.evaluate.result import Example, Result, Score

__all__ = ["Captioned", "Retrieval"]


@dataclass(frozen=True, slots=True)
class Captioned:
    """A picture and its captions."""

    name: str
    picture: Picture
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Retrieval:
    """Task of finding the captions of a picture, and the picture of a caption.

    The headline is text-to-image R@1. A case is a caption, named PICTURE#NUMBER.
    """

    about: About
    images: Sequence[Captioned]
    skips_unreadable: bool = False

    def __post_init__(self) -> None:
        names = [image.name for image in self.images]
        if len(set(names)) < len(names):
            key = next(name for name in names if names.count(name) > 1)
            raise BenchmarkDataError(f"{self.about.name}: {key} occurs twice; each picture must occur once")

    def sizes(self) -> dict[str, int]:
        """Return the numbers of images and captions."""
        return {"images": len(self.images), "captions": sum(len(image.captions) for image in self.images)}

    def pictures(self) -> list[Picture]:
        """Return the pictures."""
        return [image.picture for image in self.images]

    def captions(self) -> list[str]:
        """Return the captions of all pictures in order."""
        return [caption for image in self.images for caption in image.captions]

    def without(self, pictures: Collection[Picture]) -> Retrieval:
        """Return the task without these pictures. Raises BenchmarkDataError if no picture is left."""
        kept = [image for image in self.images if image.picture not in pictures]
        return replace(self, about=left(self.about, self.images, kept, "images"), images=kept)

    def result(self, features: Features) -> Result:
        """Return R@1, R@5 and R@10 in both directions."""
        owner = [row for row, image in enumerate(self.images) for _ in image.captions]
        rival_counts = rivals(
            features.of_pictures(self.pictures()), features.of_captions(self.captions()), torch.tensor(owner)
        )
        names = [f"{image.name}#{number}" for image in self.images for number in range(len(image.captions))]
        won = (rival_counts.text_to_image < 1).tolist()
        return Result(
            self.about.name, self.about.kind, self.about.definition,
            headline="text_to_image_r1",
            scores=self._scores(rival_counts, owner),
            counts={
                "cases": len(names), "images": len(self.images), "captions": len(owner), "ties": rival_counts.ties,
            },
            won=dict(zip(names, won, strict=True)),
            notes=list(self.about.notes),
            examples=self._examples(rival_counts, features),
        )  # fmt: skip

    def _scores(self, rival_counts: Rivals, owner: Sequence[int]) -> dict[str, Score]:
        captions, pictures = len(owner), len(self.images)
        scores = {}
        for direction, k, hits in rival_counts.found():
            if direction == "image_to_text":
                own = [chance_of_captions(len(image.captions), captions, k) for image in self.images]
                chance, images = sum(own) / pictures, list(range(pictures))
            else:
                chance, images = min(1.0, k / pictures), list(owner)
            name = f"{direction}_r{k}"
            scores[name] = scored(hits.tolist(), images, chance, key=f"{self.about.name}/{name}")
        return scores

    def _examples(self, rival_counts: Rivals, features: Features) -> list[Example]:
        lost = [
            (image.name, image)
            for image, count in zip(self.images, rival_counts.image_to_text.tolist(), strict=True) if count
        ]  # fmt: skip
        drawn = examples.chosen(self.about.name, lost)
        if not drawn:
            return []
        captions = self.captions()
        cosines = features.of_pictures(image.picture for _, image in drawn) @ features.of_captions(captions).T
        pictures = examples.shown(image.picture for _, image in drawn)
        shown = []
        for (name, image), row in zip(drawn, cosines.tolist(), strict=True):
            own = set(image.captions)
            score = dict(zip(captions, row, strict=True))
            best = max(own, key=lambda caption: score[caption])
            false = [(caption, value) for caption, value in score.items() if caption not in own]
            shown.append(examples.example(name, "", pictures[image.picture], [(best, score[best])], false))
        return shown
