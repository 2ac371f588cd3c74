"""Define the notes that an encoder sends to the training worker as JSON: markers, and seconds per stage.

Every row of a training batch must carry an image, so ends of shards and unusable samples travel as markers in the
`note` column of a real row.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

STAGES = ("read", "blocked", "idle", "decode", "parse", "draw", "tokenise")
"""read: reader works; blocked: reader's output queue is full; idle: encoder waits for rows; others: encoder works."""


class Marker(NamedTuple):
    """A row that is not a sample: a rejected or filtered sample, or the end of a shard."""

    entry: int
    place: int
    tar_index: int
    """Index of the sample in its shard. An END marker has the shard's number of rows."""
    status: int
    key: str
    reason: str
    """Why the sample is rejected. An END marker has the shard's VisitEnd as JSON."""


@dataclass(frozen=True, slots=True)
class VisitEnd:
    """A reader's report on a shard that it has read to the end."""

    missing: int = 0
    """Number of samples that the shard should hold (`OpenedVisit.expected`) but lacks."""
    more: int = 0
    """Number of samples beyond the recorded count, for which the order of the run has no place."""
    recorded: int = 0
    """Number of samples that the shard should hold; 0 means that none is missing."""
    rest: str = ""
    """Why the rest of the shard cannot be read."""
    unread: dict[str, int] = field(default_factory=dict)
    """This and the next two fields copy the reader's `Tally` (`sclip.data.tar`)."""
    cleaned: dict[str, int] = field(default_factory=dict)
    foreign: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the fields that are set, as JSON; an empty string if none is."""
        fields = {name: value for name, value in asdict(self).items() if value}
        return json.dumps(fields, sort_keys=True) if fields else ""

    @classmethod
    def from_json(cls, text: str) -> VisitEnd:
        """Return the VisitEnd that `to_json` wrote."""
        return cls(**json.loads(text or "{}"))


@dataclass(slots=True)
class Note:
    """What one encoder call reports to the training worker."""

    markers: list[Marker] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    """Seconds since the previous note, by stage."""
    upto: int = 0
    """All rows of the stream with a lower place have arrived."""
    samples: int = 0
    cut: int = 0
    """Number of captions of which the text tower reads only the beginning."""
    read_queued: float = 0.0
    """Total seconds that the samples waited between a reader and an encoder."""
    made_at: float = 0.0
    """Time at which the encoder call ended, in seconds since 1970."""

    def to_json(self) -> str:
        """Return the note as JSON."""
        # Times have a fixed width: if Ray repeats a lost encoder call, it expects the same blocks, split by bytes.
        times = [*(self.seconds[name] for name in STAGES), self.read_queued, self.made_at]
        counts = [self.upto, self.samples, self.cut]
        return json.dumps([self.markers, counts, [f"{value:+.15e}" for value in times]])


def read_notes(texts: Iterable[str]) -> list[Note]:
    """Parse the notes in the `note` column of a block."""
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
