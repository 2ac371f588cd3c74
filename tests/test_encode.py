"""From an encoded image and a caption to a row of a training batch: crops are seeded, bad images set aside."""

import functools
import io
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
from sclip.data.encode import Encoder
from sclip.data.images import ImageError, centre_crop, open_image, random_crop
from sclip.model.tokenizer import PADDING
from sclip.seeding import digest64

Columns = dict[str, NDArray[Any]]

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
        col.COUNT: None, col.SAMPLE_KEY: f"{index:04d}", col.REASON: None, col.RECORD: None,
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
    assert swappable[col.HAS_NEGATIVE].tolist() == [[True]]
    assert sorted(swappable[col.NEGATIVE_TEXT][0, 0]) == sorted(swappable[col.TEXT][0])  # its words, moved
    assert (swappable[col.NEGATIVE_TEXT][:, 0] != swappable[col.TEXT]).any()
    assert (swappable[col.NEGATIVE_TRIPLES][:, 0] != swappable[col.TRIPLES]).any()
    assert (swappable[col.TRIPLES] != PADDING).any()
    assert plain[col.HAS_NEGATIVE].tolist() == [[False]]
    assert not plain[col.NEGATIVE_TEXT].any()
    assert (plain[col.NEGATIVE_TRIPLES] == PADDING).all()


def test_there_is_no_negative_where_they_are_off(encoder: Encoder) -> None:
    rows = [sample_row(index) for index in range(6)]
    off, on = (
        encode(Encoder(config(loss=LossConfig(negatives="none")), SIDE, SHARDS), rows),
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


@pytest.mark.parametrize("way", ["semantic", "shuffle"])
def test_a_caption_has_as_many_different_negatives_as_are_asked_for_and_there_are(way: Any) -> None:
    few, many = (
        Encoder(config(loss=LossConfig(negatives=way, negatives_per_caption=count)), SIDE, SHARDS)
        for count in (1, 3)
    )
    rows = [sample_row(index) for index in range(6)]
    one, three = encode(few, rows), encode(many, rows)
    assert three[col.NEGATIVE_TEXT].shape == (6, 3, one[col.TEXT].shape[1])
    for name in (col.NEGATIVE_TEXT, col.NEGATIVE_TRIPLES, col.HAS_NEGATIVE):
        np.testing.assert_array_equal(three[name][:, :1], one[name])
    counts = three[col.HAS_NEGATIVE].sum(1)
    assert {0, 3} <= set(counts.tolist())
    for row, count in enumerate(counts):
        texts = three[col.NEGATIVE_TEXT][row]
        assert len({text.tobytes() for text in texts[:count]}) == count
        assert not texts[count:].any()
        assert (three[col.NEGATIVE_TRIPLES][row, count:] == PADDING).all()
