"""Names of the columns that flow from the readers through the encoders to the training workers.

In the shapes, L is the number of tokens of a text, M the number of negative slots of a caption, and K the number of
triples of a caption. A triple has 3 phrases (head, relation, tail) of T tokens each.
"""

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
"""str: a `sclip.data.side_channel.Note` as JSON on the last row of each encoder call; empty on the other rows."""
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
