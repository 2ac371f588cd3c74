"""Draw the foreign texts (supplied by the data set) of a sample in one epoch, before or after sclip's own."""

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
    """A sample's negatives from the data set in one epoch: those drawn before sclip's own, and those drawn after."""

    first: list[Negative]
    last: list[Negative]
    alone: bool
    """Whether sclip's own negatives are left out."""

    def with_ours(self, ours: Iterable[Negative]) -> Iterator[Negative]:
        """Yield foreign and sclip's own negatives in drawing order, each text once."""
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
    """Return the foreign texts of a sample in the order in which one epoch draws them.

    Each `purpose` has an independent order. The text tower reads only the beginning of a long caption. A text with the
    same beginning as the caption is left out.
    """
    caption = window.graph.caption
    read = caption[: window.end]
    distinct = [
        text
        for text in texts
        if window.end == len(caption) or text.text[: tokenizer.read_end(text.text)] != read
    ]
    return sorted(distinct, key=lambda text: uniform(purpose, seed, epoch, f"{identity}\x1f{text.text}"))


def is_first(config: Config, purpose: str, epoch: int, identity: str) -> bool:
    """Return whether one epoch draws a sample's foreign texts before sclip's own (data.foreign_share)."""
    return uniform(f"{purpose} first", config.run.seed, epoch, identity) < config.data.foreign_share


def turn(
    texts: Sequence[ForeignText], window: Window, tokenizer: Tokenizer, config: Config, epoch: int, identity: str
) -> Turn:  # fmt: skip
    """Return the foreign negatives of a sample in one epoch. Texts without a graph get an empty one."""
    purpose = "foreign negative"
    ordered = order(texts, window, tokenizer, purpose, config.run.seed, epoch, identity)
    drawn = [
        Negative(text.text, "foreign", ("", ""), 0.0, True, graph_of(text) or SceneGraph(text.text))
        for text in ordered
    ]
    alone = config.loss.negatives == "foreign" or (bool(drawn) and config.data.foreign_share == 1)
    if alone or is_first(config, purpose, epoch, identity):
        return Turn(drawn, [], alone)
    return Turn([], drawn, alone)


def graph_of(text: ForeignText) -> SceneGraph | None:
    """Return the graph that the data set supplies with a text, if any."""
    return SceneGraph.from_json(text.graph) if text.graph else None
