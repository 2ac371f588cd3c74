"""Draw a scene as JPEG bytes. The picture is drawn four times as large and averaged down, which smooths edges."""

from __future__ import annotations

import io
import math

from PIL import Image, ImageDraw

from sclip.prepare.scenes.scene import PlacedThing, Scene

_OVERSAMPLING = 4
_QUALITY = 95
_Colour = tuple[int, int, int]

_COLOURS: dict[str, _Colour] = {
    "red": (214, 32, 38),
    "green": (24, 150, 62),
    "blue": (32, 78, 214),
    "yellow": (250, 220, 30),
    "orange": (250, 130, 20),
    "purple": (130, 42, 170),
    "white": (255, 255, 255),
    "black": (12, 12, 12),
    "grey": (148, 150, 152),
    "brown": (112, 84, 64),
    "pink": (232, 176, 192),
    "beige": (206, 190, 158),
}


def jpeg(scene: Scene, size: int) -> bytes:
    """Return the picture of `size` x `size` pixels, without chroma subsampling, so that edges keep their color."""
    buffer = io.BytesIO()
    render(scene, size).save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return buffer.getvalue()


def render(scene: Scene, size: int) -> Image.Image:
    """Return the RGB picture of `size` x `size` pixels."""
    side = size * _OVERSAMPLING
    picture = _background(scene, side)
    pen = ImageDraw.Draw(picture)
    for placed in scene.placed:
        _draw(pen, placed, side)
    return picture.reduce(_OVERSAMPLING)


def _background(scene: Scene, side: int) -> Image.Image:
    ground = _COLOURS[scene.background]
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
        for offset in range(0, side, step):
            pen.line((offset, 0, offset, side), fill=darker, width=_OVERSAMPLING)
            pen.line((0, offset, side, offset), fill=darker, width=_OVERSAMPLING)
    return picture


def _draw(pen: ImageDraw.ImageDraw, placed: PlacedThing, side: int) -> None:
    fill = _COLOURS[placed.thing.colour]
    scale = 0.88 if placed.thing.shape == "square" else 1.0
    radius = placed.radius * scale
    left, top = side * (placed.x - radius), side * (placed.y - radius)
    right, bottom = side * (placed.x + radius), side * (placed.y + radius)
    if placed.thing.shape == "circle":
        pen.ellipse((left, top, right, bottom), fill=fill)
    elif placed.thing.shape == "square":
        pen.rectangle((left, top, right, bottom), fill=fill)
    elif placed.thing.shape == "cross":
        arm = 0.65 * placed.radius * side  # side of the free square in each corner of the cross
        pen.rectangle((left + arm, top, right - arm, bottom), fill=fill)
        pen.rectangle((left, top + arm, right, bottom - arm), fill=fill)
    else:
        pen.polygon(_triangle(placed, side), fill=fill)


def _triangle(placed: PlacedThing, side: int) -> list[tuple[float, float]]:
    reach = 1.15 * placed.radius
    turns = [2 * math.pi / 3 * number for number in range(3)]
    return [
        (side * (placed.x + reach * math.sin(turn)), side * (placed.y - reach * math.cos(turn)))
        for turn in turns
    ]
