"""Invented evaluations in the form that benchmarks write, for the tests of the pages."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from html import unescape
from typing import Any

from sclip.evaluate.result import Candidate, Evaluation, Example, Group, Result, Score
from support.pictures import encoded, noise

HOSTILE = "<script>document.documentElement.dataset.ran = 'a'</script> \"a 'dog'\" & \u202e on \x1b[31m a mat"
SWAPS = [
    ("a man on a motorcycle is waving at two men", "two men on a motorcycle are waving at a man"),
    ("a small red circle to the left of a blue square", "a small blue circle to the left of a red square"),
    ("the dog is chasing the cat", "the cat is chasing the dog"),
    ("a woman prepares a pizza while a man watches", "a man prepares a pizza while a woman watches"),
]


def photograph(seed: int = 0, size: tuple[int, int] = (240, 180)) -> bytes:
    return encoded(noise(6, 5, seed).resize(size), "JPEG", quality=80)


def example(number: int = 0, texts: Sequence[tuple[str, float, bool]] = (), **changes: Any) -> Example:
    true, false = SWAPS[number % len(SWAPS)]
    candidates = texts or [(true, 0.2713, True), (false, 0.2841, False)]
    values = {"case": f"{number:012d}", "group": "riding", "picture": photograph(number)}
    return Example(**values | changes, candidates=[Candidate(*candidate) for candidate in candidates])


def group(name: str, correct: int, cases: int, **changes: Any) -> Group:
    share = correct / cases
    return Group(name, cases, correct, max(0.0, share - 0.1), min(1.0, share + 0.1), **changes)


def groups(count: int) -> list[Group]:
    random_ = random.Random(count)
    sizes = [10 + random_.randrange(400) for _ in range(count)]
    return [
        group(f"relation {n}", random_.randint(c // 4, c), c, counted=c >= 25) for n, c in enumerate(sizes)
    ]


def result(name: str = "vg-relation", share: float = 0.6, cases: int = 200, **changes: Any) -> Result:
    """Return a result in which the first `share` of the cases is won and the rest is lost."""
    definition = "Is the true caption of a crop preferred over the one with subject and object exchanged?"
    macro, accuracy = (Score(value, value - 0.03, value + 0.03, 0.5) for value in (share, share + 0.01))
    values: dict[str, Any] = {
        "name": name, "kind": name, "definition": definition, "headline": "macro",
        "scores": {"macro": macro, "accuracy": accuracy},
        "counts": {"cases": cases, "images": cases, "ties": 0},
        "won": {f"case {number}": number < share * cases for number in range(cases)},
        "groups": groups(3), "examples": [example(0)],
    }  # fmt: skip
    return Result(**values | changes)


def evaluation(*results: Result, model: str = "run my-first-run", **facts: str) -> Evaluation:
    known = {
        "suite": "standard",
        "parser": "rules-1+en_core_web_sm-3.8.0",
        "weights": "sha256 0123456789abcdef",
    }
    return Evaluation(model, known | facts, list(results))


def text_of(page: str) -> str:
    body = page[page.index("<body>") :]
    return " ".join(unescape(re.sub("<[^>]+>", " ", body)).split())
