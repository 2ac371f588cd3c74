"""Score how often a model chooses a picture's true caption among false ones."""

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
    """A picture with its true caption and its false captions."""

    name: str
    picture: Picture
    true: str
    false: tuple[str, ...]
    group: str = ""
    """Group that the benchmark's authors average over, such as a relation or a pair of attributes."""
    counted: bool = True
    """Whether the benchmark's scores include the case. The figures of its group always do."""


@dataclass(frozen=True)
class Choice:
    """Task of choosing the true caption of each picture.

    The score `accuracy` is the share of cases that are won. A case is won if the true caption scores higher than every
    false one. A NaN score never wins.
    """

    about: About
    cases: Sequence[ChoiceCase]
    macro: bool = False
    """Whether the mean accuracy over groups is added as score `macro`, and becomes the headline."""
    least_cases: int = 1
    """Minimum number of cases that a group needs to enter a mean."""
    means: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Additional scores by name: the mean accuracy over these groups."""
    ties_win: bool = False
    """Whether a tie between the true caption and a false one is won, as some authors count it."""
    jointly: Mapping[str, Sequence[tuple[str, Sequence[str]]]] = field(default_factory=dict)
    """Additional scores by name: the share of sets of cases, (label, case names), in which every case is won. A set
    that lacks a case is left out."""
    skips_unreadable: bool = False

    def __post_init__(self) -> None:
        if not any(case.counted for case in self.cases):
            raise BenchmarkDataError(f"{self.about.name}: none of its cases counts in a score")

    def sizes(self) -> dict[str, int]:
        """Return the number of cases."""
        return {"cases": len(self.cases)}

    def pictures(self) -> list[Picture]:
        """Return the picture of each case."""
        return [case.picture for case in self.cases]

    def captions(self) -> list[str]:
        """Return the true and false captions of all cases."""
        return [caption for case in self.cases for caption in (case.true, *case.false)]

    def without(self, pictures: Collection[Picture]) -> Choice:
        """Return the task without cases of these pictures. Raises BenchmarkDataError if no case is left."""
        kept = [case for case in self.cases if case.picture not in pictures]
        return replace(self, about=left(self.about, self.cases, kept), cases=kept)

    def result(self, features: Features) -> Result:
        """Return the accuracy, the means over groups, the joint scores, and the accuracy of every group."""
        queries = ((case.picture, (case.true, *case.false)) for case in self.cases)
        rows = zip(self.cases, features.cosines(queries), strict=True)
        answers = [(case, self._is_won(row), row) for case, row in rows]
        counted_cases = [(case, won) for case, won, _ in answers if case.counted]
        name = self.about.name
        sizes = Counter(case.group for case, _ in counted_cases)

        def score(called: str, subset: Collection[str] | None = None) -> Score:
            return mean_score(
                [won for _, won in counted_cases],
                [case.picture.image for case, _ in counted_cases],
                [case.group for case, _ in counted_cases],
                [self._chance(case) for case, _ in counted_cases],
                subset,
                key=f"{name}/{called}",
            )

        scores = {"accuracy": score("accuracy")}
        counted = {group for group, size in sizes.items() if size >= self.least_cases}
        if self.macro and counted:
            scores["macro"] = score("macro", counted)
        for mean, subset in self.means.items():
            if set(subset) <= counted:
                scores[mean] = score(mean, set(subset))
        scores |= self._joint_scores(counted_cases)
        return Result(
            name, self.about.kind, self.about.definition,
            headline="macro" if "macro" in scores else "accuracy",
            scores=scores,
            counts={
                "cases": len(counted_cases),
                "images": len({case.picture.image for case, _ in counted_cases}),
                "captions": len({caption for case, _ in counted_cases for caption in (case.true, *case.false)}),
                "ties": sum(tied(row) for case, _, row in answers if case.counted),
            } | ({"left_out": len(answers) - len(counted_cases)} if len(counted_cases) < len(answers) else {}),
            won={case.name: won for case, won in counted_cases},
            groups=groups(
                name, ((case.group, case.picture.image, won) for case, won, _ in answers), counted
            ),
            notes=list(self.about.notes),
            examples=self._examples([(case, row) for case, won, row in answers if case.counted and not won]),
        )  # fmt: skip

    def _is_won(self, row: Sequence[float]) -> bool:
        return row[0] >= max(row[1:]) if self.ties_win else row[0] > max(row[1:])

    def _joint_scores(self, answers: Sequence[tuple[ChoiceCase, bool]]) -> dict[str, Score]:
        by_name = {case.name: (won, self._chance(case)) for case, won in answers}
        scores = {}
        for score_name, sets in self.jointly.items():
            complete = [
                (label, [by_name[n] for n in names]) for label, names in sets if by_name.keys() >= set(names)
            ]
            if complete:
                chances = [math.prod(chance for _, chance in outcomes) for _, outcomes in complete]
                scores[score_name] = scored(
                    [all(won for won, _ in outcomes) for _, outcomes in complete],
                    [label for label, _ in complete],  # the bootstrap draws sets of one label together
                    sum(chances) / len(chances),
                    key=f"{self.about.name}/{score_name}",
                )
        return scores

    def _chance(self, case: ChoiceCase) -> float:
        """Return the probability that random scores win the case; equal captions count as one candidate."""
        if case.true in case.false and not self.ties_win:
            return 0.0
        return 1 / len({case.true, *case.false})

    def _examples(self, lost: Sequence[tuple[ChoiceCase, list[float]]]) -> list[Example]:
        drawn = examples.chosen(self.about.name, ((case.name, (case, row)) for case, row in lost))
        pictures = examples.shown(case.picture for _, (case, _) in drawn)
        return [
            examples.example(
                name, case.group, pictures[case.picture], [(case.true, row[0])],
                list(zip(case.false, row[1:], strict=True)),
            )
            for name, (case, row) in drawn
        ]  # fmt: skip


def tied(row: Sequence[float]) -> bool:
    """Return whether the true candidate (the first) and the best false one have the same score."""
    return row[0] == max(row[1:])
