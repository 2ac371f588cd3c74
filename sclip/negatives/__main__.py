"""`python -m sclip.negatives FILE [--max-candidates N] [--out OUT]`: captions -> their false captions as JSON.

With --show captions and negatives are drawn in the terminal, with --html PAGE on a page.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from sclip.negatives import Negative, candidates
from sclip.scenegraph.graph import SceneGraph
from sclip.scenegraph.lines import Sink, add_arguments, run


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = argparse.ArgumentParser(prog="python -m sclip.negatives", description=__doc__)
    add_arguments(arguments)
    arguments.add_argument("--max-candidates", type=int, metavar="N", help="keep the best N of each caption")
    options = arguments.parse_args(argv)
    if options.max_candidates is not None and options.max_candidates < 0:
        arguments.error("--max-candidates: 0 or more")

    def find(graph: SceneGraph) -> list[Negative]:
        return candidates(graph)[: options.max_candidates]

    def convert(graph: SceneGraph) -> dict[str, Any]:
        return {"caption": graph.caption, "negatives": [negative.to_json() for negative in find(graph)]}

    def drawings() -> Sequence[Sink]:
        from sclip.report.sinks import drawings  # rich and jinja2, only where something is drawn

        return drawings(options.show, options.html, find)

    return run(options, convert, drawings)


if __name__ == "__main__":
    sys.exit(main())
