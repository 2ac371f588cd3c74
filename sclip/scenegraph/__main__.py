"""`python -m sclip.scenegraph FILE [--out OUT]`: one caption a line -> its scene graph as JSON, a line each."""

from __future__ import annotations

import argparse
import sys

from sclip.scenegraph.graph import SceneGraph
from sclip.scenegraph.lines import add_arguments, run


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = argparse.ArgumentParser(prog="python -m sclip.scenegraph", description=__doc__)
    add_arguments(arguments)
    return run(arguments.parse_args(argv), SceneGraph.to_json)


if __name__ == "__main__":
    sys.exit(main())
