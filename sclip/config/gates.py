"""Parse gates: lower bounds on scores that a new model version must reach to become champion."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sclip.config.checks import ConfigError

__all__ = ["Gate", "parse_gate"]

_NUMBER = r"[0-9]*\.?[0-9]+(?:[eE]-?[0-9]+)?"
_GATE = re.compile(
    rf"(?P<score>[^\s<>=/]+/[^\s<>=/]+)\s*>=\s*(?:(?P<least>{_NUMBER})"
    rf"|champion(?:\s*-\s*(?:(?P<margin>{_NUMBER})|(?P<interval>interval)))?)"
)
_ALLOWED = (
    "a gate is BENCHMARK/SCORE >= BOUND; BOUND is NUMBER, champion, champion - NUMBER or champion - interval "
    "(vg_relation/macro >= champion - interval)"
)


@dataclass(frozen=True, slots=True)
class Gate:
    """A lower bound on one score.

    coco/text_to_image_r1 >= 0.35                  at least this value
    vg_relation/macro >= champion                  at least the champion's score
    coco/text_to_image_r1 >= champion - 0.01       at most one point below the champion
    vg_relation/macro >= champion - interval       not below the champion's 95 % interval
    """

    text: str
    """The gate as the user wrote it, with single spaces."""
    score: str
    """Name of the benchmark and of its score, such as coco/text_to_image_r1."""
    least: float | None = None
    """The bound; None if it depends on the champion."""
    margin: float = 0.0
    """The NUMBER of `champion - NUMBER`; 0 for all other gates."""
    interval: bool = False
    """Whether the bound is the lower end of the 95 % interval of the champion's score."""

    def bound(self, champion: float, low: float) -> float:
        """Return the lowest score that passes. `low` is the lower end of the interval of the score `champion`."""
        if self.least is not None:
            return self.least
        return low if self.interval else champion - self.margin


def parse_gate(text: str, key: str = "tracking.gates") -> Gate:
    """Parse the text of a gate. Raises ConfigError that names the key and the allowed forms."""
    text = " ".join(text.split())
    match = _GATE.fullmatch(text)
    if match is None:
        raise ConfigError(f"{key}={text!r}: {_ALLOWED}")
    least, margin = (float(match[name]) if match[name] else None for name in ("least", "margin"))
    if max(least or 0, margin or 0) > 1:
        raise ConfigError(f"{key}={text!r}: scores are shares between 0 and 1, not percentages")
    return Gate(text, match["score"], least, margin or 0.0, bool(match["interval"]))
