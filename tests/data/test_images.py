"""From an encoded image to a crop: seeded, upright, decoded no larger than it must be; what is no picture set aside."""

import contextlib
import functools
import io
import random
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from sclip.data import images
from sclip.data.images import MIN_SIDE, ImageError, centre_crop, open_image, random_crop, thumbnail
from support.pictures import animated, encoded, huge, noise, swelling

# What a crop is


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


@settings(max_examples=60)
@given(st.integers(8, 60), st.integers(8, 60), st.integers(0, 99), st.floats(0.01, 1), st.floats(0, 1))
def test_pictures_of_every_shape_can_be_cropped(
    width: int, height: int, seed: int, low: float, more: float
) -> None:
    image = encoded(Image.new("RGB", (width, height), (10, 120, 240)))
    crop = random_crop(image, 8, (low, low + more * (1 - low)), random.Random(seed))
    np.testing.assert_array_equal(crop, np.broadcast_to(np.array([[[10]], [[120]], [[240]]]), (3, 8, 8)))


# At which scale a JPEG is decoded


def photograph(width: int, height: int) -> Image.Image:
    """Return a picture whose colours tell every place in it from every other, with some grain."""
    across = Image.linear_gradient("L").rotate(90).resize((width, height))
    down = Image.linear_gradient("L").resize((width, height))
    grain = noise(width // 4 + 1, height // 4 + 1).convert("L").resize((width, height))
    grain = grain.point(lambda value: 96 + value // 4)
    return Image.merge("RGB", (across, down, grain))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return the sizes at which pictures are decoded from now on."""
    sizes = []
    crop = Image.Image.crop

    def recorded(picture: Image.Image, box: Any) -> Image.Image:
        sizes.append(picture.size)
        return crop(picture, box)

    monkeypatch.setattr(Image.Image, "crop", recorded)
    return sizes


@pytest.mark.parametrize(
    ("width", "height", "size", "at"),
    [
        (640, 480, 224, (320, 240)),
        (640, 440, 224, (640, 440)),  # no crop of it has twice 224 pixels from top to bottom
        (480, 640, 64, (120, 160)),
        (1201, 1203, 128, (151, 151)),
        (100, 90, 224, (100, 90)),
    ],
)
def test_a_jpeg_is_decoded_at_the_smallest_scale_at_which_the_crop_has_the_pixels_wanted(
    decoded: list[tuple[int, int]], width: int, height: int, size: int, at: tuple[int, int]
) -> None:
    for seed in range(20):
        random_crop(encoded(noise(width, height), "JPEG"), size, (0.9, 1.0), random.Random(seed))
    assert set(decoded) == {at}


def test_the_scale_is_that_of_the_crop_and_not_of_the_picture(decoded: list[tuple[int, int]]) -> None:
    image = encoded(noise(800, 800), "JPEG")
    for seed in range(30):
        random_crop(image, 64, (0.01, 1.0), random.Random(seed))
    assert set(decoded) == {(100, 100), (200, 200), (400, 400), (800, 800)}


@pytest.mark.parametrize("size", [32, 64, 128, 224])
def test_a_photograph_is_decoded_small_and_stays_the_same_picture(size: int) -> None:
    image = encoded(photograph(1000, 750), "JPEG", quality=95)
    whole = encoded(Image.open(io.BytesIO(image)))  # a PNG, of which there is but one scale
    for seed in range(10):
        small, exact = (
            random_crop(i, size, (0.3, 1.0), random.Random(seed)).astype(int) for i in (image, whole)
        )
        assert np.abs(small - exact).mean() < 2
    assert np.abs(centre_crop(image, size).astype(int) - centre_crop(whole, size)).mean() < 2


def test_a_small_crop_of_a_photograph_keeps_its_detail() -> None:
    """Stripes of 8 pixels show in a crop of 230 on 64; decoded small enough for the whole picture they do not."""
    stripes = np.zeros((1024, 1024, 3), np.uint8)
    stripes[:, (np.arange(1024) + 4) // 8 % 2 == 0] = 255
    picture = Image.fromarray(stripes)
    for image in (encoded(picture), encoded(picture, "JPEG", quality=95)):
        assert random_crop(image, 64, (0.05, 0.06), random.Random(1)).std() > 60


def test_a_crop_is_resized_as_pillow_does() -> None:
    picture = noise(300, 300).resize((300, 300), Image.Resampling.BICUBIC, box=(0, 0, 100, 100))
    expected = np.asarray(picture.resize((64, 64), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert np.abs(centre_crop(encoded(picture), 64).astype(int) - expected).max() <= 1


# Which way is up


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_a_picture_that_a_camera_stored_turned_is_cropped_upright(format: str, orientation: int) -> None:
    picture = noise(48, 32).resize((480, 320))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = encoded(picture, format, exif=exif, **({"lossless": True} if format == "WEBP" else {}))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(stored)))
    for seed in range(5):
        found, expected = (
            random_crop(image, 24, (0.2, 0.8), random.Random(seed)).astype(int)
            for image in (stored, encoded(upright))
        )
        assert np.abs(found - expected).mean() < 0.3  # rows first or columns first round differently


def test_a_turned_jpeg_is_decoded_small_all_the_same(decoded: list[tuple[int, int]]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = encoded(photograph(1000, 750), "JPEG", exif=exif, quality=95)
    upright = encoded(ImageOps.exif_transpose(Image.open(io.BytesIO(image))))
    found, expected = (random_crop(i, 64, (0.9, 1.0), random.Random(0)).astype(int) for i in (image, upright))
    assert np.abs(found - expected).mean() < 2
    assert decoded == [(125, 94), (750, 1000)]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_thumbnail_is_the_whole_picture_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = encoded(photograph(300, 200), exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(stored)))
    upright.thumbnail((60, 60))
    shown = thumbnail(stored, 60)
    assert shown.size == upright.size == ((60, 40) if orientation < 5 else (40, 60))
    assert np.abs(np.asarray(shown).astype(int) - np.asarray(upright)).mean() < 1


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nonsense", b"\0", b"Exif\0\0MM\0*"]
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_data_leaves_a_picture_as_it_is_stored(exif: bytes) -> None:
    picture = noise(20, 16)
    np.testing.assert_array_equal(
        centre_crop(encoded(picture, exif=exif), 8), centre_crop(encoded(picture), 8)
    )


# What is trained on


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
    "BMP": lambda p: encoded(p, "BMP"),
    "palette BMP": lambda p: encoded(p.quantize(4), "BMP"),
    "16-bit greyscale TIFF": lambda p: encoded(
        Image.fromarray(np.asarray(p.convert("L")).astype(np.uint16) * 257), "TIFF"
    ),
    "palette TIFF": lambda p: encoded(p.quantize(4), "TIFF", compression="tiff_lzw"),
    "JPEG in a TIFF": lambda p: encoded(p, "TIFF", compression="jpeg"),
    "CMYK TIFF": lambda p: encoded(p.convert("CMYK"), "TIFF"),
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


@pytest.mark.parametrize("format", ["PNG", "GIF", "BMP", "TIFF"])
def test_one_bit_is_black_or_white(format: str) -> None:
    picture = Image.new("1", (16, 16), 0)
    picture.paste(1, (0, 0, 16, 8))
    crop = centre_crop(encoded(picture, format), 16)
    np.testing.assert_array_equal(crop[:, 4, 4], (255, 255, 255))
    np.testing.assert_array_equal(crop[:, 12, 12], (0, 0, 0))


def transparent(mode: str) -> bytes:
    """Return a picture whose upper half is red and whose lower half, black, does not show."""
    picture = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    picture.paste((255, 0, 0, 255), (0, 0, 16, 8))
    if mode == "colour that stands for none":
        return encoded(picture.convert("RGB"), transparency=(0, 0, 0))
    return encoded(picture if mode == "RGBA" else picture.quantize(4))


@pytest.mark.parametrize("mode", ["RGBA", "palette", "colour that stands for none"])
def test_what_is_transparent_is_white(mode: str) -> None:
    crop = centre_crop(transparent(mode), 16)
    np.testing.assert_array_equal(crop[:, 4, 4], (255, 0, 0))
    np.testing.assert_array_equal(crop[:, 12, 12], (255, 255, 255))


# What is set aside


@pytest.mark.parametrize("side", [9_000, 12_000, 60_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_huge_picture_is_refused_by_its_header(side: int) -> None:
    """There are no pixels behind this header: whoever decodes says so, and not how large it is."""
    assert side**2 > images.MAX_PIXELS
    with pytest.raises(ImageError, match=rf"({side} x {side}|{side**2}).*more than|more than.*{side**2}"):
        open_image(huge(side))


@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "iCCP"])
def test_a_text_or_profile_that_swells_is_refused_in_bounded_memory(kind: str) -> None:
    image = swelling(kind, 128 * 2**20)
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match="too large"):
            centre_crop(image, 8)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF", "TIFF"])
def test_an_animation_is_refused(format: str) -> None:
    with pytest.raises(ImageError, match=r"^3 frames: which one the caption means is not known$"):
        open_image(animated(format))


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_measurements_are_refused(kind: type) -> None:
    depth = np.linspace(0, 40_000, 256).reshape(16, 16).astype(kind)
    with pytest.raises(ImageError, match=r"^TIFF of measurements \(mode [IF]\): which value is white"):
        open_image(encoded(Image.fromarray(depth), "TIFF"))


@pytest.mark.parametrize(("width", "height"), [(1, 1), (MIN_SIDE - 1, 300), (300, MIN_SIDE - 1)])
def test_a_picture_that_can_show_nothing_is_refused(width: int, height: int) -> None:
    with pytest.raises(ImageError, match=f"{width} x {height} pixels, less than {MIN_SIDE}"):
        open_image(encoded(noise(width, height)))
    assert centre_crop(encoded(noise(MIN_SIDE, MIN_SIDE)), 16).shape == (3, 16, 16)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.95])
def test_a_truncated_picture_is_refused(format: str, share: float) -> None:
    image = encoded(noise(64, 48), format)
    with pytest.raises(ImageError, match="not a readable image: "):
        centre_crop(image[: int(len(image) * share)], 8)


@pytest.mark.parametrize("image", [b"", b"no picture", b"\xff\xd8\xff\xe0", encoded(noise(8, 8))[:40]])
def test_bytes_that_are_no_picture_are_refused(image: bytes) -> None:
    with pytest.raises(ImageError, match=r"not a readable image: [^<>]+$"):
        open_image(image)


@pytest.mark.parametrize("format", ["EPS", "PPM"])
def test_formats_that_no_corpus_has_are_handed_to_no_decoder(format: str) -> None:
    with pytest.raises(ImageError, match=r"none of JPEG, PNG, WEBP, GIF, BMP, TIFF"):
        open_image(encoded(noise(16, 16), format))


@settings(max_examples=150)
@given(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP"]), st.data())
def test_a_damaged_picture_is_trained_on_or_refused_and_nothing_else(
    format: str, data: st.DataObject
) -> None:
    image = bytearray(encoded(noise(24, 20), format))
    for _ in range(data.draw(st.integers(1, 4))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ImageError):
        assert random_crop(bytes(image), 16, (0.5, 1.0), random.Random(0)).shape == (3, 16, 16)
