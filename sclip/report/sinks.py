"""Draw the captions of a file: each in the terminal at once, and a sample of them on a page at the end."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from sclip.negatives import Negative
from sclip.report.cards import card
from sclip.report.page import render
from sclip.report.sample import SeededSample
from sclip.report.terminal import console, show
from sclip.scenegraph import SceneGraph

Find: TypeAlias = Callable[[SceneGraph], Sequence[Negative]]

PAGE_CAPTIONS = 300
"""Maximum captions on a page. A phone's browser opens so many at once (about 2 MB), and nobody reads more."""


def drawings(in_terminal: bool, page: str | None, find: Find | None = None) -> list[_Terminal | _Page]:
    """Return the requested outputs; they also draw the negatives from `find`. Raises OSError for an unwritable page."""
    sinks: list[_Terminal | _Page] = [_Terminal(find)] if in_terminal else []
    return [*sinks, _Page(page, find)] if page else sinks


class _Terminal:
    def __init__(self, find: Find | None) -> None:
        self._find = find
        if isinstance(sys.stdout, io.TextIOWrapper):
            # Without UTF-8, replace characters that the encoding lacks instead of failing.
            sys.stdout.reconfigure(errors="replace")
        self._console = console()

    def add(self, graph: SceneGraph) -> None:
        show(graph, self._find(graph) if self._find else None, self._console)

    def close(self) -> None:
        pass


class _Page:
    """Draw a page with a random sample of the captions, in the order of the file."""

    def __init__(self, path: str, find: Find | None) -> None:
        Path(path).open("a").close()  # fail now, not after hours of parsing
        self._path, self._find = Path(path), find
        self._lines = 0
        self._sample: SeededSample[tuple[int, SceneGraph]] = SeededSample(PAGE_CAPTIONS)

    def add(self, graph: SceneGraph) -> None:
        self._lines += 1
        self._sample.add((self._lines, graph), self._lines)

    def close(self) -> None:
        title = "Captions and their negatives" if self._find else "Captions and their scene graphs"
        notes = []
        if len(self._sample) < self._lines:
            notes.append(f"{len(self._sample)} of {self._lines:,} captions, drawn at random")
            print(f"{self._path}: {notes[0]}", file=sys.stderr)
        cards = [
            card(f"line {line:,}", graph, self._find(graph) if self._find else None)
            for line, graph in sorted(self._sample, key=lambda entry: entry[0])
        ]
        html = render("graphs.html", title=title, notes=notes, wide=bool(self._find), cards=cards)
        self._path.write_text(html, encoding="utf-8")
