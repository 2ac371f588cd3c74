"""Figures that others published, for tables; `published.yaml` holds each of them once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sclip.config.loader import read_yaml

__all__ = ["Heading", "PublishedRow", "headings", "rows", "sources"]

_FILE = Path(__file__).parent / "published.yaml"


@dataclass(frozen=True)
class PublishedRow:
    """A model and what a publication says that it reaches."""

    label: str
    source: str
    """The publication that printed the scores."""
    scores: dict[str, float]
    """Scores as shares, by our suites' "benchmark/score"."""
    note: str = ""
    """How the model differs from the other rows, for instance in its size."""


@dataclass(frozen=True)
class Heading:
    """How tables show a benchmark."""

    name: str
    scores: list[str]


@cache
def rows() -> dict[str, PublishedRow]:
    """Return the published rows by their names, in the order in which tables show them."""
    return {name: PublishedRow(**row) for name, row in read_yaml(_FILE)["rows"].items()}


@cache
def headings() -> dict[str, Heading]:
    """Return how tables show the benchmarks that papers report, by the names that our suites give them."""
    return {name: Heading(**entry) for name, entry in read_yaml(_FILE)["benchmarks"].items()}


def sources(chosen: Sequence[PublishedRow], shown: Collection[str]) -> dict[str, str]:
    """Return for each publication whose figures these are.

    Of a benchmark of which a table shows another score (`shown`: "benchmark/score"), the figures follow the row's name.
    """
    found: dict[str, list[str]] = {}
    benchmarks = dict.fromkeys(score.partition("/")[0] for score in shown)
    for row in chosen:
        texts = []
        for benchmark in benchmarks:
            figures = ", ".join(
                f"{score.partition('/')[2]} {100 * value:.1f} %"
                for score, value in row.scores.items()
                if score.startswith(f"{benchmark}/") and score not in shown
            )
            if figures:
                texts.append(f"{headings()[benchmark].name} {figures}")
        label = f"{row.label} ({'; '.join(texts)})" if texts else row.label
        found.setdefault(row.source, []).append(label)
    return {source: ", ".join(dict.fromkeys(labels)) for source, labels in found.items()}
