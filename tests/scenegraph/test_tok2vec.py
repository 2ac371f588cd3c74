"""The pipeline's word vectors are spaCy's own, and so are the tags and arcs that follow from them."""

from __future__ import annotations

import numpy as np
import spacy

from sclip.scenegraph import Parser
from sclip.scenegraph.tok2vec import speed_up

CAPTIONS = [
    "A dog doesn't chase the red ball.", "", "   ", "ball", "two  men   and a dog , near a 5-story house in Paris",
    "a dog and a dog and a dog and another dog beside a dog",
]  # fmt: skip


def test_vectors_tags_and_arcs_equal_those_of_spacy() -> None:
    ours = Parser()._nlp
    theirs = spacy.load(ours.path, exclude=["ner", "senter", "attribute_ruler", "lemmatizer"])
    for batch_size in (1, 256):
        pairs = zip(
            ours.pipe(CAPTIONS, batch_size=batch_size),
            theirs.pipe(CAPTIONS, batch_size=batch_size),
            strict=True,
        )
        for one, other in pairs:
            np.testing.assert_allclose(one.tensor, other.tensor, atol=1e-4)
            tags = [(t.text, t.tag_, t.dep_, t.head.i) for t in one]
            assert tags == [(t.text, t.tag_, t.dep_, t.head.i) for t in other]


def test_a_pipeline_of_another_kind_is_left_unchanged() -> None:
    blank = spacy.blank("en")
    speed_up(blank)
    pipe = blank.add_pipe("tok2vec", config={"model": {"@architectures": "spacy.HashEmbedCNN.v2", "width": 32,
        "depth": 1, "embed_size": 100, "window_size": 2, "maxout_pieces": 2, "subword_features": True,
        "pretrained_vectors": None}})  # fmt: skip
    speed_up(blank)
    assert "predict" not in vars(pipe)
