"""A Python that finds some of what is installed, as in an environment that holds nothing else."""

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
    """Return the top-level packages that come with these distributions and all that they need, extras aside."""
    needed, names = [canonicalize_name(name) for name in distributions], set()
    while needed:
        name = needed.pop()
        if name not in names:
            names.add(name)
            for line in metadata.requires(name) or []:
                requirement = Requirement(line)
                if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                    needed.append(canonicalize_name(requirement.name))
    return {top for top, of in _owners().items() if any(canonicalize_name(name) in names for name in of)}


def only(allowed: Collection[str]) -> str:
    """Return the beginning of a program that then finds, of all that is installed, these top-level packages alone.

    Our own package stays, where the program's path leads to it; a link that an editable installation left does not.
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
