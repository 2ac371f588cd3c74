"""Say where benchmarks are to be had, and check what was put there: `python jobs/fetch.py [SUITE]`.

Nothing is downloaded: for each benchmark of SUITE (all by default) its paper, its licence and its files are named,
with the place below --root that they belong to. What is there is read, counted and compared with what was published,
and each picture is looked for. Exit status: 0 where everything is there, 1 where something is missing or differs, 2
for a mistake.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # instead of jobs/, whose inspect.py would be taken for the standard library's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse

from sclip.config import EvaluateConfig


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    root = EvaluateConfig().root
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "suite", nargs="?", default="all", metavar="SUITE", help="a name or a file (default: all)"
    )
    parser.add_argument("--root", default=root, help=f"folder of the named suites' files (default: {root})")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the job; 0, 1 or 2 as the module says."""
    given = _arguments(argv)
    from sclip.data.shards import ShardError  # torch takes seconds to import
    from sclip.evaluate import suite
    from sclip.evaluate.benchmarks import BenchmarkDataError
    from sclip.evaluate.sources import SOURCES, examined

    try:
        entries = suite.read(given.suite, given.root)
        complete = True
        for entry in entries:
            found = examined(entry)
            complete = complete and found.complete
            print(
                f"{entry.name} ({entry.kind}): {'complete' if found.complete else 'INCOMPLETE'}: {found.told}"
            )
            source = SOURCES.get(entry.name)
            if source is not None:
                print(f"    paper    {source.paper}\n    licence  {source.licence}")
                for place, origin in source.files:
                    print(f"    {Path(given.root).expanduser() / place}\n        from {origin}")
    except (BenchmarkDataError, ShardError, OSError) as error:
        print(f"fetch: {error}", file=sys.stderr)
        return 2
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
