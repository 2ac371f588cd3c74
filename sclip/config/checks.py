"""How a value that cannot be run is refused."""

from __future__ import annotations


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names the key, the value and the remedy."""


def require(holds: bool, key: str, value: object, remedy: str) -> None:
    """Raise ConfigError about the value of a dotted key unless `holds`."""
    if not holds:
        raise ConfigError(f"{key}={value!r}: {remedy}")
