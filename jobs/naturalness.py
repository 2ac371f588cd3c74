"""Train the model that keeps strange false captions from being drawn: `python jobs/naturalness.py CAPTIONS`.

CAPTIONS is a text file, a caption a line, or a COCO annotation file. The weights that come with sclip are those of
COCO's captions; train on your own where they speak of other things. Needs scikit-learn, which MLflow brings along.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # instead of jobs/, whose inspect.py would be taken for the standard library's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse

from sclip.benchmark.captions import read
from sclip.negatives import fit_naturalness, naturalness
from sclip.scenegraph import Parser, ParserError


def main(argv: list[str] | None = None) -> int:
    """Run the job; 0 where weights were written, 2 where the input or the usage is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("captions", type=Path, metavar="CAPTIONS", help="captions.txt or COCO's .json")
    parser.add_argument(
        "--out", type=Path, default=naturalness.PATH, help="default: the weights of this sclip"
    )
    parser.add_argument(
        "--source", default="", help="name of the captions, kept in the file (default: its name)"
    )
    given = parser.parse_args(argv)
    try:
        captions = read(given.captions)
        weights = fit_naturalness.fit(captions, Parser())
        fit_naturalness.save(weights, given.out, given.source or given.captions.name)
    except (OSError, ValueError, KeyError, ParserError) as error:
        print(f"naturalness: {given.captions}: {error}", file=sys.stderr)
        return 2
    print(f"{given.out}: trained on {len(captions)} captions; raise VERSION in sclip/negatives/synthesise.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
