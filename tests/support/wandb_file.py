"""The rows and the config of an offline run of Weights & Biases, read from its `.wandb` file.

The file is a log in LevelDB's format (github.com/google/leveldb/blob/main/doc/log_format.md), of wandb's own protocol
buffers, with a header of 7 bytes; the Python package of wandb only writes it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

_BLOCK, _HEADER = 32768, 7


def records(path: Path) -> Iterator[Record]:
    content, position, payload = path.read_bytes(), _HEADER, b""
    while position + _HEADER <= len(content):
        if _BLOCK - position % _BLOCK < _HEADER:  # the end of a block is filled up
            position += _BLOCK - position % _BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        payload += content[position + _HEADER : position + _HEADER + length]
        position += _HEADER + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(payload)
            payload = b""


def rows(path: Path) -> list[dict[str, Any]]:
    """Return what each row holds, by column."""
    found = []
    for record in records(path):
        if record.HasField("history"):
            items = record.history.item
            found.append({item.key or item.nested_key[0]: json.loads(item.value_json) for item in items})
    return found


def config(path: Path) -> dict[str, Any]:
    """Return the config that the run was sent with."""
    (run,) = [record.run for record in records(path) if record.HasField("run")]
    return {item.key or item.nested_key[0]: json.loads(item.value_json) for item in run.config.update}
