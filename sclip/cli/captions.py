"""Commands that study captions: graphs, negatives, half-truths, labels, the naturalness model, corpus reports."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from sclip.cli.command import (
    ActorCpus,
    Actors,
    CaptionField,
    DataKeys,
    Shards,
    SpacyModel,
    argument,
    command,
    errors,
    flag,
    group,
    option,
    quiet_ray,
    read_data,
)  # fmt: skip
from sclip.config import ConfigError
from sclip.storage.paths import shown

PANEL = "Study"

File = Annotated[str, argument("FILE", "one caption a line; - reads the standard input")]
Out = Annotated[str, option("FILE", "write the JSON here, instead of to the standard output")]
Show = Annotated[bool, flag("--show", "draw in the terminal, instead of the JSON")]
Html = Annotated[str, option("PAGE", "draw on a page, instead of the JSON")]

label = group(PANEL, "label", "Draw negatives or graphs to be judged by a person, and count the judgements.")


@command(PANEL)
def graph(
    file: File, out: Out = "", show: Show = False, html: Html = "", spacy_model: SpacyModel = ""
) -> None:
    """Write the scene graph of each caption of a file, as JSON.

    --show and --html draw the graphs instead.

      echo "a dog chasing a red ball" | sclip graph -
      sclip graph captions.txt --show
    """
    from sclip.prepare import lines
    from sclip.scenegraph import ParserError

    with errors(ParserError, OSError):
        _say(lines.graphs(file, out, show, html, spacy_model))


@command(PANEL)
def negatives(
    file: File,
    out: Out = "",
    show: Show = False,
    html: Html = "",
    max_candidates: Annotated[int | None, option("N", "keep the best N of each caption", min=0)] = None,
    spacy_model: SpacyModel = "",
) -> None:
    """Write the false captions of each caption of a file, as JSON.

    --show and --html draw them instead.

      sclip negatives captions.txt --html page.html
      sclip negatives captions.txt --max-candidates 12 --out negatives.jsonl
    """
    from sclip.prepare import lines
    from sclip.scenegraph import ParserError

    with errors(ParserError, OSError):
        _say(lines.negatives(file, out, show, html, spacy_model, max_candidates))


@command(PANEL)
def halftruth(
    shards: Shards,
    out: Annotated[Path, argument("OUT", "file to write (.jsonl); the images go into images beside it")],
    data_keys: DataKeys,
    seed: Annotated[int, option("N", "of the draw")] = 0,
    caption_field: CaptionField = "",
    spacy_model: SpacyModel = "",
) -> None:
    """Make a half-truth benchmark from any captioned images.

    A half-truth is a true part of a caption with one wrong detail added.

      sclip halftruth 'shards/heldout/*.tar' half-truths/coco.jsonl
      sclip evaluate my-first-run --benchmark half-truth=half-truths/coco.jsonl
    """
    from sclip.data.shards import ShardError
    from sclip.prepare.half_truths import write_half_truths
    from sclip.scenegraph import ParserError

    with errors(ConfigError, OSError, ParserError, ShardError):
        data = read_data(data_keys, caption_field, spacy_model)
        counts = write_half_truths(shards, out.expanduser(), data, seed)
    print(f"{out}: {counts.line()}")


def _say(line: str) -> None:
    if line:
        print(line, file=sys.stderr)


@command(PANEL, of=label)
def draw(
    file: Annotated[
        str,
        argument(
            "FILE", "a caption a line, COCO's .json, .csv with a column caption; - reads the standard input"
        ),
    ],
    out: Annotated[Path, argument("OUT", "table to write, which must not exist (.tsv)")],
    of: Annotated[
        Literal["negatives", "replacements", "positives", "graphs", "triples"],
        option("WHAT", "negatives, replacements alone, positives, graphs or triples"),
    ] = "negatives",
    count: Annotated[int, option("N", "rows to draw", min=1)] = 200,
    seed: Annotated[
        int, option("N", "of the draw; a smaller N with it draws the first rows of a larger one")
    ] = 0,
    spacy_model: SpacyModel = "",
) -> None:
    """Draw negatives, positives, graphs or triples at random and write them to a table, to be labelled row by row.

    Open OUT in an editor or a spreadsheet and fill in its first columns. For negatives and positives: `form` is good or
    broken (not English), and `meaning` is changed or kept (a positive should keep it). For graphs and triples: `wrong`
    is no or yes. `sclip label count` counts the labels.

      sclip label draw captions.txt negatives.tsv
      sclip label draw captions_val2017.json graphs.tsv --of graphs --count 60
      sclip label draw captions.txt second-reader.tsv --count 100
    """
    from sclip.prepare import labels
    from sclip.prepare.caption_file import CaptionsError
    from sclip.scenegraph import ParserError

    with errors(labels.LabelsError, CaptionsError, ParserError, OSError):
        rows = labels.draw(file, out, of, count, seed, spacy_model)
    fewer = f" (FILE gives no {count})" if rows < count else ""
    print(f"{out}: {rows} {of} to label{fewer}; fill in {' and '.join(labels.LABELS[of])}")


@command(PANEL, of=label)
def count(
    labelled: Annotated[Path, argument("OUT", "labelled table of sclip label draw, or what --digests wrote")],
    second: Annotated[
        Path | None, option("OTHER", "the same draws, or some, labelled by another reader")
    ] = None,
    digests: Annotated[
        Path | None, option("FILE", "write the labels with digests in place of captions (.jsonl)")
    ] = None,
) -> None:
    """Count a labelled table: the share of faults with its 95 % interval, and the agreement of two readers.

    --digests writes the labels without the captions, for a repository.

      sclip label count negatives.tsv --second second-reader.tsv
      sclip label count negatives.tsv --digests labelled_negatives.jsonl
    """
    from sclip.prepare import labels

    with errors(labels.LabelsError, OSError):
        table = labels.read(labelled)
        for line in labels.count(table, labels.read(second) if second else None):
            print(line)
        if digests:
            labels.write_digests(table, digests)


@command(PANEL)
def naturalness(
    captions: Annotated[
        list[str],
        argument("CAPTIONS", "files: a caption a line, COCO's .json, .csv with a column caption; or shards"),
    ],
    out: Annotated[Path | None, option("FILE", "by default the tables of this sclip")] = None,
) -> None:
    """Train the model that keeps strange false captions from being drawn.

    The tables of sclip were trained on COCO captions, alt-text and long captions. Train on your own if they are about
    other things. At most 12,000 random captions of each source are used. Needs scikit-learn, which MLflow installs.

      sclip naturalness captions_train2017.json alt-text.txt 'shards/train/*.tar'
    """
    from sclip.data.shards import ShardError
    from sclip.negatives import fit_naturalness
    from sclip.negatives import naturalness as model
    from sclip.prepare.caption_file import read_source
    from sclip.scenegraph import Parser, ParserError

    out = out or model.PATH
    with errors(OSError, ValueError, ParserError, ShardError, ConfigError):
        sources = [read_source(source) for source in captions]
        names = ", ".join(Path(source).name for source in captions)
        fit_naturalness.save(fit_naturalness.fit(sources, Parser()), out, names)
    count = sum(min(len(source), fit_naturalness.MOST_CAPTIONS) for source in sources)
    print(f"{out}: trained on {count:,} captions; raise VERSION in sclip/negatives/drawing.py")


@command(PANEL)
def corpus(
    sources: Annotated[list[str], argument("SOURCE", "shards, or the folder of a run")],
    data_keys: DataKeys,
    out: Annotated[Path, option("FOLDER", "for report.html and report.json")] = Path("corpus-report"),
    caption_field: CaptionField = "",
    spacy_model: SpacyModel = "",
    actors: Actors = 0,
    actor_cpus: ActorCpus = 1.0,
) -> None:
    """Report what the captions of a corpus hold: graphs, negatives, the most frequent words, examples.

    Runs on the Ray cluster that it finds, as pretrain does.

      sclip corpus 'shards/train/*.tar' --out train-report
      sclip corpus ~/sclip/runs/my-first-run
    """
    quiet_ray()
    from rich.console import Console
    from rich.progress import Progress

    from sclip.data.shards import ShardError
    from sclip.launch import cluster
    from sclip.prepare.actor_pool import ActorPool
    from sclip.prepare.statistics import corpus_of, count_corpus
    from sclip.report import write
    from sclip.report.table import show_statistics
    from sclip.scenegraph import ParserError

    out = out.expanduser()
    with errors(ConfigError, OSError, ParserError, ShardError):
        selected = corpus_of(sources, read_data(data_keys, caption_field, spacy_model))
        out.mkdir(parents=True, exist_ok=True)  # fail before the shards are read
        stderr = Console(stderr=True)
        with Progress(console=stderr, transient=True, disable=not sys.stderr.isatty()) as progress:
            task = progress.add_task("shards", total=len(selected.shards))
            pool = ActorPool(actors, actor_cpus)
            counted = count_corpus(selected, cluster.connect().cpus, pool, lambda _: progress.advance(task))
        notes = counted.notes(selected)
        page = write(counted.statistics, out, f"Corpus: {selected.title}", notes)
    console = Console(highlight=False)
    show_statistics(counted.statistics, console)
    for line in (*notes, f"look at it: {shown(page)}"):
        console.print(line, soft_wrap=True, markup=False)
