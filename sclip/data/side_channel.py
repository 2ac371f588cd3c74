"""What an encoder tells the training worker beside samples: marker rows and the seconds of each stage, as JSON.

A row of a training batch carries an image. What has none, because it is the end of a shard or a sample that cannot
be used, travels in the note of a row that has one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

STAGES = ("read", "blocked", "idle", "decode", "parse", "draw", "tokenise")
"""read: a reader works; blocked: it waits for room; idle: an encoder waits for rows; the others: it works."""


class Marker(NamedTuple):
    """A row that is no sample."""

    entry: int
    place: int
    tar_index: int
    """Of the END of a shard: the number of its rows."""
    status: int
    key: str
    reason: str
    """Of the END of a shard: its VisitEnd as JSON."""


@dataclass(frozen=True, slots=True)
class VisitEnd:
    """What a reader knows of a shard at its end."""

    missing: int = 0
    """Samples that are recorded of the shard and were not in it."""
    more: int = 0
    """Samples that were in it and are not recorded."""
    recorded: int = 0
    """Of the shard, where some are missing."""
    rest: str = ""
    """Why the rest of it cannot be read."""
    unread: dict[str, int] = field(default_factory=dict)
    """The reader's `Tally`."""
    cleaned: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return what there is to tell; nothing of a shard that was as recorded."""
        fields = {name: value for name, value in asdict(self).items() if value}
        return json.dumps(fields, sort_keys=True) if fields else ""

    @classmethod
    def from_json(cls, text: str) -> VisitEnd:
        """Return what `to_json` wrote."""
        return cls(**json.loads(text or "{}"))


@dataclass(slots=True)
class Note:
    """Notes of one or several encoder calls, added up."""

    markers: list[Marker] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    """Spent since the note before, by stage."""
    upto: int = 0
    """Of this reader's rows, all that stand before this place have come."""
    samples: int = 0
    """That `queued` and `read_queued` are sums over."""
    read_queued: float = 0.0
    """Seconds that the samples waited between a reader and an encoder."""
    made_at: float = 0.0
    """When the call ended, in seconds since 1970; of one call only."""

    def to_json(self) -> str:
        """Return the note of one call.

        Times have a fixed width: Ray cuts blocks by their size, and a call made again because its actor was lost
        must end in the same blocks.
        """
        times = [*(self.seconds[name] for name in STAGES), self.read_queued, self.made_at]
        return json.dumps([self.markers, self.upto, self.samples, [f"{value:+.15e}" for value in times]])


def read_notes(texts: Iterable[str]) -> list[Note]:
    """Return the notes in the column of a block."""
    notes = []
    for text in texts:
        if text:
            markers, upto, samples, times = json.loads(text)
            *seconds, read_queued, made_at = map(float, times)
            stage_seconds = dict(zip(STAGES, seconds, strict=True))
            notes.append(
                Note([Marker(*m) for m in markers], stage_seconds, upto, samples, read_queued, made_at)
            )
    return notes
