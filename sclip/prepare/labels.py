"""Draw tables of negatives, positives, graphs or triples for a person to label row by row; count the labels.

    captions -> `draw` -> table with empty labels -> (a person) -> `count` -> shares with 95 % intervals

The table is a TSV file for any editor or spreadsheet; the columns to fill in come first. `write_digests` replaces the
texts by digests, so that a repository can keep the labels without copying other people's captions.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from scipy.stats import binomtest

from sclip.config import ModelConfig
from sclip.data.window import window_of
from sclip.evaluate.interval import share
from sclip.model import Tokenizer
from sclip.negatives import Negative, Positive, draw_positives, drawn_in_training
from sclip.negatives.drawing import EVENLY
from sclip.prepare.bare_captions import numbered
from sclip.scenegraph import Parser
from sclip.scenegraph.graph import Triple
from sclip.seeding import digest64

Subject = Literal["negatives", "replacements", "positives", "graphs", "triples"]

LABELS: Mapping[Subject, Mapping[str, tuple[str, str]]] = {
    "negatives": {"form": ("good", "broken"), "meaning": ("changed", "kept")},
    "replacements": {"form": ("good", "broken"), "meaning": ("changed", "kept")},
    "positives": {"form": ("good", "broken"), "meaning": ("kept", "changed")},
    "graphs": {"wrong": ("no", "yes")},
    "triples": {"wrong": ("no", "yes")},
}
"""Columns that a person fills in, each with its two labels. The second label is the fault that `count` counts."""

_TEXTS = ("caption", "negative", "positive", "triples", "triple")
"""Text columns, which `read` replaces by digests."""
_CAPTIONS_AT_ONCE = 256
_NAMED = 10


class LabelsError(ValueError):
    """A label table that cannot be written, read or counted; the message names the file and the fault."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Labelled table of one subject, as `read` returns it."""

    path: Path
    subject: Subject
    rows: list[dict[str, str]]
    """Cells by column name. Captions, negatives and other texts are digests of 16 hexadecimal digits."""
    lines: list[int]
    """Line number of each row in the file."""


def draw(file: str, out: Path, subject: Subject, size: int, seed: int = 0, spacy_model: str = "") -> int:
    """Write a table of up to `size` rows to label; return the number of rows.

    Distinct captions are drawn at random. With the same seed, a smaller table is the beginning of a larger one. A row
    holds a caption and what the person judges: its graph ("graphs"), its positive ("positives"), the negative that
    training would draw ("negatives"), a negative that exchanges no words ("replacements"), or one triple ("triples").

    Raises CaptionsError, ParserError or OSError; raises LabelsError if there is no row or if `out` exists.
    """
    if out.exists():  # labels are hours of work
        raise LabelsError(f"{out} exists and may hold labels; name another file")
    first_lines: dict[str, int] = {}
    for number, caption in numbered(file):
        first_lines.setdefault(caption, number)
    order = sorted(first_lines, key=lambda caption: digest64("label", seed, 0, caption))
    parser = Parser(spacy_model)
    rows = list(islice(_rows(parser, order, subject, seed), size))
    if not rows:
        raise LabelsError(f"{file}: none of its {len(order)} captions gives any {subject}")
    labels = LABELS[subject]
    name = Path(file).name
    with out.open("x", encoding="utf-8", newline="") as sink:
        table = csv.DictWriter(sink, [*labels, "source", *rows[0]], dialect="excel-tab", lineterminator="\n")
        table.writeheader()
        for row in rows:
            table.writerow({**row, "source": f"{name}:{first_lines[row['caption']]}"})
    return len(rows)


def read(path: Path) -> Labelled:
    """Return a labelled table that `draw` or `write_digests` wrote.

    Raises OSError, or LabelsError if the file is no such table, or has a missing or unknown label.
    """
    text = path.read_text(encoding="utf-8-sig")
    try:
        if text.lstrip().startswith("{"):
            pairs = [(n, json.loads(line)) for n, line in enumerate(text.splitlines(), start=1) if line]
            rows = [row for _, row in pairs]
        else:
            reader = csv.DictReader(io.StringIO(text, newline=""), dialect="excel-tab", restval="")
            pairs = [(reader.line_num, row) for row in reader]
            rows = [{k: _digest(v) if k in _TEXTS else v for k, v in row.items() if k} for _, row in pairs]
    except (ValueError, csv.Error) as error:
        raise LabelsError(f"{path}: not a table of labels: {error}") from error
    column = next((name for name in _TEXTS[1:] if rows and name in rows[0]), "")
    subject: Subject | None = {
        "negative": "negatives", "positive": "positives", "triples": "graphs", "triple": "triples",
    }.get(column)  # type: ignore[assignment]  # fmt: skip
    if subject is None or not {"caption", *LABELS[subject]} <= rows[0].keys():
        raise LabelsError(f"{path}: not a table of labels; sclip label draw writes one")
    for name, words in LABELS[subject].items():
        bad: dict[str, list[int]] = {}
        for (line, _), row in zip(pairs, rows, strict=True):
            row[name] = str(row.get(name) or "").strip().lower()
            if row[name] not in words:
                bad.setdefault(row[name], []).append(line)
        for word, numbers in bad.items():
            listed = ", ".join(map(str, numbers[:_NAMED])) + " .." * (len(numbers) > _NAMED)
            fault = f"{name} is {word!r}" if word else f"{name} is empty"
            raise LabelsError(f"{path}: {fault} in line {listed}; write {' or '.join(words)}")
    return Labelled(path, subject, rows, [line for line, _ in pairs])


def count(table: Labelled, second: Labelled | None = None) -> Iterator[str]:
    """Yield lines about each column: the share of faults with its 95 % interval, and the agreement with `second`.

    `second` has another person's labels of the same rows. Raises LabelsError if the tables have no row in common.
    """
    rows, second_rows = _rows_by_texts(table), _rows_by_texts(second) if second else {}
    shared = [key for key in rows if key in second_rows]
    if second and not shared:
        raise LabelsError(f"{second.path}: has no row in common with {table.path}")
    for name, (_, fault) in LABELS[table.subject].items():
        yield f"{table.path.name}: {_share(table, name, fault)}"
        if second:
            yield f"{second.path.name}: {_share(second, name, fault)}"
            yield _agreement(name, [(rows[key][name], second_rows[key][name]) for key in shared])


def write_digests(table: Labelled, out: Path) -> None:
    """Write the labels as JSON Lines that `read` reads, with digests instead of texts."""
    out.write_text("".join(json.dumps(row) + "\n" for row in table.rows), encoding="utf-8")


def _rows(parser: Parser, captions: Iterable[str], subject: Subject, seed: int) -> Iterator[dict[str, str]]:
    model = ModelConfig()
    tokenizer = Tokenizer(model)
    graphs = parser.stream(captions)
    while windows := [window_of(graph, tokenizer) for graph in islice(graphs, _CAPTIONS_AT_ONCE)]:
        texts = [window.graph.caption for window in windows]
        drawn: Sequence[Negative | Positive | None] = [None] * len(texts)
        if subject in ("negatives", "replacements"):
            shares = EVENLY if subject == "negatives" else {**EVENLY, "exchange": 0}
            drawn = drawn_in_training(windows, texts, parser.shapes, seed=seed, shares=shares)
        elif subject == "positives":
            drawn = draw_positives(windows, texts, parser.parse, seed=seed, epochs=[0] * len(texts))
        for window, text, negative in zip(windows, texts, drawn, strict=True):
            caption = {"caption": text}
            if subject == "graphs":
                yield caption | {"triples": " ".join(map(_shown, window.graph.triples()))}
            elif subject == "triples":
                yield from (caption | {"triple": _shown(triple)} for triple in window.triples)
            elif isinstance(negative, Positive):
                yield caption | {"positive": negative.caption, "kind": negative.kind}
            elif negative:
                swapped = " <-> ".join(negative.swapped)
                yield caption | {"negative": negative.caption, "kind": negative.kind, "swapped": swapped}


def _shown(triple: Triple) -> str:
    return f"({', '.join(triple)})"


def _digest(text: str | None) -> str:
    return format(digest64(text or ""), "016x")


def _rows_by_texts(table: Labelled) -> dict[tuple[str, ...], dict[str, str]]:
    return {tuple(row[name] for name in _TEXTS if name in row): row for row in table.rows}


def _share(table: Labelled, name: str, fault: str) -> str:
    faults = [row[name] == fault for row in table.rows]
    captions = [row["caption"] for row in table.rows]
    if len(set(captions)) == len(captions):  # Clopper-Pearson
        interval = binomtest(sum(faults), len(faults)).proportion_ci(method="exact")
        low, high = interval.low, interval.high
    else:  # rows of one caption are not independent, so a bootstrap over captions
        _, low, high = share(faults, captions, key=name)
    part = sum(faults) / len(faults)
    return f"{name} {fault}: {sum(faults)} of {len(faults)}, {part:.3f} ({low:.3f} to {high:.3f})"


def _agreement(name: str, pairs: Sequence[tuple[str, str]]) -> str:
    agreed = sum(one == other for one, other in pairs) / len(pairs)
    first, second = (Counter(labels) for labels in zip(*pairs, strict=True))
    chance = sum(first[label] * second[label] for label in first) / len(pairs) ** 2
    kappa = (
        f"{(agreed - chance) / (1 - chance):.2f}" if chance < 1 else "not defined, both use one label only"
    )
    return f"{name}: the two agree on {agreed:.3f} of {len(pairs)}, Cohen's kappa {kappa}"
