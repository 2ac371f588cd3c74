"""Which of the lost cases a report shows, and their pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from sclip.evaluate.picture import Picture, thumbnails
from sclip.evaluate.result import Candidate, Example
from sclip.seeding import digest64

__all__ = ["MOST", "RIVALS", "chosen", "example", "shown"]

MOST = 24
"""Lost cases of a benchmark that are shown."""
RIVALS = 4
"""False candidates of one that are shown, the highest."""
_T = TypeVar("_T")


def chosen(benchmark: str, lost: Iterable[tuple[str, _T]]) -> list[tuple[str, _T]]:
    """Return up to 24 of the lost cases (name and anything), drawn by their names alone, in the order given.

    Two models that lose the same case show it both, or neither by chance of their other cases.
    """
    cases = list(lost)
    drawn = sorted(range(len(cases)), key=lambda at: digest64("example", 0, 0, f"{benchmark} {cases[at][0]}"))
    return [cases[at] for at in sorted(drawn[:MOST])]


def shown(pictures: Iterable[Picture]) -> dict[Picture, bytes]:
    """Return the JPEG of each picture, empty bytes for one that can no longer be read."""
    pictures = list(pictures)
    return dict.fromkeys(pictures, b"") | thumbnails(pictures)


def example(
    case: str,
    group: str,
    picture: bytes,
    true: Sequence[tuple[str, float]],
    false: Sequence[tuple[str, float]],
) -> Example:
    """Return a lost case of (text, score) of its true candidates and its false ones, of which the highest stay."""
    highest = sorted(false, key=lambda candidate: -candidate[1])[:RIVALS]
    candidates = [Candidate(*one, True) for one in true] + [Candidate(*one, False) for one in highest]
    return Example(case, group, picture, candidates)
