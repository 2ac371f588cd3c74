"""Random crops are seeded, upright and decoded no larger than needed. Files that are no pictures are refused."""

import contextlib
import functools
import io
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from sclip.data.images import MIN_SIDE, ImageError, centre_crop, open_image, random_crop, thumbnail
from support.pictures import animated, encoded, noise


def test_a_crop_follows_from_its_seed_and_takes_nothing_from_the_global_generators() -> None:
    image = encoded(noise(40, 30))
    crop = functools.partial(random_crop, image, 16, (0.3, 0.9))
    before = random.getstate(), np.random.get_state()[1].tolist()
    first = crop(random.Random(1))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    assert first.shape == (3, 16, 16)
    assert first.dtype == np.uint8
    assert first.flags.c_contiguous
    np.testing.assert_array_equal(crop(random.Random(1)), first)
    assert len({crop(random.Random(seed)).tobytes() for seed in range(20)}) == 20


@pytest.mark.parametrize(("width", "height", "box"), [(12, 8, (2, 0, 10, 8)), (8, 14, (0, 3, 8, 11))])
def test_a_scale_of_one_is_the_centre_square_to_the_pixel(
    width: int, height: int, box: tuple[int, int, int, int]
) -> None:
    picture = noise(width, height)
    centre = np.asarray(picture.crop(box)).transpose(2, 0, 1)
    np.testing.assert_array_equal(random_crop(encoded(picture), 8, (1.0, 1.0), random.Random(3)), centre)
    np.testing.assert_array_equal(centre_crop(encoded(picture), 8), centre)


@settings(max_examples=40)
@given(st.integers(8, 60), st.integers(8, 60), st.integers(0, 99), st.floats(0.01, 1), st.floats(0, 1))
def test_pictures_of_every_shape_can_be_cropped(
    width: int, height: int, seed: int, low: float, more: float
) -> None:
    image = encoded(Image.new("RGB", (width, height), (10, 120, 240)))
    crop = random_crop(image, 8, (low, low + more * (1 - low)), random.Random(seed))
    np.testing.assert_array_equal(crop, np.broadcast_to(np.array([[[10]], [[120]], [[240]]]), (3, 8, 8)))


def photograph(width: int, height: int) -> Image.Image:
    """Return a grainy picture whose colour differs at every position."""
    across = Image.linear_gradient("L").rotate(90).resize((width, height))
    down = Image.linear_gradient("L").resize((width, height))
    grain = noise(width // 4 + 1, height // 4 + 1).convert("L").resize((width, height))
    grain = grain.point(lambda value: 96 + value // 4)
    return Image.merge("RGB", (across, down, grain))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Collect the sizes at which pictures are decoded during a test."""
    sizes = []
    crop = Image.Image.crop

    def recorded(picture: Image.Image, box: Any) -> Image.Image:
        sizes.append(picture.size)
        return crop(picture, box)

    monkeypatch.setattr(Image.Image, "crop", recorded)
    return sizes


@pytest.mark.parametrize(
    ("width", "height", "size", "low", "dims"),
    [
        (640, 480, 224, 0.9, {(320, 240)}),
        (640, 440, 224, 0.9, {(640, 440)}),  # no crop is twice 224 pixels high
        (1201, 1203, 128, 0.9, {(151, 151)}),
        (100, 90, 224, 0.9, {(100, 90)}),
        (800, 800, 64, 0.01, {(100, 100), (200, 200), (400, 400), (800, 800)}),
    ],
)
def test_a_jpeg_is_decoded_at_the_smallest_scale_that_has_enough_pixels_for_the_crop(
    decoded: list[tuple[int, int]], width: int, height: int, size: int, low: float, dims: set[tuple[int, int]]
) -> None:
    image = encoded(noise(width, height), "JPEG")
    for seed in range(30 if low < 0.9 else 5):
        random_crop(image, size, (low, 1.0), random.Random(seed))
    assert set(decoded) == dims


def test_a_photograph_is_decoded_small_and_stays_the_same_picture() -> None:
    image = encoded(photograph(1000, 750), "JPEG", quality=95)
    whole = encoded(Image.open(io.BytesIO(image)))  # a PNG, which has only one decoding scale
    for size in (32, 224):
        for low in (0.3, 1.0):
            small, exact = (
                random_crop(i, size, (low, 1.0), random.Random(1)).astype(int) for i in (image, whole)
            )
            assert np.abs(small - exact).mean() < 2


def test_a_crop_is_resized_like_pillow_resizes_it() -> None:
    picture = noise(300, 300).resize((300, 300), Image.Resampling.BICUBIC, box=(0, 0, 100, 100))
    expected = np.asarray(picture.resize((64, 64), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert np.abs(centre_crop(encoded(picture), 64).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_with_an_exif_orientation_is_cropped_and_shown_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = encoded(noise(48, 32).resize((480, 320)), exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(stored)))
    for seed in range(3):
        actual, expected = (
            random_crop(image, 24, (0.2, 0.8), random.Random(seed)).astype(int)
            for image in (stored, encoded(upright))
        )
        assert np.abs(actual - expected).mean() < 0.3  # resizing rows or columns first rounds differently
    upright.thumbnail((60, 60))
    shown = thumbnail(stored, 60)
    assert shown.size == upright.size == ((60, 40) if orientation < 5 else (40, 60))
    assert np.abs(np.asarray(shown).astype(int) - np.asarray(upright)).mean() < 1


def test_a_jpeg_with_an_exif_orientation_is_still_decoded_at_a_small_scale(
    decoded: list[tuple[int, int]],
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = encoded(photograph(1000, 750), "JPEG", exif=exif, quality=95)
    upright = encoded(ImageOps.exif_transpose(Image.open(io.BytesIO(image))))
    actual, expected = (
        random_crop(i, 64, (0.9, 1.0), random.Random(0)).astype(int) for i in (image, upright)
    )
    assert np.abs(actual - expected).mean() < 2
    assert decoded == [(125, 94), (750, 1000)]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_data_is_ignored() -> None:
    picture = noise(20, 16)
    for exif in (b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nonsense", b"\0", b"Exif\0\0MM\0*"):
        crop = centre_crop(encoded(picture, exif=exif), 8)
        np.testing.assert_array_equal(crop, centre_crop(encoded(picture), 8))


def deep(picture: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)


MODES: dict[str, Callable[[Image.Image], bytes]] = {
    "greyscale JPEG": lambda p: encoded(p.convert("L"), "JPEG"),
    "16-bit greyscale": lambda p: encoded(deep(p)),
    "16-bit greyscale TIFF": lambda p: encoded(deep(p), "TIFF"),
    "CMYK JPEG": lambda p: encoded(p.convert("CMYK"), "JPEG"),
    "GIF": lambda p: encoded(p.quantize(4), "GIF"),
    "JPEG in a TIFF": lambda p: encoded(p, "TIFF", compression="jpeg"),
    "progressive JPEG": lambda p: encoded(p, "JPEG", progressive=True),
    "two pictures in one, as phones make them": lambda p: encoded(
        p, "MPO", save_all=True, append_images=[Image.new("RGB", p.size)]
    ),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_kind_of_picture_becomes_rgb(mode: str) -> None:
    colour = (200, 60, 30)
    crop = centre_crop(MODES[mode](Image.new("RGB", (20, 16), colour)), 8)
    expected = (98, 98, 98) if "grey" in mode else colour
    assert crop.shape == (3, 8, 8)
    assert np.abs(crop.astype(int) - np.array(expected)[:, None, None]).max() <= 6


def halves(mode: str) -> bytes:
    """Return a picture: upper half red (white in one bit), lower half transparent (black in one bit)."""
    picture = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    picture.paste((255, 0, 0, 255), (0, 0, 16, 8))
    if mode.startswith("one bit"):
        return encoded(picture.convert("RGB").getchannel("R").convert("1"), mode[-3:])
    if mode == "colour that stands for none":
        return encoded(picture.convert("RGB"), transparency=(0, 0, 0))
    return encoded(picture if mode == "RGBA" else picture.quantize(4))


@pytest.mark.parametrize(
    "mode", ["RGBA", "palette", "colour that stands for none", "one bit PNG", "one bit BMP"]
)
def test_one_bit_pixels_become_black_or_white_and_transparent_pixels_white(mode: str) -> None:
    crop = centre_crop(halves(mode), 16)
    is_bit = mode.startswith("one bit")
    assert crop[:, 4, 4].tolist() == [255, 255 * is_bit, 255 * is_bit]
    assert crop[:, 12, 12].tolist() == [255 * (not is_bit)] * 3


def measured(kind: str) -> bytes:
    depth = np.linspace(0, 40_000, 256).reshape(16, 16).astype(kind)
    return encoded(Image.fromarray(depth), "TIFF")


TINY = "pixels, less than 8 on a side$"
REFUSED: list[tuple[bytes, str]] = [
    (animated("TIFF"), "^3 frames: it is unknown which one the caption describes$"),
    *((measured(kind), r"^TIFF of measurements \(mode [IF]\): it is unknown which value") for kind in ("f4", "i4")),
    *((encoded(noise(*size)), f"^{size[0]} x {size[1]} {TINY}") for size in ((1, 1), (7, 300), (300, 7))),
    *((image, r"^not a readable image: [^<>]+$") for image in (b"", b"\xff\xd8\xff\xe0", encoded(noise(8, 8))[:40])),
    (encoded(noise(16, 16), "PPM"), "^not a readable image: none of JPEG, PNG, WEBP, GIF, BMP, TIFF"),
]  # fmt: skip
"""Refused images, in addition to those of `support.defective_shards`."""


@pytest.mark.parametrize(("image", "reason"), REFUSED, ids=range(len(REFUSED)))
def test_an_image_unfit_for_training_is_refused_by_its_header(image: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        open_image(image)
    assert centre_crop(encoded(noise(MIN_SIDE, MIN_SIDE)), 16).shape == (3, 16, 16)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF"])
def test_a_truncated_picture_is_refused(format: str) -> None:
    image = encoded(noise(64, 48), format)
    for share in (0.2, 0.95):
        with pytest.raises(ImageError, match="not a readable image: "):
            centre_crop(image[: int(len(image) * share)], 8)


@settings(max_examples=80)
@given(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP"]), st.data())
def test_a_damaged_picture_gives_a_crop_or_an_image_error(format: str, data: st.DataObject) -> None:
    image = bytearray(encoded(noise(24, 20), format))
    for _ in range(data.draw(st.integers(1, 4))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ImageError):
        assert random_crop(bytes(image), 16, (0.5, 1.0), random.Random(0)).shape == (3, 16, 16)
