"""Measure the time of each stage alone, in one process. Any stream needs at least the sum of these times."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from sclip import negatives, seeding
from sclip.benchmark.stream_cases import StreamCase
from sclip.data import columns as col
from sclip.data.images import random_crop
from sclip.data.reader import ReadSettings, row_of
from sclip.data.schedule import NamedShard
from sclip.data.shards import Rejected, Sample, read_shard
from sclip.data.window import window_of
from sclip.model import Tokenizer
from sclip.scenegraph import Parser

__all__ = ["alone"]


def alone(case: StreamCase) -> dict[str, float]:
    """Return the mean seconds that a sample of the plain shards spends in each stage."""
    config = case.config
    tokenizer, parser = Tokenizer(config.model), Parser(config.data.spacy_model)
    # Warm up: the first rows load libraries and fill caches. An encoder does this before its first batch.
    _seconds(case, islice(_items(case), case.block), parser, tokenizer)
    return _seconds(case, _items(case), parser, tokenizer)


def _items(case: StreamCase) -> Iterator[tuple[NamedShard, Sample | Rejected]]:
    return ((shard, item) for shard in case.named(annotated=False) for item in read_shard(shard.url))


def _seconds(
    case: StreamCase,
    items: Iterator[tuple[NamedShard, Sample | Rejected]],
    parser: Parser,
    tokenizer: Tokenizer,
) -> dict[str, float]:
    config, seed = case.config, case.config.run.seed
    seconds = dict.fromkeys(("read", "parse", "draw", "decode", "tokenise"), 0.0)
    samples = 0

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        seconds[stage] += time.perf_counter() - started

    while True:
        with timed("read"):
            rows = [row_of(item, shard, ReadSettings(config), 0) for shard, item in islice(items, case.block)]
        if not rows:
            return {stage: spent / samples for stage, spent in seconds.items()}
        samples += len(rows)
        captions = [row[col.CAPTION] for row in rows]
        with timed("parse"):
            windows = [window_of(graph, tokenizer) for graph in parser.parse(captions)]
        with timed("draw"):
            names = [row[col.IDENTITY] for row in rows]
            drawn = negatives.drawn_in_training(windows, names, parser.shapes, seed=seed)
        with timed("decode"):
            for row in rows:
                _crop(case, row)
        with timed("tokenise"):
            tokenizer.text(captions)
            tokenizer.text([negative.caption if negative else "" for negative in drawn])
            tokenizer.triples([window.triples for window in windows])
            tokenizer.triples(
                [
                    window.triples_of(negative.graph) if negative else []
                    for window, negative in zip(windows, drawn, strict=True)
                ]
            )


def _crop(case: StreamCase, row: dict[str, Any]) -> None:
    rng = seeding.generator("crop", case.config.run.seed, 0, row[col.IDENTITY])
    random_crop(row[col.JPEG], case.image_size, case.config.data.crop_scale, rng)
