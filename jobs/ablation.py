"""Train every row of an ablation over its seeds, and print one table of them beside published figures.

    python jobs/ablation.py                      the paper's five rows on generated scenes (jobs/configs/ablation/)
    python jobs/ablation.py encoder              K, lambda, depth and form of the knowledge encoder
    python jobs/ablation.py paper data.shards='shards/*.tar' evaluate.root=~/benchmarks

Further KEY=VALUE are for every row. The same command goes on with an ablation that was stopped. Leaves ablation.md and
ablation.json, and a page that compares the rows of the first seed, in STORAGE/sweeps/NAME.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # instead of jobs/, whose inspect.py would be taken for the standard library's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse

from rich.console import Console

from sclip.config import ConfigError
from sclip.config.loader import load

CONFIGS = Path(__file__).parent / "configs"


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "ablation", nargs="?", default="scenes", metavar="ABLATION", help="a name, or a YAML file (scenes)"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of every row")
    parser.add_argument(
        "--name", default="", help="of the sweep, before the names of its runs (ablation-ABLATION)"
    )
    parser.add_argument("--rows", nargs="+", default=[], metavar="ROW", help="only these")
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[], metavar="SEED", help="instead of the file's"
    )
    parser.add_argument(
        "--at-once", type=int, default=0, help="runs at a time (as many as the cluster holds)"
    )
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Return the exit status: 0 every run done, 1 one failed, 2 not started for a mistake."""
    given = _arguments(argv)
    if "=" in given.ablation:
        given.ablation, given.overrides = "scenes", [given.ablation, *given.overrides]
    from sclip.run import ablation, pretrain, sweep  # torch and Ray take seconds to import

    console = Console()
    try:
        path = Path(given.ablation)
        asked = ablation.read(path if path.is_file() else CONFIGS / "ablation" / f"{given.ablation}.yaml")
        asked = ablation.narrowed(asked, given.rows, given.seeds)
        name = given.name or f"ablation-{path.stem}"
        shared = ablation.arguments(asked, given.overrides)
        config = load(shared, folder=CONFIGS, default="", description="")
        trials = sweep.run(ablation.sweep_of(asked, name, config, given.at_once), console)
        cells = ablation.table(asked, trials, name)
        storage = Path(config.run.storage).expanduser().absolute()
        folder = storage / "sweeps" / name
        written = ablation.write(asked, cells, folder)
        of_first = [trial for trial in trials if trial.name.endswith(f"-seed-{asked.seeds[0]}")]
        pages = sweep.pages(of_first, storage, folder, f"{name}, seed {asked.seeds[0]}")
    except ConfigError as error:
        print(f"ablation: {error}", file=sys.stderr)
        return 2
    except pretrain.ERRORS as error:
        print(f"ablation: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ablation: interrupted; the same command goes on", file=sys.stderr)
        return 130
    ablation.show(asked, cells, console)
    for trial in trials:
        if trial.error:
            console.print(
                f"{trial.name} failed: {trial.error}", soft_wrap=True, markup=False, highlight=False
            )
    for file in (written, *pages):
        console.print(f"look at it: {file}", soft_wrap=True, markup=False, highlight=False)
    return 1 if any(trial.error for trial in trials) else 0


if __name__ == "__main__":
    sys.exit(main())
