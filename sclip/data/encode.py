"""The CPU actor of the stream: encoded images and captions in, rows of a training batch out.

Parsing, drawing the negative, decoding and tokenising share one actor: they need the same rows and the same
kind of machine, so one pool balances itself, and nothing but the finished rows is copied between processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sclip import negatives, seeding
from sclip.config import Config
from sclip.data import columns as col
from sclip.data.images import ImageError, random_crop
from sclip.data.schedule import Schedule
from sclip.model import Tokenizer
from sclip.scenegraph import Parser, SceneGraph

_PARSED_CAPTIONS = 200_000
"""Scene graphs that an actor remembers (about 2 kB each): the next epoch's captions are often this one's."""


class Encoder:
    """Callable for `map_batches`; loads spaCy and the tokenizer once for the life of the actor."""

    def __init__(self, config: Config, image_size: int, shards: int) -> None:
        self._config = config
        self._image_size = image_size
        self._schedule = Schedule(config.run.seed, config.train.epochs, shards)
        self._parser = Parser(config.data.spacy_model)
        self._tokenizer = Tokenizer(config.model.name, config.model.kee)
        self._graphs: dict[str, SceneGraph] = {}

    def __call__(self, batch: pa.Table) -> dict[str, NDArray[Any]]:
        """Return the columns of `sclip.data.columns` for the rows of one reader table.

        An image that cannot be decoded turns its row into a REJECTED one; REJECTED and END rows pass through
        with black pixels, an empty caption and no triples.
        """
        rows = batch.to_pylist()
        crops = [self._crop(row) for row in rows]  # sets REASON where it fails
        captions = [row[col.CAPTION] if row[col.STATUS] == col.SAMPLE else "" for row in rows]
        graphs = self._parse(captions)
        drawn = [self._negative(row, graph) for row, graph in zip(rows, graphs, strict=True)]
        has_negative = np.array([negative is not None for negative in drawn])
        negative_text = self._tokenizer.text([negative.caption if negative else "" for negative in drawn])
        negative_text[~has_negative] = 0
        negative_triples = self._tokenizer.triples([n.graph.triples() if n else [] for n in drawn])
        return {
            col.IMAGE: np.stack(crops),
            col.TEXT: self._tokenizer.text(captions),
            col.NEGATIVE_TEXT: negative_text,
            col.HAS_NEGATIVE: has_negative,
            col.TRIPLES: self._tokenizer.triples([graph.triples() for graph in graphs]),
            col.NEGATIVE_TRIPLES: negative_triples,
            col.KEY: np.array([seeding.digest64(row[col.SAMPLE_KEY]) for row in rows], np.int64),
            col.ENTRY: np.array([row[col.ENTRY] for row in rows], np.int64),
            col.INDEX: np.array([row[col.INDEX] for row in rows], np.int64),
            col.STATUS: np.array([row[col.STATUS] for row in rows], np.int8),
            col.ORIGIN: np.array([row[col.ORIGIN] for row in rows], np.int64),
            col.SAMPLE_KEY: np.array([row[col.SAMPLE_KEY] for row in rows], object),
            col.REASON: np.array([row[col.REASON] or "" for row in rows], object),
        }

    def _crop(self, row: dict[str, Any]) -> NDArray[Any]:
        if row[col.STATUS] == col.SAMPLE:
            rng = self._generator("crop", row)
            try:
                return random_crop(row[col.JPEG], self._image_size, self._config.data.crop_scale, rng)
            except ImageError as error:
                row[col.STATUS], row[col.REASON] = col.REJECTED, str(error)
        return np.zeros((3, self._image_size, self._image_size), np.uint8)

    def _parse(self, captions: Sequence[str]) -> list[SceneGraph]:
        new = sorted({caption for caption in captions if caption not in self._graphs})
        if len(self._graphs) + len(new) > _PARSED_CAPTIONS:
            self._graphs.clear()
            new = sorted(set(captions))
        self._graphs.update(zip(new, self._parser.parse(new), strict=True))
        return [self._graphs[caption] for caption in captions]

    def _negative(self, row: dict[str, Any], graph: SceneGraph) -> negatives.Negative | None:
        if row[col.STATUS] != col.SAMPLE or not self._config.loss.negatives:
            return None
        epoch = self._schedule.epoch(row[col.ENTRY])
        found = negatives.candidates(graph)
        return negatives.draw(found, seed=self._config.run.seed, epoch=epoch, key=row[col.SAMPLE_KEY])

    def _generator(self, purpose: str, row: dict[str, Any]) -> Any:
        epoch = self._schedule.epoch(row[col.ENTRY])
        return seeding.generator(purpose, self._config.run.seed, epoch, row[col.SAMPLE_KEY])
