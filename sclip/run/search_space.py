"""The space of a sweep as a command line writes it: `V1,V2,...` or `uniform(a,b)` in, values and Tune domains out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ray import tune

from sclip.config import Config, ConfigError
from sclip.config.loader import changed, read_value

__all__ = ["domain", "space", "values"]

_DOMAINS = ("uniform", "loguniform", "randint", "choice")


def space(name: str, config: Config, grid: Sequence[str], random: Sequence[str]) -> dict[str, Any]:
    """Return the space of a sweep from what a command line writes: KEY=V1,V2,.. and KEY=DOMAIN.

    Raises ConfigError for a name that no run may have, and for a point that no config accepts.
    """
    if not (grid or random):
        raise ConfigError("nothing to search: give --grid or --random")
    changed(config, {"run.name": name})
    found: dict[str, Any] = {}
    for written in (*grid, *random):
        key, separator, text = written.partition("=")
        if not separator or key in found:
            raise ConfigError(f"{written!r}: write each key once, as KEY=...")
        if written in grid:
            tried = values(key, text)
            found[key] = tune.grid_search(tried)
        else:
            found[key], tried = domain(key, text)
        for value in tried:
            changed(config, {key: value})
    return found


def values(key: str, text: str) -> list[Any]:
    """Return the values of a grid, written as V1,V2,... Raises ConfigError."""
    found = read_value(key, f"[{text}]")
    if not isinstance(found, list) or not found:
        raise ConfigError(f"{key}={text}: write its values as V1,V2,...")
    return found


def domain(key: str, text: str) -> tuple[Any, list[Any]]:
    """Return a Tune domain written as `uniform(a,b)`, `loguniform(a,b)`, `randint(a,b)` or `choice(a,b,..)`.

    Beside it, values of it that a config must accept for all of it to be accepted: its ends, or the choices. Raises
    ConfigError.
    """
    match = re.fullmatch(r"(\w+)\((.+)\)", text)
    name, given = (match[1], values(key, match[2])) if match else ("", [])
    if name not in _DOMAINS:
        raise ConfigError(
            f"{key}={text}: write {', '.join(f'{kind}(..)' for kind in _DOMAINS[:3])} or choice(..)"
        )
    if name == "choice":
        return tune.choice(given), given
    numbers = [value for value in given if isinstance(value, int | float) and not isinstance(value, bool)]
    whole = all(isinstance(value, int) for value in numbers) or name != "randint"
    if len(numbers) != 2 or len(given) != 2 or not whole or not numbers[0] < numbers[1]:
        raise ConfigError(f"{key}={text}: {name} takes two numbers, the lower first")
    if name == "loguniform" and numbers[0] <= 0:
        raise ConfigError(f"{key}={text}: loguniform begins above 0")
    ends = [numbers[0], numbers[1] - 1] if name == "randint" else [float(end) for end in numbers]
    return getattr(tune, name)(*numbers), ends
