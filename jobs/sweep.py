"""Run a grid or a random search over config keys through Ray Tune, each point a child run in MLflow.

    python jobs/sweep.py lambda --grid model.kee.weight=0.1,0.2,0.5 --config paper data.shards='shards/*.tar'
    python jobs/sweep.py rates --random 'train.learning_rate=loguniform(1e-6,1e-4)' --samples 8 run.seed=1

NAME is the sweep's; the other arguments are those of jobs/pretrain.py. The same command goes on with a sweep that was
stopped. Ends with a table, the best first, and a page that compares the eight best.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # instead of jobs/, whose inspect.py would be taken for the standard library's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse

from rich.console import Console

from sclip.config import ConfigError
from sclip.config.loader import changed, load

_COMPARED = 8
"""Runs on the page: as many as it has colours for."""


def _arguments(argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("name", metavar="NAME", help="of the sweep; its runs are NAME-00000, NAME-00001, ...")
    parser.add_argument(
        "--grid", action="append", default=[], metavar="KEY=V1,V2", help="every one of the values"
    )
    parser.add_argument(
        "--random", action="append", default=[], metavar="KEY=DOMAIN",
        help="uniform(a,b), loguniform(a,b), randint(a,b) or choice(a,b,..)",
    )  # fmt: skip
    parser.add_argument("--samples", type=int, default=1, help="draws of the random keys (1)")
    parser.add_argument(
        "--at-once", type=int, default=0, help="runs at a time (as many as the cluster holds)"
    )
    parser.add_argument(
        "--score", default="", help="what the best is told by (the first benchmark's headline)"
    )
    return parser.parse_known_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Return the exit status: 0 every trial done, 1 one failed, 2 not started for a mistake."""
    given, rest = _arguments(argv)
    config = load(
        rest, folder=Path(__file__).parent / "configs", default="scenes", description="see jobs/pretrain.py"
    )
    from ray import tune  # Ray and torch take seconds to import; mistakes of the usage need neither

    from sclip.report import sweep as report
    from sclip.run import pretrain, search_space, sweep

    console = Console()
    try:
        if given.samples < 1 or given.at_once < 0 or not (given.grid or given.random):
            raise ConfigError(
                "nothing to search: give --grid or --random, --samples of 1 or more, --at-once of 0 or more"
            )
        changed(config, {"run.name": given.name})
        space = {}
        for written in (*given.grid, *given.random):
            key, separator, text = written.partition("=")
            if not separator or key in space:
                raise ConfigError(f"{written!r}: write each key once, as KEY=...")
            if written in given.grid:
                tried = search_space.values(key, text)
                space[key] = tune.grid_search(tried)
            else:
                space[key], tried = search_space.domain(key, text)
            for value in tried:
                changed(config, {key: value})
        asked = sweep.Sweep(given.name, config, space, given.samples, given.at_once)
        trials = sweep.run(asked, console)
    except ConfigError as error:
        print(f"sweep: {error}", file=sys.stderr)
        return 2
    except pretrain.ERRORS as error:
        print(f"sweep: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("sweep: interrupted; the same command goes on", file=sys.stderr)
        return 130
    first = next((trial.scores for trial in trials if trial.scores), {})
    score = given.score or next(iter(first), "")
    report.show(trials, score, console)
    storage = Path(config.run.storage).expanduser().absolute()
    best = [trial for trial in report.ranked(trials, score) if trial.scores][:_COMPARED]
    for page in sweep.pages(best, storage, storage / "sweeps" / given.name, f"{given.name}, the best"):
        console.print(f"look at it: {page}", soft_wrap=True, markup=False, highlight=False)
    return 1 if any(trial.error for trial in trials) else 0


if __name__ == "__main__":
    sys.exit(main())
