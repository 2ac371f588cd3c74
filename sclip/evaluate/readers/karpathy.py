"""Read captions for retrieval from a JSON in one of the three common forms, and an image folder.

- Karpathy's `dataset_coco.json` and `dataset_flickr30k.json` (Karpathy and Fei-Fei, "Deep visual-semantic
  alignments for generating image descriptions", CVPR 2015): `images` with `filename`, `filepath` (in COCO's),
  `split` and `sentences`, whose `raw` is the caption. The first five captions of an image count, as in later papers.
- BLIP's list (`coco_karpathy_test.json`, `flickr30k_test.json`; Li et al., ICML 2022): `image` and a list
  `caption`. All captions count (25,010 for COCO).
- COCO's annotations (`captions_val2017.json`): `images` with `id` and `file_name`, `annotations` with `image_id` and
  `caption`. All captions count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sclip.evaluate.benchmarks import (
    About,
    BenchmarkDataError,
    at_case,
    entries,
    images_of,
    is_text,
    located,
    read_json,
    text_of,
)
from sclip.evaluate.picture import Picture
from sclip.evaluate.retrieval import Captioned, Retrieval

__all__ = ["captioned", "read"]

KARPATHY_CAPTIONS = 5


def read(
    about: About, file: Path, images: Path | None = None, split: str = "test", captions: int | None = None
) -> Retrieval:
    """Return the task of a file of any of the three forms. Raises BenchmarkDataError naming file, image and field.

    `split` selects images in Karpathy's form. `captions`: maximum captions of an image; 0 means all, and None means
    five in Karpathy's form and all in the other forms.
    """
    return Retrieval(about, captioned(file, images, split, captions))


def captioned(file: Path, images: Path | None, split: str, captions: int | None) -> list[Captioned]:
    """Return the pictures with their captions; arguments and errors as in `read`."""
    tree = read_json(file)
    if isinstance(tree, list):
        records, max_captions = _blip(file, tree), 0
    elif isinstance(tree, dict) and "annotations" in tree and "images" in tree:
        records, max_captions = _coco(file, tree), 0
    elif isinstance(tree, dict) and "images" in tree:
        records, max_captions = _karpathy(file, tree, split), KARPATHY_CAPTIONS
    else:
        raise BenchmarkDataError(
            f"{file}: must be Karpathy's JSON (images with sentences), BLIP's list (image, caption) or COCO's "
            "annotations (images, annotations)"
        )
    max_captions = max_captions if captions is None else captions
    folder = images_of(file, images)
    kept = []
    for name, texts in records:
        if texts:
            with at_case(file, name):
                picture = Picture(str(located(folder, name)))
            kept.append(Captioned(name, picture, texts[:max_captions] if max_captions else texts))
    if not kept:
        raise BenchmarkDataError(
            f"{file}: no image with a caption" + (f" in split {split!r}" if split else "")
        )
    return kept


def _karpathy(file: Path, tree: Mapping[str, Any], split: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for number, image in entries(file, tree["images"], "image"):
        with at_case(file, number, "image"):
            if image["split"] == split:
                name = text_of(image, "filename")
                folder = image.get("filepath", "")
                texts = tuple(text_of(sentence, "raw") for sentence in image["sentences"])
                yield (f"{folder}/{name}" if folder else name), texts


def _blip(file: Path, tree: list[Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for number, entry in entries(file, tree):
        with at_case(file, number):
            texts = entry["caption"]
            if isinstance(texts, str):  # as in BLIP's training files
                texts = [texts]
            if not isinstance(texts, list) or not all(map(is_text, texts)):
                raise ValueError(f"caption={texts!a} must be text or a list of texts")
            yield text_of(entry, "image"), tuple(texts)


def _coco(file: Path, tree: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    texts: dict[Any, list[str]] = {}
    for number, entry in entries(file, tree["annotations"], "annotation"):
        with at_case(file, number, "annotation"):
            texts.setdefault(entry["image_id"], []).append(text_of(entry, "caption"))
    for number, image in entries(file, tree["images"], "image"):
        with at_case(file, number, "image"):
            yield text_of(image, "file_name"), tuple(texts.get(image["id"], ()))
