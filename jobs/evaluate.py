"""Measure one or several models on benchmarks: `python jobs/evaluate.py MODEL [MODEL ...] --suite NAME --out DIR`.

    python jobs/evaluate.py my-run --suite paper --out evaluation
    python jobs/evaluate.py ViT-B-32:openai my-run --suite aro --device cuda --out comparison
    python jobs/evaluate.py my-run --benchmark sugarcrepe=swap_obj.json --images val2017 --out evaluation

MODEL is a run, a checkpoint (step-*), an export or weights (file or folder), ARCHITECTURE:TAG of open_clip (no tag:
random weights), or models:/NAME@ALIAS. A suite is a name (aro, sugarcrepe, winoground, retrieval, zero-shot, paper,
all: their files lie below --root, see jobs/fetch.py) or a YAML file. Prints a table with 95 % intervals and chance,
writes evaluation.json and report.html for each model; several models are compared with the first. Exit status: 0
done, 1 failed while running, 2 not started.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    # Instead of jobs/, whose inspect.py would be taken for the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    # Before Ray is imported, which warns of every actor that is started.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")

import argparse
import contextlib
import re
import time
from collections.abc import Callable

import sclip
from sclip.config import ConfigError, EvaluateConfig

PROGRESS_S = 10.0
"""Between two lines of progress."""


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    default = EvaluateConfig()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="what to measure")
    parser.add_argument("--suite", default="", metavar="NAME_OR_FILE", help="the benchmarks")
    parser.add_argument(
        "--benchmark", action="append", default=[], metavar="KIND=FILE", help="one benchmark; repeatable"
    )
    parser.add_argument(
        "--images", action="append", default=[], metavar="DIR", help="of each --benchmark, or of all"
    )
    parser.add_argument("--root", default=default.root, help=f"of the named suites (default: {default.root})")
    parser.add_argument(
        "--exclude", action="append", default=[], metavar="FILE",
        help="exclusion list (jobs/exclude.py) of what was trained on, left out of the benchmarks; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("evaluation"),
        metavar="DIR",
        help="for the results (default: evaluation)",
    )
    parser.add_argument(
        "--partial", action="store_true", help="score what is there where pictures are missing"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1 (default: cpu)")
    parser.add_argument(
        "--workers",
        type=int,
        default=0,
        help="Ray actors that encode, on nodes that see the same files (default: 0, this process)",
    )
    parser.add_argument(
        "--batch-size", type=int, default=default.batch_size, help="images or captions at a time"
    )
    parser.add_argument(
        "--storage", default="~/sclip", help="as run.storage, where runs are (default: ~/sclip)"
    )
    parser.add_argument(
        "--tracking-uri", default="", help="MLflow store of models:/ (default: of the storage)"
    )
    given = parser.parse_args(argv)
    if given.workers < 0 or given.batch_size < 1:
        parser.error("--workers: 0 or more; --batch-size: 1 or more")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", given.device):
        parser.error(f"--device {given.device}: cpu, cuda or cuda:1")
    if bool(given.suite) == bool(given.benchmark):
        parser.error("name the benchmarks: --suite NAME_OR_FILE, or --benchmark KIND=FILE (repeatable)")
    if given.images and given.suite:
        parser.error("--images goes with --benchmark; a suite says where its images are")
    for text in given.benchmark:
        if not all(text.partition("=")):
            parser.error(f"--benchmark {text}: write KIND=FILE")
    return given


def main(argv: list[str] | None = None) -> int:
    """Run the job; 0, 1 or 2 as the module says."""
    given = _arguments(argv)
    from ray.exceptions import RayError
    from rich.console import Console

    from sclip.data.shards import ShardError  # torch and Ray take seconds to import
    from sclip.evaluate import features, runner, suite, table
    from sclip.evaluate.benchmarks import BenchmarkDataError
    from sclip.evaluate.compare import compare
    from sclip.evaluate.pool import EncoderPool
    from sclip.evaluate.result import EVALUATION_FILE, EvaluationError
    from sclip.launch import cluster
    from sclip.model import ModelError
    from sclip.registry import RegistryError
    from sclip.report import comparison, evaluation
    from sclip.scenegraph import ParserError
    from sclip.train.manifest import CheckpointError

    console = Console(highlight=False)
    try:
        if given.suite:
            entries = suite.read(given.suite, given.root)
        else:
            named = [(kind, file) for kind, _, file in (text.partition("=") for text in given.benchmark)]
            entries = suite.from_options(named, given.images)
        exclusions = runner.exclusions_of(given.exclude)
        tasks = runner.prepared([entry.task() for entry in entries], given.partial, exclusions)
        here = "cpu" if given.workers else given.device  # the actors have the GPUs
        scorers = [sclip.load(name, here, given.tracking_uri, given.storage) for name in given.models]
        given.out.mkdir(parents=True, exist_ok=True)
        if given.workers:
            capacity = cluster.connect()
            gpu = given.device != "cpu"
            if given.workers > (capacity.gpus if gpu else capacity.cpus):
                raise ConfigError(
                    f"--workers={given.workers}: the cluster has {capacity.cpus:g} CPUs and {capacity.gpus:g} GPUs, "
                    f"and each takes {'a GPU' if gpu else 'a CPU'}; lower it"
                )
    except (
        BenchmarkDataError, CheckpointError, ConfigError, ModelError, OSError, ParserError, RegistryError, ShardError,
    ) as error:  # fmt: skip
        print(f"evaluate: {error}", file=sys.stderr)
        return 2

    evaluations, pages = [], []
    try:
        for name, folder, scorer in zip(
            given.models, _folders(given.models, given.out), scorers, strict=True
        ):
            with contextlib.ExitStack() as stack:
                encoder: features.FeatureEncoder = features.Here(scorer, given.batch_size)
                if given.workers:
                    encoder = stack.enter_context(
                        EncoderPool(scorer, given.workers, given.batch_size, given.device)
                    )
                facts = runner.facts(scorer, given.suite or ", ".join(given.benchmark))
                found = runner.measure(
                    encoder, tasks, name, facts, partial=given.partial, say=_progress(name)
                )
            found.write(folder / EVALUATION_FILE)
            pages.append(evaluation.write(found, folder, graphs=scorer.scene_graph))
            evaluations.append(found)
        compared = compare(evaluations) if len(evaluations) > 1 else None
        if compared:
            pages = [comparison.write(compared, given.out), *pages]
    except (BenchmarkDataError, EvaluationError, OSError, RayError, ShardError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("evaluate: interrupted", file=sys.stderr)
        return 130
    table.show(evaluations, compared, console)
    for page in pages:
        console.print(f"look at it: {page}", soft_wrap=True, markup=False)
    return 0


def _folders(models: list[str], out: Path) -> list[Path]:
    """Return a folder for each model's files: `out` for one, and below it, called as the models, for several."""
    if len(models) == 1:
        return [out]
    names = [re.sub(r"[^\w.-]+", "-", model).strip("-.") or "model" for model in models]
    return [
        out / (name if names.count(name) == 1 else f"{name}-{number}") for number, name in enumerate(names)
    ]


def _progress(model: str) -> Callable[[str, int, int], None]:
    told = time.monotonic()

    def say(what: str, done: int, of: int) -> None:
        nonlocal told
        if (now := time.monotonic()) - told >= PROGRESS_S:
            told = now
            print(f"{model}: {done:,} of {of:,} {what} encoded", file=sys.stderr, flush=True)

    return say


if __name__ == "__main__":
    sys.exit(main())
