"""Encode each picture and caption of all benchmarks once, however many benchmarks ask for it.

Either this process encodes (`Here`), or a pool of Ray actors (`sclip.evaluate.encoder_pool`). Only features
stay in memory: 320 MB for 31,000 pictures and 126,000 captions. D is the length of a feature, here 512.
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
"""Features [pictures, D], and the error of each unreadable picture, whose row is NaN."""
Say = Callable[[str, int, int], None]
"""Progress callback. Its arguments: "pictures" or "captions", the number done, and the total."""
_CASES_AT_A_TIME = 2048
"""Cases whose cosines are computed at a time. With five captions each and D = 768, the captions take 32 MB."""


@dataclass(frozen=True)
class Features:
    """Unit-length features of every picture and caption, fp32 on the CPU."""

    picture_rows: Mapping[Picture, int]
    caption_rows: Mapping[str, int]
    image: Tensor
    """Picture features, [pictures, D]."""
    text: Tensor
    """Caption features, [captions, D]."""
    unreadable: Mapping[Picture, str]
    """Unreadable pictures, each with the reason; their rows in `image` are NaN."""

    def of_pictures(self, pictures: Iterable[Picture]) -> Tensor:
        """Return the features of these pictures, [pictures, D]."""
        return self.image[[self.picture_rows[picture] for picture in pictures]]

    def of_captions(self, captions: Iterable[str]) -> Tensor:
        """Return the features of these captions, [captions, D]."""
        return self.text[[self.caption_rows[caption] for caption in captions]]

    def cosines(self, cases: Iterable[tuple[Picture, Sequence[str]]]) -> Iterator[list[float]]:
        """Yield the cosines of each picture with its captions. Equal captions get bitwise equal cosines."""
        pending = iter(cases)
        while batch := list(itertools.islice(pending, _CASES_AT_A_TIME)):
            sizes = [len(captions) for _, captions in batch]
            texts = self.of_captions(caption for _, captions in batch for caption in captions)
            images = self.of_pictures(picture for picture, _ in batch)
            # One operation computes all rows, so that equal rows have bitwise equal sums.
            cosines = (images.repeat_interleave(torch.tensor(sizes), dim=0) * texts).sum(dim=1)
            yield from (part.tolist() for part in torch.split(cosines, sizes))


class FeatureEncoder(Protocol):
    """Interface that takes chunks of pictures or captions, and yields their features."""

    def pictures(self, chunks: Iterable[Sequence[Picture]]) -> Iterator[Encoded]:
        """Yield the features of each chunk, and the errors of its unreadable pictures."""
        ...

    def captions(self, chunks: Iterable[Sequence[str]]) -> Iterator[Tensor]:
        """Yield the features of each chunk."""
        ...


class Here:
    """An encoder that runs in this process."""

    def __init__(self, scorer: Scorer, batch_size: int) -> None:
        self._scorer = scorer
        self._batch_size = batch_size
        # Pillow and torch release the GIL while they decode and resize.
        self._threads = min(8, os.cpu_count() or 1)

    def encode_pictures(self, pictures: Sequence[Picture]) -> Encoded:
        """Return the features of the pictures, [pictures, D], and the errors of unreadable ones."""
        unreadable: dict[Picture, str] = {}
        rows = {picture: row for row, picture in enumerate(pictures)}
        features: Tensor | None = None
        loaded = contents(pictures)
        with ThreadPoolExecutor(self._threads) as threads:
            while batch := list(itertools.islice(loaded, self._batch_size)):
                pixels = list(threads.map(self._pixels, (content for _, content in batch)))
                readable = [
                    (rows[p], decoded)
                    for (p, _), decoded in zip(batch, pixels, strict=True)
                    if isinstance(decoded, Tensor)
                ]
                for (picture, _), decoded in zip(batch, pixels, strict=True):
                    if not isinstance(decoded, Tensor):
                        unreadable[picture] = decoded
                if readable:
                    encoded = self._scorer.encode_pixels(torch.stack([decoded for _, decoded in readable]))
                    if features is None:
                        features = torch.full((len(pictures), encoded.shape[1]), torch.nan)
                    features[[row for row, _ in readable]] = encoded.float()
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
        """Return the features of the captions, [captions, D]."""
        return self._scorer.encode_text(captions, self._batch_size)

    def pictures(self, chunks: Iterable[Sequence[Picture]]) -> Iterator[Encoded]:
        """Yield the features of each chunk, and the errors of its unreadable pictures."""
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
    """Encode each distinct picture and caption once, and return the features.

    `after_pictures` gets the unreadable pictures, with reasons, before captions are encoded; it may raise to stop.
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
"""Maximum number of picture files or captions in a chunk. A shard's pictures form one chunk of any size."""


def _chunks(pictures: Iterable[Picture]) -> Iterator[Sequence[Picture]]:
    for shard, members in itertools.groupby(pictures, key=lambda p: "" if p.sample is None else p.path):
        if shard:
            yield list(members)  # one chunk, so that the shard is read once
        else:
            while chunk := list(itertools.islice(members, CHUNK)):
                yield chunk


def _joined(features: Sequence[Tensor]) -> Tensor:
    # A chunk without a readable picture has width 0; its rows become NaN.
    width = max((part.shape[1] for part in features), default=0)
    return (
        torch.cat([part if part.shape[1] else torch.full((len(part), width), torch.nan) for part in features])
        if features
        else torch.empty(0, 0)
    )


def _batches(captions: Sequence[str]) -> Iterator[Sequence[str]]:
    return (captions[start : start + CHUNK] for start in range(0, len(captions), CHUNK))
