"""Measure how well a classifier that sees no image can tell negatives from captions.

If the classifier fails, CLIP needs the image to reject a negative. The classifier is a logistic regression over word
and character n-grams. It is trained on captions, each with one negative, and tested on captions of other images. An AUC
of 0.5 means that the text alone gives nothing away (SugarCrepe, Hsieh et al., NeurIPS 2023, section 3). The peer is
NegCLIP's random swap of two words. Captions that sclip's naturalness model was trained on have their own row, because
the model judges new captions differently. The table also counts negatives that equal their caption once texts are cut.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean

import torch

from sclip.benchmark.captions import CaptionsError, read
from sclip.benchmark.rounds import BenchmarkError
from sclip.benchmark.table import Line, Table
from sclip.config import ModelConfig
from sclip.data.window import window_of
from sclip.model import Tokenizer
from sclip.model.kee import negatives_unseen
from sclip.negatives import Negative, drawn_in_training, naturalness, shuffled
from sclip.scenegraph import Parser, ParserError

_TESTED = 1 / 3
_SPLITS = 3
_FEWEST = 10  # images with a negative, for a row


def add_arguments(arguments: argparse.ArgumentParser) -> None:
    """Declare the options of this benchmark."""
    arguments.add_argument(
        "--captions", type=Path, metavar="FILE", required=True, help="one a line, or COCO's .json"
    )
    arguments.add_argument(
        "--naturalness",
        type=Path,
        metavar="FILE",
        help="file from sclip naturalness --out, used in place of sclip's own tables",
    )
    arguments.add_argument("--spacy-model", default="", help="as data.spacy_model")


def run(options: argparse.Namespace, on_round: Callable[[int], None]) -> Table:
    """Measure all rows. Raises BenchmarkError for errors that the user can fix."""
    try:
        captions = read(options.captions)
        images = _images(options.captions, len(captions))
        if options.naturalness:
            naturalness.use(options.naturalness)
        parser = Parser(options.spacy_model)
        graphs = parser.parse(captions)
    except (CaptionsError, ParserError, OSError, ValueError) as error:
        raise BenchmarkError(str(error)) from error

    model = ModelConfig()
    tokenizer = Tokenizer(model)
    windows = [window_of(graph, tokenizer) for graph in graphs]

    def ours(chosen: Sequence[int]) -> list[Negative | None]:
        names = [str(k) for k in chosen]
        return drawn_in_training([windows[k] for k in chosen], names, parser.shapes, seed=0)

    def swap(chosen: Sequence[int]) -> list[Negative | None]:
        drawn = [
            shuffled(windows[k].graph, seed=0, epoch=0, identity=str(k), window=windows[k]) for k in chosen
        ]
        return [next(iter(candidates), None) for candidates in drawn]

    is_fitted = [naturalness.is_fitted(caption) for caption in captions]
    held_out = [k for k, fitted in enumerate(is_fitted) if not fitted]
    in_sample = [k for k, fitted in enumerate(is_fitted) if fitted]
    lines = []
    for name, make, chosen in (
        ("sclip, captions that its model of naturalness has not seen", ours, held_out),
        ("sclip, captions that it was trained on", ours, in_sample),
        ("random swap of words", swap, range(len(captions))),
    ):
        with_negative = [(k, negative) for k, negative in zip(chosen, make(chosen), strict=True) if negative]
        if len({images[k] for k, _ in with_negative}) < _FEWEST:
            continue
        auc = text_only_auc([(captions[k], negative.caption, images[k]) for k, negative in with_negative])
        kept = [windows[k] for k, _ in with_negative]
        false = [negative for _, negative in with_negative]
        texts = [
            tokenizer.text([one.graph.caption for one in kept]),
            tokenizer.text([n.caption for n in false]),
        ]
        triples = tokenizer.triples([one.triples for one in kept])
        foil_ids = tokenizer.triples([one.triples_of(n.graph) for one, n in zip(kept, false, strict=True)])
        unseen = negatives_unseen(
            {
                "triples": torch.from_numpy(triples),
                "negative_triples": torch.from_numpy(foil_ids)[:, None],
                "has_negative": torch.ones(len(false), 1, dtype=torch.bool),
            }
        )
        figures = {
            "share": len(with_negative) / len(chosen),
            "same_tokens": float((texts[0] == texts[1]).all(1).mean()),
            "same_triples": float(unseen.float().mean()),
            "auc": auc,
        }
        words = (
            f"{figures['share']:.3f} of {len(chosen):,} captions get one: "
            f"{figures['same_tokens']:.3f} with the same tokens, {figures['same_triples']:.3f} with the same "
            f"kept triples; AUC {auc:.3f} of a text-only classifier"
        )
        lines.append(Line(name, "", "", words, {figure: [value] for figure, value in figures.items()}))
        on_round(len(lines))
    if not lines:
        raise BenchmarkError(
            f"{options.captions}: fewer than {_FEWEST} images have a caption with a negative"
        )
    return Table(
        lines, {"captions": f"{len(captions)}; the classifier is tested on images it was not trained on"}
    )


def text_only_auc(pairs: Sequence[tuple[str, str, int]]) -> float:
    """Return the classifier's mean AUC over three random splits of the images into training and test.

    `pairs` are (caption, negative, image id). Raises BenchmarkError if scikit-learn is not installed.
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
    aucs = []
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
        aucs.append(float(roc_auc_score([0] * len(test) + [1] * len(test), scores)))
    return mean(aucs)


def _images(path: Path, count: int) -> list[int]:
    if path.suffix != ".json":
        return list(range(count))  # each line counts as a separate image
    annotations = json.loads(path.read_text("utf-8"))["annotations"]
    return [entry.get("image_id", k) for k, entry in enumerate(annotations) if str(entry["caption"]).strip()]
