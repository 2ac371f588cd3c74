"""Derive every random choice of the system from its purpose, the seed, the epoch and the sample's identity alone.

A sample's identity is its shard's name and its key (`sclip.data.schedule.NamedShard`), because several shards may have
the same key. A choice is the same on every machine, in every process and for any number of workers. A crop, a caption
or a negative can therefore be reproduced from the log line that names it.
"""

from __future__ import annotations

import hashlib
import random


def digest64(*parts: object) -> int:
    """Return a stable unsigned 63-bit number for the parts; Python's `hash` differs between processes."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()) >> 1


def generator(purpose: str, seed: int, epoch: int, identity: str) -> random.Random:
    """Return the random generator for one purpose ("caption", "negative", "crop"), one epoch and one sample."""
    return random.Random(digest64(purpose, seed, epoch, identity))


def uniform(purpose: str, seed: int, epoch: int, identity: str) -> float:
    """Return the random number in [0, 1) for one purpose, one epoch and one sample, where one number is enough."""
    return digest64(purpose, seed, epoch, identity) / 2**63
