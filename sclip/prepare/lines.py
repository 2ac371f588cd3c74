"""A file of captions in; their graphs or their false captions out, as JSON, in the terminal or on a page.

One caption a line becomes one JSON object a line, in the same order, or a drawing; and streams: a corpus needs not fit
in memory.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO

from sclip.negatives import Negative, candidates
from sclip.scenegraph import Parser
from sclip.scenegraph.graph import SceneGraph
from sclip.scenegraph.parser import MAX_CHARACTERS

_LINE_ENDS = {ord(character): f"\\u{ord(character):04x}" for character in "\u0085\u2028\u2029"}
"""Characters at which some readers end a line, and which JSON may hold as they are."""


def graphs(file: str, out: str, show: bool, html: str, spacy_model: str) -> str:
    """Write the scene graph of each caption, or draw it where `show` or `html` asks for it.

    `file` may be "-", the standard input; without `out` the JSON goes to the standard output. Any text is a caption;
    returns a line about what could not be read of them as it should. Raises ParserError or OSError at the start.
    """
    return _stream(file, out, show, html, spacy_model, SceneGraph.to_json, None)


def negatives(
    file: str, out: str, show: bool, html: str, spacy_model: str, max_candidates: int | None = None
) -> str:
    """Write the best false captions of each caption; otherwise as `graphs`."""

    def find(graph: SceneGraph) -> list[Negative]:
        return candidates(graph)[:max_candidates]

    def convert(graph: SceneGraph) -> dict[str, Any]:
        return {"caption": graph.caption, "negatives": [negative.to_json() for negative in find(graph)]}

    return _stream(file, out, show, html, spacy_model, convert, find)


def _stream(
    file: str,
    out: str,
    show: bool,
    html: str,
    spacy_model: str,
    convert: Callable[[SceneGraph], dict[str, Any]],
    find: Callable[[SceneGraph], list[Negative]] | None,
) -> str:
    parser = Parser(spacy_model)
    with ExitStack() as stack:
        source = sys.stdin.buffer if file == "-" else stack.enter_context(open(file, "rb"))
        sinks: list[Any] = []
        if show or html:
            from sclip.report.sinks import drawings  # rich and jinja2, only where something is drawn

            sinks += drawings(show, html, find)
        if out or not sinks:
            sinks.append(_Json(stack.enter_context(open(out, "wb")) if out else sys.stdout.buffer, convert))
        tally = _Tally()
        for graph in parser.stream(tally.captions(source)):
            tally.add(graph)
            for sink in sinks:
                sink.add(graph)
        for sink in sinks:
            sink.close()
    return tally.told()


class _Json:
    """One JSON object a line."""

    def __init__(self, out: BinaryIO, convert: Callable[[SceneGraph], dict[str, Any]]) -> None:
        self._out, self._convert = out, convert

    def add(self, graph: SceneGraph) -> None:
        line = json.dumps(self._convert(graph), ensure_ascii=False).translate(_LINE_ENDS)
        self._out.write(line.encode() + b"\n")

    def close(self) -> None:
        self._out.flush()


@dataclass
class _Tally:
    """The captions of which not everything was read, or in which nothing was found."""

    read: int = 0
    without_object: int = 0
    cut: int = 0
    not_utf8: int = 0

    def captions(self, source: BinaryIO) -> Iterator[str]:
        """Yield the lines of the file as text; bytes that are not UTF-8 become U+FFFD."""
        for line in source:
            line = line.rstrip(b"\r\n")
            try:
                yield line.decode()
            except UnicodeDecodeError:
                self.not_utf8 += 1
                yield line.decode(errors="replace")

    def add(self, graph: SceneGraph) -> None:
        """Count one caption."""
        self.read += 1
        self.without_object += not graph.objects
        self.cut += len(graph.caption) > MAX_CHARACTERS

    def told(self) -> str:
        """Return the line for the user; empty where there is nothing to tell."""
        parts = [
            f"{count:,} {what}"
            for count, what in (
                (self.without_object, "without an object"),
                (self.cut, f"read only up to character {MAX_CHARACTERS:,}"),
                (self.not_utf8, "not UTF-8"),
            )
            if count
        ]
        return f"of {self.read:,} captions: {', '.join(parts)}" if parts else ""
