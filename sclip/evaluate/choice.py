"""The task of choosing the true caption of a picture among false ones: cases and features in, accuracies out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sclip.evaluate import examples
from sclip.evaluate.benchmarks import About, BenchmarkDataError, left
from sclip.evaluate.features import Features
from sclip.evaluate.interval import groups, mean_score, scored
from sclip.evaluate.picture import Picture
from sclip.evaluate.result import Example, Result, Score

__all__ = ["Choice", "ChoiceCase"]


@dataclass(frozen=True, slots=True)
class ChoiceCase:
    """A picture with the caption that is true of it and those that are not."""

    name: str
    picture: Picture
    true: str
    false: tuple[str, ...]
    group: str = ""
    """What the authors average over: a relation, a pair of attributes, a kind."""
    counted: bool = True
    """Off: shown among the groups, and part of no score."""


@dataclass(frozen=True)
class Choice:
    """Choose the true caption.

    The score `accuracy` is the share of the counted cases that were won; `macro` the mean over groups of each one's.
    A case is won where the true caption scores higher than every false one. A tie is lost, unless the authors' rule
    is another (`ties_win`); a feature that is not a number never wins.
    """

    about: About
    cases: Sequence[ChoiceCase]
    macro: bool = False
    """Whether the authors report the mean over groups; it is the headline then."""
    least_cases: int = 1
    """Groups with fewer are no part of the mean."""
    means: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Further scores, by name: the mean over these groups."""
    ties_win: bool = False
    jointly: Mapping[str, Sequence[tuple[str, Sequence[str]]]] = field(default_factory=dict)
    """Further scores, by name: sets of cases (what they show, names of the cases), of which all must be won. A set of
    which a case is missing is no part of the score."""
    skips_unreadable: bool = False

    def __post_init__(self) -> None:
        if not any(case.counted for case in self.cases):
            raise BenchmarkDataError(f"{self.about.name}: no case of it counts")

    def sizes(self) -> dict[str, int]:
        """Return how large it is."""
        return {"cases": len(self.cases)}

    def pictures(self) -> list[Picture]:
        """Return the picture of each case."""
        return [case.picture for case in self.cases]

    def captions(self) -> list[str]:
        """Return the captions of the cases, true and false."""
        return [caption for case in self.cases for caption in (case.true, *case.false)]

    def without(self, pictures: Collection[Picture]) -> Choice:
        """Return the cases of the other pictures. Raises BenchmarkDataError where there is none."""
        kept = [case for case in self.cases if case.picture not in pictures]
        return replace(self, about=left(self.about, self.cases, kept), cases=kept)

    def result(self, features: Features) -> Result:
        """Return accuracy, mean over groups and the further means, with every group."""
        asked_of = ((case.picture, (case.true, *case.false)) for case in self.cases)
        rows = zip(self.cases, features.cosines(asked_of), strict=True)
        answers = [(case, self._is_won(row), row) for case, row in rows]
        asked = [(case, won) for case, won, _ in answers if case.counted]
        name = self.about.name
        sizes = Counter(case.group for case, _ in asked)

        def score(called: str, of: Collection[str] | None = None) -> Score:
            return mean_score(
                [won for _, won in asked],
                [case.picture.image for case, _ in asked],
                [case.group for case, _ in asked],
                [self._chance(case) for case, _ in asked],
                of,
                key=f"{name}/{called}",
            )

        scores = {"accuracy": score("accuracy")}
        counted = {group for group, size in sizes.items() if size >= self.least_cases}
        if self.macro and counted:
            scores["macro"] = score("macro", counted)
        for mean, of in self.means.items():
            if set(of) <= counted:
                scores[mean] = score(mean, set(of))
        scores |= self._of_sets(asked)
        return Result(
            name, self.about.kind, self.about.definition,
            headline="macro" if "macro" in scores else "accuracy",
            scores=scores,
            counts={
                "cases": len(asked),
                "images": len({case.picture.image for case, _ in asked}),
                "captions": len({caption for case, _ in asked for caption in (case.true, *case.false)}),
                "ties": sum(tied(row) for case, _, row in answers if case.counted),
            } | ({"left_out": len(answers) - len(asked)} if len(asked) < len(answers) else {}),
            won={case.name: won for case, won in asked},
            groups=groups(
                name, ((case.group, case.picture.image, won) for case, won, _ in answers), counted
            ),
            notes=list(self.about.notes),
            examples=self._examples([(case, row) for case, won, row in answers if case.counted and not won]),
        )  # fmt: skip

    def _is_won(self, row: Sequence[float]) -> bool:
        """Return whether a case was won by the cosines of its captions, the true one first."""
        return row[0] >= max(row[1:]) if self.ties_win else row[0] > max(row[1:])

    def _of_sets(self, asked: Sequence[tuple[ChoiceCase, bool]]) -> dict[str, Score]:
        """Return the share of the complete sets whose cases were all won."""
        by_name = {case.name: (won, self._chance(case)) for case, won in asked}
        scores = {}
        for called, sets in self.jointly.items():
            complete = [
                (shown, [by_name[n] for n in names]) for shown, names in sets if by_name.keys() >= set(names)
            ]
            if complete:
                chances = [math.prod(chance for _, chance in some) for _, some in complete]
                scores[called] = scored(
                    [all(won for won, _ in some) for _, some in complete],
                    [shown for shown, _ in complete],
                    sum(chances) / len(chances),
                    key=f"{self.about.name}/{called}",
                )
        return scores

    def _chance(self, case: ChoiceCase) -> float:
        """Return how often a model without knowledge wins: equal captions are one candidate."""
        if case.true in case.false and not self.ties_win:
            return 0.0
        return 1 / len({case.true, *case.false})

    def _examples(self, lost: Sequence[tuple[ChoiceCase, list[float]]]) -> list[Example]:
        some = examples.chosen(self.about.name, ((case.name, (case, row)) for case, row in lost))
        pictures = examples.shown(case.picture for _, (case, _) in some)
        return [
            examples.example(
                name, case.group, pictures[case.picture], [(case.true, row[0])],
                list(zip(case.false, row[1:], strict=True)),
            )
            for name, (case, row) in some
        ]  # fmt: skip


def tied(row: Sequence[float]) -> bool:
    """Return whether the true candidate, the first, scores as high as the best other one."""
    return row[0] == max(row[1:])
