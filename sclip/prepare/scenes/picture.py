"""Scene in, JPEG bytes out: drawn at four times the size and averaged down, which smooths the edges."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

from PIL import Image, ImageDraw

from sclip.prepare.scenes.scene import PlacedThing, Scene

_OVERSAMPLING = 4
_QUALITY = 95
_Colour = tuple[int, int, int]
_Point = tuple[float, float]

_PAINT: dict[str, _Colour] = {
    "red": (214, 32, 38),
    "green": (24, 150, 62),
    "blue": (32, 78, 214),
    "yellow": (250, 220, 30),
    "orange": (250, 130, 20),
    "purple": (130, 42, 170),
    "white": (255, 255, 255),
    "black": (12, 12, 12),
}
_GROUND: dict[str, _Colour] = {
    "grey": (148, 150, 152),
    "brown": (112, 84, 64),
    "pink": (232, 176, 192),
    "beige": (206, 190, 158),
}


def jpeg(scene: Scene, size: int) -> bytes:
    """Return the picture of `size` x `size` pixels, without chroma subsampling: edges keep their colour."""
    buffer = io.BytesIO()
    render(scene, size).save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return buffer.getvalue()


def render(scene: Scene, size: int) -> Image.Image:
    """Return the RGB picture of `size` x `size` pixels."""
    side = size * _OVERSAMPLING
    picture = _background(scene, side)
    pen = ImageDraw.Draw(picture)
    for placed in scene.placed:
        _SHAPE[placed.thing.shape](pen, placed, side)
    return picture.reduce(_OVERSAMPLING)


def _background(scene: Scene, side: int) -> Image.Image:
    ground = _GROUND[scene.background]
    darker = tuple(int(0.9 * value) for value in ground)
    picture = Image.new("RGB", (side, side), ground)
    pen = ImageDraw.Draw(picture)
    step = side // 8
    if scene.pattern == "gradient":
        shade = Image.linear_gradient("L").resize((side, side)).point(lambda value: value // 4)
        picture.paste((0, 0, 0), mask=shade)
    elif scene.pattern == "dots":
        for x in range(step // 2, side, step):
            for y in range(step // 2, side, step):
                pen.ellipse((x - step // 8, y - step // 8, x + step // 8, y + step // 8), fill=darker)
    elif scene.pattern == "grid":
        for at in range(0, side, step):
            pen.line((at, 0, at, side), fill=darker, width=_OVERSAMPLING)
            pen.line((0, at, side, at), fill=darker, width=_OVERSAMPLING)
    return picture


def _box(placed: PlacedThing, side: int, scale: float = 1.0) -> tuple[float, float, float, float]:
    radius = placed.radius * scale
    return tuple(  # type: ignore[return-value]
        side * edge for edge in (placed.x - radius, placed.y - radius, placed.x + radius, placed.y + radius)
    )


def _circle(pen: ImageDraw.ImageDraw, placed: PlacedThing, side: int) -> None:
    pen.ellipse(_box(placed, side), fill=_PAINT[placed.thing.colour])


def _square(pen: ImageDraw.ImageDraw, placed: PlacedThing, side: int) -> None:
    pen.rectangle(_box(placed, side, 0.88), fill=_PAINT[placed.thing.colour])


def _cross(pen: ImageDraw.ImageDraw, placed: PlacedThing, side: int) -> None:
    left, top, right, bottom = _box(placed, side)
    arm = 0.65 * placed.radius * side  # what stays free beside an arm
    pen.rectangle((left + arm, top, right - arm, bottom), fill=_PAINT[placed.thing.colour])
    pen.rectangle((left, top + arm, right, bottom - arm), fill=_PAINT[placed.thing.colour])


def _polygon(pen: ImageDraw.ImageDraw, placed: PlacedThing, side: int, radii: tuple[float, ...]) -> None:
    """Draw a polygon with its first corner at the top and its corners at `radii` around the centre."""
    turn = 2 * math.pi / len(radii)
    corners: list[_Point] = [
        (
            side * (placed.x + placed.radius * radius * math.sin(number * turn)),
            side * (placed.y - placed.radius * radius * math.cos(number * turn)),
        )
        for number, radius in enumerate(radii)
    ]
    pen.polygon(corners, fill=_PAINT[placed.thing.colour])


def _triangle(pen: ImageDraw.ImageDraw, placed: PlacedThing, side: int) -> None:
    _polygon(pen, placed, side, (1.15,) * 3)


_SHAPE: dict[str, Callable[[ImageDraw.ImageDraw, PlacedThing, int], None]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
}
