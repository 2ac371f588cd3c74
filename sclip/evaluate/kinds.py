"""Create a task from the name of a benchmark's kind and its options."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sclip.config import Config, ConfigError
from sclip.config.data import READING_KEYS
from sclip.config.loader import changed
from sclip.evaluate import zero_shot
from sclip.evaluate.benchmarks import About, BenchmarkDataError, Task
from sclip.evaluate.readers import (
    aro,
    aro_order,
    bivlc,
    captions,
    colorswap,
    half_truth,
    hard_positives,
    karpathy,
    long_captions,
    mmvp,
    negbench,
    shards,
    sugarcrepe,
    sugarcrepe_pp,
    valse,
    whatsup,
    winoground,
)

__all__ = ["KINDS", "PATHS", "Kind", "checked", "nearest", "task"]

PATHS = ("file", "images", "class_names")


@dataclass(frozen=True)
class Kind:
    """A kind of benchmark: its reader, its required options (`needs`) and its optional ones (`may`)."""

    definition: str
    read: Callable[..., Task]
    needs: tuple[str, ...] = ("file",)
    may: tuple[str, ...] = ("images",)


KINDS = {
    "vg-relation": Kind(
        "Which of two captions with subject and object exchanged is true of a crop of a picture (ARO, Yuksekgonul et "
        "al. 2023); the mean over relations, symmetric ones left out.",
        aro.relations,
    ),
    "vg-attribution": Kind(
        "Which of two captions with their attributes exchanged is true of a crop of a picture (ARO, Yuksekgonul et al. "
        "2023); the mean over pairs of attributes with 25 cases or more.",
        aro.attributes,
    ),
    "coco-order": Kind(
        "Which of five captions has its words in order (ARO's COCO-Order, Yuksekgonul et al. 2023); a tie counts as "
        "won.",
        aro_order.read, may=("images", "split"),
    ),
    "flickr-order": Kind(
        "Which of five captions has its words in order (ARO's Flickr30k-Order, Yuksekgonul et al. 2023); a tie counts "
        "as won.",
        aro_order.read, may=("images", "split"),
    ),
    "sugarcrepe": Kind(
        "Which of two captions is true of a COCO photograph; the false one is fluent, made by replacing, swapping or "
        "adding words (SugarCrepe, Hsieh et al. 2023).",
        sugarcrepe.read,
    ),
    "sugarcrepe-pp": Kind(
        "Whether two true captions of a COCO photograph both score higher than a false one (SugarCrepe++, Dumpala et "
        "al. 2024, the image-to-text task).",
        sugarcrepe_pp.read,
    ),
    "sugarcrepe-pp-text": Kind(
        "Whether two captions that mean the same are nearer to each other than to a third, by the text encoder alone "
        "(SugarCrepe++, Dumpala et al. 2024, the text-only task).",
        sugarcrepe_pp.read_texts, may=(),
    ),
    "winoground": Kind(
        "Which of two pictures belongs to which of two captions of the same words (Winoground, Thrush et al. 2022).",
        winoground.read,
    ),
    "whatsup-controlled": Kind(
        "Which of four captions names the relation of two objects in a photograph (What'sUp, Kamath et al. 2023); "
        "a pair of opposite relations, or a set of all four, is won if each of its photographs is; a tie counts as "
        "won.",
        whatsup.controlled,
    ),
    "whatsup-coco": Kind(
        "Which of two captions says where the objects of a COCO photograph are (What'sUp, Kamath et al. 2023); a tie "
        "counts as won.",
        whatsup.coco,
    ),
    "whatsup-vg": Kind(
        "Which of two captions says where the objects of a photograph of Visual Genome are (What'sUp, Kamath et al. "
        "2023); a tie counts as won.",
        whatsup.visual_genome,
    ),
    "bivlc": Kind(
        "Which of two pictures, a COCO photograph and a generated one, belongs to which of two captions (BiVLC, "
        "Miranda et al. 2024).",
        bivlc.read, may=(),
    ),
    "colorswap": Kind(
        "Which of two pictures belongs to which of two captions that have their colours exchanged (ColorSwap, "
        "Burapacheep et al. 2024).",
        colorswap.read,
    ),
    "negbench-mcq": Kind(
        "Which of several captions, with and without a negation, is true of a picture (NegBench, Alhamoud et al. "
        "2025).",
        negbench.choices,
    ),
    "negbench-retrieval": Kind(
        "Finding the picture of a caption among all pictures, and a caption of a picture among all captions; a caption "
        "may name what the picture lacks (NegBench, Alhamoud et al. 2025).",
        negbench.retrieval,
    ),
    "mmvp-vlm": Kind(
        "Whether each of two statements finds its picture among two pictures that look alike to CLIP (MMVP-VLM, Tong "
        "et al. 2024).",
        mmvp.read,
    ),
    "hard-positives": Kind(
        "Whether two captions of the same meaning both score higher than a false one (Kamath et al. 2024, augmented "
        "test accuracy).",
        hard_positives.read,
    ),
    "urban1k": Kind(
        "Finding the picture of a long caption among all pictures, and the caption of a picture among all captions "
        "(Urban1k, Zhang et al. 2024).",
        long_captions.urban1k, may=(),
    ),
    "docci": Kind(
        "Finding the picture of a long description among all pictures, and the description of a picture among all "
        "descriptions (DOCCI, Onoe et al. 2024).",
        long_captions.docci, may=("images", "split"),
    ),
    "valse": Kind(
        "Whether a caption scores higher than its foil (VALSE, Parcalabescu et al. 2022), pairwise ranking accuracy.",
        valse.read,
    ),
    "half-truth": Kind(
        "Whether a true part of a caption scores higher than that part with a wrong detail added (Kargi et al. 2026).",
        half_truth.read,
    ),
    "captions": Kind(
        "Which of several captions is true of a picture (sclip's own JSON form).",
        captions.read,
    ),
    "retrieval": Kind(
        "Finding the picture of a caption among all pictures, and a caption of a picture among all captions (COCO and "
        "Flickr30k retrieval, Karpathy and Fei-Fei 2015).",
        karpathy.read, may=("images", "split", "captions"),
    ),
    "shards": Kind(
        "Finding the picture of a caption among all pictures of the shards, and a caption of a picture among all "
        "captions.",
        shards.read, needs=("shards",), may=("limit", *READING_KEYS),
    ),
    "zero-shot": Kind(
        "Naming the class of a picture by the class names in open_clip's templates (Radford et al. 2021).",
        zero_shot.read, needs=("images",), may=("class_names", "templates"),
    ),
}  # fmt: skip

_LISTS = {"shards": "path", "image_suffixes": "suffix", "text_suffixes": "suffix"}
_NUMBERS = ("captions", "limit")


def checked(kind: str, options: Mapping[str, Any], location: str) -> dict[str, Any]:
    """Check the options of a benchmark, and return them as arguments for the reader of its kind.

    Raises BenchmarkDataError, naming `location`, for an unknown kind or option, a missing option or a bad value.
    """
    if kind not in KINDS:
        raise BenchmarkDataError(f"{location}: kind {kind!r} is unknown; {nearest(kind, KINDS)}")
    known = KINDS[kind]
    for option in options:
        if option not in (*known.needs, *known.may):
            raise BenchmarkDataError(
                f"{location}: {kind} takes no option {option!r}; {nearest(option, {*known.needs, *known.may})}"
            )
    lacking = [option for option in known.needs if not options.get(option)]
    if lacking:
        raise BenchmarkDataError(f"{location}: {kind} needs {' and '.join(lacking)}")
    parsed: dict[str, Any] = {}
    for option, value in options.items():
        if option in _LISTS:
            texts = [value] if isinstance(value, str) else value
            if not isinstance(texts, list | tuple) or not all(isinstance(p, str) and p for p in texts):
                raise BenchmarkDataError(
                    f"{location}: {option}={value!r}: must be a {_LISTS[option]} or a list, each a {_LISTS[option]}"
                )
            parsed[option] = tuple(texts)
        elif option in _NUMBERS:
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise BenchmarkDataError(
                    f"{location}: {option}={value!r}: must be a whole number; 0 means all"
                )
            parsed[option] = value
        elif not isinstance(value, str) or not value:
            raise BenchmarkDataError(f"{location}: {option}={value!r}: must be text")
        else:
            parsed[option] = Path(value).expanduser() if option in PATHS else value
    try:
        changed(
            Config(), {f"data.{n}": value for n, value in parsed.items() if n in ("shards", *READING_KEYS)}
        )
    except ConfigError as error:
        raise BenchmarkDataError(f"{location}: {error}") from error
    return parsed


def nearest(name: str, names: Mapping[str, object] | set[str]) -> str:
    """Return the end of an error message: "nearest is NAME" if one of `names` is similar, else a list of all names."""
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    return f"nearest is {near[0]}" if near else f"choose from {', '.join(sorted(names))}"


def task(name: str, kind: str, options: Mapping[str, Any]) -> Task:
    """Read a benchmark with `checked` options. Raises BenchmarkDataError or ShardError for a bad file."""
    return KINDS[kind].read(About(name, kind, KINDS[kind].definition), **options)
