"""Write the scene graph and the negatives of every caption into the shards, once for all runs over them.

    python jobs/annotate.py 'shards/train/*.tar' shards/train-annotated
    python jobs/pretrain.py data.shards='shards/train-annotated/*.tar'

SHARDS are paths or URIs with * ? or {00..99}; OUT is a folder that every node reaches. The same command goes on
with a job that was stopped. Runs on the Ray cluster that it finds, as jobs/pretrain.py does.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    # Instead of jobs/, whose inspect.py would be taken for the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    # Before Ray is imported, which warns of every actor that Ray Data starts.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")

import argparse

from sclip.config import ConfigError


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number above 0")
    return int(text)


def _cpus(text: str) -> float:
    try:
        cpus = float(text)
    except ValueError:
        cpus = 0.0
    if not 0 < cpus < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: a number above 0")
    return cpus


def _folder(text: str) -> Path:
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text!r}: a folder that every node reaches, not a URI")
    return Path(text).expanduser().absolute()


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("shards", nargs="+", metavar="SHARDS", help="tars: paths, globs, URIs")
    parser.add_argument(
        "out", type=_folder, metavar="OUT", help="folder for the tars, index.json and the report"
    )
    parser.add_argument(
        "--caption-field", default="", help="as data.caption_field, with which a run reads them"
    )
    parser.add_argument("--spacy-model", default="", help="as data.spacy_model")
    parser.add_argument("--actors", type=_positive, default=0, help="most actors (default: all CPUs)")
    parser.add_argument("--actor-cpus", type=_cpus, default=1.0, help="CPUs of an actor (default: 1)")
    parser.add_argument(
        "--overwrite", action="store_true", help="annotate again what OUT holds from other sources or rules"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the job; 0 where every shard is annotated, 2 where one is not, or the usage is wrong."""
    given = _arguments(argv)
    from sclip.data.shards import ShardError, expand
    from sclip.launch import cluster
    from sclip.prepare.annotate import ActorPool, Annotated, annotate  # torch and Ray take seconds to import
    from sclip.prepare.writing import PackError
    from sclip.scenegraph import ParserError

    out: Path = given.out
    shards: list[str] = []
    done = 0

    def say(shard: Annotated) -> None:
        nonlocal done
        done += not shard.failure
        left_out = f", {shard.quarantined} left out" if shard.quarantined else ""
        size = f"{shard.samples} samples, {shard.bytes / 2**20:.1f} MiB{left_out}"
        print(f"{out / shard.name}: {shard.failure or size}", flush=True)

    try:
        shards = expand(given.shards)
        index = annotate(
            shards, out, lambda: cluster.connect().cpus, ActorPool(given.actors, given.actor_cpus),
            caption_field=given.caption_field, spacy_model=given.spacy_model, overwrite=given.overwrite,
            on_shard=say,
        )  # fmt: skip
    except (ConfigError, PackError, ParserError, ShardError) as error:
        print(f"annotate: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            f"annotate: interrupted; the finished shards in {out} are kept, the same command goes on",
            file=sys.stderr,
        )
        return 130
    if done < len(shards):
        print(f"{len(shards) - done} shards were annotated before")
    print(f"{index.samples} samples in {len(index.shards)} shards; train on them: data.shards={out}/*.tar")
    print(f"look at them: {out / 'report.html'}; left out: {out / 'quarantine.jsonl'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
