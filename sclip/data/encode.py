"""Turn encoded images and captions into rows of a training batch: `Encoder`, the CPU actor of the stream.

One actor decodes, parses, draws the negatives and tokenizes. These stages need the same rows and the same kind of
machine. One actor pool for all stages balances their load, and copies only finished rows between processes.
A row of an annotated shard carries its graph and negatives, and yields the same columns without parsing.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sclip import negatives, seeding
from sclip.config import Config
from sclip.data import columns as col
from sclip.data import foreign_draw
from sclip.data.annotation import AnnotationError, read_record
from sclip.data.columns import Marker, Note
from sclip.data.foreign import NOTHING, Foreign, ForeignText
from sclip.data.images import ImageError, image_digest, random_crop
from sclip.data.positives import positive_columns
from sclip.data.units import unit_columns
from sclip.data.window import Window, window_of
from sclip.model import Tokenizer, most_words
from sclip.scenegraph import Parser, SceneGraph
from sclip.scenegraph.graph import Triple

_PARSED_CAPTIONS = 50_000
"""Maximum number of scene graphs that an actor caches (2 kB each). Later epochs often draw the same captions."""


@dataclass(frozen=True, slots=True)
class Known:
    """Graph, negatives and foreign texts (supplied by the data set) of one caption."""

    window: Window
    negatives: list[negatives.Negative] | None = None
    """sclip's own negatives from the annotation, to draw from; None if the encoder must make them."""
    foreign: Foreign = NOTHING

    @property
    def graph(self) -> SceneGraph:
        """The whole graph of the caption, including the part beyond the model's limits."""
        return self.window.graph


class Encoder:
    """Callable for `map_batches`. Loads the tokenizer once per actor, and spaCy when a caption needs parsing."""

    def __init__(self, config: Config, image_size: int) -> None:
        self._config = config
        self._image_size = image_size
        self._tokenizer = Tokenizer(config.model)
        self._windows: dict[str, Window] = {}
        self._ended_at = time.perf_counter()

    def __call__(self, batch: pa.Table) -> dict[str, NDArray[Any]]:
        """Return the columns of `sclip.data.columns` for the samples of one reader table.

        All other rows become markers in a `Note`, which the last row of the result carries.
        If the table has no sample, the result is one dummy row (NO_SAMPLE).
        """
        note = Note()
        note.seconds["idle"] = time.perf_counter() - self._ended_at
        note.read_queued = sum(time.time() - read_at for read_at in batch[col.READ_AT].to_pylist() if read_at)
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
        # A final END row shares its place with the next row, which has not arrived yet.
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
        # The last row has the note, because Ray may split the rows into blocks: all rows must arrive before the note.
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
            if self._config.reads_graphs:
                known = self.known(rows)
            else:
                known = [Known(self._window(SceneGraph(caption))) for caption in captions]
        most = self._config.loss.negatives_per_caption
        with _timed(note, "draw"):
            drawn = self.drawn(rows, known)
            units = self.units(rows, known) if self._config.loss.units else []
            positives = self.positives(rows, known) if self._config.loss.positives else []
        slots = [negative for chosen in drawn for negative in [*chosen, *[None] * (most - len(chosen))]]
        windows = [known_caption.window for known_caption in known]
        note.cut = sum(window.end < len(window.graph.caption) for window in windows)
        has_negative = np.array([negative is not None for negative in slots])
        with _timed(note, "tokenise"):
            negative_text = self._tokenizer.text([negative.caption if negative else "" for negative in slots])
            negative_text[~has_negative] = 0
            negative_triples = self._tokenizer.triples(
                [self._triples(windows[k // most], n) if n else [] for k, n in enumerate(slots)]
            )
            columns = unit_columns(units, self._tokenizer) if units else {}
            if positives:
                graphs = [positive.graph if positive else None for positive in positives]
                columns |= positive_columns(graphs, self._tokenizer)
            return columns | {
                col.TEXT: self._tokenizer.text(captions),
                col.NEGATIVE_TEXT: negative_text.reshape(len(rows), most, -1),
                col.HAS_NEGATIVE: has_negative.reshape(len(rows), most),
                col.TRIPLES: self._tokenizer.triples([window.triples for window in windows]),
                col.NEGATIVE_TRIPLES: negative_triples.reshape(len(rows), most, *negative_triples.shape[1:]),
            }

    @functools.cached_property
    def _parser(self) -> Parser:
        return Parser(self._config.data.spacy_model, most_words(self._config.model))

    def known(self, rows: Sequence[dict[str, Any]]) -> list[Known]:
        """Return each row's graph, negatives and foreign texts. Parse captions that lack a usable record or graph."""
        captions = [row[col.CAPTION] for row in rows]
        foreign = [Foreign.from_bytes(row.get(col.FOREIGN)) for row in rows]
        ready = [
            self._known_caption(row.get(col.RECORD), caption, texts) if caption else None
            for row, caption, texts in zip(rows, captions, foreign, strict=True)
        ]
        self._parse(caption for caption, usable in zip(captions, ready, strict=True) if usable is None)
        return [
            usable or Known(self._windows[caption], None, texts)
            for caption, usable, texts in zip(captions, ready, foreign, strict=True)
        ]

    def _parse(self, captions: Iterable[str]) -> None:
        wanted = set(captions)
        if len(self._windows) + len(wanted - self._windows.keys()) > _PARSED_CAPTIONS:
            self._windows.clear()
        self._windows[""] = self._window(SceneGraph(""))  # for dummy rows, which must not load spaCy
        if new := sorted(wanted - self._windows.keys()):
            self._windows.update(zip(new, map(self._window, self._parser.parse(new)), strict=True))

    def _window(self, graph: SceneGraph) -> Window:
        return window_of(graph, self._tokenizer)

    def _known_caption(self, record: bytes | None, caption: str, foreign: Foreign) -> Known | None:
        """Return a caption's graph and negatives from its record or foreign graph; None if it must be parsed."""
        graph = SceneGraph.from_json(foreign.graph) if foreign.graph else None
        with contextlib.suppress(AnnotationError):
            if record:
                record_graph, stored = read_record(record, caption)
                if graph is None or graph == record_graph:
                    return Known(self._window(record_graph), stored, foreign)
        return Known(self._window(graph), None, foreign) if graph else None

    def _triples(self, window: Window, negative: negatives.Negative) -> list[Triple]:
        """Return a negative's triples. Triple k of a negative made by sclip corresponds to triple k of the caption."""
        is_foreign = negative.kind == "foreign"
        return self._window(negative.graph).triples if is_foreign else window.triples_of(negative.graph)

    def drawn(self, rows: Sequence[dict[str, Any]], known: Sequence[Known]) -> list[list[negatives.Negative]]:
        """Return the negatives to train on for each row, at most loss.negatives_per_caption each.

        With data.verify_negatives, sclip's negatives of captions without a stored graph go through
        `sclip.negatives.sound`, which drops those that fail its check. A row may then have fewer negatives.
        """
        most = self._config.loss.negatives_per_caption
        turns = [self._turn(row, caption) for row, caption in zip(rows, known, strict=True)]
        orders = [
            self._drawn(row, caption) if len(turn.first) < most and not turn.alone else []
            for row, caption, turn in zip(rows, known, turns, strict=True)
        ]
        verify = self._config.loss.negatives != "shuffle" and self._config.data.verify_negatives
        sound = self._sound(known, orders, most, verify)
        drawn = [
            list(itertools.islice(turn.with_ours(own), most)) for own, turn in zip(sound, turns, strict=True)
        ]
        self._parse(n.caption for choices in drawn for n in choices if _is_unread(n))
        return [
            [replace(n, source=self._windows[n.caption].graph) if _is_unread(n) else n for n in choices]
            for choices in drawn
        ]

    def _turn(self, row: dict[str, Any], known: Known) -> foreign_draw.Turn:
        if self._config.loss.negatives == "none" or row[col.PLACE] == col.NO_SAMPLE:
            return foreign_draw.Turn([], [], True)
        return foreign_draw.turn(
            known.foreign.negatives, known.window, self._tokenizer, self._config, row[col.PASS], row[col.IDENTITY]
        )  # fmt: skip

    def _sound(
        self, known: Sequence[Known], orders: Sequence[Iterable[negatives.Negative]], most: int, verify: bool
    ) -> list[list[negatives.Negative]]:
        """Return the first `most` negatives per caption. With `verify`, `sound` filters them if no graph was stored."""
        unsure = [
            k
            for k, caption in enumerate(known)
            if verify and caption.negatives is None and caption.foreign.graph is None
        ]
        kept = negatives.sound(
            [(known[k].graph, orders[k]) for k in unsure], lambda texts: self._parser.shapes(texts), most
        )
        sound = dict(zip(unsure, kept, strict=True))
        return [list(itertools.islice(sound.get(k, order), most)) for k, order in enumerate(orders)]

    def units(
        self, rows: Sequence[dict[str, Any]], known: Sequence[Known]
    ) -> list[negatives.UnitPair | None]:
        """Return for each row a part of its caption with a foil, a false variant of this part (loss.units), or None."""
        orders = []
        for row, caption in zip(rows, known, strict=True):
            drawn: Iterable[negatives.Negative] = []
            if row[col.PLACE] != col.NO_SAMPLE:
                visit = self._visit(row) | {"identity": f"{row[col.IDENTITY]}\x1funit"}
                drawn = self._semantic(caption, sys.maxsize, visit)
            orders.append(negatives.units_first(caption.graph, drawn))
        first = self._sound(known, orders, 1, self._config.data.verify_negatives)
        return [
            negatives.unit_of(caption.graph, negative[0]) if negative else None
            for caption, negative in zip(known, first, strict=True)
        ]

    def positives(
        self, rows: Sequence[dict[str, Any]], known: Sequence[Known]
    ) -> list[negatives.Positive | None]:
        """Return another wording of each row's caption (loss.positives), foreign or sclip's own; None without one."""
        foreign = [self._foreign_positive(row, caption) for row, caption in zip(rows, known, strict=True)]
        open_rows = [k for k, pair in enumerate(foreign) if pair is None or not pair[1]]
        wordings = negatives.draw_positives(
            [known[k].window for k in open_rows], [rows[k].get(col.IDENTITY) or "" for k in open_rows],
            lambda texts: self._parser.parse(texts), seed=self._config.run.seed,
            epochs=[rows[k].get(col.PASS) or 0 for k in open_rows],
        )  # fmt: skip
        drawn = dict(zip(open_rows, wordings, strict=True))
        foreign_texts = {
            k: pair[0] for k, pair in enumerate(foreign) if pair is not None and drawn.get(k) is None
        }
        self._parse(text.text for text in foreign_texts.values() if not text.graph)
        for k, text in foreign_texts.items():
            graph = foreign_draw.graph_of(text) or self._windows[text.text].graph
            drawn[k] = negatives.Positive(text.text, "foreign", graph)
        return [drawn[k] for k in range(len(rows))]

    def _foreign_positive(self, row: dict[str, Any], known: Known) -> tuple[ForeignText, bool] | None:
        """Return a row's foreign wording (from the data set), if any, and whether it is preferred to sclip's own."""
        if row[col.PLACE] == col.NO_SAMPLE or not known.foreign.positives:
            return None
        purpose, visit = "foreign positive", (row[col.PASS], row[col.IDENTITY])
        texts = foreign_draw.order(
            known.foreign.positives, known.window, self._tokenizer, purpose, self._config.run.seed, *visit
        )
        first = foreign_draw.is_first(self._config, purpose, *visit)
        return (texts[0], first) if texts else None

    def _drawn(self, row: dict[str, Any], known: Known) -> Iterable[negatives.Negative]:
        loss = self._config.loss
        visit, most = self._visit(row), loss.negatives_per_caption
        if loss.negatives == "shuffle":
            return negatives.shuffled(known.graph, most, **visit, window=known.window)
        return self._semantic(known, most, visit)

    def _visit(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"seed": self._config.run.seed, "epoch": row[col.PASS], "identity": row[col.IDENTITY]}

    def _semantic(self, known: Known, most: int, visit: dict[str, Any]) -> Iterable[negatives.Negative]:
        visit = visit | {"shares": self._config.loss.mixture.shares, "window": known.window}
        if known.negatives is None:
            return negatives.draw_of(known.graph, **visit)
        return negatives.draw_several(known.negatives, most, **visit)

    def _generator(self, purpose: str, row: dict[str, Any]) -> Any:
        return seeding.generator(purpose, self._config.run.seed, row[col.PASS], row[col.IDENTITY])


def _is_unread(negative: negatives.Negative) -> bool:
    """Return whether a negative comes from the data set and has no graph yet, so that its text must be parsed."""
    return negative.kind == "foreign" and not negative.graph.objects


@contextmanager
def _timed(note: Note, stage: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    note.seconds[stage] += time.perf_counter() - started


def _marker(row: dict[str, Any]) -> Marker:
    return Marker(
        row[col.ENTRY], row[col.PLACE], row[col.INDEX], row[col.STATUS], row[col.SAMPLE_KEY], row[col.REASON] or ""
    )  # fmt: skip
