"""Define the columns that flow from the readers through the encoders to the training workers, and the notes in them.

In the shapes, L is the number of tokens of a text, M the number of negative slots of a caption, and K the number of
triples of a caption. A triple has 3 phrases (head, relation, tail) of T tokens each.

Every row of a training batch must carry an image, so ends of shards and unusable samples travel as markers in a note.
Notes also hold the seconds of each stage. They are JSON in the NOTE column of a real row.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

# From the readers to the encoders: one row for each sample, each rejected or filtered sample, and each end of a shard.

ENTRY = "entry"
"""int64: number of the visit in the schedule. A visit is one reading of one shard."""
PLACE = "place"
"""int64: position of the row in the order of the run (`sclip.data.order`).

An END row has the place of its shard's last row and comes directly before that row.
"""
INDEX = "index"
"""int64: index of the sample in its shard, from 0. An END row has the shard's number of rows."""
PASS = "pass"
"""int64: number of the pass over the source, from 0. Seed, pass and IDENTITY determine a sample's random draws."""
STATUS = "status"
"""int8: SAMPLE, REJECTED (unusable), FILTERED (excluded by the config) or END (of a shard)."""
SAMPLE_KEY = "sample_key"
"""str: the sample's key in its shard. On an END row, the shard's path or URI."""
IDENTITY = "identity"
"""str: identity of the sample: its shard's name and its key. Null on an END row."""
REASON = "reason"
"""str: why a REJECTED sample cannot be trained on. On an END row, a `VisitEnd` as JSON."""
JPEG = "jpeg"
"""bytes: the encoded image."""
CAPTION = "caption"
"""str: the caption drawn for this visit."""
RECORD = "record"
"""bytes: the caption's record from the sample's annotation; null if there is none."""
FOREIGN = "foreign"
"""bytes: texts and graph that the data set supplies with the caption (`sclip.data.foreign`); null if there are none."""
READ_S = "read_s"
"""float64: seconds that the reader worked for a table of rows; set on the table's first row, null on the others."""
BLOCKED_S = "blocked_s"
"""float64: seconds that a full output queue blocked the reader before this table; set like READ_S."""
READ_AT = "read_at"
"""float64: time at which the row was read, in seconds since 1970."""

SAMPLE, REJECTED, END, FILTERED = 0, 1, 2, 3

# From the encoders to the workers: ENTRY, PLACE, INDEX and the following columns.

NOTE = "note"
"""str: a `Note` as JSON on the last row of each encoder call; empty on the other rows."""
IMAGE = "image"
"""uint8 [3, H, W]: the crop."""
TEXT = "text"
"""int32 [L]: token ids of the caption."""
NEGATIVE_TEXT = "negative_text"
"""int32 [M, L]: token ids of the negatives; zeros in unused slots."""
HAS_NEGATIVE = "has_negative"
"""bool [M]: True for slots that hold a negative; these come before the unused slots."""
TRIPLES = "triples"
"""int32 [K, 3, T]: token ids of the caption's triples, padded with -1."""
NEGATIVE_TRIPLES = "negative_triples"
"""int32 [M, K, 3, T]: token ids of the negatives' triples, padded with -1."""
UNIT_TEXT = "unit_text"
"""int32 [2, L]: token ids of a part of the caption and of its foil (a false variant); zeros if there is no part."""
UNIT_TRIPLES = "unit_triples"
"""int32 [2, K, 3, T]: token ids of the triples of the caption's part and of its foil."""
HAS_UNIT = "has_unit"
"""bool: whether the caption has a part with a foil."""
POSITIVE_TEXT = "positive_text"
"""int32 [1, L]: token ids of another wording of the caption; zeros if there is none."""
POSITIVE_TRIPLES = "positive_triples"
"""int32 [1, K, 3, T]: token ids of the triples in the other wording's own graph."""
HAS_POSITIVE = "has_positive"
"""bool: whether the caption has another wording."""
IMAGE_DIGEST = "image_digest"
"""int64: digest of the encoded image. The loss never uses two rows with the same image as negatives of each other."""
VALID = "valid"
"""bool: False for padding rows of a batch."""

MODEL_COLUMNS = (IMAGE, TEXT, NEGATIVE_TEXT, HAS_NEGATIVE, TRIPLES, NEGATIVE_TRIPLES, IMAGE_DIGEST)
"""Columns of every training batch. The worker adds VALID."""
UNIT_COLUMNS = (UNIT_TEXT, UNIT_TRIPLES, HAS_UNIT)
"""Additional columns if loss.units is set."""
POSITIVE_COLUMNS = (POSITIVE_TEXT, POSITIVE_TRIPLES, HAS_POSITIVE)
"""Additional columns if loss.positives is set."""
NO_SAMPLE = -1
"""PLACE of the dummy row that carries the note of an encoder call without any sample."""

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
