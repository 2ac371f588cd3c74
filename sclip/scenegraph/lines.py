"""Captions from a file, results to a file: the plumbing that the two commands for people share.

A command maps one caption a line to one JSON object a line, in the same order, and streams: a corpus needs not
fit in memory.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any, BinaryIO

from sclip.scenegraph.graph import SceneGraph
from sclip.scenegraph.parser import Parser, ParserError


def add_arguments(arguments: argparse.ArgumentParser) -> None:
    """Declare the arguments that both commands have."""
    arguments.add_argument("file", metavar="FILE", help="one caption a line; '-' reads standard input")
    arguments.add_argument("--out", metavar="OUT", help="write here instead of to standard output")
    arguments.add_argument(
        "--spacy-model", default="", help="spaCy pipeline; by default the English one found"
    )


def run(options: argparse.Namespace, convert: Callable[[SceneGraph], dict[str, Any]]) -> int:
    """Write convert(graph) for each caption of the file; returns the exit status, 2 where it cannot start."""
    try:
        parser = Parser(options.spacy_model)
        with ExitStack() as stack:
            source = (
                sys.stdin.buffer if options.file == "-" else stack.enter_context(open(options.file, "rb"))
            )
            sink = stack.enter_context(open(options.out, "wb")) if options.out else sys.stdout.buffer
            _write(sink, (convert(graph) for graph in parser.stream(_captions(source))))
    except BrokenPipeError:  # the reader (`head`) has seen enough
        sys.stderr.close()
        return 0
    except (ParserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _captions(source: BinaryIO) -> Iterator[str]:
    for line in source:
        yield line.rstrip(b"\r\n").decode("utf-8", errors="replace")


def _write(sink: BinaryIO, records: Iterable[dict[str, Any]]) -> None:
    for record in records:
        sink.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
    sink.flush()
