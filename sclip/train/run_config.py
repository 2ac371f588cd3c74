"""The config and shards that a run was started with, read from its folder; their URIs stand without credentials."""

from __future__ import annotations

import json

from sclip.config import Config, ConfigError
from sclip.config.loader import from_tree
from sclip.storage.place import Place

__all__ = ["read_run_config"]


def read_run_config(folder: Place) -> tuple[Config, tuple[dict[str, int], ...]]:
    """Return the resolved config, and the samples of each shard of each source.

    Raises ConfigError where the folder is not that of a run which has begun, or of one of another version.
    """
    try:
        tree = json.loads((folder / "config.json").read_text())
        content = json.loads((folder / "shards.json").read_text())
        sources = tuple({str(url): int(n) for url, n in s["shards"].items()} for s in content["sources"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(f"{folder}: not the folder of a run: {error}") from error
    return from_tree(tree, str(folder / "config.json")), sources
