"""Parse the search space of a sweep from the command line: `V1,V2,...` and `uniform(a,b)`."""

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
    """Return the search space of a sweep from its arguments KEY=V1,V2,.. (`grid`) and KEY=DOMAIN (`random`).

    Raises ConfigError for an invalid run name, a malformed argument, and a value that the config rejects.
    """
    if not (grid or random):
        raise ConfigError("nothing to search: give --grid or --random")
    changed(config, {"run.name": name})
    domains: dict[str, Any] = {}
    for argument in (*grid, *random):
        key, separator, text = argument.partition("=")
        if not separator or key in domains:
            raise ConfigError(f"{argument!r}: write each key once, as KEY=...")
        if argument in grid:
            checked = values(key, text)
            domains[key] = tune.grid_search(checked)
        else:
            domains[key], checked = domain(key, text)
        for value in checked:
            changed(config, {key: value})
    return domains


def values(key: str, text: str) -> list[Any]:
    """Parse the values of a grid, written as V1,V2,... Raises ConfigError for any other text."""
    parsed = read_value(key, f"[{text}]")
    if not isinstance(parsed, list) or not parsed:
        raise ConfigError(f"{key}={text}: write its values as V1,V2,...")
    return parsed


def domain(key: str, text: str) -> tuple[Any, list[Any]]:
    """Parse a Ray Tune domain written as `uniform(a,b)`, `loguniform(a,b)`, `randint(a,b)` or `choice(a,b,..)`.

    Return the domain and the values to check against the config: both ends of the range, or all choices. Raises
    ConfigError for any other text, or a range that is empty or of the wrong type.
    """
    match = re.fullmatch(r"(\w+)\((.+)\)", text)
    name, arguments = (match[1], values(key, match[2])) if match else ("", [])
    if name not in _DOMAINS:
        raise ConfigError(
            f"{key}={text}: write {', '.join(f'{kind}(..)' for kind in _DOMAINS[:3])} or choice(..)"
        )
    if name == "choice":
        return tune.choice(arguments), arguments
    numbers = [value for value in arguments if isinstance(value, int | float) and not isinstance(value, bool)]
    has_valid_types = all(isinstance(value, int) for value in numbers) or name != "randint"
    if len(numbers) != 2 or len(arguments) != 2 or not has_valid_types or not numbers[0] < numbers[1]:
        raise ConfigError(f"{key}={text}: {name} takes two numbers, the lower first")
    if name == "loguniform" and numbers[0] <= 0:
        raise ConfigError(f"{key}={text}: loguniform begins above 0")
    ends = [numbers[0], numbers[1] - 1] if name == "randint" else [float(end) for end in numbers]
    return getattr(tune, name)(*numbers), ends
