"""Pictures and captions of all benchmarks in, their features out: each is encoded once, whoever asks for it.

Encoded here, or by a pool of Ray actors (`sclip.evaluate.encoder_pool`). Only features stay in memory: 31,000 pictures
and 126,000 captions at 512 numbers are 320 MB.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from sclip.data.images import ImageError
from sclip.evaluate.picture import Picture, contents
from sclip.inference.scorer import Scorer, to_uint8

__all__ = ["Encoded", "FeatureEncoder", "Features", "Here", "encode"]

Encoded = tuple[Tensor, dict[Picture, str]]
"""Features [n, D] of the pictures asked for, in their order, and why those with a row of NaN cannot be read."""
Say = Callable[[str, int, int], None]
"""Told while encoding: "pictures" or "captions", how many are done, of how many."""
_CASES_AT_A_TIME = 2048
"""Cases compared at a time: with five candidates of 768 numbers they are 32 MB."""


@dataclass(frozen=True)
class Features:
    """Unit features of every picture and caption, fp32 on the CPU."""

    picture_rows: Mapping[Picture, int]
    caption_rows: Mapping[str, int]
    image: Tensor
    """[pictures, D]."""
    text: Tensor
    """[captions, D]."""
    unreadable: Mapping[Picture, str]
    """Why a picture has no feature; its row is NaN."""

    def of_pictures(self, pictures: Iterable[Picture]) -> Tensor:
        """Return [N, D], a row a picture."""
        return self.image[[self.picture_rows[picture] for picture in pictures]]

    def of_captions(self, captions: Iterable[str]) -> Tensor:
        """Return [M, D], a row a caption."""
        return self.text[[self.caption_rows[caption] for caption in captions]]

    def cosines(self, cases: Iterable[tuple[Picture, Sequence[str]]]) -> Iterator[list[float]]:
        """Yield the cosines of each picture with its captions; equal captions of a picture have equal ones."""
        waiting = iter(cases)
        while some := list(itertools.islice(waiting, _CASES_AT_A_TIME)):
            sizes = [len(captions) for _, captions in some]
            texts = self.of_captions(caption for _, captions in some for caption in captions)
            images = self.of_pictures(picture for picture, _ in some)
            # One operation for all: of equal rows the sums are equal to the last bit.
            cosines = (images.repeat_interleave(torch.tensor(sizes), dim=0) * texts).sum(dim=1)
            yield from (part.tolist() for part in torch.split(cosines, sizes))


class FeatureEncoder(Protocol):
    """Who encodes: chunks of pictures and of captions in, their features in the same order out."""

    def pictures(self, chunks: Iterable[Sequence[Picture]]) -> Iterator[Encoded]:
        """Yield what `Here.encode_pictures` returns of each chunk."""
        ...

    def captions(self, chunks: Iterable[Sequence[str]]) -> Iterator[Tensor]:
        """Yield the features of each chunk."""
        ...


class Here:
    """An encoder in this process."""

    def __init__(self, scorer: Scorer, batch_size: int) -> None:
        self._scorer = scorer
        self._batch_size = batch_size
        # Pillow and torch let go of Python's lock while they decode and resize.
        self._threads = min(8, os.cpu_count() or 1)

    def encode_pictures(self, pictures: Sequence[Picture]) -> Encoded:
        """Return features [n, D] of the pictures, and why those that cannot be read have a row of NaN."""
        unreadable: dict[Picture, str] = {}
        rows = {picture: row for row, picture in enumerate(pictures)}
        features: Tensor | None = None
        loaded = contents(pictures)
        with ThreadPoolExecutor(self._threads) as threads:
            while batch := list(itertools.islice(loaded, self._batch_size)):
                pixels = list(threads.map(self._pixels, (content for _, content in batch)))
                good = [
                    (rows[p], found)
                    for (p, _), found in zip(batch, pixels, strict=True)
                    if isinstance(found, Tensor)
                ]
                for (picture, _), found in zip(batch, pixels, strict=True):
                    if not isinstance(found, Tensor):
                        unreadable[picture] = found
                if good:
                    encoded = self._scorer.encode_pixels(torch.stack([found for _, found in good]))
                    if features is None:
                        features = torch.full((len(pictures), encoded.shape[1]), torch.nan)
                    features[[row for row, _ in good]] = encoded.float()
        return torch.full((len(pictures), 0), torch.nan) if features is None else features, unreadable

    def _pixels(self, content: bytes | Image.Image | ImageError) -> Tensor | str:
        try:
            return (
                str(content)
                if isinstance(content, ImageError)
                else to_uint8(content, self._scorer.image_size)
            )
        except ImageError as error:
            return str(error)

    def encode_captions(self, captions: Sequence[str]) -> Tensor:
        """Return features [n, D] of the captions."""
        return self._scorer.encode_text(captions, self._batch_size)

    def pictures(self, chunks: Iterable[Sequence[Picture]]) -> Iterator[Encoded]:
        """Yield what `encode_pictures` returns of each chunk."""
        return map(self.encode_pictures, chunks)

    def captions(self, chunks: Iterable[Sequence[str]]) -> Iterator[Tensor]:
        """Yield the features of each chunk."""
        return map(self.encode_captions, chunks)


def encode(
    encoder: FeatureEncoder,
    pictures: Iterable[Picture],
    captions: Iterable[str],
    say: Say = lambda *_: None,
    after_pictures: Callable[[Mapping[Picture, str]], Any] = lambda _: None,
) -> Features:
    """Return the features of the pictures and captions, of which each is encoded once.

    `after_pictures` is told which pictures could not be read, and why, before any caption is encoded.
    """
    picture_rows = {picture: row for row, picture in enumerate(dict.fromkeys(pictures))}
    caption_rows = {caption: row for row, caption in enumerate(dict.fromkeys(captions))}
    unreadable: dict[Picture, str] = {}
    images, texts = [], []
    done = 0
    for features, bad in encoder.pictures(_chunks(picture_rows)):
        images.append(features)
        unreadable |= bad
        done += len(features)
        say("pictures", done, len(picture_rows))
    after_pictures(unreadable)
    done = 0
    for text in encoder.captions(_batches(list(caption_rows))):
        texts.append(text)
        done += len(text)
        say("captions", done, len(caption_rows))
    return Features(picture_rows, caption_rows, _joined(images), _joined(texts), unreadable)


CHUNK = 512
"""Pictures or captions that an encoder is handed at a time."""


def _chunks(pictures: Iterable[Picture]) -> Iterator[Sequence[Picture]]:
    """Yield the pictures in chunks in their order; the pictures of a shard are one, so that it is read once."""
    for shard, some in itertools.groupby(pictures, key=lambda p: "" if p.sample is None else p.path):
        if shard:
            yield list(some)
        else:
            while chunk := list(itertools.islice(some, CHUNK)):
                yield chunk


def _joined(features: Sequence[Tensor]) -> Tensor:
    """Return the rows of all; a chunk of which no picture could be read has no width of its own."""
    width = max((part.shape[1] for part in features), default=0)
    return (
        torch.cat([part if part.shape[1] else torch.full((len(part), width), torch.nan) for part in features])
        if features
        else torch.empty(0, 0)
    )


def _batches(captions: Sequence[str]) -> Iterator[Sequence[str]]:
    return (captions[start : start + CHUNK] for start in range(0, len(captions), CHUNK))
