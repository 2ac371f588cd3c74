"""Build the `Result` of a task that has several scores for each case."""

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
    """Outcome of every case for one score of a benchmark."""

    won: Sequence[bool]
    chance: Sequence[float]
    """Probability that a guess wins each case."""


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
    """Return the share of won cases for each score, and the headline's means over groups.

    Args:
        about: name and definition.
        cases: the cases, in the order of the answers.
        images: the image of each case; the bootstrap draws cases of one image together.
        answers: the outcomes, by name of the score.
        headline: the score that decides whether a case counts as won.
        means: additional scores by name: the headline's mean over these groups.
        macro: whether to add the headline's mean over all groups as score `macro`, and report it as the headline.
        counts: numbers to report beside the number of cases.
        examples: lost cases to show in reports.
    """
    case_groups = [case.group for case in cases]
    means = ({"macro": sorted(set(case_groups))} if macro else {}) | dict(means)
    specs: list[tuple[str, str, Sequence[str] | None]] = [(name, name, None) for name in answers]
    specs += [(name, headline, part) for name, part in means.items() if set(part) <= set(case_groups)]
    won = answers[headline].won
    return Result(
        about.name, about.kind, about.definition,
        headline="macro" if macro else headline,
        scores={
            name: mean_score(
                answers[answer].won, images, case_groups, answers[answer].chance, part, key=f"{about.name}/{name}"
            )
            for name, answer, part in specs
        },
        counts={"cases": len(cases), **counts},
        won={case.name: w for case, w in zip(cases, won, strict=True)},
        groups=groups(about.name, zip(case_groups, images, won, strict=True)),
        notes=list(about.notes),
        examples=examples,
    )  # fmt: skip
