"""One sample as a step of a run sees it: the shard, the key and the epoch in, what was drawn and encoded out.

Every random choice follows from (seed, epoch, key) alone, so the sample goes once more through `row_of` of the reader
and through the `Encoder`, as in the run, and gives the same row. Nothing of either is done here.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from sclip.config import Config, ConfigError
from sclip.data import annotation
from sclip.data import columns as col
from sclip.data.annotation import AnnotationError
from sclip.data.encode import Encoder
from sclip.data.images import ImageError, thumbnail
from sclip.data.notes import read_notes
from sclip.data.reader import READ_SCHEMA, Reading, row_of
from sclip.data.records import read_record
from sclip.data.schedule import Schedule
from sclip.data.shards import Rejected, Sample, expand, read_shard
from sclip.model import Tokenizer, image_size
from sclip.prepare.annotate import usable_stamp
from sclip.report.visit import Choice, Encoded, Picture, Seen, Slot, Token, Visit
from sclip.storage.masking import is_masked, mask
from sclip.storage.place import place
from sclip.train.run_config import read_run_config

__all__ = ["InspectionError", "Run", "inspect_sample", "of_run"]

_SHOWN_PIXELS = 480
"""Longer side of the whole picture on the page."""


class InspectionError(ValueError):
    """What was asked for is not there; one line with what was found and what to do."""


@dataclass(frozen=True)
class Run:
    """How a run reads and encodes, and what it reads."""

    config: Config
    title: str = "a run of this config"
    sources: tuple[dict[str, int], ...] = ()
    """Samples of each shard of each source, where the run has begun."""


def of_run(name: str, storage: str) -> Run:
    """Return the run of a folder, or of a name in a storage folder. Raises ConfigError where there is none."""
    for folder in (place(name), place(storage) / "runs" / name):
        if (folder / "config.json").is_file():
            break
    else:
        raise ConfigError(f"--run {name}: neither the folder of a run nor the name of one in {folder.parent}")
    config, sources = read_run_config(folder)
    return Run(config, f"run {folder.name}", sources)


def inspect_sample(run: Run, shard: str, key: str, epoch: int) -> Visit:
    """Return what a step of the run is given of one sample in one epoch, or why it is given nothing.

    Args:
        run: whose config decides.
        shard: path or URI of one tar.
        key: of the sample in it; also of one that cannot be trained on.
        epoch: from 0; with data.weights, the pass of the shard's source.

    Raises InspectionError, ShardError, ConfigError, ParserError or ModelError, each with a message for the user.
    """
    config = run.config
    urls = expand([shard])
    if len(urls) > 1:
        raise InspectionError(f"{shard}: {len(urls)} shards, the first is {mask(urls[0])}; name one")
    read = [of for source in run.sources for of in source] or expand(config.data.shards)
    url = next((of for of in read if _same(of, urls[0])), urls[0])
    notes = [] if url in read or not read else ["the run does not read this shard; this is what it would see"]
    _check_epoch(run, url, epoch)
    # A record is without credentials, and opens nothing where there were some: then what was named here is read.
    recorded = read if read and not any(map(is_masked, read)) else urls
    reading = Reading(config, usable_stamp(config.data, recorded))
    item, more = _item(urls[0] if is_masked(url) else url, config.data.caption_field, key)
    notes += [f"sample {other.index} has the same key: {other.reason}" for other in more]
    row = row_of(item, reading, epoch)
    facts = [
        ("shard", mask(url)), ("sample", f"{item.index} in the order of the tar, from 0"),
        ("epoch", f"{epoch}, from 0"), ("drawn by", f"{run.title}, seed {config.run.seed}"),
    ]  # fmt: skip
    seen, reason = _seen(row, config, epoch)
    if isinstance(item, Rejected):
        return Visit(key, facts, notes, None, [], None, reason)
    return Visit(key, facts, notes, _picture(item.image), _choices(item, reading, row), seen, reason)


def _same(one: str, other: str) -> bool:
    """Tell whether two names mean one shard: without credentials, and local ones may lead there in other ways."""
    one, other = mask(one), mask(other)
    if one == other or os.path.basename(one) != os.path.basename(other):
        return one == other
    return "://" not in one + other and os.path.realpath(one) == os.path.realpath(other)


def _check_epoch(run: Run, url: str, epoch: int) -> None:
    """Raise InspectionError where the run does not read the shard in that epoch."""
    data, train = run.config.data, run.config.train
    source = next((number for number, of_source in enumerate(run.sources) if url in of_source), None)
    last: int | None = train.epochs - 1
    if source is not None:
        samples = [list(of_source.values()) for of_source in run.sources]
        schedule = Schedule.weighted(run.config.run.seed, train.epochs, samples, data.weights)
        last = _last_pass(schedule, source, list(run.sources[source]).index(url))
    elif data.weights:  # the passes of a source follow from the samples of all, which nobody has counted yet
        last = max(epoch, 0)
    if last is None or not 0 <= epoch <= last:
        when = "never" if last is None else f"in epochs 0 to {last}"
        raise InspectionError(
            f"epoch {epoch}: {run.title} reads {mask(url)} {when}, train.epochs={train.epochs}"
        )


def _last_pass(schedule: Schedule, source: int, shard: int) -> int | None:
    """Return the last pass in which a shard is read: of sources with weights the last pass need not be whole."""
    visits = (schedule.visit(entry) for entry in reversed(range(len(schedule))))
    return next((visit.pass_ for visit in visits if (visit.source, visit.shard) == (source, shard)), None)


def _item(url: str, caption_field: str, key: str) -> tuple[Sample | Rejected, list[Rejected]]:
    """Return the sample of a key, and those further on that have the same and are set aside for it."""
    found: list[Sample | Rejected] = []
    keys: list[str] = []
    for item in read_shard(url, caption_field):
        keys.append(item.key)
        if item.key == key:
            found.append(item)
    if not found:
        near = difflib.get_close_matches(key, keys, n=3) or keys[:3]
        told = f"{len(keys):,} samples, the nearest are {', '.join(near)}" if keys else "none at all"
        raise InspectionError(f"{mask(url)}: no sample {key!r}; it holds {told}")
    return found[0], [item for item in found[1:] if isinstance(item, Rejected)]


def _seen(row: dict[str, Any], config: Config, epoch: int) -> tuple[Seen | None, str]:
    """Return what the encoder makes of a reader's row; None and the reason where it is not trained on."""
    if row[col.STATUS] == col.REJECTED:
        return None, row[col.REASON]
    if row[col.STATUS] == col.FILTERED:
        least = [f"data.min_{name}={getattr(config.data, f'min_{name}')}" for name in _SIZES]
        return None, f"no caption of it passes the filter: {', '.join(least)}"
    row = row | {col.ENTRY: 0, col.ORDINAL: 0, col.PASS: epoch, col.ORIGIN: 0}
    encoder = Encoder(config, image_size(config.model.name))
    columns = encoder(pa.Table.from_pylist([row], schema=READ_SCHEMA))
    if columns[col.ORDINAL][0] == col.NO_SAMPLE:
        return None, read_notes(columns[col.NOTE])[0].markers[0].reason
    (known,) = encoder.known([row])
    drawn = encoder.drawn(row, known)
    kee = config.model.kee
    tokenizer = Tokenizer(config.model.name, kee)

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
    caption = encoded(col.TEXT, col.TRIPLES, len(known.graph.triples()))
    origin = "parsed" if known.negatives is None else "of the annotation of the shard"
    return Seen(known.graph, origin, caption, slots, _crop(columns[col.IMAGE][0])), ""


_SIZES = ("objects", "attributes", "relations")


def _choices(sample: Sample, reading: Reading, row: dict[str, Any]) -> list[Choice]:
    """Return the captions, the one that was drawn among them, with what the filter counts of each."""
    notes = [""] * len(sample.captions)
    least = reading.config.data.least
    if any(least):
        with contextlib.suppress(AnnotationError):  # for which the sample was rejected
            records = annotation.records(sample, reading.stamp)
            passing = annotation.passing(sample, records, least)
            for index, (record, caption) in enumerate(zip(records, sample.captions, strict=True)):
                graph, _ = read_record(record, caption)
                sizes = ", ".join(f"{len(getattr(graph, name))} {name}" for name in _SIZES)
                notes[index] = sizes if index in passing else f"{sizes}: left out"
    at = sample.captions.index(row[col.CAPTION]) if row.get(col.CAPTION) else -1
    return [Choice(text, n == at, notes[n]) for n, text in enumerate(sample.captions)]


def _tokens(ids: NDArray[Any], tokenizer: Tokenizer) -> list[Token]:
    """Return the tokens of one text [L]: its end has the largest id, which is where CLIP pools (`model.packing`)."""
    end = int(ids.argmax()) if ids.any() else -1
    words = tokenizer.words(ids.tolist())
    roles = ["start", *[""] * (end - 1), "end"] if end > 0 else []
    roles += ["padding"] * (len(ids) - len(roles))
    return [Token(*token) for token in zip(ids.tolist(), words, roles, strict=True)]


def _triples(ids: NDArray[Any], tokenizer: Tokenizer) -> list[list[list[Token]]]:
    """Return the tokens of each phrase of the triples [K, 3, T] that are there."""

    def phrase(of_phrase: Sequence[int]) -> list[Token]:
        kept = [i for i in of_phrase if i >= 0]
        return [Token(i, word) for i, word in zip(kept, tokenizer.words(kept), strict=True)]

    return [[phrase(part) for part in triple] for triple in ids.tolist() if np.max(triple) >= 0]


def _crop(pixels: NDArray[Any]) -> Picture:
    side = pixels.shape[1]
    return Picture(_encoded(Image.fromarray(pixels.transpose(1, 2, 0)), "PNG"), "image/png",
                   f"as trained on, {side} x {side} pixels")  # fmt: skip


def _picture(image: bytes) -> Picture | None:
    try:
        shown = thumbnail(image, _SHOWN_PIXELS)
    except ImageError:
        return None
    with Image.open(io.BytesIO(image)) as header:
        width, height = header.size
    return Picture(_encoded(shown, "JPEG"), "image/jpeg", f"in the shard, {width} x {height} pixels")


def _encoded(picture: Image.Image, format_: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, format_, quality=90)
    return file.getvalue()
