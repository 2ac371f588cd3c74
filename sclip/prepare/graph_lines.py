"""Write the graphs or the negatives of a caption file as JSON, or draw them in the terminal or on an HTML page.

Each line of the file is a caption, which is cleaned as in training and becomes one line of JSON or one drawing.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO

from sclip.data.caption_text import clean_caption, encoding_of
from sclip.negatives import Negative, candidates
from sclip.scenegraph import Parser
from sclip.scenegraph.graph import SceneGraph
from sclip.scenegraph.window import MOST_WORDS, parsed_part


def graphs(file: str, out: str, show: bool, html: str, spacy_model: str) -> str:
    """Write the scene graph of each caption as JSON, or draw it in the terminal (`show`) or on a page (`html`).

    `file` may be "-" for standard input. Without `out`, JSON goes to standard output. Returns a summary line: how many
    captions have no object, were parsed only in part, or have undecodable bytes. Raises ParserError, OSError.
    """
    return _stream(file, out, show, html, spacy_model, SceneGraph.to_json, None)


def negatives(
    file: str, out: str, show: bool, html: str, spacy_model: str, max_candidates: int | None = None
) -> str:
    """Write the best negatives of each caption, at most `max_candidates`; otherwise like `graphs`."""

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
        std = file == "-"
        source = stack.enter_context(open(sys.stdin.fileno() if std else file, "rb", closefd=not std))
        sinks: list[Any] = []
        if show or html:
            from sclip.report.sinks import drawings  # imports rich and jinja2, which only drawings need

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
    return tally.summary()


class _Json:
    def __init__(self, out: BinaryIO, convert: Callable[[SceneGraph], dict[str, Any]]) -> None:
        self._out, self._convert = out, convert

    def add(self, graph: SceneGraph) -> None:
        self._out.write(json.dumps(self._convert(graph), ensure_ascii=False).encode() + b"\n")

    def close(self) -> None:
        self._out.flush()


@dataclass
class _Tally:
    read: int = 0
    without_object: int = 0
    cut: int = 0
    unreadable: int = 0

    def captions(self, source: io.BufferedReader) -> Iterator[str]:
        for line in io.TextIOWrapper(source, encoding_of(source.peek(4)), errors="replace"):
            self.unreadable += "\ufffd" in line
            yield clean_caption(line)

    def add(self, graph: SceneGraph) -> None:
        self.read += 1
        self.without_object += not graph.objects
        self.cut += bool(parsed_part(graph.caption)[1])

    def summary(self) -> str:
        parts = [
            f"{count:,} {label}"
            for count, label in (
                (self.without_object, "without an object"),
                (self.cut, f"read only up to word {MOST_WORDS}"),
                (self.unreadable, "with bytes that are no text"),
            )
            if count
        ]
        return f"of {self.read:,} captions: {', '.join(parts)}" if parts else ""
