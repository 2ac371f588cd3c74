"""The task of a picture with several true captions: cases and features in, who beat the false ones out."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sclip.evaluate import examples
from sclip.evaluate.benchmarks import About, left
from sclip.evaluate.features import Features
from sclip.evaluate.judged import Answers, judged
from sclip.evaluate.picture import Picture
from sclip.evaluate.result import Example, Result

__all__ = ["SeveralCase", "SeveralTrue"]


@dataclass(frozen=True, slots=True)
class SeveralCase:
    """A picture, the captions that are true of it, and one that is not."""

    name: str
    picture: Picture
    true: tuple[str, ...]
    false: str
    group: str = ""
    """What the authors average over."""


@dataclass(frozen=True)
class SeveralTrue:
    """Score every true caption higher than the false one.

    The headline counts the cases where all true captions do, a score for each place those where that one does. A tie is
    lost, and so is a feature that is not a number.
    """

    about: About
    cases: Sequence[SeveralCase]
    every: str
    """Name of the headline."""
    places: tuple[str, ...]
    """Names of the scores of the first true caption, of the second, ..; every case has as many."""
    together: str = ""
    """Name of a further score: the false caption does not lie between two true ones. Empty: none."""
    macro: bool = False
    """Whether the authors report the mean over groups."""
    means: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Further scores, by name: the headline's mean over these groups."""
    skips_unreadable: bool = False

    def sizes(self) -> dict[str, int]:
        """Return how large it is."""
        return {"cases": len(self.cases)}

    def pictures(self) -> list[Picture]:
        """Return the picture of each case."""
        return [case.picture for case in self.cases]

    def captions(self) -> list[str]:
        """Return the captions of the cases, true and false."""
        return [caption for case in self.cases for caption in (*case.true, case.false)]

    def without(self, pictures: Collection[Picture]) -> SeveralTrue:
        """Return the cases of the other pictures. Raises BenchmarkDataError where there is none."""
        kept = [case for case in self.cases if case.picture not in pictures]
        return replace(self, about=left(self.about, self.cases, kept), cases=kept)

    def result(self, features: Features) -> Result:
        """Return the headline, the score of each place and the further means, with every group."""
        rows = list(features.cosines((case.picture, (*case.true, case.false)) for case in self.cases))
        every = [all(true > row[-1] for true in row[:-1]) for row in rows]
        images = [case.picture.image for case in self.cases]
        answers = {self.every: Answers(every, [_chance(case.true, case.false) for case in self.cases])}
        for at, place in enumerate(self.places):
            chance = [_chance((case.true[at],), case.false) for case in self.cases]
            answers[place] = Answers([row[at] > row[-1] for row in rows], chance)
        if self.together:
            alike = [2 / (len(set(case.true)) + 1) for case in self.cases]
            answers[self.together] = Answers([_is_together(row) for row in rows], alike)
        lost = [(case, row) for case, row, won in zip(self.cases, rows, every, strict=True) if not won]
        return judged(
            self.about, self.cases, images, answers,
            headline=self.every, means=self.means, macro=self.macro,
            counts={
                "images": len(set(images)),
                "captions": len(set(self.captions())),
                "ties": sum(row[-1] in row[:-1] for row in rows),
            },
            examples=self._examples(lost),
        )  # fmt: skip

    def _examples(self, lost: Sequence[tuple[SeveralCase, list[float]]]) -> list[Example]:
        some = examples.chosen(self.about.name, ((case.name, (case, row)) for case, row in lost))
        pictures = examples.shown(case.picture for _, (case, _) in some)
        return [
            examples.example(
                name, case.group, pictures[case.picture],
                list(zip(case.true, row[:-1], strict=True)), [(case.false, row[-1])],
            )
            for name, (case, row) in some
        ]  # fmt: skip


def _chance(true: Sequence[str], false: str) -> float:
    """Return how often a model without knowledge scores the false caption lowest: equal captions are one."""
    return 0.0 if false in true else 1 / (len(set(true)) + 1)


def _is_together(row: Sequence[float]) -> bool:
    """Return whether the false caption, the last, does not score between two true ones."""
    return not any(map(math.isnan, row)) and not min(row[:-1]) < row[-1] < max(row[:-1])
