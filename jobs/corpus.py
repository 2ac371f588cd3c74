"""Report what the captions of a corpus hold: graphs, negatives, the most frequent words, examples.

    python jobs/corpus.py 'shards/train/*.tar' --out train-report
    python jobs/corpus.py ~/sclip/runs/my-first-run

SOURCE is shards (paths or URIs with * ? or {00..99}) or the folder of a run. Writes report.html and report.json. Runs
on the Ray cluster that it finds, as jobs/pretrain.py does.
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

from sclip.config import ConfigError, DataConfig


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="shards, or the folder of a run")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: corpus-report")
    parser.add_argument("--caption-field", default="", help="of shards: as data.caption_field")
    parser.add_argument("--spacy-model", default="", help="of shards: as data.spacy_model")
    parser.add_argument("--actors", type=int, default=0, help="most actors (default: all CPUs)")
    parser.add_argument("--actor-cpus", type=float, default=1.0, help="CPUs of an actor (default: 1)")
    given = parser.parse_args(argv)
    if given.actors < 0 or not 0 < given.actor_cpus < float("inf"):
        parser.error("--actors: 0 or more; --actor-cpus: above 0")
    return given


def main(argv: list[str] | None = None) -> int:
    """Run the job; 0 where the report is written, 2 where a source cannot be read or the usage is wrong."""
    given = _arguments(argv)
    from rich.console import Console
    from rich.progress import Progress

    from sclip.data.pool import ActorPool  # torch and Ray take seconds to import
    from sclip.data.shards import ShardError
    from sclip.launch import cluster
    from sclip.prepare.statistics import corpus_of, count_corpus
    from sclip.report import write
    from sclip.report.table import show_statistics
    from sclip.scenegraph import ParserError

    data = DataConfig(caption_field=given.caption_field, spacy_model=given.spacy_model)
    out = (given.out or Path("corpus-report")).expanduser()
    try:
        corpus = corpus_of(given.sources, data)
        out.mkdir(parents=True, exist_ok=True)  # not only after the survey
        with Progress(
            console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
        ) as progress:
            task = progress.add_task("shards", total=len(corpus.shards))
            pool = ActorPool(given.actors, given.actor_cpus)
            found = count_corpus(corpus, cluster.connect().cpus, pool, lambda _: progress.advance(task))
        notes = found.notes(corpus)
        page = write(found.statistics, out, f"Corpus: {corpus.title}", notes)
    except (ConfigError, OSError, ParserError, ShardError) as error:
        print(f"corpus: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("corpus: interrupted", file=sys.stderr)
        return 130
    console = Console(highlight=False)
    show_statistics(found.statistics, console)
    for line in (*notes, f"look at it: {page}"):
        console.print(line, soft_wrap=True, markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
