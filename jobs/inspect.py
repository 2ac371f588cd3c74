"""Show what a training step saw of one sample: the caption drawn, its graph, the negatives, the tokens and the crop.

    python jobs/inspect.py shards/train/00003.tar 000000391895 2 --run my-first-run --out page.html
    python jobs/inspect.py shards/train/00003.tar 000000391895 0 --config paper run.seed=1

SHARD is a tar, KEY the name of a sample in it without suffix, also of one that is not trained on, of which the reason
is shown. EPOCH counts from 0: the whole part of `epoch` in a progress line, `pass` in quarantine.jsonl (with
data.weights, the pass of the shard's source). Choices follow from seed, epoch and key alone, so what is shown is what
the run saw, or will see. The page holds the pictures too, and needs no network.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # instead of jobs/, whose inspect.py would be taken for the standard library's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse

from sclip.config import Config, ConfigError, RunConfig
from sclip.config.loader import load


def _arguments(argv: list[str] | None) -> tuple[argparse.Namespace, Config | None]:
    """Return what was given, and the config where no run was named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("shard", metavar="SHARD", help="path or URI of one tar")
    parser.add_argument("key", metavar="KEY", help="of the sample in it")
    parser.add_argument("epoch", type=int, metavar="EPOCH", help="from 0")
    parser.add_argument("--run", default="", help="a run: its folder or URI, or its name in --storage")
    parser.add_argument(
        "--storage", default=RunConfig().storage, help="run.storage of the run (default: %(default)s)"
    )
    parser.add_argument("--config", default="", help="without a run, as of jobs/pretrain.py")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="without a run, as of jobs/pretrain.py"
    )
    parser.add_argument("--out", type=Path, metavar="PAGE", help="write the page, a file.html")
    given = parser.parse_intermixed_args(argv)
    if given.run:
        if given.config or given.overrides:
            parser.error("--run has a config of its own: leave out --config and KEY=VALUE, or --run")
        return given, None
    named = ["--config", given.config] if given.config else []
    folder = Path(__file__).parent / "configs"
    return given, load([*named, *given.overrides], folder=folder, default="scenes", description="")


def main(argv: list[str] | None = None) -> int:
    """Run the job; 0 where the sample is shown, trained on or not, 2 where there is none or the usage is wrong."""
    given, config = _arguments(argv)
    from sclip.data.shards import ShardError  # torch takes seconds to import
    from sclip.model import ModelError
    from sclip.report.visit import show_visit, write_page
    from sclip.run.inspection import InspectionError, Run, inspect_sample, of_run
    from sclip.scenegraph import ParserError

    try:
        run = Run(config) if config else of_run(given.run, given.storage)
        visit = inspect_sample(run, given.shard, given.key, given.epoch)
        if given.out:
            write_page(visit, given.out)
    except (ConfigError, InspectionError, ModelError, OSError, ParserError, ShardError) as error:
        print(f"inspect: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("inspect: interrupted", file=sys.stderr)
        return 130
    show_visit(visit)
    if given.out:
        print(f"look at it: {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
