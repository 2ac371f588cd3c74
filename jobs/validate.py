"""Find, before a run, every sample that it would set aside, and every shard that it could not read.

    python jobs/validate.py 'shards/train/*.tar' --out validation

SHARDS are paths or URIs with * ? or {00..99}. Each is read as training reads it, each image decoded. Exit status: 0
where all is trained on, 1 where something is set aside, 2 where a shard cannot be reached (the others are validated)
or the job cannot run. Runs on the Ray cluster that it finds, as jobs/pretrain.py does.
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
import time

from sclip.config import ConfigError, DataConfig

PROGRESS_S = 10.0
"""Between two lines of progress."""


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("shards", nargs="+", metavar="SHARDS", help="tars: paths, globs, URIs")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="write quarantine.jsonl, report.json and report.html"
    )
    parser.add_argument(
        "--size", type=int, default=224, help="of the model's images, in pixels (default: 224)"
    )
    parser.add_argument("--caption-field", default="", help="as data.caption_field")
    parser.add_argument("--spacy-model", default="", help="as data.spacy_model, for the stamp of annotations")
    parser.add_argument("--actors", type=int, default=0, help="most actors (default: all CPUs)")
    parser.add_argument("--actor-cpus", type=float, default=1.0, help="CPUs of an actor (default: 1)")
    given = parser.parse_args(argv)
    if given.size < 1 or given.actors < 0 or not 0 < given.actor_cpus < float("inf"):
        parser.error("--size: 1 or more; --actors: 0 or more; --actor-cpus: above 0")
    return given


def main(argv: list[str] | None = None) -> int:
    """Run the job; 0, 1 or 2 as the module says."""
    given = _arguments(argv)
    from ray.exceptions import RayError
    from rich.console import Console

    from sclip.data.pool import ActorPool  # torch and Ray take seconds to import
    from sclip.launch import cluster
    from sclip.prepare.annotate import stamp
    from sclip.prepare.validate import Findings, reachable, validate, write
    from sclip.report.table import show_findings
    from sclip.scenegraph import Parser, ParserError

    data = DataConfig(caption_field=given.caption_field, spacy_model=given.spacy_model)
    started = time.monotonic()
    told = started

    def say(found: Findings) -> None:
        nonlocal told
        if (now := time.monotonic()) - told >= PROGRESS_S:
            told = now
            rate = (found.samples + len(found.quarantined)) / (now - started)
            counts = f"{found.samples:,} samples, {len(found.quarantined):,} set aside, {rate:,.0f} a second"
            print(f"{found.shards:,} of {len(shards):,} shards: {counts}", file=sys.stderr, flush=True)

    try:
        shards, failures = reachable(given.shards)
        out = given.out.expanduser() if given.out else None
        if out:
            out.mkdir(parents=True, exist_ok=True)  # not only after hours
        found = Findings()
        if shards:
            pool = ActorPool(given.actors, given.actor_cpus)
            cpus = cluster.connect().cpus
            started = time.monotonic()
            found = validate(shards, data, given.size, pool, cpus, say)
        seconds = time.monotonic() - started
        found.unreachable[:0] = failures
        own = stamp(Parser(data.spacy_model)) if any(found.stamps) else ""
        notes = found.notes(own)
        rate = (found.samples + len(found.quarantined)) / max(seconds, 1e-9)
        notes.append(f"{rate:,.0f} samples a second at {given.size} pixels, with the start of the actors")
        page = write(found, out, "Validation of shards", notes, seconds) if out else None
    except (ConfigError, OSError, ParserError, RayError) as error:  # with a traceback, the status were 1
        print(f"validate: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("validate: interrupted", file=sys.stderr)
        return 130
    console = Console(highlight=False)
    show_findings(found.reasons(), console)
    for line in (*notes, *([f"look at it: {page}"] if page else [])):
        console.print(line, soft_wrap=True, markup=False)
    for failure in found.unreachable:
        print(f"validate: {failure}", file=sys.stderr)
    return 2 if found.unreachable else 1 if found.quarantined else 0


if __name__ == "__main__":
    sys.exit(main())
