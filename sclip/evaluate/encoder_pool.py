"""Encode chunks of pictures and captions in a pool of Ray actors, and yield the features in chunk order.

Ray's object store carries the model's files to the actors, so the nodes need no shared folder.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from torch import Tensor

from sclip.evaluate.features import Encoded, Here
from sclip.evaluate.picture import Picture
from sclip.inference.scorer import Scorer
from sclip.storage.paths import sizes

__all__ = ["EncoderPool"]

_AHEAD = 2
"""Chunks queued for each actor, so that it never waits for work."""


class _Actor:
    def __init__(self, files: dict[str, bytes], device: str, batch_size: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                (path := Path(folder, name)).parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            self._here = Here(Scorer.load(folder, device), batch_size)

    def pictures(self, chunk: Sequence[Picture]) -> Encoded:
        return self._here.encode_pictures(chunk)

    def captions(self, chunk: Sequence[str]) -> Tensor:
        return self._here.encode_captions(chunk)


class EncoderPool:
    """An encoder on `workers` actors of the connected Ray cluster. Leaving its context kills the actors."""

    def __init__(self, scorer: Scorer, workers: int, batch_size: int, device: str = "cpu", cpus: float = 1.0):
        with tempfile.TemporaryDirectory() as folder:
            scorer.save(folder)
            files = ray.put({name: Path(folder, name).read_bytes() for name in sizes(Path(folder))})
        actor = ray.remote(num_cpus=cpus, num_gpus=1 if device.startswith("cuda") else 0)(_Actor)
        self._actors: list[Any] = [
            actor.remote(files, device.partition(":")[0], batch_size) for _ in range(workers)
        ]

    def __enter__(self) -> EncoderPool:
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._actors:
            ray.kill(actor)

    def pictures(self, chunks: Iterable[Sequence[Picture]]) -> Iterator[Encoded]:
        """Yield the features of each chunk, and the errors of its unreadable pictures."""
        return self._each("pictures", chunks)

    def captions(self, chunks: Iterable[Sequence[str]]) -> Iterator[Tensor]:
        """Yield the features of each chunk."""
        return self._each("captions", chunks)

    def _each(self, method: str, chunks: Iterable[Any]) -> Iterator[Any]:
        pending: deque[Any] = deque()
        for number, chunk in enumerate(chunks):
            actor = self._actors[number % len(self._actors)]
            pending.append(getattr(actor, method).remote(chunk))
            if len(pending) >= _AHEAD * len(self._actors):
                yield ray.get(pending.popleft())
        while pending:
            yield ray.get(pending.popleft())
