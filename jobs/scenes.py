"""Generate the scenes that training uses by default: `python jobs/scenes.py OUT`.

Writes training and held-out shards, ARO-format evaluation files and their images into a folder below OUT,
and prints the paths as overrides for `jobs/pretrain.py`. What is there already is used again.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # instead of jobs/, whose inspect.py would be taken for the standard library's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse

from sclip.config import ConfigError, ScenesConfig
from sclip.prepare.pack import PackError
from sclip.prepare.scenes import generate


def main(argv: list[str] | None = None) -> int:
    """Run the job; 0 where the scenes are there, 2 where the input or the usage is wrong."""
    default = ScenesConfig()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write into")
    parser.add_argument("--seed", type=int, default=0, help="seed of every scene (default: 0)")
    for name in ("train_samples", "heldout_samples", "image_size"):
        value = getattr(default, name)
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=int, default=value, help=f"scenes.{name} (default: {value})")
    given = parser.parse_args(argv)
    try:
        spec = ScenesConfig(given.train_samples, given.heldout_samples, given.image_size)
        paths = generate(given.out, spec, given.seed)
    except (ConfigError, PackError, OSError) as error:
        print(f"scenes: {error}", file=sys.stderr)
        return 2
    print(f"data.shards={paths.train}")
    print(f"evaluate.suite={paths.suite}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
