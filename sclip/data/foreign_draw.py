"""Draw what a visit trains on of that which came with its caption, and where it stands among ours (method, 9)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from sclip.config import Config
from sclip.data.foreign import ForeignText
from sclip.model import Tokenizer
from sclip.negatives import Negative
from sclip.scenegraph import SceneGraph
from sclip.scenegraph.window import Window
from sclip.seeding import uniform


class Turn(NamedTuple):
    """The foreign negatives of one visit, in the order in which they are drawn."""

    first: list[Negative]
    """Before ours."""
    last: list[Negative]
    """After ours."""
    alone: bool
    """Whether none of ours is drawn."""

    def with_ours(self, ours: Iterable[Negative]) -> Iterator[Negative]:
        """Yield all of them in the order in which they are drawn, no caption twice."""
        seen = set[str]()
        for negative in chain(self.first, ours, self.last):
            text = negative.caption.casefold()
            if text not in seen:
                seen.add(text)
                yield negative


def order(
    texts: Sequence[ForeignText], window: Window, tokenizer: Tokenizer, purpose: str, seed: int, epoch: int,
    identity: str,
) -> list[ForeignText]:  # fmt: skip
    """Return the texts of one visit in the order in which they are drawn.

    Those are left out that the text tower reads as it reads the caption.
    """
    caption = window.graph.caption
    read = caption[: window.end]
    told = [
        text
        for text in texts
        if window.end == len(caption) or text.text[: tokenizer.read_end(text.text)] != read
    ]
    return sorted(told, key=lambda text: uniform(purpose, seed, epoch, f"{identity}\x1f{text.text}"))


def is_first(config: Config, purpose: str, epoch: int, identity: str) -> bool:
    """Tell whether what came is drawn before ours in this visit (data.foreign_share)."""
    return uniform(f"{purpose} first", config.run.seed, epoch, identity) < config.data.foreign_share


def turn(
    texts: Sequence[ForeignText], window: Window, tokenizer: Tokenizer, config: Config, epoch: int, identity: str
) -> Turn:  # fmt: skip
    """Return the foreign negatives of a visit; the graph of one that came without is empty."""
    purpose = "foreign negative"
    ordered = order(texts, window, tokenizer, purpose, config.run.seed, epoch, identity)
    found = [
        Negative(of.text, "foreign", ("", ""), 0.0, True, graph_of(of) or SceneGraph(of.text))
        for of in ordered
    ]
    alone = config.loss.negatives == "foreign" or (bool(found) and config.data.foreign_share == 1)
    if alone or is_first(config, purpose, epoch, identity):
        return Turn(found, [], alone)
    return Turn([], found, alone)


def graph_of(text: ForeignText) -> SceneGraph | None:
    """Return the graph that came with a text, if one did."""
    return SceneGraph.from_json(text.graph) if text.graph else None
