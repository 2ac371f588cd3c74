"""VG-Relation and VG-Attribution in ARO's own files: JSON and an image folder in, cases out.

ARO (Yuksekgonul et al., "When and why vision-language models behave like bags-of-words, and what to do about
it?", ICLR 2023). Each case is one crop of an image with a true caption and a false one; the definitions below
are those of the authors' release (github.com/mertyg/vision-language-models-are-bows, MIT):
`dataset_zoo/aro_datasets.py` for the crop, the groups and the least number of cases, the notebook that
replicates the paper's table for the relations left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

LEAST_ATTRIBUTE_CASES = 25
"""Pairs of attributes with fewer cases are no part of VG-Attribution's mean."""

_LEFT_OUT = """
adjusting | attached to | between | bigger than | biting | boarding | brushing | chewing | cleaning |
climbing | close to | coming from | coming out of | contain | crossing | dragging | draped over |
drinking | drinking from | driving | driving down | driving on | eating from | eating in | enclosing |
exiting | facing | filled with | floating in | floating on | flying | flying above | flying in |
flying over | flying through | full of | going down | going into | going through | grazing in |
growing in | growing on | guiding | hanging from | hanging in | hanging off | hanging over |
higher than | holding onto | hugging | in between | jumping off | jumping on | jumping over | kept in |
larger than | leading | leaning over | leaving | licking | longer than | looking in | looking into |
looking out | looking over | looking through | lying next to | lying on top of | making | mixed with |
mounted on | moving | on the back of | on the edge of | on the front of | on the other side of |
opening | painted on | parked at | parked beside | parked by | parked in | parked in front of |
parked near | parked next to | perched on | petting | piled on | playing | playing in | playing on |
playing with | pouring | reaching for | reading | reflected on | riding on | running in | running on |
running through | seen through | sitting behind | sitting beside | sitting by | sitting in front of |
sitting near | sitting next to | sitting under | skiing down | skiing on | sleeping in | sleeping on |
smiling at | sniffing | splashing | sprinkled on | stacked on | standing against | standing around |
standing behind | standing beside | standing in front of | standing near | standing next to |
staring at | stuck in | surrounding | swimming in | swinging | talking to | topped with | touching |
traveling down | traveling on | tying | typing on | underneath | wading in | waiting for |
walking across | walking by | walking down | walking next to | walking through | working in |
working on | worn on | wrapped around | wrapped in | by | of | near | next to | with | beside |
on the side of | around
"""
LEFT_OUT = frozenset(" ".join(relation.split()) for relation in _LEFT_OUT.split("|"))
"""Relations that the authors leave out of VG-Relation's mean; they call all of them symmetric."""


class BenchmarkError(ValueError):
    """A benchmark's file or image that cannot be used; one line with the place and what is wrong."""


@dataclass(frozen=True, slots=True)
class Case:
    """An image crop with the caption that is true of it and the one that is not."""

    image: Path
    box: tuple[int, int, int, int]
    """Left, top, right and bottom of the crop in pixels."""
    true_caption: str
    false_caption: str
    group: str
    """What ARO averages over: the relation, or the two attributes joined by "_" in the order given."""

    def crop(self) -> Image.Image:
        """Return the crop. Raises BenchmarkError naming the image when it cannot be read."""
        try:
            with Image.open(self.image) as image:
                return image.crop(self.box)
        except Exception as error:  # PIL raises what its many decoders raise
            raise BenchmarkError(f"{self.image}: cannot be read: {error}") from error


def relation_cases(path: str, images: str = "") -> list[Case]:
    """Return the cases of a `visual_genome_relation.json`, without the relations that ARO leaves out.

    Of a symmetric relation both captions are true. `images` is the folder that `image_path` is relative to;
    empty: `images` beside the file, where ARO's download puts it. Raises BenchmarkError naming file, case and
    field.
    """
    cases = _cases(path, images, lambda entry: _text(entry, "relation_name"))
    return [case for case in cases if case.group not in LEFT_OUT]


def attribute_cases(path: str, images: str = "") -> list[Case]:
    """Return the cases of a `visual_genome_attribution.json`; arguments and errors as in `relation_cases`."""

    def pair(entry: dict[str, Any]) -> str:
        first, second = entry["attributes"]
        return f"{first}_{second}"

    return _cases(path, images, pair)


def _cases(path: str, images: str, group: Callable[[dict[str, Any]], str]) -> list[Case]:
    file = Path(path).expanduser()
    folder = Path(images).expanduser() if images else file.parent / "images"
    try:
        entries = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{file}: cannot be read as JSON: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise BenchmarkError(f"{file}: must hold a list of cases, ARO's format")
    cases = []
    for number, entry in enumerate(entries):
        try:
            box = _box(entry)
            true, false = _text(entry, "true_caption"), _text(entry, "false_caption")
            cases.append(Case(folder / _text(entry, "image_path"), box, true, false, group(entry)))
        except KeyError as error:
            raise BenchmarkError(f"{file}: case {number}: no field {error}") from error
        except (TypeError, ValueError) as error:
            raise BenchmarkError(f"{file}: case {number}: {error}") from error
    return cases


def _text(entry: dict[str, Any], field: str) -> str:
    value = entry[field]
    if not isinstance(value, str) or not value:
        raise ValueError(f"{field}={value!r} is no text")
    return value


def _box(entry: dict[str, Any]) -> tuple[int, int, int, int]:
    x, y, width, height = (int(entry[field]) for field in ("bbox_x", "bbox_y", "bbox_w", "bbox_h"))
    if width < 1 or height < 1:
        raise ValueError(f"bbox_w={width}, bbox_h={height}: the crop is empty")
    return x, y, x + width, y + height


def captions_of(cases: Sequence[Case]) -> list[str]:
    """Return every caption of the cases, true and false, each once."""
    return list(
        dict.fromkeys(caption for case in cases for caption in (case.true_caption, case.false_caption))
    )
