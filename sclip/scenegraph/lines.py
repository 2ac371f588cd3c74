"""Captions from a file to whatever is made of their graphs: the plumbing that the two commands for people share.

A command maps one caption a line to one JSON object a line, in the same order, or draws it; and streams: a corpus
needs not fit in memory.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from sclip.scenegraph.graph import SceneGraph
from sclip.scenegraph.parser import MAX_CHARACTERS, Parser, ParserError

_LINE_ENDS = {ord(character): f"\\u{ord(character):04x}" for character in "\u0085\u2028\u2029"}
"""Characters at which some readers end a line, and which JSON may hold as they are."""


class Sink(Protocol):
    """Where graphs go, one after the other."""

    def add(self, graph: SceneGraph) -> None:
        """Take the graph of the next caption."""

    def close(self) -> None:
        """Finish after the last one."""


def add_arguments(arguments: argparse.ArgumentParser) -> None:
    """Declare the arguments that both commands have."""
    arguments.add_argument("file", metavar="FILE", help="one caption a line; '-' reads standard input")
    arguments.add_argument("--out", metavar="OUT", help="write the JSON here instead of to standard output")
    arguments.add_argument("--show", action="store_true", help="draw in the terminal, instead of the JSON")
    arguments.add_argument("--html", metavar="PAGE", help="draw on a page, instead of the JSON")
    arguments.add_argument(
        "--spacy-model", default="", help="spaCy pipeline; by default the English one found"
    )


def run(
    options: argparse.Namespace,
    convert: Callable[[SceneGraph], dict[str, Any]],
    drawings: Callable[[], Sequence[Sink]],
) -> int:
    """Write convert(graph) for each caption of the file, or add its graph to `drawings()` where those are asked for.

    Returns the exit status, 2 where it cannot start. Any text is a caption; what could not be read of it as it
    should is told at the end, on standard error.
    """
    try:
        parser = Parser(options.spacy_model)
        with ExitStack() as stack:
            source = (
                sys.stdin.buffer if options.file == "-" else stack.enter_context(open(options.file, "rb"))
            )
            sinks = list(drawings()) if options.show or options.html else []
            if options.out or not sinks:
                out = stack.enter_context(open(options.out, "wb")) if options.out else sys.stdout.buffer
                sinks.append(_Json(out, convert))
            tally = _Tally()
            for graph in parser.stream(tally.captions(source)):
                tally.add(graph)
                for sink in sinks:
                    sink.add(graph)
            for sink in sinks:
                sink.close()
    except BrokenPipeError:  # the reader (`head`) has seen enough
        sys.stderr.close()
        return 0
    except (ParserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if told := tally.told():
        print(told, file=sys.stderr)
    return 0


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
