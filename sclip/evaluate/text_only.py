"""Score the text encoder alone: two captions of the same meaning must be closer to each other than to a third."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sclip.evaluate import examples
from sclip.evaluate.benchmarks import About
from sclip.evaluate.features import Features
from sclip.evaluate.judged import Answers, judged
from sclip.evaluate.picture import Picture
from sclip.evaluate.result import Example, Result

__all__ = ["TextCase", "TextOnly"]


@dataclass(frozen=True, slots=True)
class TextCase:
    """Two captions of the same meaning, and one of another meaning."""

    name: str
    same: tuple[str, str]
    other: str
    group: str = ""
    image: str = ""
    """Image that the captions describe; the bootstrap draws cases of one image together."""


@dataclass(frozen=True)
class TextOnly:
    """Task of finding the two of three captions that mean the same.

    A case is won if the cosine of these two is higher than the cosine of each with the third. A tie is lost.
    """

    about: About
    cases: Sequence[TextCase]
    score: str
    macro: bool = False
    means: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Additional scores by name: the headline's mean over these groups."""
    skips_unreadable: bool = False

    def sizes(self) -> dict[str, int]:
        """Return the number of cases."""
        return {"cases": len(self.cases)}

    def pictures(self) -> list[Picture]:
        """Return an empty list: the task has no pictures."""
        return []

    def captions(self) -> list[str]:
        """Return the three captions of each case."""
        return [caption for case in self.cases for caption in (*case.same, case.other)]

    def without(self, pictures: Collection[Picture]) -> TextOnly:
        """Return the task unchanged, because it has no pictures."""
        return self

    def result(self, features: Features) -> Result:
        """Return the share of won cases, the means over groups, and the score of every group."""
        texts = features.of_captions(self.captions()).reshape(len(self.cases), 3, -1)
        first, second, other = texts.unbind(dim=1)
        same = (first * second).sum(dim=1)
        rivals = (texts[:, :2] * other[:, None]).sum(dim=2)  # [N, 2]
        won = (same[:, None] > rivals).all(dim=1).tolist()
        chance = [0.0 if case.other in case.same else 1 / 3 for case in self.cases]
        images = [case.image or case.name for case in self.cases]
        lost = [
            (case, (s, max(r)))
            for case, s, r, w in zip(self.cases, same.tolist(), rivals.tolist(), won, strict=True) if not w
        ]  # fmt: skip
        return judged(
            self.about, self.cases, images, {self.score: Answers(won, chance)},
            headline=self.score, means=self.means, macro=self.macro,
            counts={
                "captions": len(set(self.captions())), "ties": int((same[:, None] == rivals).any(dim=1).sum()),
            },
            examples=self._examples(lost),
        )  # fmt: skip

    def _examples(self, lost: Sequence[tuple[TextCase, tuple[float, float]]]) -> list[Example]:
        drawn = examples.chosen(self.about.name, ((case.name, (case, cosines)) for case, cosines in lost))
        return [
            examples.example(
                name, case.group, b"", [(caption, same) for caption in case.same], [(case.other, rival)]
            )
            for name, (case, (same, rival)) in drawn
        ]
