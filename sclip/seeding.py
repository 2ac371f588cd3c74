"""Every random choice of the system, derived from (seed, epoch, identity) and from nothing else.

The identity of a sample is the name of its shard and its key (`sclip.data.schedule.Shard`): a key alone may stand in
many shards.
A generator made here gives the same draws on every machine, in every process and for every number of
workers, so that a crop, a caption or a negative can be made again from the log line that names it.
"""

from __future__ import annotations

import hashlib
import random


def digest64(*parts: object) -> int:
    """Return a stable unsigned 63-bit number for the parts; Python's own `hash` changes with the process."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()) >> 1


def generator(purpose: str, seed: int, epoch: int, identity: str) -> random.Random:
    """Return the generator of one purpose ("caption", "negative", "crop") for one visit of one sample."""
    return random.Random(digest64(purpose, seed, epoch, identity))


def uniform(purpose: str, seed: int, epoch: int, identity: str) -> float:
    """Return the one number in [0, 1) of one purpose for one visit of one sample, where no more is drawn."""
    return digest64(purpose, seed, epoch, identity) / 2**63
