"""The space of a sweep as a command line writes it: `V1,V2,...` or `uniform(a,b)` in, values and Tune domains out."""

from __future__ import annotations

import re
from typing import Any

from ray import tune

from sclip.config import ConfigError
from sclip.config.loader import read_value

__all__ = ["domain", "values"]

_DOMAINS = ("uniform", "loguniform", "randint", "choice")


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
