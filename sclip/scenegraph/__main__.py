"""`python -m sclip.scenegraph FILE [--out OUT]`: one caption a line -> its scene graph as JSON, a line each.

With --show the graphs are drawn in the terminal, with --html PAGE on a page.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sclip.scenegraph.graph import SceneGraph
from sclip.scenegraph.lines import Sink, add_arguments, run


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = argparse.ArgumentParser(prog="python -m sclip.scenegraph", description=__doc__)
    add_arguments(arguments)
    options = arguments.parse_args(argv)

    def drawings() -> Sequence[Sink]:
        from sclip.report.sinks import drawings  # rich and jinja2, only where something is drawn

        return drawings(options.show, options.html)

    return run(options, SceneGraph.to_json, drawings)


if __name__ == "__main__":
    sys.exit(main())
