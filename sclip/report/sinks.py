"""What the two commands for people draw on: the terminal as captions come, a page at their end.

The package stands above scenegraph and negatives; their commands, and nothing else of them, import this.
"""

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
"""Captions on a page: what a browser on a phone opens at once (about 2 MB), and more than a person reads."""


def drawings(in_terminal: bool, page: str | None, find: Find | None = None) -> list[_Terminal | _Page]:
    """Return what was asked for; where `find` is given, negatives are drawn beside their captions.

    Raises OSError where the page cannot be written.
    """
    sinks: list[_Terminal | _Page] = [_Terminal(find)] if in_terminal else []
    return [*sinks, _Page(page, find)] if page else sinks


class _Terminal:
    """Draws each caption at once."""

    def __init__(self, find: Find | None) -> None:
        self._find = find
        if isinstance(
            sys.stdout, io.TextIOWrapper
        ):  # where it is not UTF-8, a sign less is better than no drawing
            sys.stdout.reconfigure(errors="replace")
        self._console = console()

    def add(self, graph: SceneGraph) -> None:
        show(graph, self._find(graph) if self._find else None, self._console)

    def close(self) -> None:
        pass


class _Page:
    """Draws a sample of the captions, in their order."""

    def __init__(self, path: str, find: Find | None) -> None:
        Path(path).open("a").close()  # not only after hours of parsing
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
