"""Can a classifier that sees no image tell false captions from true ones? The less it can, the more the image counts.

A logistic regression over word and character n-grams is trained on captions and one negative of each, and tested on
captions of other images: AUC 0.5 is what no trace in the text gives (SugarCrepe, Hsieh et al., NeurIPS 2023,
section 3). Our negatives stand beside the random swap of two words that NegCLIP trains with. Captions that the model of
naturalness was trained on have a row of their own: what it says of them it does not say of new ones.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean

from sclip.benchmark.captions import CaptionsError, read
from sclip.benchmark.rounds import BenchmarkError
from sclip.benchmark.table import Line, Table
from sclip.negatives import draw, natural, naturalness, shuffled
from sclip.scenegraph import Parser, ParserError, SceneGraph

_TESTED = 1 / 3
_SPLITS = 3
_FEWEST = 10
"""Images with a negative, below which a row is left out."""


def add_arguments(arguments: argparse.ArgumentParser) -> None:
    """Declare what this benchmark takes."""
    arguments.add_argument(
        "--captions", type=Path, metavar="FILE", required=True, help="one a line, or COCO's .json"
    )
    arguments.add_argument(
        "--naturalness",
        type=Path,
        metavar="FILE",
        help="what sclip naturalness --out wrote, in place of sclip's own",
    )
    arguments.add_argument("--spacy-model", default="", help="as data.spacy_model")


def run(options: argparse.Namespace, on_round: Callable[[int], None]) -> Table:
    """Measure; raises BenchmarkError for what the user can put right."""
    try:
        captions = read(options.captions)
        images = _images(options.captions, len(captions))
        if options.naturalness:
            naturalness.use(options.naturalness)
        graphs = Parser(options.spacy_model).parse(captions)
    except (CaptionsError, ParserError, OSError, ValueError) as error:
        raise BenchmarkError(str(error)) from error

    def ours(graph: SceneGraph, identity: str) -> str | None:
        drawn = draw(natural(graph), seed=0, epoch=0, identity=identity)
        return drawn.caption if drawn else None

    def swap(graph: SceneGraph, identity: str) -> str | None:
        drawn = shuffled(graph, seed=0, epoch=0, identity=identity)
        return drawn[0].caption if drawn else None

    is_fitted = [naturalness.is_fitted(caption) for caption in captions]
    held_out = [k for k, fitted in enumerate(is_fitted) if not fitted]
    in_sample = [k for k, fitted in enumerate(is_fitted) if fitted]
    lines = []
    for name, make, chosen in (
        ("sclip, captions that its model of naturalness has not seen", ours, held_out),
        ("sclip, captions that it was trained on", ours, in_sample),
        ("random swap of words", swap, range(len(captions))),
    ):
        false = {k: make(graphs[k], str(k)) for k in chosen}
        pairs = [(captions[k], text, images[k]) for k, text in false.items() if text]
        if len({image for _, _, image in pairs}) < _FEWEST:
            continue
        share, auc = len(pairs) / len(chosen), text_only_auc(pairs)
        found = f"{share:.3f} of {len(chosen):,} captions get one, AUC {auc:.3f} of a text-only classifier"
        lines.append(Line(name, "", "", found, {"share": [share], "auc": [auc]}))
        on_round(len(lines))
    if not lines:
        raise BenchmarkError(
            f"{options.captions}: fewer than {_FEWEST} images have a caption with a negative"
        )
    return Table(
        lines, {"captions": f"{len(captions)}; the classifier is tested on images it was not trained on"}
    )


def text_only_auc(pairs: Sequence[tuple[str, str, int]]) -> float:
    """Return the AUC of the classifier on (caption, negative, image), the mean of splits by image.

    Raises BenchmarkError where scikit-learn is not installed.
    """
    try:
        from scipy.sparse import vstack
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import roc_auc_score
        from sklearn.model_selection import GroupShuffleSplit
        from sklearn.pipeline import make_union
    except ImportError as error:
        raise BenchmarkError(f"{error}: pip install '.[benchmark]'") from error
    found = []
    split = GroupShuffleSplit(_SPLITS, test_size=_TESTED, random_state=0)
    for train, test in split.split(pairs, groups=[image for _, _, image in pairs]):
        words = TfidfVectorizer(
            ngram_range=(1, 3), min_df=2, sublinear_tf=True, token_pattern=r"\S+", lowercase=False
        )
        letters = TfidfVectorizer(
            analyzer="char_wb", ngram_range=(2, 5), min_df=3, sublinear_tf=True, lowercase=False
        )
        features = make_union(words, letters)
        features.fit([text for k in train for text in pairs[k][:2]])
        model = LogisticRegression(C=4.0, solver="liblinear")
        sides = [
            [features.transform([pairs[k][side] for k in part]) for side in (0, 1)] for part in (train, test)
        ]
        model.fit(vstack(sides[0]), [0] * len(train) + [1] * len(train))
        scores = model.decision_function(vstack(sides[1]))
        found.append(float(roc_auc_score([0] * len(test) + [1] * len(test), scores)))
    return mean(found)


def _images(path: Path, count: int) -> list[int]:
    """Return the image of each caption; in a text file each line is its own."""
    if path.suffix != ".json":
        return list(range(count))
    annotations = json.loads(path.read_text("utf-8"))["annotations"]
    return [entry.get("image_id", k) for k, entry in enumerate(annotations) if str(entry["caption"]).strip()]
