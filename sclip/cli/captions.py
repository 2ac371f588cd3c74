"""Commands that read captions from a file: their graphs, their negatives, and the model that judges negatives."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from sclip.cli.command import SpacyModel, argument, command, errors, flag, option

PANEL = "Study"

File = Annotated[str, argument("FILE", "one caption a line; - reads the standard input")]
Out = Annotated[str, option("FILE", "write the JSON here, instead of to the standard output")]
Show = Annotated[bool, flag("--show", "draw in the terminal, instead of the JSON")]
Html = Annotated[str, option("PAGE", "draw on a page, instead of the JSON")]


@command(PANEL)
def graph(
    file: File, out: Out = "", show: Show = False, html: Html = "", spacy_model: SpacyModel = ""
) -> None:
    """Write the scene graph of each caption of a file, as JSON.

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

    sclip negatives captions.txt --html page.html
    sclip negatives captions.txt --max-candidates 12 --out negatives.jsonl
    """
    from sclip.prepare import lines
    from sclip.scenegraph import ParserError

    with errors(ParserError, OSError):
        _say(lines.negatives(file, out, show, html, spacy_model, max_candidates))


def _say(line: str) -> None:
    if line:
        print(line, file=sys.stderr)


@command(PANEL)
def naturalness(
    captions: Annotated[Path, argument("CAPTIONS", "captions.txt, a caption a line, or COCO's .json")],
    out: Annotated[Path | None, option("FILE", "by default the weights of this sclip")] = None,
    source: Annotated[str, option("NAME", "of the captions, kept in the file; by default the file's")] = "",
) -> None:
    """Train the model that keeps strange false captions from being drawn.

    The weights that come with sclip are those of COCO's captions; train on your own where they speak of other things.
    Needs scikit-learn, which MLflow brings along.

      sclip naturalness captions_train2017.json
    """
    from sclip.benchmark.captions import read
    from sclip.negatives import fit_naturalness
    from sclip.negatives import naturalness as model
    from sclip.scenegraph import Parser, ParserError

    out = out or model.PATH
    with errors(OSError, ValueError, KeyError, ParserError):
        texts = read(captions)
        fit_naturalness.save(fit_naturalness.fit(texts, Parser()), out, source or captions.name)
    print(f"{out}: trained on {len(texts)} captions; raise VERSION in sclip/negatives/drawing.py")
