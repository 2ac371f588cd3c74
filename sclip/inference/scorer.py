"""Compute features and scores of pictures and captions, with an exported model and its preprocessing.

Every caller (evaluation, the registered model, a user's own code) gets the caption cleaning, the parser and the
tokenizer of training. Features are unit length, fp32 [N, D] on the CPU: N images or captions, D embedding dimensions.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sclip.data.caption_text import clean_caption
from sclip.data.images import ImageError, centre_crop
from sclip.data.window import window_of
from sclip.model import ModelError, StructureCLIP, Tokenizer, image_size, most_words
from sclip.model.export import export, export_state, load_exported
from sclip.model.packing import text_lengths
from sclip.scenegraph import Parser, SceneGraph

__all__ = ["PARSER_FILE", "Scorer", "read_parser", "to_uint8"]

PARSER_FILE = "parser.json"
"""File of an export that names the parser of the captions."""
BATCH_SIZE = 128  # default number of images or captions in one forward pass

_SORTED = 1024  # captions that are sorted by length together

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class Scorer:
    """Structure-CLIP with its parser and tokenizer; safe to call from several threads."""

    def __init__(self, model: StructureCLIP, spacy_model: str = "", device: str = "cpu") -> None:
        """Freeze the model on the device and load the spaCy pipeline. Raises ParserError if the pipeline is missing."""
        self._model = model.to(device).eval().requires_grad_(False)
        self._device = device
        self._spacy_model = spacy_model
        self._parser = Parser(spacy_model, most_words(model.config))
        self._parsing = threading.Lock()  # not thread-safe: a spaCy pipeline writes into its vocabulary
        self._tokenizer = Tokenizer(model.config)
        self.image_size = image_size(model.config.name)  # height and width in pixels

    @classmethod
    def load(cls, directory: str | Path, device: str = "cpu") -> Scorer:
        """Return the scorer that `save` wrote. A directory from `sclip.model.export` gets the default parser.

        Raises ModelError if the files cannot be loaded, and ParserError if the spaCy pipeline is missing.
        """
        parser = read_parser(directory)
        scorer = cls(load_exported(directory), parser["spacy_model"], device)
        if parser["version"] not in ("", scorer._parser.version):
            _log.warning(
                "%s was trained with parser %s, but this is parser %s: scores can differ",
                directory, parser["version"], scorer._parser.version,
            )  # fmt: skip
        return scorer

    def save(self, directory: str | Path) -> Path:
        """Write model.safetensors, config.json and parser.json, which `load` reads; return the directory."""
        directory = export(self._model, directory, self._tokenizer)
        parser = {"spacy_model": self._spacy_model, "version": self._parser.version}
        (directory / PARSER_FILE).write_text(json.dumps(parser, indent=2) + "\n")
        return directory

    @property
    def model(self) -> StructureCLIP:
        """The model, frozen and in eval mode on its device."""
        return self._model

    def with_model(self, model: StructureCLIP) -> Scorer:
        """Return a scorer of another model of this architecture, with the same parser and tokenizer."""
        other = copy.copy(self)
        other._model = model.to(self._device).eval().requires_grad_(False)
        return other

    def facts(self) -> dict[str, str]:
        """Return what identifies the model: its architecture, the SHA-256 of its weights, and the parser."""
        digest = hashlib.sha256()
        for name, tensor in sorted(export_state(self._model).items()):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return {
            "architecture": self._model.config.name,
            "weights": digest.hexdigest(),
            "parser": self._parser.version,
        }

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Return the unit features, fp32 [N, D], of uint8 pixels [N, 3, image_size, image_size] from `to_uint8`."""
        with torch.no_grad():
            return self._model.encode_image(pixels.to(self._device)).cpu()

    def encode_image(self, images: Iterable[bytes | Image.Image], batch_size: int = BATCH_SIZE) -> Tensor:
        """Return the unit features, fp32 [N, D] on the CPU, of images: JPEG, PNG or WebP bytes, or PIL.

        `images` may be a generator: only `batch_size` images are in memory at a time. Raises ValueError for an
        unreadable image; the message names its row, from 0.
        """
        rows = (self._pixels(row, image) for row, image in enumerate(images))
        return _joined(self.encode_pixels(torch.stack(batch)) for batch in _batches(rows, batch_size))

    def _pixels(self, row: int, image: bytes | Image.Image) -> Tensor:
        try:
            return to_uint8(image, self.image_size)
        except ImageError as error:
            raise ImageError(f"image in row {row}: {error}") from error

    def encode_text(self, captions: Sequence[str], batch_size: int = BATCH_SIZE) -> Tensor:
        """Return the unit features, fp32 [N, D] on the CPU, of captions and their triples.

        Raises ValueError for one string instead of a list, and for a caption that is not a string, with its row.
        """
        if isinstance(captions, str):
            raise ValueError("captions: must be a list of texts, not one text")
        for row, caption in enumerate(captions):
            if not isinstance(caption, str):
                raise ValueError(f"caption in row {row}: must be text, not {type(caption).__name__}")
        return _joined(
            self._encode_captions(part, batch_size) for part in _batches(captions, max(_SORTED, batch_size))
        )

    def tokens(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return int64 token ids: [N, L] of captions, [N, K, 3, T] of their K triples (three texts of T tokens)."""
        text = self._tokenizer.text([clean_caption(caption) for caption in captions])
        triples = self._triples(captions)
        return torch.from_numpy(text).long(), torch.from_numpy(triples).long()

    def _triples(self, captions: Sequence[str]) -> NDArray[np.int32]:
        graphs = self.scene_graph(captions)
        return self._tokenizer.triples([window_of(graph, self._tokenizer).triples for graph in graphs])

    def _encode_captions(self, captions: Sequence[str], batch_size: int) -> Tensor:
        """Encode captions in batches of similar length."""
        text = self._tokenizer.text([clean_caption(caption) for caption in captions])
        triples = None if self._model.kee is None else self._triples(captions)
        lengths = text_lengths(text)
        order = np.argsort(lengths, kind="stable").tolist()
        features = []
        for rows in _batches(order, batch_size):
            width = -(-lengths[rows[-1]] // 8) * 8  # attention kernels need aligned mask rows
            ids = text[rows, :width] if self._model.packs_text else text[rows]
            knowledge = None if triples is None else torch.from_numpy(triples[rows]).long().to(self._device)
            with torch.no_grad():
                features.append(
                    self._model.encode_text(torch.from_numpy(ids).long().to(self._device), knowledge).cpu()
                )
        return torch.cat(features)[torch.tensor(order).argsort()]

    def reads_whole(self, caption: str) -> bool:
        """Return whether the text tower reads the whole caption; longer captions are cut."""
        clean = clean_caption(caption)
        return self._tokenizer.read_end(clean) == len(clean)

    def score(self, images: Sequence[bytes | Image.Image], captions: Sequence[str]) -> Tensor:
        """Return the cosine similarity of each row's image and caption, fp32 [N].

        Raises ValueError if there are not as many images as captions, or as `encode_image` and `encode_text` do.
        """
        if len(images) != len(captions):
            raise ValueError(f"{len(images)} images and {len(captions)} captions: score compares row by row")
        return (self.encode_image(images) * self.encode_text(captions)).sum(dim=1)

    def scene_graph(self, captions: Sequence[str]) -> list[SceneGraph]:
        """Return the scene graph of each caption; the graph's `caption` is the cleaned caption."""
        with self._parsing:
            return self._parser.parse([clean_caption(caption) for caption in captions])


def read_parser(directory: str | Path) -> dict[str, str]:
    """Return `spacy_model` and `version` of an exported model's parser; both are "" if it has no parser file."""
    path = Path(directory) / PARSER_FILE
    if not path.exists():
        return {"spacy_model": "", "version": ""}
    try:
        record = json.loads(path.read_text())
        return {name: str(record[name]) for name in ("spacy_model", "version")}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{path}: not the parser of an exported model ({error})") from error


def to_uint8(image: bytes | Image.Image, size: int) -> Tensor:
    """Return the center square of an image, scaled to RGB uint8 [3, size, size], as CLIP does in evaluation.

    Raises ImageError (a ValueError) for an unreadable image, and for a value that is neither bytes nor a PIL image.
    """
    if not isinstance(image, bytes | Image.Image):
        raise ImageError(f"{type(image).__name__}: pass the bytes of an image file, or a PIL image")
    return torch.from_numpy(centre_crop(image, size))


def _batches(values: Iterable[_T], size: int) -> Iterator[list[_T]]:
    if size < 1:
        raise ValueError(f"batch_size={size}: must be 1 or more")
    remaining = iter(values)
    while batch := list(itertools.islice(remaining, size)):
        yield batch


def _joined(features: Iterable[Tensor]) -> Tensor:
    batches = list(features)
    return torch.cat(batches) if batches else torch.empty(0, 0)
