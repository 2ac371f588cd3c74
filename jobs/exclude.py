"""List pictures that training must not see: `python jobs/exclude.py SOURCE .. --out FILE`.

SOURCE is a benchmark's folder of images, a Karpathy file (dataset_coco.json, dataset_flickr30k.json) or shards
('coco-test/*.tar'). Then `python jobs/pack.py .. --exclude FILE` leaves out whatever has the name of one of them or
looks like one.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # instead of jobs/, whose inspect.py would be taken for the standard library's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse

from sclip.data.exclusion import Exclusion, ExclusionError
from sclip.data.shards import ShardError
from sclip.prepare.exclude import excluded, write_list
from sclip.prepare.pack import Skips


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "sources", nargs="+", metavar="SOURCE", help="folder of images, Karpathy .json or shards"
    )
    parser.add_argument("--out", type=Path, required=True, help="the list, JSON Lines")
    parser.add_argument("--name", default="", help="what reports call the pictures (default: SOURCE's name)")
    parser.add_argument("--split", default="test", help="split of a Karpathy file (default: test)")
    parser.add_argument(
        "--images",
        type=Path,
        help="folder of a Karpathy file's pictures (without it: names only, no likenesses)",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the job; 0 where the list was written, 2 where the input or the usage is wrong."""
    given = _arguments(argv)
    skips = Skips()
    entries: list[Exclusion] = []
    try:
        for source in given.sources:
            name = given.name or Path(source).stem
            entries += excluded(source, name, skips, split=given.split, images=given.images)
        if not entries:
            raise ExclusionError("no picture in any of them: " + "; ".join(skips.lines()))
        given.out.parent.mkdir(parents=True, exist_ok=True)
        write_list(entries, given.out)
    except (ExclusionError, ShardError, OSError) as error:
        print(f"exclude: {error}", file=sys.stderr)
        return 2
    for line in skips.lines():
        print(f"exclude: {line}", file=sys.stderr)
    hashed = sum(bool(entry.phash) for entry in entries)
    print(f"{given.out}: {len(entries):,} pictures, {hashed:,} with their likeness")
    return 0


if __name__ == "__main__":
    sys.exit(main())
