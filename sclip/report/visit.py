"""Show what a training step saw of one sample: in the terminal, and as a page with its images."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.text import Text

from sclip.negatives import Negative
from sclip.report.cards import card
from sclip.report.page import render
from sclip.report.terminal import console, show
from sclip.report.texts import MOST_CHARACTERS, shortened
from sclip.scenegraph import SceneGraph

__all__ = [
    "CaptionChoice",
    "Encoded",
    "EncodedPicture",
    "SampleVisit",
    "Seen",
    "Slot",
    "Token",
    "show_visit",
    "write_page",
]


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a text."""

    id: int
    text: str
    role: str = ""
    """"start", "end", "padding" (after the end; the tower ignores it), or "" for a piece of a word."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A caption, negative, unit or positive as the text tower and the knowledge encoder receive it."""

    tokens: list[Token]
    triples: list[list[list[Token]]]
    """Tokens of head, relation and tail of each triple, without padding."""
    graph_triples: int
    """Number of triples in the graph; the encoder takes at most model.kee.triples."""

    @property
    def words(self) -> list[Token]:
        """All tokens except padding."""
        return [token for token in self.tokens if token.role != "padding"]

    @property
    def padding(self) -> int:
        """Number of padding tokens."""
        return len(self.tokens) - len(self.words)

    @property
    def triples_left_out(self) -> int:
        """Number of the graph's triples that the encoder does not take."""
        return self.graph_triples - len(self.triples)


@dataclass(frozen=True, slots=True)
class Slot:
    """One of the loss.negatives_per_caption slots of a caption, filled or not."""

    negative: Negative | None
    has_negative: bool
    """Value of the batch's mask `has_negative`: whether the loss counts the slot."""
    encoded: Encoded


@dataclass(frozen=True, slots=True)
class CaptionChoice:
    """One of the sample's captions; each epoch draws one of these."""

    caption: str
    drawn: bool
    note: str
    """Sizes of the caption's graph, and whether the caption filter drops the caption; empty without a filter."""


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """Content of an image file, and the caption that the page shows."""

    content: bytes
    media_type: str
    """"image/png" or "image/jpeg"."""
    caption: str

    @property
    def uri(self) -> str:
        """The image as a data URI."""
        return f"data:{self.media_type};base64,{base64.b64encode(self.content).decode()}"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a training step receives of a sample."""

    graph: SceneGraph
    origin: str
    """Source of the graph, in words, such as "parsed"."""
    encoded: Encoded
    slots: list[Slot]
    crop: EncodedPicture
    units: list[tuple[str, Encoded]] = field(default_factory=list)
    """A part of the caption, and this part made false (loss.units), each with a heading; empty if there is none."""
    positives: list[tuple[str, Encoded]] = field(default_factory=list)
    """The caption in other words (loss.positives), with a heading; empty if there is no other wording."""

    @property
    def negatives(self) -> list[Negative]:
        """Negatives that were drawn."""
        return [slot.negative for slot in self.slots if slot.negative]

    @property
    def texts(self) -> list[tuple[str, Encoded, bool]]:
        """(name, encoding, mask) of each text: the caption, negatives, units and positives."""
        further = [(name, encoded, True) for name, encoded in (*self.units, *self.positives)]
        return [("caption", self.encoded, True), *map(_row, self.slots), *further]


@dataclass(frozen=True, slots=True)
class SampleVisit:
    """One sample in one epoch."""

    key: str
    facts: list[tuple[str, str]]
    """Names and values that say where the sample lies in its shard, and how it was drawn."""
    notes: list[str]
    picture: EncodedPicture | None
    """The whole image, no larger than a screen; None if it cannot be read."""
    choices: list[CaptionChoice]
    seen: Seen | None
    left_out: str = ""
    """Reason why training leaves the sample out; empty if training uses it."""


def write_page(visit: SampleVisit, path: Path) -> None:
    """Write the page. Raises OSError if it cannot be written."""
    seen = visit.seen
    texts = seen.texts if seen else []
    drawn = card(f"graph {seen.origin}", seen.graph, seen.negatives) if seen else None
    html = render("visit.html", title=f"Sample {shortened(visit.key, 80)}", notes=visit.notes, visit=visit,
                  card=drawn, texts=texts)  # fmt: skip
    path.write_text(html, encoding="utf-8")


def _row(slot: Slot) -> tuple[str, Encoded, bool]:
    name = f"{slot.negative.kind} negative" if slot.negative else "no negative"
    return name, slot.encoded, slot.has_negative


def show_visit(visit: SampleVisit, out: Console | None = None) -> None:
    """Print the visit as text. Images are not printed: `write_page` shows them."""
    out = out or console()
    for name, value in [("key", visit.key), *visit.facts]:
        out.print(Text.assemble((f"{name:<9} ", "dim"), shortened(value, MOST_CHARACTERS)), soft_wrap=True)
    for note in visit.notes:
        out.print(Text(f"note      {note}", "yellow"), soft_wrap=True)
    out.print()
    for choice in visit.choices:
        sign = "▸ " if choice.drawn else "  "
        line = Text(sign + shortened(choice.caption, MOST_CHARACTERS), "bold" if choice.drawn else "dim")
        out.print(line + Text(f"  ({choice.note})" if choice.note else "", "dim"), soft_wrap=True)
    if visit.choices:
        out.print()
    if visit.seen is None:
        out.print(Text(f"not trained on: {visit.left_out}", "bold red"), soft_wrap=True)
        return
    show(visit.seen.graph, visit.seen.negatives, out)
    out.print(Text(f"graph     {visit.seen.origin}"), soft_wrap=True)
    out.print(Text(f"image     {visit.seen.crop.caption}"), soft_wrap=True)
    for name, encoded, is_present in visit.seen.texts:
        _tokens(name, encoded, is_present, out)


def _tokens(name: str, encoded: Encoded, is_present: bool, out: Console) -> None:
    mask = "" if is_present else ", has_negative=false: not computed"
    count = f"{len(encoded.words)} of {len(encoded.tokens)} tokens, {encoded.padding} padding"
    out.print(Text(f"{name}: {count}{mask}", "dim"), soft_wrap=True)
    if encoded.words:
        out.print(Text("  ") + _line(encoded.words), soft_wrap=True)
    for triple in encoded.triples:
        phrases = [_line(phrase) for phrase in triple]
        out.print(Text("  triple  ", "dim") + Text(" | ", "dim").join(phrases), soft_wrap=True)
    if encoded.triples_left_out:
        out.print(Text(f"  and {encoded.triples_left_out} more triples, left out", "dim"))


def _line(tokens: Sequence[Token]) -> Text:
    parts = [Text.assemble((f"{token.id} ", "dim"), shortened(token.text, 40)) for token in tokens]
    return Text("  ").join(parts)
