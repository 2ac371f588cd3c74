"""Names of the columns that flow from the readers through the encoders to the training workers."""

# From the readers to the encoders: a row for every sample, for what is no sample, and for the end of a shard.

ENTRY = "entry"
"""int64: entry of the schedule, that is one visit of one shard."""
PLACE = "place"
"""int64: place of the row in the order of the run (`sclip.data.order`).

An END row has that of its visit's last row, and comes before it.
"""
INDEX = "index"
"""int64: place of the sample in its shard."""
PASS = "pass"
"""int64: which time its source is gone through, from 0; with seed and identity it says what is drawn."""
STATUS = "status"
"""int8: SAMPLE, REJECTED, FILTERED or END."""
SAMPLE_KEY = "sample_key"
"""str: the shard's key of the sample."""
IDENTITY = "identity"
"""str: what the sample is known by, its shard's name and its key; null for the end of a shard."""
REASON = "reason"
"""str: why a REJECTED sample cannot be trained on."""
JPEG = "jpeg"
"""bytes: the encoded image."""
CAPTION = "caption"
"""str: the caption drawn for this visit."""
RECORD = "record"
"""bytes: that caption's record in the annotation of the sample; null where it has none."""
FOREIGN = "foreign"
"""bytes: what came with that caption (`sclip.data.foreign`); null where nothing did."""
READ_S = "read_s"
"""float64: seconds that the reader worked for this row and those after it, on the first of them."""
BLOCKED_S = "blocked_s"
"""float64: seconds that it then could not go on, there being room for no more."""
READ_AT = "read_at"
"""float64: when the row was read, in seconds since 1970."""

SAMPLE, REJECTED, END, FILTERED = 0, 1, 2, 3

# From the encoders to the workers: ENTRY, PLACE, INDEX and these.

NOTE = "note"
"""str: JSON of `sclip.data.side_channel` on one row of each encoder call, empty on the others."""
IMAGE = "image"
"""uint8 [3, H, W]."""
TEXT = "text"
"""int32 [L]: token ids of the caption."""
NEGATIVE_TEXT = "negative_text"
"""int32 [M, L]: token ids of the negatives; zeros where there is none."""
HAS_NEGATIVE = "has_negative"
"""bool [M]: the negatives come first, then what only fills up to M."""
TRIPLES = "triples"
"""int32 [K, 3, T]: token ids of the caption's triples, -1 where there are none."""
NEGATIVE_TRIPLES = "negative_triples"
"""int32 [M, K, 3, T]."""
UNIT_TEXT = "unit_text"
"""int32 [2, L]: token ids of a part of the caption and of its foil; zeros where there is none."""
UNIT_TRIPLES = "unit_triples"
"""int32 [2, K, 3, T]."""
HAS_UNIT = "has_unit"
"""bool."""
POSITIVE_TEXT = "positive_text"
"""int32 [1, L]: token ids of another wording of the caption; zeros where there is none."""
POSITIVE_TRIPLES = "positive_triples"
"""int32 [1, K, 3, T]: of its own graph."""
HAS_POSITIVE = "has_positive"
"""bool."""
IMAGE_DIGEST = "image_digest"
"""int64: digest of the encoded image; rows of the same image are no negatives of each other."""
VALID = "valid"
"""bool: False for rows that only fill a batch."""

MODEL_COLUMNS = (IMAGE, TEXT, NEGATIVE_TEXT, HAS_NEGATIVE, TRIPLES, NEGATIVE_TRIPLES, IMAGE_DIGEST)
"""Columns of a training batch; `valid` joins them when the batch is filled up."""
UNIT_COLUMNS = (UNIT_TEXT, UNIT_TRIPLES, HAS_UNIT)
"""They join them with loss.units."""
POSITIVE_COLUMNS = (POSITIVE_TEXT, POSITIVE_TRIPLES, HAS_POSITIVE)
"""They join them with loss.positives."""
NO_SAMPLE = -1
"""PLACE of the row that an encoder call without a sample sends along, to carry its note."""
