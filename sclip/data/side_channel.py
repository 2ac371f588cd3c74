"""Notes from an encoder to the training worker, as JSON: marker rows and the seconds of each stage.

Every row of a training batch must carry an image, so ends of shards and samples that cannot be used travel as markers
in the `note` column of a real row.
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
    """Place of the sample in its shard; on an END marker, the number of rows in the shard."""
    status: int
    key: str
    reason: str
    """Why the sample is set aside; on an END marker, the shard's VisitEnd as JSON."""


@dataclass(frozen=True, slots=True)
class VisitEnd:
    """What a reader knows of a shard at its end."""

    missing: int = 0
    """Recorded samples that the shard does not hold."""
    more: int = 0
    """Samples in the shard beyond its recorded count."""
    recorded: int = 0
    """Recorded count of the shard; set only where samples are missing."""
    rest: str = ""
    """Why the rest of the shard cannot be read."""
    unread: dict[str, int] = field(default_factory=dict)
    """The reader's `Tally`."""
    cleaned: dict[str, int] = field(default_factory=dict)
    foreign: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the fields that are set, as JSON; an empty text where the shard is as recorded."""
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
    """All rows of this reader before this place have arrived."""
    samples: int = 0
    """Number of samples that `queued` and `read_queued` add up."""
    cut: int = 0
    """Of the samples' captions, those whose end the text tower does not read."""
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
        counts = [self.upto, self.samples, self.cut]
        return json.dumps([self.markers, counts, [f"{value:+.15e}" for value in times]])


def read_notes(texts: Iterable[str]) -> list[Note]:
    """Return the notes in the column of a block."""
    notes = []
    for text in texts:
        if text:
            markers, (upto, samples, cut), times = json.loads(text)
            *seconds, read_queued, made_at = map(float, times)
            stage_seconds = dict(zip(STAGES, seconds, strict=True))
            notes.append(
                Note([Marker(*m) for m in markers], stage_seconds, upto, samples, cut, read_queued, made_at)
            )
    return notes
