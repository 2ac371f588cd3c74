"""Read scores that others published, from `published.yaml`, to show them in tables."""

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
    """A model and the scores that a publication reports for it."""

    label: str
    source: str
    scores: dict[str, float]
    """Scores between 0 and 1, by the "benchmark/score" names of our suites."""
    note: str = ""
    """How the model differs from those of other rows, for instance in size."""


@dataclass(frozen=True)
class Heading:
    """Title and scores of a benchmark in tables."""

    name: str
    scores: list[str]


@cache
def rows() -> dict[str, PublishedRow]:
    """Return the published rows by name, in the order in which tables show them."""
    return {name: PublishedRow(**row) for name, row in read_yaml(_FILE)["rows"].items()}


@cache
def headings() -> dict[str, Heading]:
    """Return the headings of the benchmarks that papers report, by the benchmarks' names in our suites."""
    return {name: Heading(**entry) for name, entry in read_yaml(_FILE)["benchmarks"].items()}


def sources(chosen: Sequence[PublishedRow], shown: Collection[str]) -> dict[str, str]:
    """Return {publication: text to print below a table}. The text lists the labels of the publication's chosen rows.

    `shown`: the table's scores, "benchmark/score". A row's other scores of the shown benchmarks follow its label.
    """
    labels_by_source: dict[str, list[str]] = {}
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
        labels_by_source.setdefault(row.source, []).append(label)
    return {source: ", ".join(dict.fromkeys(labels)) for source, labels in labels_by_source.items()}
