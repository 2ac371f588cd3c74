"""Draw foreign texts (supplied by the data set) at one visit of a sample, before or after sclip's own (method, 9)."""

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
    """The foreign negatives (supplied by the data set) for one visit of a sample, in drawing order."""

    first: list[Negative]
    """Foreign negatives that are drawn before sclip's own."""
    last: list[Negative]
    """Foreign negatives that are drawn after sclip's own."""
    alone: bool
    """Whether the visit uses no negatives of sclip's own."""

    def with_ours(self, ours: Iterable[Negative]) -> Iterator[Negative]:
        """Yield foreign and sclip's own negatives in drawing order, each caption once."""
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
    """Return foreign texts in the drawing order of one visit of a sample.

    Texts that differ from the caption only beyond the text tower's context are left out.
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
    """Return whether one visit of a sample draws foreign texts before sclip's own (data.foreign_share)."""
    return uniform(f"{purpose} first", config.run.seed, epoch, identity) < config.data.foreign_share


def turn(
    texts: Sequence[ForeignText], window: Window, tokenizer: Tokenizer, config: Config, epoch: int, identity: str
) -> Turn:  # fmt: skip
    """Return the foreign negatives for one visit of a sample. A negative without a supplied graph has an empty one."""
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
