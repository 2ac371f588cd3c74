"""Let a Python program see only some installed packages, as in an environment that holds nothing else."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


@functools.cache
def _owners() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def installed_with(*distributions: str) -> set[str]:
    """Return the top-level packages of these distributions and of their requirements, without extras."""
    needed, names = [canonicalize_name(name) for name in distributions], set()
    while needed:
        name = needed.pop()
        if name not in names:
            names.add(name)
            for line in metadata.requires(name) or []:
                requirement = Requirement(line)
                if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                    needed.append(canonicalize_name(requirement.name))
    return {top for top, d in _owners().items() if any(canonicalize_name(name) in names for name in d)}


def only(allowed: Collection[str]) -> str:
    """Return the first lines of a program; they hide every installed top-level package that is not in `allowed`.

    `sclip` is still found through the program's path, but not through the link of an editable installation.
    """
    hidden = set(_owners()) - set(allowed) - {"sclip"}
    return f"""
import sys
from importlib.machinery import PathFinder

class Rest(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        hidden = name.partition(".")[0] in {sorted(hidden)!r}
        return None if hidden else super().find_spec(name, path, target)

sys.meta_path = [Rest if f is PathFinder else f for f in sys.meta_path if "ditable" not in repr(f)]
"""
