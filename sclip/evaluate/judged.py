"""What tasks with several answers to a case share: who won which case in, a `Result` out."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sclip.evaluate.benchmarks import About
from sclip.evaluate.interval import groups, mean_score
from sclip.evaluate.result import Example, Result

__all__ = ["Answers", "judged"]


class _Case(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def group(self) -> str: ...


@dataclass(frozen=True)
class Answers:
    """One score of a benchmark."""

    won: Sequence[bool]
    """Of each case."""
    chance: Sequence[float]
    """Of each case, how often guessing wins it."""


def judged(
    about: About,
    cases: Sequence[_Case],
    images: Sequence[Hashable],
    answers: Mapping[str, Answers],
    *,
    headline: str,
    means: Mapping[str, Sequence[str]],
    macro: bool = False,
    counts: Mapping[str, int],
    examples: list[Example],
) -> Result:
    """Return each score over all cases and, of the headline, the mean over groups and the further means.

    Args:
        about: name and definition.
        cases: in the order of the answers.
        images: of each case what it is about; cases of one image are drawn together for an interval.
        answers: by the score's name.
        headline: one of them, which says whether a case was won.
        means: further scores, by name: the headline's mean over these groups, each counting alike.
        macro: whether its mean over all groups is a score, and the published figure.
        counts: beside the number of cases.
        examples: lost cases.
    """
    of_case = [case.group for case in cases]
    means = ({"macro": sorted(set(of_case))} if macro else {}) | dict(means)
    wanted: list[tuple[str, str, Sequence[str] | None]] = [(name, name, None) for name in answers]
    wanted += [(name, headline, of) for name, of in means.items() if set(of) <= set(of_case)]
    won = answers[headline].won
    return Result(
        about.name, about.kind, about.definition,
        headline="macro" if macro else headline,
        scores={
            name: mean_score(
                answers[of_answer].won, images, of_case, answers[of_answer].chance, of, key=f"{about.name}/{name}"
            )
            for name, of_answer, of in wanted
        },
        counts={"cases": len(cases), **counts},
        won={case.name: w for case, w in zip(cases, won, strict=True)},
        groups=groups(about.name, zip(of_case, images, won, strict=True)),
        notes=list(about.notes),
        examples=examples,
    )  # fmt: skip
