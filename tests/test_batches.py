"""From encoded images to batches: the order of shards, the crop, the encoder's rows, the worker's batches."""

import functools
import io
import json
import random
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from sclip.config import Config, DataConfig, KEEConfig, LossConfig, ModelConfig, TrainConfig
from sclip.data import columns as col
from sclip.data import images
from sclip.data.batches import Batch, Batches, StreamMismatch
from sclip.data.encode import Encoder
from sclip.data.images import ImageError, centre_crop, open_image, random_crop
from sclip.data.position import Position
from sclip.data.schedule import Schedule
from sclip.model.tokenizer import PADDING
from sclip.seeding import digest64

Columns = dict[str, NDArray[Any]]
Row = tuple[int, int, int]
"""Entry, index and status of a row."""

BLANK: Columns = {
    col.IMAGE: np.zeros((3, 2, 2), np.uint8),
    col.TEXT: np.array([7, 8, 0], np.int32), col.NEGATIVE_TEXT: np.array([7, 8, 0], np.int32),
    col.TRIPLES: np.full((1, 3, 2), -1, np.int32), col.NEGATIVE_TRIPLES: np.full((1, 3, 2), -1, np.int32),
    col.HAS_NEGATIVE: np.array(False), col.KEY: np.array(-1, np.int64),
}  # fmt: skip


def block(rows: Sequence[Row], origin: int = 0) -> Columns:
    """Return the columns of rows as the encoder gives them; every value of a row follows from its index."""
    indices = np.array([index for _, index, _ in rows], np.int64)

    def filled(name: str) -> NDArray[Any]:
        blank = BLANK[name]
        return np.stack([np.full_like(blank, index % 100 + 1) for index in indices])

    return {name: filled(name) for name in col.MODEL_COLUMNS} | {
        col.ENTRY: np.array([entry for entry, _, _ in rows], np.int64),
        col.INDEX: indices,
        col.STATUS: np.array([status for _, _, status in rows], np.int8),
        col.ORIGIN: np.full(len(rows), origin, np.int64),
        col.SAMPLE_KEY: np.array([f"key{index}" for index in indices], object),
        col.REASON: np.array(["not a picture" if s == col.REJECTED else "" for *_, s in rows], object),
    }


def samples(entry: int, count: int, first: int = 0) -> list[Row]:
    return [(entry, index, col.SAMPLE) for index in range(first, first + count)]


def drain(batches: Batches) -> list[Batch]:
    """Return the batches with samples, as the worker loop takes and records them."""
    found = []
    while (batch := batches.next()).rows:
        batches.trained(batch)
        found.append(batch)
    return found


# The schedule


@pytest.mark.parametrize("shards", [1, 2, 3, 16, 17, 4097])
def test_the_permutation_holds_at_the_edges_of_a_power_of_two(shards: int) -> None:
    schedule = Schedule(seed=5, epochs=2, shards=shards)
    assert sorted(map(schedule.shard, range(shards, 2 * shards))) == list(range(shards))


def test_the_order_stays_the_same_in_every_version() -> None:
    """A run that is resumed reads the entries that are left in the order that it was begun with."""
    schedule = Schedule(seed=0, epochs=2, shards=8)
    assert [schedule.shard(entry) for entry in range(len(schedule))] == [
        3, 6, 1, 0, 5, 4, 7, 2,
        4, 0, 3, 2, 5, 1, 6, 7,
    ]  # fmt: skip


# The crop


def encoded(picture: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.frombytes("RGB", (width, height), random.Random(seed).randbytes(width * height * 3))


def test_a_crop_follows_from_its_seed() -> None:
    image = encoded(noise(40, 30))
    crop = functools.partial(random_crop, image, 16, (0.3, 0.9))
    first = crop(random.Random(1))
    assert first.shape == (3, 16, 16)
    assert first.dtype == np.uint8
    assert first.flags.c_contiguous
    np.testing.assert_array_equal(crop(random.Random(1)), first)
    assert len({crop(random.Random(seed)).tobytes() for seed in range(20)}) == 20


def test_a_crop_takes_nothing_from_the_global_generators() -> None:
    image = encoded(noise(40, 30))
    random.seed(0)
    np.random.seed(0)
    before = random.getstate(), np.random.get_state()[1].tolist()
    random_crop(image, 16, (0.3, 0.9), random.Random(1))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


@pytest.mark.parametrize(("width", "height", "box"), [(12, 8, (2, 0, 10, 8)), (8, 14, (0, 3, 8, 11))])
def test_a_scale_of_one_is_the_centre_square_to_the_pixel(
    width: int, height: int, box: tuple[int, int, int, int]
) -> None:
    picture = noise(width, height)
    centre = np.asarray(picture.crop(box)).transpose(2, 0, 1)
    np.testing.assert_array_equal(random_crop(encoded(picture), 8, (1.0, 1.0), random.Random(3)), centre)
    np.testing.assert_array_equal(centre_crop(encoded(picture), 8), centre)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 99), st.floats(0.01, 1), st.floats(0, 1))
def test_pictures_of_every_shape_can_be_cropped(
    width: int, height: int, seed: int, low: float, more: float
) -> None:
    image = encoded(Image.new("RGB", (width, height), (10, 120, 240)))
    crop = random_crop(image, 8, (low, low + more * (1 - low)), random.Random(seed))
    np.testing.assert_array_equal(crop, np.broadcast_to(np.array([[[10]], [[120]], [[240]]]), (3, 8, 8)))


def test_a_photograph_is_decoded_small_and_stays_the_same_picture() -> None:
    gradient = Image.linear_gradient("L").resize((1200, 900))
    picture = Image.merge(
        "RGB",
        (gradient, gradient.rotate(180), gradient.transpose(Image.Transpose.ROTATE_90).resize((1200, 900))),
    )
    image = encoded(picture, "JPEG", quality=95)
    assert open_image(image, 64).size == (150, 113)
    small = centre_crop(image, 64).astype(int)
    whole = centre_crop(encoded(picture), 64).astype(int)
    assert np.abs(small - whole).max() <= 4


def test_a_small_crop_of_a_photograph_keeps_its_detail() -> None:
    """Stripes of 8 pixels show in a crop of 230 on 64; decoded small enough for the whole picture they do not."""
    stripes = np.zeros((1024, 1024, 3), np.uint8)
    stripes[:, (np.arange(1024) + 4) // 8 % 2 == 0] = 255
    picture = Image.fromarray(stripes)
    for image in (encoded(picture), encoded(picture, "JPEG", quality=95)):
        assert random_crop(image, 64, (0.05, 0.06), random.Random(1)).std() > 60


MODES: dict[str, Callable[[Image.Image], bytes]] = {
    "greyscale JPEG": lambda p: encoded(p.convert("L"), "JPEG"),
    "greyscale PNG": lambda p: encoded(p.convert("L")),
    "greyscale with transparency": lambda p: encoded(p.convert("LA")),
    "16-bit greyscale": lambda p: encoded(
        Image.fromarray(np.asarray(p.convert("L")).astype(np.uint16) * 257)
    ),
    "CMYK JPEG": lambda p: encoded(p.convert("CMYK"), "JPEG"),
    "RGBA": lambda p: encoded(p.convert("RGBA")),
    "RGBA WebP": lambda p: encoded(p.convert("RGBA"), "WEBP"),
    "palette": lambda p: encoded(p.quantize(4)),
    "GIF": lambda p: encoded(p.quantize(4), "GIF"),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_kind_of_picture_becomes_rgb(mode: str) -> None:
    colour = (200, 60, 30)
    crop = centre_crop(MODES[mode](Image.new("RGB", (20, 16), colour)), 8)
    expected = (98, 98, 98) if "grey" in mode else colour
    assert crop.shape == (3, 8, 8)
    assert np.abs(crop.astype(int) - np.array(expected)[:, None, None]).max() <= 6


@pytest.mark.parametrize("side", [9_000, 12_000, 60_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_huge_picture_is_refused_by_its_header(side: int) -> None:
    """There are no pixels behind this header: whoever decodes says so, and not how large it is."""
    image = bytearray(encoded(Image.new("L", (1, 1))))
    image[16:24] = side.to_bytes(4) * 2
    image[29:33] = zlib.crc32(bytes(image[12:29])).to_bytes(4)
    assert side**2 > images.MAX_PIXELS
    with pytest.raises(ImageError, match=rf"{side} x {side}|{side**2}"):
        open_image(bytes(image), 8)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.95])
def test_a_truncated_jpeg_is_refused(share: float) -> None:
    image = encoded(noise(64, 48), "JPEG")
    with pytest.raises(ImageError, match="not a readable image: "):
        open_image(image[: int(len(image) * share)], 8)


@pytest.mark.parametrize("image", [b"", b"no picture", b"\xff\xd8\xff\xe0", encoded(noise(8, 8))[:40]])
def test_bytes_that_are_no_picture_are_refused(image: bytes) -> None:
    with pytest.raises(ImageError, match="not a readable image: "):
        open_image(image, 8)


# The encoder

SIDE, SHARDS = 16, 2
CAPTIONS = [
    "a red square is left of a blue circle",
    "a man riding a brown horse",
    "a dog",
    "the cup is on the wooden table",
    "",
    "a white cat under a black chair next to a window",
]


def config(**sections: Any) -> Config:
    return Config(
        **{
            "model": ModelConfig(name="scenes-convnext", kee=KEEConfig(triples=3, phrase_tokens=2)),
            "data": DataConfig(crop_scale=(0.3, 0.9)),
            "train": TrainConfig(epochs=2),
        }
        | sections
    )


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(config(), SIDE, SHARDS)


def sample_row(index: int, entry: int = 0, **changes: Any) -> dict[str, Any]:
    """Return a row of a sample as the shard readers give it."""
    return {
        col.ENTRY: entry, col.INDEX: index, col.STATUS: col.SAMPLE, col.ORIGIN: 40,
        col.SAMPLE_KEY: f"{index:04d}", col.REASON: None,
        col.JPEG: encoded(noise(40, 30, seed=index), "JPEG"), col.CAPTION: CAPTIONS[index % len(CAPTIONS)],
    } | changes  # fmt: skip


def marker_row(index: int, status: int, reason: str | None = None) -> dict[str, Any]:
    """Return a row without a sample: the end of a shard, or what a reader set aside."""
    return sample_row(index) | {col.STATUS: status, col.REASON: reason, col.JPEG: None, col.CAPTION: None}


def encode(encoder: Encoder, rows: Sequence[dict[str, Any]]) -> Columns:
    return encoder(pa.Table.from_pylist(list(rows)))


def test_a_row_is_the_same_whatever_batch_it_comes_in(encoder: Encoder) -> None:
    rows = [sample_row(index, entry=index % 4) for index in range(6)]
    rows += [marker_row(6, col.REJECTED, "no caption"), marker_row(7, col.END)]
    whole = encode(encoder, rows)
    assert whole[col.IMAGE].shape == (8, 3, SIDE, SIDE)
    assert whole[col.TRIPLES].shape == (8, 3, 3, 2)
    order = [3, 7, 0, 5, 6, 1, 4, 2]
    shuffled = encode(encoder, [rows[index] for index in order])
    another = Encoder(config(), SIDE, SHARDS)  # as in another actor, which has seen nothing yet
    alone = [encode(another, [row]) for row in rows]
    assert whole.keys() == shuffled.keys()
    for name, values in whole.items():
        np.testing.assert_array_equal(values[order], shuffled[name], err_msg=name)
        np.testing.assert_array_equal(values, np.concatenate([one[name] for one in alone]), err_msg=name)


def test_another_epoch_is_another_crop_of_the_same_sample(encoder: Encoder) -> None:
    first, second, third = (encode(encoder, [sample_row(0, entry=entry)]) for entry in (0, 1, 2))
    np.testing.assert_array_equal(first[col.IMAGE], second[col.IMAGE])  # entries 0 and 1 are one epoch
    assert (first[col.IMAGE] != third[col.IMAGE]).any()
    np.testing.assert_array_equal(first[col.TEXT], third[col.TEXT])


def test_rows_carry_where_they_come_from_and_the_digest_of_their_key(encoder: Encoder) -> None:
    found = encode(encoder, [sample_row(index, entry=3) for index in range(3)])
    assert found[col.ENTRY].tolist() == [3, 3, 3]
    assert found[col.INDEX].tolist() == [0, 1, 2]
    assert found[col.ORIGIN].tolist() == [40, 40, 40]
    assert found[col.STATUS].tolist() == [col.SAMPLE] * 3
    assert found[col.KEY].tolist() == [digest64(f"{index:04d}") for index in range(3)]


def test_a_caption_has_its_triples_and_a_negative_where_there_is_one(encoder: Encoder) -> None:
    swappable, plain = encode(encoder, [sample_row(0)]), encode(encoder, [sample_row(2)])
    assert swappable[col.HAS_NEGATIVE].tolist() == [True]
    assert sorted(swappable[col.NEGATIVE_TEXT][0]) == sorted(swappable[col.TEXT][0])  # its words, moved
    assert (swappable[col.NEGATIVE_TEXT] != swappable[col.TEXT]).any()
    assert (swappable[col.NEGATIVE_TRIPLES] != swappable[col.TRIPLES]).any()
    assert (swappable[col.TRIPLES] != PADDING).any()
    assert plain[col.HAS_NEGATIVE].tolist() == [False]
    assert not plain[col.NEGATIVE_TEXT].any()
    assert (plain[col.NEGATIVE_TRIPLES] == PADDING).all()


def test_there_is_no_negative_where_they_are_off(encoder: Encoder) -> None:
    rows = [sample_row(index) for index in range(6)]
    off, on = (
        encode(Encoder(config(loss=LossConfig(negatives=False)), SIDE, SHARDS), rows),
        encode(encoder, rows),
    )
    assert on[col.HAS_NEGATIVE].any()
    assert not off[col.HAS_NEGATIVE].any()
    assert not off[col.NEGATIVE_TEXT].any()
    assert (off[col.NEGATIVE_TRIPLES] == PADDING).all()
    for name in (col.IMAGE, col.TEXT, col.TRIPLES, col.KEY):
        np.testing.assert_array_equal(off[name], on[name])


def test_a_broken_image_rejects_its_row_and_no_other(encoder: Encoder) -> None:
    rows = [sample_row(index) for index in range(3)]
    whole = encode(encoder, rows)
    found = encode(encoder, [rows[0], rows[1] | {col.JPEG: rows[1][col.JPEG][:200]}, rows[2]])
    assert found[col.STATUS].tolist() == [col.SAMPLE, col.REJECTED, col.SAMPLE]
    assert found[col.REASON][1].startswith("not a readable image: ")
    assert found[col.SAMPLE_KEY][1] == "0001"
    assert not found[col.IMAGE][1].any()
    assert not found[col.HAS_NEGATIVE][1]
    for name in (*col.MODEL_COLUMNS, col.REASON):
        np.testing.assert_array_equal(found[name][[0, 2]], whole[name][[0, 2]])


def test_the_end_of_a_shard_and_a_rejected_sample_pass_through(encoder: Encoder) -> None:
    found = encode(encoder, [marker_row(5, col.REJECTED, "no caption"), marker_row(9, col.END)])
    assert found[col.STATUS].tolist() == [col.REJECTED, col.END]
    assert found[col.INDEX].tolist() == [5, 9]
    assert found[col.REASON].tolist() == ["no caption", ""]
    assert not found[col.IMAGE].any()
    assert not found[col.HAS_NEGATIVE].any()
    assert (found[col.TRIPLES] == PADDING).all()


# The batches


def test_batches_have_one_shape_and_only_the_last_is_short() -> None:
    batches = Batches([block(samples(0, 3)), block(samples(0, 4, first=3))], 3, 0, BLANK)
    found = [batches.next() for _ in range(5)]
    assert [batch.rows for batch in found] == [3, 3, 1, 0, 0]
    assert [batch.indices.tolist() for batch in found] == [[0, 1, 2], [3, 4, 5], [6], [], []]
    for batch in found:
        assert batch.columns[col.VALID].tolist() == [at < batch.rows for at in range(3)]
        for name in col.MODEL_COLUMNS:
            assert batch.columns[name].shape == (3, *BLANK[name].shape)
            assert batch.columns[name].dtype == BLANK[name].dtype
            for at in range(3):
                is_sample = at < batch.rows
                expected = np.full_like(BLANK[name], batch.indices[at] + 1) if is_sample else BLANK[name]
                np.testing.assert_array_equal(batch.columns[name][at], expected, err_msg=name)


def test_a_worker_that_gets_nothing_has_empty_batches_of_the_same_shape() -> None:
    batch = Batches([], 4, 0, BLANK).next()
    assert batch.rows == 0
    assert len(batch.entries) == len(batch.indices) == 0
    assert not batch.columns[col.VALID].any()
    assert batch.columns[col.IMAGE].shape == (4, 3, 2, 2)
    assert batch.columns[col.KEY].tolist() == [-1] * 4


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.lists(st.integers(0, 9), max_size=12), st.integers(1, 7))
def test_every_sample_is_in_one_batch_in_order_however_the_blocks_are_cut(
    count: int, cuts: list[int], size: int
) -> None:
    rows, parts = samples(2, count), []
    for cut in cuts:
        parts.append(rows[:cut])
        rows = rows[cut:]
    blocks = [block(part) for part in [*parts, rows] if part]
    found = drain(Batches(blocks, size, 0, BLANK))
    assert [batch.rows for batch in found] == [size] * (count // size) + [count % size] * (count % size > 0)
    assert [index for batch in found for index in batch.indices.tolist()] == list(range(count))
    values = [v for batch in found for v in batch.columns[col.KEY][: batch.rows].tolist()]
    assert values == [index % 100 + 1 for index in range(count)]


def test_rejected_and_end_rows_go_into_the_record_and_not_into_batches() -> None:
    rows = [*samples(4, 2), (4, 2, col.REJECTED), *samples(4, 1, first=3), (4, 4, col.END)]
    batches = Batches([block(rows)], 8, 0, BLANK)
    batch = batches.next()
    assert batch.indices.tolist() == [0, 1, 3]
    record = batches.record
    assert record.done(4) == [range(2, 3)]  # what is rejected is done; what is not trained on yet is not
    batches.trained(batch)
    assert record.closed(4)
    assert batches.rejected == [{"entry": "4", "key": "key2", "reason": "not a picture"}]


def test_a_block_of_markers_only_gives_no_batch() -> None:
    batches = Batches([block([(0, 0, col.REJECTED), (0, 1, col.END)])], 2, 0, BLANK)
    assert batches.next().rows == 0
    assert batches.record.closed(0)


def test_the_records_of_two_workers_merge_to_a_closed_position() -> None:
    """The rows of a shard go to either worker, and its end to one of them."""
    rows = [*samples(0, 9), (0, 9, col.REJECTED), *samples(1, 5)]
    ends = [(0, 10, col.END), (1, 5, col.END)]
    workers = [
        Batches([block([*rows[::2], ends[0]])], 2, 0, BLANK),
        Batches([block([ends[1], *rows[1::2]])], 2, 0, BLANK),
    ]
    position = Position()
    for worker in workers:
        drain(worker)
        record, _ = worker.take_record()
        position.merge(Position.from_json(json.loads(json.dumps(record.to_json()))))
    assert position.to_json() == {"low": 2, "closed": [], "open": []}


def test_only_what_was_trained_on_is_recorded_and_each_row_in_one_record() -> None:
    batches = Batches([block([(0, 6, col.REJECTED), *samples(0, 6)])], 2, 0, BLANK)
    batches.trained(batches.next())
    batches.next()  # taken and never trained on, as where a worker dies in its step
    record, rejected = batches.take_record()
    assert record.done(0) == [range(0, 2), range(6, 7)]
    assert len(rejected) == 1
    batches.trained(batches.next())
    record, rejected = batches.take_record()
    assert record.done(0) == [range(4, 6)]
    assert rejected == []


def test_rows_of_another_checkpoint_are_refused() -> None:
    batches = Batches(
        [block(samples(0, 2), origin=20), block(samples(0, 2, first=2), origin=40)], 2, 20, BLANK
    )
    assert batches.next().rows == 2
    with pytest.raises(StreamMismatch, match=r"from step 40.* of step 20"):
        batches.next()
    with pytest.raises(StreamMismatch, match=r"from step 20.* of step 0"):
        Batches([block([(0, 1, col.END)], origin=20)], 2, 0, BLANK).next()
