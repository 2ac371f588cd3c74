"""Write the samples whose captions name enough into shards of their own: `python jobs/subset.py SHARDS... OUT`.

SHARDS are annotated (jobs/annotate.py). A sample is kept with those of its captions whose graph holds at least so
many objects, attributes and relations; a run over the subset sees what a run over SHARDS with data.min_objects,
data.min_attributes and data.min_relations does, and reads nothing else.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # instead of jobs/, whose inspect.py would be taken for the standard library's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse

from sclip.data.shards import ShardError, expand
from sclip.prepare.pack import PackError, Shard, Skips, write_shards
from sclip.prepare.subset import Kept, passing_samples
from sclip.prepare.writing import refuse_sources


def _number(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number, 0 or more")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number above 0")
    return int(text)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("shards", nargs="+", metavar="SHARDS", help="annotated tars: paths, globs, URIs")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the tars and index.json")
    for name in ("objects", "attributes", "relations"):
        parser.add_argument(f"--min-{name}", type=_number, default=0, metavar="N", help=f"fewest {name}")
    parser.add_argument("--caption-field", default="", help="as the shards were annotated with")
    parser.add_argument(
        "--samples-per-shard", type=_positive, default=1000, help="most samples (default: 1000)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the shards that OUT holds")
    given = parser.parse_args(argv)
    if not (given.min_objects or given.min_attributes or given.min_relations):
        parser.error("nothing to filter by: pass --min-objects, --min-attributes or --min-relations")
    return given


def main(argv: list[str] | None = None) -> int:
    """Run the job; 0 where shards were written, 2 where the input or the usage is wrong."""
    given = _arguments(argv)
    least = (given.min_objects, given.min_attributes, given.min_relations)
    kept, skips = Kept(), Skips()

    def say(shard: Shard) -> None:
        print(f"{given.out / shard.name}: {shard.samples} samples, {shard.bytes / 2**20:.1f} MiB", flush=True)

    try:
        shards = expand(given.shards)
        refuse_sources(shards, given.out)
        index = write_shards(
            passing_samples(shards, least, given.caption_field, kept, skips),
            given.out,
            samples_per_shard=given.samples_per_shard,
            overwrite=given.overwrite,
            on_shard=say,
        )
    except (PackError, ShardError) as error:
        print("\n".join(f"subset: {line}" for line in (*skips.lines(), error)), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"subset: interrupted; the shards in {given.out} are whole, without an index", file=sys.stderr)
        return 130
    skips.merge(index.skips)
    for line in skips.lines():
        print(f"subset: {line}", file=sys.stderr)
    print(
        f"kept {index.samples} of {kept.samples_of} samples, {kept.captions} of {kept.captions_of} captions, "
        f"in {len(index.shards)} shards; train on them: data.shards={given.out}/*.tar"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
