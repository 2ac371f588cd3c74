"""Train Structure-CLIP on WebDataset shards and register the model.

    python jobs/pretrain.py                                     the generated scenes
    python jobs/pretrain.py data.shards='/data/{000..127}.tar'  your own shards
    python jobs/pretrain.py --config paper train.num_workers=8

Also as `ray job submit --working-dir . -- python jobs/pretrain.py ...`; `--help` lists every key.

    --plan            print what the run would get, take and cost on this cluster, and stop; nothing is written
    --prices FILE     what a node of each type costs in an hour (sclip/launch/plan/prices.py shows one)
    --rates worker=900,encoder=120     measured samples a second of one of them, for the plan
"""

import logging
import sys
from pathlib import Path

if __name__ == "__main__":  # instead of jobs/, whose inspect.py would be taken for the standard library's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse

from rich.console import Console

from sclip.config import ConfigError
from sclip.config.loader import load
from sclip.storage.masking import mask


def _arguments(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return what is of the plan, and the arguments that set the config."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("--prices", type=Path)
    parser.add_argument("--rates", default="")
    return parser.parse_known_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Return the exit status: 0 done, 1 failed, 2 not started for a mistake in the config, 143 stopped by a signal."""
    given, rest = _arguments(sys.argv[1:] if argv is None else argv)
    config = load(rest, folder=Path(__file__).parent / "configs", default="scenes", description=str(__doc__))
    from sclip.launch import plan
    from sclip.run import logs, pretrain, stopping, summary

    as_json = config.run.log_format == "json"
    console = logs.json_console(sys.stdout) if as_json else Console(stderr=False)

    def failed(text: str, status: int) -> int:
        if as_json:
            logging.getLogger("sclip").error("%s", text)
        else:
            print(f"pretrain: {mask(text)}", file=sys.stderr)
        return status

    try:
        prices = plan.prices.read(given.prices) if given.prices else None
        told = pretrain.PlanOptions(plan.rates.given(given.rates), prices)
        if given.plan:
            plan.show(pretrain.plan(config, told), console)
            return 0
        trained = pretrain.pretrain(config, console, told)
    except ConfigError as error:
        return failed(str(error), 2)
    except pretrain.ERRORS as error:
        return failed(str(error), 1)
    except stopping.Stopped as error:
        return failed(str(error), 143)
    except KeyboardInterrupt:
        return failed("interrupted", 130)
    summary.show(trained, config, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
