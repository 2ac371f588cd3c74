"""Measure a part of sclip beside its peers, on this machine and in one run; print the table.

python jobs/benchmark.py scenegraph --captions captions_val2017.json
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # instead of jobs/, whose inspect.py would be taken for the standard library's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import importlib
import json
import os

_LIBRARIES = ("OMP", "MKL", "OPENBLAS", "BLIS")
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in _LIBRARIES}

BENCHMARKS = {
    # name: (module, what it measures, environment that must stand before anything is imported)
    "scenegraph": (
        "sclip.benchmark.scenegraph",
        "captions a second on one core: graphs, negatives",
        ONE_THREAD,
    ),
    "artefacts": (
        "sclip.benchmark.artefacts",
        "what a classifier without images tells false captions by",
        ONE_THREAD,
    ),
    "step": (
        "sclip.benchmark.step",
        "a training step beside open_clip's, its operations, memory and checkpoints",
        ONE_THREAD,
    ),
    "stream": (
        "sclip.benchmark.stream",
        "the data stream beside webdataset, its stages alone and Ray Data; plans of long schedules",
        ONE_THREAD,
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Run the job; 0 where the table is printed, 2 where it cannot be measured or the usage is wrong."""
    argv = sys.argv[1:] if argv is None else argv
    for name, (_, _, environment) in BENCHMARKS.items():
        if name in argv[:1]:
            os.environ.update(environment)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    for name, (module, what, _) in BENCHMARKS.items():
        command = commands.add_parser(name, help=what, description=what, allow_abbrev=False)
        command.add_argument("--json", type=Path, metavar="OUT", help="write the figures of every round")
        if name in argv[:1]:
            importlib.import_module(module).add_arguments(command)
    given = parser.parse_args(argv)

    from rich.console import Console
    from rich.progress import Progress

    from sclip.benchmark.rounds import BenchmarkError

    benchmark = importlib.import_module(BENCHMARKS[given.benchmark][0])
    try:
        with Progress(
            console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
        ) as progress:
            task = progress.add_task("rounds", total=None)
            result = benchmark.run(given, lambda _: progress.advance(task))
        if given.json:
            given.json.write_text(json.dumps(result.to_json(), indent=1) + "\n")
    except (BenchmarkError, OSError) as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("benchmark: interrupted", file=sys.stderr)
        return 130
    result.show(Console(highlight=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
