"""`python -m sclip.negatives FILE [--max-candidates N] [--out OUT]`: captions -> their false captions as JSON."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from sclip.negatives import candidates
from sclip.scenegraph.graph import SceneGraph
from sclip.scenegraph.lines import add_arguments, run


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = argparse.ArgumentParser(prog="python -m sclip.negatives", description=__doc__)
    add_arguments(arguments)
    arguments.add_argument("--max-candidates", type=int, metavar="N", help="keep the best N of each caption")
    options = arguments.parse_args(argv)
    if options.max_candidates is not None and options.max_candidates < 0:
        arguments.error("--max-candidates: 0 or more")

    def convert(graph: SceneGraph) -> dict[str, Any]:
        negatives = candidates(graph)[: options.max_candidates]
        return {"caption": graph.caption, "negatives": [negative.to_json() for negative in negatives]}

    return run(options, convert)


if __name__ == "__main__":
    sys.exit(main())
