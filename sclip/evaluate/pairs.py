"""Score Winoground's task: decide which of two captions belongs to which of two pictures.

s is the similarity; caption c0 belongs to picture i0, and c1 to i1 (Thrush et al., CVPR 2022, section 4):

- text:  s(c0, i0) > s(c1, i0) and s(c1, i1) > s(c0, i1): the model chooses the caption of each picture;
- image: s(c0, i0) > s(c0, i1) and s(c1, i1) > s(c1, i0): the model chooses the picture of each caption;
- group: both. A tie is lost. Chance is 1/4, 1/4 and 1/6.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from PIL import Image

from sclip.evaluate import examples
from sclip.evaluate.benchmarks import About, left
from sclip.evaluate.features import Features
from sclip.evaluate.judged import Answers, judged
from sclip.evaluate.picture import Picture, encoded
from sclip.evaluate.result import Candidate, Example, Result

__all__ = ["Pair", "Pairs"]

CHANCE = {"text": 1 / 4, "image": 1 / 4, "group": 1 / 6}
"""Chance levels: of the 24 rankings of the four similarities, 6 win text, 6 win image, and 4 win both."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pictures and their captions."""

    name: str
    pictures: tuple[Picture, Picture]
    captions: tuple[str, str]
    group: str = ""


@dataclass(frozen=True)
class Pairs:
    """Task of matching two pictures with their captions."""

    about: About
    cases: Sequence[Pair]
    headline: str = "group"
    """Score that stands for the whole benchmark: "text", "image" or "group"."""
    titles: Mapping[str, str] = field(default_factory=dict)
    """The authors' names of scores, where they differ from ours: {"text": "image_to_text"}."""
    means: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Additional scores by name: the headline's mean over these groups."""
    skips_unreadable: bool = False

    def sizes(self) -> dict[str, int]:
        """Return the number of cases."""
        return {"cases": len(self.cases)}

    def pictures(self) -> list[Picture]:
        """Return both pictures of each case."""
        return [picture for case in self.cases for picture in case.pictures]

    def captions(self) -> list[str]:
        """Return both captions of each case."""
        return [caption for case in self.cases for caption in case.captions]

    def without(self, pictures: Collection[Picture]) -> Pairs:
        """Return the task without cases of these pictures. Raises BenchmarkDataError if no case is left."""
        kept = [case for case in self.cases if not any(p in pictures for p in case.pictures)]
        return replace(self, about=left(self.about, self.cases, kept), cases=kept)

    def result(self, features: Features) -> Result:
        """Return the text, image and group scores, and the headline score of each group."""
        images = features.of_pictures(self.pictures()).reshape(len(self.cases), 2, 1, -1)
        texts = features.of_captions(self.captions()).reshape(len(self.cases), 1, 2, -1)
        similarity = (images * texts).sum(dim=-1)  # [N, 2 pictures, 2 captions]
        right = similarity.diagonal(dim1=1, dim2=2)
        wrong_caption = similarity.flip(2).diagonal(dim1=1, dim2=2)  # for each picture
        wrong_picture = similarity.flip(1).diagonal(dim1=1, dim2=2)  # for each caption
        text, image = (right > wrong_caption).all(dim=1), (right > wrong_picture).all(dim=1)
        won = {"text": text.tolist(), "image": image.tolist(), "group": (text & image).tolist()}
        ties = ((right == wrong_caption) | (right == wrong_picture)).any(dim=1)
        counts = {
            "images": len(set(self.pictures())),
            "captions": len(set(self.captions())),
            "ties": int(ties.sum()),
        }
        return judged(
            self.about, self.cases, [case.name for case in self.cases],
            {
                self.titles.get(score, score): Answers(outcomes, [CHANCE[score]] * len(outcomes))
                for score, outcomes in won.items()
            },
            headline=self.titles.get(self.headline, self.headline), means=self.means, counts=counts,
            examples=self._examples(won[self.headline], similarity.tolist()),
        )  # fmt: skip

    def _examples(
        self, won: Sequence[bool], similarity: Sequence[Sequence[Sequence[float]]]
    ) -> list[Example]:
        lost = (
            (case.name, (case, cosines))
            for case, w, cosines in zip(self.cases, won, similarity, strict=True) if not w
        )  # fmt: skip
        drawn = examples.chosen(self.about.name, lost)
        pictures = examples.shown(picture for _, (case, _) in drawn for picture in case.pictures)
        return [
            Example(
                name, case.group, _side_by_side([pictures[picture] for picture in case.pictures]),
                [
                    Candidate(f"{('left', 'right')[i]} picture: {case.captions[c]}", cosines[i][c], i == c)
                    for i, c in ((0, 0), (1, 1), (0, 1), (1, 0))
                ],
            )
            for name, (case, cosines) in drawn
        ]  # fmt: skip


def _side_by_side(pictures: Sequence[bytes]) -> bytes:
    shown = [Image.open(io.BytesIO(picture)) for picture in pictures if picture]
    if not shown:
        return b""
    gap = 8
    sheet = Image.new(
        "RGB", (sum(p.width for p in shown) + gap * (len(shown) - 1), max(p.height for p in shown)), "white"
    )
    offset = 0
    for picture in shown:
        sheet.paste(picture, (offset, 0))
        offset += picture.width + gap
    return encoded(sheet)
