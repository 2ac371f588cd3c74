"""Checks of the config tree: limits of single fields (`Annotated[int, at_least(1)]`), and rules over several fields.

A `Section` checks its values when it is created, so the checks need no pydantic.
"""

from __future__ import annotations

import functools
import json
import re
import typing
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, ClassVar

_CHAINABLE = re.compile(r"(simplecache|filecache|blockcache|cached|dir|zip|tar|libarchive|reference)($|://)")
"""Protocols of fsspec that can come before `::`, as zip in `zip://a.tar::https://host/a.zip` (a file in an archive)."""
_TAR_END = re.compile(r"\.(tar(\.\w+)?|t[gbx]z2?|tzst)$", re.IGNORECASE)


class ConfigError(ValueError):
    """A configuration that cannot be run. Each line of the message names a key, its value and the remedy."""


@dataclass(frozen=True)
class Limit:
    """Test that the value of a config field must pass (`holds`), and the remedy to print if it does not."""

    remedy: str
    holds: Callable[[Any], bool]


def joined_sources(pattern: str) -> list[str]:
    """Return the sources of a shard pattern in open_clip's form, such as `a.tar::b.tar`.

    A `::` that chains fsspec's file systems (`zip://a.tar::https://host/a.zip`) does not separate sources.
    """
    sources = [""]
    links = pattern.split("::")
    for link, following in zip(links, [*links[1:], ""], strict=True):
        sources[-1] += link
        ends = not _CHAINABLE.match(link) and (
            _TAR_END.search(link) or following.startswith("/") or "://" in following
        )
        if ends:
            sources.append("")
        else:
            sources[-1] += "::"
    return [source for source in (source.removesuffix("::") for source in sources) if source]


def at_least(least: float, remedy: str = "") -> Limit:
    """Return a limit: a number must be at least `least`."""
    return Limit(remedy or f"at least {least}", lambda value: value >= least)


def between(low: float, high: float, remedy: str = "") -> Limit:
    """Return a limit: a number must be from `low` to `high`, both included."""
    return Limit(remedy or f"{low} to {high}", lambda value: low <= value <= high)


POSITIVE = Limit("must be above 0", lambda value: value > 0)
OFF_OR_MORE = at_least(0, "0 (off) or more")
SHARE = between(0, 1, "a share of the run, 0 to 1")


class Section:
    """Base class of config sections, such as `class TrainConfig(Section, key="train")`."""

    key: ClassVar[str] = ""

    def __init_subclass__(cls, key: str = "") -> None:
        cls.key = key

    def __post_init__(self) -> None:
        section: type = type(self)
        limits = _limits(section)
        broken = [
            self._line(name, limit.remedy) for name, limit in limits if not limit.holds(getattr(self, name))
        ]
        if broken:
            raise ConfigError("\n".join(broken))

    def require(self, holds: bool, name: str, remedy: str) -> None:
        """Raise ConfigError about the value of the field `name` (or "section.name") if `holds` is false."""
        if not holds:
            raise ConfigError(self._line(name, remedy))

    def require_separate(self, name: str) -> None:
        """Raise ConfigError if a shard pattern in the field `name` joins several sources with `::`."""
        for pattern in getattr(self, name):
            if len(sources := joined_sources(pattern)) > 1:
                listed = json.dumps(sources, ensure_ascii=False)
                raise ConfigError(
                    self._line(name, f"'::' does not join sources; list them: {self.key}.{name}='{listed}'")
                )

    def _line(self, name: str, remedy: str) -> str:
        key = f"{self.key}.{name}" if self.key else name
        return f"{key}={attrgetter(name)(self)!r}: {remedy}"


@functools.cache
def _limits(section: type) -> list[tuple[str, Limit]]:
    hints = typing.get_type_hints(section, include_extras=True)
    return [
        (name, limit)
        for name, hint in hints.items()
        for limit in getattr(hint, "__metadata__", ())
        if isinstance(limit, Limit)
    ]
