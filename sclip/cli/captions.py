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

File = Annotated[str, argument("FILE", "text file with one caption per line; - reads the standard input")]
Out = Annotated[str, option("FILE", "write the JSON to FILE instead of the standard output")]
Show = Annotated[
    bool, flag("--show", "draw the graphs or negatives in the terminal instead of printing JSON")
]
Html = Annotated[str, option("PAGE", "draw the graphs or negatives on an HTML page instead of printing JSON")]

label = group(PANEL, "label", "Draw negatives or graphs for a person to label, and count the labels.")


@command(PANEL)
def graph(
    file: File, out: Out = "", show: Show = False, html: Html = "", spacy_model: SpacyModel = ""
) -> None:
    """Write the scene graph of each caption in a file, as JSON.

    --show and --html draw the graphs instead of printing JSON.

      echo "a dog chasing a red ball" | sclip graph -
      sclip graph captions.txt --show
    """
    from sclip.prepare import graph_lines
    from sclip.scenegraph import ParserError

    with errors(ParserError, OSError):
        _say(graph_lines.graphs(file, out, show, html, spacy_model))


@command(PANEL)
def negatives(
    file: File,
    out: Out = "",
    show: Show = False,
    html: Html = "",
    max_candidates: Annotated[
        int | None, option("N", "write at most the N best false captions of a caption; by default all", min=0)
    ] = None,
    spacy_model: SpacyModel = "",
) -> None:
    """Write false captions for each caption in a file, as JSON.

    --show and --html draw the false captions instead of printing JSON.

      sclip negatives captions.txt --html page.html
      sclip negatives captions.txt --max-candidates 12 --out negatives.jsonl
    """
    from sclip.prepare import graph_lines
    from sclip.scenegraph import ParserError

    with errors(ParserError, OSError):
        _say(graph_lines.negatives(file, out, show, html, spacy_model, max_candidates))


@command(PANEL)
def halftruth(
    shards: Shards,
    out: Annotated[
        Path,
        argument(
            "OUT", "benchmark file to write (.jsonl); its images are written to the folder images beside OUT"
        ),
    ],
    data_keys: DataKeys,
    seed: Annotated[int, option("N", "seed of the random choices")] = 0,
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
            "FILE",
            "text with one caption per line, COCO's .json, or .csv with a column caption; - reads the standard input",
        ),
    ],
    out: Annotated[Path, argument("OUT", "table to write (.tsv); no file of this name may exist")],
    of: Annotated[
        Literal["negatives", "replacements", "positives", "graphs", "triples"],
        option(
            "SUBJECT",
            "subject of the rows: negatives, replacements (a kind of negatives), positives, graphs or triples",
        ),
    ] = "negatives",
    count: Annotated[int, option("N", "number of rows to draw", min=1)] = 200,
    seed: Annotated[
        int,
        option(
            "N",
            "seed of the draw; with the same seed, a smaller --count gives the first rows of a larger one",
        ),
    ] = 0,
    spacy_model: SpacyModel = "",
) -> None:
    """Write a random sample of negatives, positives, graphs or triples to a table, which a person labels row by row.

    Open OUT in an editor or a spreadsheet and fill in its first columns. For negatives and positives, write good or
    broken (not English) into `form`. Write changed or kept into `meaning`: a negative should change the meaning of its
    caption, a positive should keep it. For graphs and triples, write no or yes into `wrong`. `sclip label count` counts
    the labels.

      sclip label draw captions.txt negatives.tsv
      sclip label draw captions_val2017.json graphs.tsv --of graphs --count 60
      sclip label draw captions.txt second-reader.tsv --count 100
    """
    from sclip.prepare import labels
    from sclip.prepare.bare_captions import CaptionsError
    from sclip.scenegraph import ParserError

    with errors(labels.LabelsError, CaptionsError, ParserError, OSError):
        rows = labels.draw(file, out, of, count, seed, spacy_model)
    fewer = f" (FILE gives fewer than {count})" if rows < count else ""
    print(f"{out}: {rows} {of} to label{fewer}; fill in {' and '.join(labels.LABELS[of])}")


@command(PANEL, of=label)
def count(
    labelled: Annotated[
        Path, argument("OUT", "labelled table from sclip label draw, or a file that --digests wrote")
    ],
    second: Annotated[
        Path | None,
        option("OTHER", "table with the same rows, or some of the rows, labelled by a second reader"),
    ] = None,
    digests: Annotated[
        Path | None,
        option("FILE", "write the labels to FILE (.jsonl), with digests in place of the captions"),
    ] = None,
) -> None:
    """Count the labels of a table: the share of faults with its 95 % interval, and the agreement of two readers.

    Faults are the labels broken and yes; for negatives also kept, for positives also changed. The file of --digests
    holds no caption, so a repository can keep the labels without a copy of the texts.

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
        argument(
            "CAPTIONS", "text with one caption per line, COCO's .json, .csv with a column caption, or shards"
        ),
    ],
    out: Annotated[
        Path | None,
        option(
            "FILE",
            "file for the trained tables; by default the file of the installed sclip, which is replaced",
        ),
    ] = None,
) -> None:
    """Fit the model that scores how strange a false caption reads. Runs leave out false captions that are too strange.

    The model that comes with sclip was fitted to COCO captions, alt-text and long captions. If your captions are about
    other things, fit the model to your captions. The command uses at most 12,000 random captions of each source. It
    needs scikit-learn, which is installed with MLflow.

      sclip naturalness captions_train2017.json alt-text.txt 'shards/train/*.tar'
    """
    from sclip.data.shards import ShardError
    from sclip.negatives import fit_naturalness
    from sclip.negatives import naturalness as model
    from sclip.prepare.bare_captions import read_source
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
    sources: Annotated[
        list[str], argument("SOURCE", "shards (paths, URIs or patterns), or the folder of a run")
    ],
    data_keys: DataKeys,
    out: Annotated[Path, option("FOLDER", "folder to write report.html and report.json into")] = Path(
        "corpus-report"
    ),
    caption_field: CaptionField = "",
    spacy_model: SpacyModel = "",
    actors: Actors = 0,
    actor_cpus: ActorCpus = 1.0,
) -> None:
    """Report on the captions of a corpus: graphs, negatives, the most frequent words, examples.

    Uses the running Ray cluster, as pretrain does. If none is running, starts one on this machine.

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
