"""Pack images and their captions into WebDataset shards: `python jobs/pack.py SOURCE OUT`.

SOURCE is a COCO caption file (.json), a folder of images with .txt or .json files of the same name, or a
.csv, .tsv or .jsonl table with an image path and a caption (or a list of captions) in each row.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # instead of jobs/, whose inspect.py would be taken for the standard library's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import os

from sclip.data.exclusion import ExclusionError, Exclusions
from sclip.prepare.pack import PackError, Shard, Skips, write_shards
from sclip.prepare.sources import read_source


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number above 0")
    return int(text)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "source", type=Path, metavar="SOURCE", help="captions.json, pairs.csv, .jsonl or a folder"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the tars and index.json")
    parser.add_argument(
        "--images", type=Path, help="folder that image paths start at (default: SOURCE's own)"
    )
    parser.add_argument("--image-field", default="", help="column of the image path in a table")
    parser.add_argument("--caption-field", default="", help="column of the caption(s) in a table")
    parser.add_argument(
        "--samples-per-shard", type=_positive, default=1000, help="most samples (default: 1000)"
    )
    parser.add_argument("--bytes-per-shard", type=_positive, help="most image bytes (default: no limit)")
    parser.add_argument("--workers", type=_positive, default=os.cpu_count(), help="processes (default: CPUs)")
    parser.add_argument("--overwrite", action="store_true", help="replace the shards that OUT holds")
    parser.add_argument(
        "--exclude", type=Path, action="append", default=[], metavar="FILE",
        help="list of pictures to leave out (jobs/exclude.py); may be given several times",
    )  # fmt: skip
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the job; 0 where shards were written, 2 where the input or the usage is wrong."""
    given = _arguments(argv)

    def say(shard: Shard) -> None:
        print(f"{given.out / shard.name}: {shard.samples} samples, {shard.bytes / 2**20:.1f} MiB", flush=True)

    skips = Skips()
    try:
        samples, skips = read_source(
            given.source, given.images, image_field=given.image_field, caption_field=given.caption_field
        )
        index = write_shards(
            samples,
            given.out,
            samples_per_shard=given.samples_per_shard,
            bytes_per_shard=given.bytes_per_shard,
            workers=given.workers,
            overwrite=given.overwrite,
            exclusions=Exclusions.read(given.exclude) if given.exclude else None,
            on_shard=say,
        )
    except (PackError, ExclusionError) as error:
        print("\n".join(f"pack: {line}" for line in (*skips.lines(), error)), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            f"pack: interrupted; the finished shards in {given.out} are whole, without an index",
            file=sys.stderr,
        )
        return 130
    skips.merge(index.skips)
    for line in skips.lines():
        print(f"pack: {line}", file=sys.stderr)
    print(
        f"{index.samples} samples in {len(index.shards)} shards; train on them: data.shards={given.out}/*.tar"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
