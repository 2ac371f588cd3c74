"""Choose the lost cases that a report shows, and load their pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from sclip.evaluate.picture import Picture, thumbnails
from sclip.evaluate.result import Candidate, Example
from sclip.seeding import digest64

__all__ = ["MOST", "RIVALS", "chosen", "example", "shown"]

MOST = 24
"""Maximum lost cases shown for a benchmark."""
RIVALS = 4
"""Maximum false candidates shown for a case; those with the highest scores are kept."""
_T = TypeVar("_T")


def chosen(benchmark: str, lost: Iterable[tuple[str, _T]]) -> list[tuple[str, _T]]:
    """Choose up to 24 lost cases, given as (name, payload), and keep their order."""
    # A hash of the name decides, so reports on two models tend to show the same cases.
    cases = list(lost)
    drawn = sorted(range(len(cases)), key=lambda i: digest64("example", 0, 0, f"{benchmark} {cases[i][0]}"))
    return [cases[i] for i in sorted(drawn[:MOST])]


def shown(pictures: Iterable[Picture]) -> dict[Picture, bytes]:
    """Return a JPEG thumbnail of each picture, or empty bytes if it can no longer be read."""
    pictures = list(pictures)
    return dict.fromkeys(pictures, b"") | thumbnails(pictures)


def example(
    case: str,
    group: str,
    picture: bytes,
    true: Sequence[tuple[str, float]],
    false: Sequence[tuple[str, float]],
) -> Example:
    """Return a lost case with its true and its highest-scoring false candidates. Candidates are (text, score) pairs."""
    highest = sorted(false, key=lambda candidate: -candidate[1])[:RIVALS]
    candidates = [Candidate(*one, True) for one in true] + [Candidate(*one, False) for one in highest]
    return Example(case, group, picture, candidates)
