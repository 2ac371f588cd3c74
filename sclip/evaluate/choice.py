"""The task of choosing the true caption of a picture among false ones: cases and features in, accuracies out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sclip.evaluate import examples
from sclip.evaluate.benchmarks import About, BenchmarkDataError, left
from sclip.evaluate.features import Features
from sclip.evaluate.interval import groups, scored
from sclip.evaluate.picture import Picture
from sclip.evaluate.result import Example, Result, Score

__all__ = ["Choice", "ChoiceCase"]

_AT_A_TIME = 2048
"""Cases compared at a time: with five candidates of 768 numbers they are 32 MB."""


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
        answers = list(self._answers(features))
        asked = [(case, won) for case, won, _ in answers if case.counted]
        chance = [self._chance(case) for case, _ in asked]
        name = self.about.name
        scores = {"accuracy": self._score(asked, chance, None, f"{name}/accuracy")}
        sizes: dict[str, int] = defaultdict(int)
        for case, _ in asked:
            sizes[case.group] += 1
        counted = {group for group, size in sizes.items() if size >= self.least_cases}
        if self.macro and counted:
            scores["macro"] = self._score(asked, chance, counted, f"{name}/macro")
        for mean, of in self.means.items():
            if set(of) <= counted:
                scores[mean] = self._score(asked, chance, set(of), f"{name}/{mean}")
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

    def _answers(self, features: Features) -> Iterator[tuple[ChoiceCase, bool, list[float]]]:
        """Yield each case, whether it was won, and the cosines of its captions, the true one first."""
        for start in range(0, len(self.cases), _AT_A_TIME):
            some = self.cases[start : start + _AT_A_TIME]
            for case, row in zip(some, _cosines(some, features), strict=True):
                best = max(row[1:])
                yield case, row[0] >= best if self.ties_win else row[0] > best, row

    def _score(
        self, asked: Sequence[tuple[ChoiceCase, bool]], chance: Sequence[float], of: set[str] | None, key: str
    ) -> Score:
        """Return the share of all, or the mean over the groups `of`."""
        kept = [at for at, (case, _) in enumerate(asked) if of is None or case.group in of]
        of_case = [asked[at][0].group for at in kept]
        by_group: dict[str, list[float]] = defaultdict(list)
        for at, group in zip(kept, of_case, strict=True):
            by_group[group if of is not None else ""].append(chance[at])
        return scored(
            [asked[at][1] for at in kept],
            [asked[at][0].picture.image for at in kept],
            sum(sum(some) / len(some) for some in by_group.values()) / len(by_group),
            of_case if of is not None else None,
            key=key,
        )

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


def _cosines(cases: Sequence[ChoiceCase], features: Features) -> list[list[float]]:
    """Return the cosine of each case's picture with its captions, the true one first.

    All are computed in one operation, so that equal captions have equal cosines.
    """
    sizes = [1 + len(case.false) for case in cases]
    texts = features.of_captions(caption for case in cases for caption in (case.true, *case.false))
    images = features.of_pictures(case.picture for case in cases)
    cosines: Tensor = (images.repeat_interleave(torch.tensor(sizes), dim=0) * texts).sum(dim=1)
    return [part.tolist() for part in torch.split(cosines, sizes)]
