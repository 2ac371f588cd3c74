"""Read VG-Relation and VG-Attribution from ARO's own files: a JSON and an image folder.

Source: Yuksekgonul et al., "When and why vision-language models behave like bags-of-words, and what to do about it?",
ICLR 2023; github.com/mertyg/vision-language-models-are-bows (MIT), `dataset_zoo/aro_datasets.py` and the notebook for
the paper's table. Each case is one crop of an image with a true caption and a false one. The published figure is the
mean over groups, `macro`. A tie is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from sclip.evaluate.benchmarks import About, at_case, box_of, each, images_of, is_text, text_of
from sclip.evaluate.choice import Choice, ChoiceCase
from sclip.evaluate.picture import Picture

__all__ = ["LEAST_ATTRIBUTE_CASES", "LEFT_OUT", "attributes", "relations"]

LEAST_ATTRIBUTE_CASES = 25
"""Minimum cases that a pair of attributes needs to enter VG-Attribution's mean."""

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
"""Relations that the authors' notebook leaves out of VG-Relation's mean as symmetric."""


def relations(about: About, file: Path, images: Path | None = None) -> Choice:
    """Return the task of a `visual_genome_relation.json` with 23,937 cases.

    Scores leave out symmetric relations: both captions are true. `images` is the folder of the pictures; None means
    the folder `images` beside the file if it exists, else the file's own folder. Raises BenchmarkDataError naming file,
    case and field.
    """
    cases = _cases(file, images, lambda entry: text_of(entry, "relation_name"))
    return Choice(about, [replace(case, counted=case.group not in LEFT_OUT) for case in cases], macro=True)


def attributes(about: About, file: Path, images: Path | None = None) -> Choice:
    """Return the task of a `visual_genome_attribution.json` with 28,748 cases. Arguments and errors as in `relations`.

    A group is a pair of attributes, joined by "_". `macro` is the mean over groups with at least 25 cases.
    """

    def pair(entry: dict[str, Any]) -> str:
        pair_texts = entry["attributes"]
        if not isinstance(pair_texts, list) or len(pair_texts) != 2 or not all(map(is_text, pair_texts)):
            raise ValueError(f"attributes={pair_texts!a} must be a list of two texts")
        return "_".join(pair_texts)

    cases = _cases(file, images, pair)
    return Choice(about, cases, macro=True, least_cases=LEAST_ATTRIBUTE_CASES)


def _cases(file: Path, images: Path | None, group: Callable[[dict[str, Any]], str]) -> list[ChoiceCase]:
    folder = images_of(file, images)
    cases = []
    for name, entry in each(file, "cases, ARO's format", list):
        with at_case(file, name):
            x, y, width, height = (int(entry[f"bbox_{side}"]) for side in "xywh")
            box = box_of(x, y, width, height, "bbox_w, bbox_h")
            true, false = text_of(entry, "true_caption"), text_of(entry, "false_caption")
            picture = Picture(str(folder / text_of(entry, "image_path")), box)
            cases.append(ChoiceCase(name, picture, true, (false,), group(entry)))
    return cases
