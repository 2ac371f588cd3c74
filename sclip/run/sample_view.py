"""Turn a reader's row into what a page shows: pictures, tokens, negatives and captions."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from sclip.config import Config
from sclip.data import annotation
from sclip.data import columns as col
from sclip.data.annotation import AnnotationError, read_record
from sclip.data.columns import read_notes
from sclip.data.encode import Encoder
from sclip.data.images import ImageError, thumbnail
from sclip.data.reader import READ_SCHEMA, ReadSettings
from sclip.data.shards import Sample
from sclip.model import Tokenizer, image_size
from sclip.model.packing import text_lengths
from sclip.report.visit import CaptionChoice, Encoded, EncodedPicture, Seen, Slot, Token

__all__ = ["choices", "encoded_row", "picture"]

_SHOWN_PIXELS = 480
"""Longer side of the whole picture on the page, in pixels."""


def encoded_row(row: dict[str, Any], config: Config, epoch: int) -> tuple[Seen | None, str]:
    """Encode a reader's row. Return (encoded row, ""), or (None, the reason why the row is not trained on)."""
    if row[col.STATUS] == col.REJECTED:
        return None, row[col.REASON]
    if row[col.STATUS] == col.FILTERED:
        least = [f"data.min_{name}={getattr(config.data, f'min_{name}')}" for name in SIZES]
        return None, f"none of its captions passes the filter: {', '.join(least)}"
    row = row | {col.ENTRY: 0, col.PLACE: 0, col.PASS: epoch}
    encoder = Encoder(config, image_size(config.model.name))
    columns = encoder(pa.Table.from_pylist([row], schema=READ_SCHEMA))
    if columns[col.PLACE][0] == col.NO_SAMPLE:
        return None, read_notes(columns[col.NOTE])[0].markers[0].reason
    (known,) = encoder.known([row])
    (drawn,) = encoder.drawn([row], [known])
    tokenizer = Tokenizer(config.model)

    def encoded(text: str, triples: str, graph_triples: int, *slot: int) -> Encoded:
        return Encoded(
            _tokens(columns[text][0][slot], tokenizer),
            _triples(columns[triples][0][slot], tokenizer),
            graph_triples,
        )

    slots = []
    for number, has_negative in enumerate(columns[col.HAS_NEGATIVE][0]):
        negative = drawn[number] if number < len(drawn) else None
        count = len(negative.graph.triples()) if negative else 0
        text = encoded(col.NEGATIVE_TEXT, col.NEGATIVE_TRIPLES, count, number)
        slots.append(Slot(negative, bool(has_negative), text))
    units = []
    if col.HAS_UNIT in columns:
        (pair,) = encoder.units([row], [known])
        for number, (name, graph) in enumerate((("unit", pair.unit), ("foil", pair.foil)) if pair else ()):
            text = encoded(col.UNIT_TEXT, col.UNIT_TRIPLES, len(graph.triples()), number)
            units.append((f"{name}: {graph.caption}", text))
    positives = []
    if col.HAS_POSITIVE in columns:
        (positive,) = encoder.positives([row], [known])
        if positive:
            text = encoded(col.POSITIVE_TEXT, col.POSITIVE_TRIPLES, len(positive.graph.triples()), 0)
            positives.append((f"positive ({positive.kind}): {positive.caption}", text))
    caption = encoded(col.TEXT, col.TRIPLES, len(known.graph.triples()))
    origin = "parsed" if known.negatives is None else "from the annotation of the shard"
    origin = "that came with the caption" if known.foreign.graph else origin
    return Seen(known.graph, origin, caption, slots, _crop(columns[col.IMAGE][0]), units, positives), ""


SIZES = ("objects", "attributes", "relations")


def choices(sample: Sample, reading: ReadSettings, row: dict[str, Any]) -> list[CaptionChoice]:
    """Return all captions of a sample; mark the drawn one. If a filter is set, add the size of each caption's graph."""
    notes = [""] * len(sample.captions)
    least = reading.config.data.least
    if any(least):
        with contextlib.suppress(AnnotationError):  # such a sample is rejected: no notes
            records = annotation.read_stamped(sample, reading.stamp)
            passing = annotation.passing(sample, records, least)
            for index, (record, caption) in enumerate(zip(records, sample.captions, strict=True)):
                graph, _ = read_record(record, caption)
                sizes = ", ".join(f"{len(getattr(graph, name))} {name}" for name in SIZES)
                notes[index] = sizes if index in passing else f"{sizes}: left out"
    drawn_index = sample.captions.index(row[col.CAPTION]) if row.get(col.CAPTION) else -1
    return [CaptionChoice(text, n == drawn_index, notes[n]) for n, text in enumerate(sample.captions)]


def _tokens(ids: NDArray[Any], tokenizer: Tokenizer) -> list[Token]:
    """Return the tokens of one text of L token ids [L], with the roles of start, end and padding tokens."""
    length = int(text_lengths(ids))
    special = [index for index in range(length) if int(ids[index]) in tokenizer.special_ids]
    end = next((index for index in special if index or length == 1), length)
    roles = [""] * min(end + 1, length)
    for index, role in ((0, "start"), (end, "end")):
        if index in special:
            roles[index] = role
    roles += ["padding"] * (len(ids) - len(roles))
    words = tokenizer.words(ids.tolist())
    return [Token(*token) for token in zip(ids.tolist(), words, roles, strict=True)]


def _triples(ids: NDArray[Any], tokenizer: Tokenizer) -> list[list[list[Token]]]:
    """Return the tokens of each phrase; ids [K triples, 3 phrases, T tokens], where negative ids are padding."""

    def phrase(phrase_ids: Sequence[int]) -> list[Token]:
        kept = [i for i in phrase_ids if i >= 0]
        return [Token(i, word) for i, word in zip(kept, tokenizer.words(kept), strict=True)]

    return [[phrase(part) for part in triple] for triple in ids.tolist() if np.max(triple) >= 0]


def _crop(pixels: NDArray[Any]) -> EncodedPicture:
    side = pixels.shape[1]
    return EncodedPicture(_encoded(Image.fromarray(pixels.transpose(1, 2, 0)), "PNG"), "image/png",
                   f"as trained on, {side} x {side} pixels")  # fmt: skip


def picture(image: bytes) -> EncodedPicture | None:
    """Return the whole picture of a sample, reduced in size; None if it cannot be decoded."""
    try:
        shown = thumbnail(image, _SHOWN_PIXELS)
    except ImageError:
        return None
    with Image.open(io.BytesIO(image)) as header:
        width, height = header.size
    return EncodedPicture(_encoded(shown, "JPEG"), "image/jpeg", f"in the shard, {width} x {height} pixels")


def _encoded(picture: Image.Image, format_: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, format_, quality=90)
    return file.getvalue()
