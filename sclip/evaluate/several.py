"""Score how often the true captions of a picture score higher than its false caption."""

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
    """A picture, its true captions, and one false caption."""

    name: str
    picture: Picture
    true: tuple[str, ...]
    false: str
    group: str = ""


@dataclass(frozen=True)
class SeveralTrue:
    """Task of giving every true caption a higher score than the false one.

    A tie with the false caption is lost, and so is a NaN.
    """

    about: About
    cases: Sequence[SeveralCase]
    every: str
    """Name of the headline score: the share of cases in which all true captions score higher than the false one."""
    places: tuple[str, ...]
    """Names of further scores. The first one compares only the first true caption with the false one, and so on."""
    together: str = ""
    """Name of the score: share of cases whose false caption scores between no two true ones. "" means no such score."""
    macro: bool = False
    """Whether the headline's mean over groups is added as score `macro`, and becomes the headline."""
    means: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Additional scores by name: the headline's mean over these groups."""
    skips_unreadable: bool = False

    def sizes(self) -> dict[str, int]:
        """Return the number of cases."""
        return {"cases": len(self.cases)}

    def pictures(self) -> list[Picture]:
        """Return the picture of each case."""
        return [case.picture for case in self.cases]

    def captions(self) -> list[str]:
        """Return the true and false captions of all cases."""
        return [caption for case in self.cases for caption in (*case.true, case.false)]

    def without(self, pictures: Collection[Picture]) -> SeveralTrue:
        """Return the task without cases of these pictures. Raises BenchmarkDataError if no case is left."""
        kept = [case for case in self.cases if case.picture not in pictures]
        return replace(self, about=left(self.about, self.cases, kept), cases=kept)

    def result(self, features: Features) -> Result:
        """Return the headline, scores of single true captions, means over groups, and each group's score."""
        rows = list(features.cosines((case.picture, (*case.true, case.false)) for case in self.cases))
        every = [all(true > row[-1] for true in row[:-1]) for row in rows]
        images = [case.picture.image for case in self.cases]
        answers = {self.every: Answers(every, [_chance(case.true, case.false) for case in self.cases])}
        for index, place in enumerate(self.places):
            chance = [_chance((case.true[index],), case.false) for case in self.cases]
            answers[place] = Answers([row[index] > row[-1] for row in rows], chance)
        if self.together:
            chances = [2 / (len(set(case.true)) + 1) for case in self.cases]
            answers[self.together] = Answers([_is_together(row) for row in rows], chances)
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
        drawn = examples.chosen(self.about.name, ((case.name, (case, row)) for case, row in lost))
        pictures = examples.shown(case.picture for _, (case, _) in drawn)
        return [
            examples.example(
                name, case.group, pictures[case.picture],
                list(zip(case.true, row[:-1], strict=True)), [(case.false, row[-1])],
            )
            for name, (case, row) in drawn
        ]  # fmt: skip


def _chance(true: Sequence[str], false: str) -> float:
    """Return the probability that random scores put the false caption last; equal captions count as one."""
    return 0.0 if false in true else 1 / (len(set(true)) + 1)


def _is_together(row: Sequence[float]) -> bool:
    # The false caption's score is the last of the row.
    return not any(map(math.isnan, row)) and not min(row[:-1]) < row[-1] < max(row[:-1])
