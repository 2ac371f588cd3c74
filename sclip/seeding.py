"""Derive every random choice of sclip from four values alone: purpose, seed, epoch and the sample's identity.

A sample's identity is its shard's name and its key (`sclip.data.schedule.NamedShard`), because two shards may hold the
same key. A choice does not depend on machine, process or number of workers, so a crop, a caption or a negative can be
reproduced from the log line that names it.
"""

from __future__ import annotations

import hashlib
import random


def digest64(*parts: object) -> int:
    """Return a 63-bit digest of the parts, which fits into an int64. Unlike `hash`, it is equal in all processes."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()) >> 1


def generator(purpose: str, seed: int, epoch: int, identity: str) -> random.Random:
    """Return the random generator for one purpose ("caption", "negative", "crop"), one epoch and one sample."""
    return random.Random(digest64(purpose, seed, epoch, identity))


def uniform(purpose: str, seed: int, epoch: int, identity: str) -> float:
    """Return one random number in [0, 1) for one purpose, one epoch and one sample."""
    return digest64(purpose, seed, epoch, identity) / 2**63
