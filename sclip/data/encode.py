"""The CPU actor of the stream: encoded images and captions in, rows of a training batch out.

Parsing, drawing the negative, decoding and tokenising share one actor: they need the same rows and the same
kind of machine, so one pool balances itself, and nothing but the finished rows is copied between processes.
A row of an annotated shard brings its graph and negatives along, and gives the same columns without parsing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sclip import negatives, seeding
from sclip.config import Config
from sclip.data import columns as col
from sclip.data.annotation import AnnotationError, read_record
from sclip.data.foreign import NOTHING, Foreign
from sclip.data.images import ImageError, image_digest, random_crop
from sclip.data.side_channel import Marker, Note
from sclip.data.window import Window, window_of
from sclip.model import Tokenizer
from sclip.scenegraph import Parser, SceneGraph
from sclip.scenegraph.graph import Triple

_PARSED_CAPTIONS = 50_000
"""Scene graphs that an actor remembers (about 2 kB each): the next epoch's captions are often this one's."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a caption."""

    window: Window
    negatives: list[negatives.Negative] | None = None
    """Ours that are drawn from; None where they have yet to be found."""
    foreign: Foreign = NOTHING
    """What came with it."""

    @property
    def graph(self) -> SceneGraph:
        """The whole graph of the caption."""
        return self.window.graph


class Encoder:
    """Callable for `map_batches`; loads the tokenizer, and spaCy once a caption needs it, for the actor's life."""

    def __init__(self, config: Config, image_size: int) -> None:
        self._config = config
        self._image_size = image_size
        self._tokenizer = Tokenizer(config.model.name, config.model.kee)
        self._windows: dict[str, Window] = {}
        self._ended_at = time.perf_counter()

    def __call__(self, batch: pa.Table) -> dict[str, NDArray[Any]]:
        """Return the columns of `sclip.data.columns` for the samples of one reader table.

        Rejected images and end-of-shard rows become markers in the note of the last row. Without any sample there is
        one row, NO_SAMPLE, of black pixels and an empty caption.
        """
        note = Note()
        note.seconds["idle"] = time.perf_counter() - self._ended_at
        note.read_queued = sum(time.time() - at for at in batch[col.READ_AT].to_pylist() if at)
        rows, crops, digests = [], [], []
        with _timed(note, "decode"):
            for row in batch.to_pylist():
                for stage, column in (("read", col.READ_S), ("blocked", col.BLOCKED_S)):
                    note.seconds[stage] += row[column] or 0.0
                crop = self._crop(row) if row[col.STATUS] == col.SAMPLE else None
                if crop is None:
                    note.markers.append(_marker(row))
                else:
                    rows.append(row)
                    crops.append(crop)
                    digests.append(image_digest(row[col.JPEG]))
        note.samples = len(rows)
        # An END row comes before the row of its place.
        note.upto = batch[col.PLACE][-1].as_py() + (batch[col.STATUS][-1].as_py() != col.END)
        if not rows:
            rows = [{col.ENTRY: 0, col.PLACE: col.NO_SAMPLE, col.INDEX: 0, col.CAPTION: ""}]
            crops = [np.zeros((3, self._image_size, self._image_size), np.uint8)]
            digests = [image_digest(b"")]
        columns = {col.IMAGE: np.stack(crops), col.IMAGE_DIGEST: np.array(digests, np.int64)}
        columns |= self._texts(rows, note)
        for name in (col.ENTRY, col.PLACE, col.INDEX):
            columns[name] = np.array([row[name] for row in rows], np.int64)
        note.made_at = time.time()
        # On the last row: Ray may cut the rows of a call into several blocks, and where the note is, all of them are.
        columns[col.NOTE] = np.array([""] * (len(rows) - 1) + [note.to_json()], object)
        self._ended_at = time.perf_counter()
        return columns

    def _crop(self, row: dict[str, Any]) -> NDArray[Any] | None:
        try:
            rng = self._generator("crop", row)
            return random_crop(row[col.JPEG], self._image_size, self._config.data.crop_scale, rng)
        except ImageError as error:
            row[col.STATUS], row[col.REASON] = col.REJECTED, str(error)
            return None

    def _texts(self, rows: list[dict[str, Any]], note: Note) -> dict[str, NDArray[Any]]:
        captions = [row[col.CAPTION] for row in rows]
        with _timed(note, "parse"):
            known = self.known(rows)
        most = self._config.loss.negatives_per_caption
        with _timed(note, "draw"):
            drawn = self.drawn(rows, known)
        slots = [negative for of_row in drawn for negative in [*of_row, *[None] * (most - len(of_row))]]
        windows = [found.window for found in known]
        has_negative = np.array([negative is not None for negative in slots])
        with _timed(note, "tokenise"):
            negative_text = self._tokenizer.text([negative.caption if negative else "" for negative in slots])
            negative_text[~has_negative] = 0
            negative_triples = self._tokenizer.triples(
                [self._triples(windows[k // most], n) if n else [] for k, n in enumerate(slots)]
            )
            return {
                col.TEXT: self._tokenizer.text(captions),
                col.NEGATIVE_TEXT: negative_text.reshape(len(rows), most, -1),
                col.HAS_NEGATIVE: has_negative.reshape(len(rows), most),
                col.TRIPLES: self._tokenizer.triples([window.triples for window in windows]),
                col.NEGATIVE_TRIPLES: negative_triples.reshape(len(rows), most, *negative_triples.shape[1:]),
            }

    @functools.cached_property
    def _parser(self) -> Parser:
        return Parser(self._config.data.spacy_model)

    def known(self, rows: Sequence[dict[str, Any]]) -> list[Known]:
        """Return what is known of the captions of the rows, from their records where they have one that is sound."""
        captions = [row[col.CAPTION] for row in rows]
        foreign = [Foreign.from_bytes(row.get(col.FOREIGN)) for row in rows]
        given = [
            self._given(row.get(col.RECORD), caption, of) if caption else None
            for row, caption, of in zip(rows, captions, foreign, strict=True)
        ]
        self._parse(caption for caption, found in zip(captions, given, strict=True) if found is None)
        return [
            found or Known(self._windows[caption], None, of)
            for caption, found, of in zip(captions, given, foreign, strict=True)
        ]

    def _parse(self, captions: Iterable[str]) -> None:
        wanted = set(captions)
        if len(self._windows) + len(wanted - self._windows.keys()) > _PARSED_CAPTIONS:
            self._windows.clear()
        self._windows[""] = self._window(SceneGraph(""))  # of rows without a sample: no reason to load spaCy
        if new := sorted(wanted - self._windows.keys()):
            self._windows.update(zip(new, map(self._window, self._parser.parse(new)), strict=True))

    def _window(self, graph: SceneGraph) -> Window:
        return window_of(graph, self._tokenizer)

    def _given(self, record: bytes | None, caption: str, foreign: Foreign) -> Known | None:
        """Return what is known without parsing, from the record of a caption or the graph that came with it.

        None where neither can be used, and the caption is parsed. The negatives of a record are of its own graph alone.
        """
        graph = SceneGraph.from_json(foreign.graph) if foreign.graph else None
        with contextlib.suppress(AnnotationError):
            if record:
                of_record, found = read_record(record, caption)
                if graph is None or graph == of_record:
                    return Known(self._window(of_record), found, foreign)
        return Known(self._window(graph), None, foreign) if graph else None

    def _triples(self, window: Window, negative: negatives.Negative) -> list[Triple]:
        """Return the triples that are taken of a negative, whose graph is aligned to its caption's if it is ours."""
        is_foreign = negative.kind == "foreign"
        return self._window(negative.graph).triples if is_foreign else window.triples_of(negative.graph)

    def drawn(self, rows: Sequence[dict[str, Any]], known: Sequence[Known]) -> list[list[negatives.Negative]]:
        """Return the negatives of the rows' captions that are trained on, at most loss.negatives_per_caption each.

        Ours of a caption that was parsed here are parsed again, and others drawn where they are not sound
        (data.verify_negatives).
        """
        most = self._config.loss.negatives_per_caption
        foreign = [self._foreign(row, found) for row, found in zip(rows, known, strict=True)]
        orders = [
            self._drawn(row, found) if len(first) < most and not alone else []
            for row, found, (first, _, alone) in zip(rows, known, foreign, strict=True)
        ]
        verify = self._config.loss.negatives != "shuffle" and self._config.data.verify_negatives
        unsure = [
            k for k, of in enumerate(known) if verify and of.negatives is None and of.foreign.graph is None
        ]
        kept = negatives.sound(
            [(known[k].graph, orders[k]) for k in unsure], lambda texts: self._parser.shapes(texts), most
        )
        for k, sound in zip(unsure, kept, strict=True):
            orders[k] = sound
        drawn = [
            list(itertools.islice(itertools.chain(first, ours, last), most))
            for ours, (first, last, _) in zip(orders, foreign, strict=True)
        ]
        unread = {n.caption for of in drawn for n in of if n.kind == "foreign" and not n.graph.objects}
        self._parse(unread)
        return [
            [
                dataclasses.replace(n, source=self._windows[n.caption].graph) if n.caption in unread else n
                for n in of
            ]
            for of in drawn
        ]

    def _foreign(
        self, row: dict[str, Any], known: Known
    ) -> tuple[list[negatives.Negative], list[negatives.Negative], bool]:
        """Return the foreign negatives of a visit that are drawn before ours, and after ours; and whether alone."""
        way, share, seed = self._config.loss.negatives, self._config.data.foreign_share, self._config.run.seed
        if way == "none" or row[col.PLACE] == col.NO_SAMPLE:
            return [], [], True
        window, visit = known.window, (seed, row[col.PASS])
        read = window.graph.caption[: window.end]
        found = [
            negatives.Negative(
                text,
                "foreign",
                ("", ""),
                0.0,
                True,
                SceneGraph.from_json(graph) if graph else SceneGraph(text),
            )
            for text, graph in known.foreign.negatives
            if window.end == len(window.graph.caption) or text[: self._tokenizer.read_end(text)] != read
        ]
        found.sort(
            key=lambda n: seeding.uniform("foreign negative", *visit, f"{row[col.IDENTITY]}\x1f{n.caption}")
        )
        is_first = seeding.uniform("foreign negatives first", *visit, row[col.IDENTITY]) < share
        alone = way == "foreign" or (bool(found) and share == 1)
        return (found, [], alone) if is_first or alone else ([], found, alone)

    def _drawn(self, row: dict[str, Any], known: Known) -> Iterable[negatives.Negative]:
        """Return our negatives of a caption in the order in which they are drawn."""
        loss, seed = self._config.loss, self._config.run.seed
        visit: dict[str, Any] = {"seed": seed, "epoch": row[col.PASS], "identity": row[col.IDENTITY]}
        most, window = loss.negatives_per_caption, known.window
        if loss.negatives == "shuffle":
            return negatives.shuffled(known.graph, most, **visit, window=window)
        visit["replacements"] = loss.replacements
        if known.negatives is None:
            return negatives.draw_of(known.graph, **visit, window=window)
        return negatives.draw_several(known.negatives, most, **visit, window=window)

    def _generator(self, purpose: str, row: dict[str, Any]) -> Any:
        return seeding.generator(purpose, self._config.run.seed, row[col.PASS], row[col.IDENTITY])


@contextmanager
def _timed(note: Note, stage: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    note.seconds[stage] += time.perf_counter() - started


def _marker(row: dict[str, Any]) -> Marker:
    return Marker(
        row[col.ENTRY], row[col.PLACE], row[col.INDEX], row[col.STATUS], row[col.SAMPLE_KEY], row[col.REASON] or ""
    )  # fmt: skip
