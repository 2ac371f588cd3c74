"""Read What'sUp from its authors' files: a JSON and its pictures.

Source: Kamath et al., "What's 'up' with vision-language models? Investigating their struggle with spatial reasoning",
EMNLP 2023; github.com/amitakamath/whatsup_vlms at 7c1f255, `dataset_zoo/aro_datasets.py`.

- Controlled Images A and B: a list of `image_path` (`mug_left_of_plate.jpeg`) and four `caption_options`; the
  first caption is true. Two objects are photographed in four relations. A pair (two opposite relations) or a
  set (all four) is won if all of its cases are won. Pairs and sets with a missing picture do not count.
- COCO-QA and VG-QA (GQA) with one and two objects: a list of [image id, true caption, false caption].

A tie is won, as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sclip.evaluate.benchmarks import (
    About,
    BenchmarkDataError,
    at_case,
    each,
    images_of,
    is_text,
    located,
    read_json,
    text_of,
    texts_of,
)
from sclip.evaluate.choice import Choice, ChoiceCase
from sclip.evaluate.picture import Picture

__all__ = ["coco", "controlled", "visual_genome"]

_OPPOSITES = (("left_of", "right_of"), ("on", "under"), ("in-front_of", "behind"))
_RELATIONS = {
    "left of": "left", "right of": "right", "front of": "front", "behind": "behind", "above": "above",
    "below": "below", "top of": "top",
}  # fmt: skip
"""Words in a true caption of two objects -> group."""


def controlled(about: About, file: Path, images: Path | None = None) -> Choice:
    """Return the task of Controlled Images. Raises BenchmarkDataError naming file, case and field."""
    folder = images_of(file, images)
    cases, sets = [], dict[str, dict[str, str]]()
    for name, entry in each(file, "cases, What'sUp's format", list):
        with at_case(file, name):
            path = text_of(entry, "image_path")
            true, *false = texts_of(entry, "caption_options", least=2)
            words = Path(path).stem.split("_")
            relation = "_".join(words[1:-1])
            if not any(relation in opposites for opposites in _OPPOSITES):
                raise ValueError(
                    f"image_path={path!a}: must be called OBJECT_RELATION_OBJECT, as in mug_on_plate.jpeg"
                )
            cases.append(ChoiceCase(name, Picture(str(located(folder, path))), true, tuple(false), relation))
            sets.setdefault(f"{words[0]}, {words[-1]}", {})[relation] = name
    pairs = [
        (objects, [names[relation] for relation in opposites])
        for objects, names in sets.items() for opposites in _OPPOSITES if names.keys() >= set(opposites)
    ]  # fmt: skip
    full_sets = [(objects, list(names.values())) for objects, names in sets.items() if len(names) == 4]
    return Choice(about, cases, ties_win=True, jointly={"pair": pairs, "set": full_sets})


def coco(about: About, file: Path, images: Path | None = None) -> Choice:
    """Return the task of COCO-QA, whose pictures are from COCO val2017; errors as in `controlled`."""
    return _answers(about, file, images, lambda image: f"{image.zfill(12)}.jpg")


def visual_genome(about: About, file: Path, images: Path | None = None) -> Choice:
    """Return the task of VG-QA, whose pictures are named by their id; errors as in `controlled`."""
    return _answers(about, file, images, lambda image: f"{image}.jpg")


def _answers(about: About, file: Path, images: Path | None, named: Callable[[str], str]) -> Choice:
    folder, tree = images_of(file, images), read_json(file)
    if not isinstance(tree, list) or not tree:
        raise BenchmarkDataError(f"{file}: must hold a list of [image id, true caption, false caption]")
    cases = []
    for number, entry in enumerate(tree):
        with at_case(file, number):
            if not isinstance(entry, list) or len(entry) != 3 or not all(map(is_text, entry[1:])):
                raise ValueError(f"{ascii(entry)[:50]} must be [image id, true caption, false caption]")
            image, true, false = entry
            picture = Picture(str(folder / named(str(image))))
            cases.append(ChoiceCase(str(number), picture, true, (false,), _relation(true)))
    return Choice(about, cases, ties_win=True)


def _relation(caption: str) -> str:
    # A caption of one object ends with its group: "a dog on the left".
    return next((name for words, name in _RELATIONS.items() if words in caption), caption.split()[-1])
