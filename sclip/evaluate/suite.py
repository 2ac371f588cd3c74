"""A suite: a YAML file, or the name of one of ours, in; named benchmarks with their files out.

    relation:
      kind: vg-relation
      file: aro/visual_genome_relation.json
      images: aro/images

In a file of the user's own, paths are relative to the file. The suites of this package (`suites/`) are relative to a
root folder; what a file names that is a URI's is copied to this machine. `include: [aro, sugarcrepe]` takes their
benchmarks over, in any file. `sclip fetch` says where the files are to be had.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sclip.config import ConfigError
from sclip.config.loader import read_yaml
from sclip.evaluate import kinds
from sclip.evaluate.benchmarks import BenchmarkDataError, Task
from sclip.evaluate.kinds import PATHS
from sclip.storage.paths import StoragePath, address, cached_copy, storage_path

__all__ = ["Entry", "from_options", "names", "read"]

_FOLDER = Path(__file__).parent / "suites"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_INCLUDE = "include"


@dataclass(frozen=True)
class Entry:
    """A benchmark of a suite; its files are not read yet."""

    name: str
    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    """As its reader takes them, paths absolute."""

    def task(self) -> Task:
        """Read its files. Raises BenchmarkDataError or ShardError naming what cannot be used."""
        return kinds.task(self.name, self.kind, self.options)


def names() -> list[str]:
    """Return the names of the package's suites."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def read(suite: str, root: str | Path, defaults: Mapping[str, Any] | None = None) -> list[Entry]:
    """Return the benchmarks of a suite in their order.

    Args:
        suite: a name of `names()`, or a file, by path or URI.
        root: the folder that the package's suites are relative to.
        defaults: options that a benchmark gets where it takes them and does not say them.

    Raises BenchmarkDataError naming the file, the benchmark and the nearest name.
    """
    base: StoragePath = Path(root).expanduser().absolute()
    path: StoragePath = _FOLDER / f"{suite}.yaml"
    if suite not in names():
        path, base = storage_path(suite), storage_path(suite).parent
        if not path.is_file():
            raise BenchmarkDataError(
                f"suite {suite!r}: no such file, and {kinds.nearest(suite, set(names()))}"
            )
    try:
        tree = read_yaml(cached_copy(path))
    except ConfigError as error:
        raise BenchmarkDataError(str(error)) from error
    found: list[Entry] = []
    for name, options in tree.items():
        if name == _INCLUDE:
            found += _included(path, options, root, defaults)
        else:
            found.append(_entry(f"{path}: {name}", name, options, base, defaults or {}))
    if not found:
        raise BenchmarkDataError(
            f"{path}: no benchmark in it; one is NAME: {{kind: .., file: .., images: ..}}"
        )
    return _each_once(found, str(path))


def from_options(
    benchmarks: Sequence[tuple[str, str]], images: Sequence[str], defaults: Mapping[str, Any] | None = None
) -> list[Entry]:
    """Return benchmarks that were named one by one, as (kind, file), relative to the working folder.

    The file of `shards` is a pattern of tars, that of `zero-shot` the folder of the classes. `images` has a folder
    for each, one for all, or none. A benchmark is called as its kind, with the file's name where a kind comes twice.
    """
    if len(images) not in (0, 1, len(benchmarks)):
        raise BenchmarkDataError(
            f"--images: {len(images)} folders for {len(benchmarks)} benchmarks; name one for all, or one for each"
        )
    folders = [*images] * len(benchmarks) if len(images) == 1 else [*images] or [""] * len(benchmarks)
    found = []
    for (kind, file), folder in zip(benchmarks, folders, strict=True):
        twice = sum(of == kind for of, _ in benchmarks) > 1
        stem = re.sub(r"[^\w.-]", "-", Path(file).stem)
        name = f"{kind}-{stem}" if twice else kind
        known = kinds.KINDS.get(kind)
        first = known.needs[0] if known else "file"
        options = {"kind": kind, first: file}
        if folder and known and "images" in known.may:
            options["images"] = folder
        found.append(_entry(f"--benchmark {kind}={file}", name, options, Path.cwd(), defaults or {}))
    return _each_once(found, "--benchmark")


def _entry(
    place: str, name: object, options: object, base: StoragePath, defaults: Mapping[str, Any]
) -> Entry:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BenchmarkDataError(f"{place}: a benchmark's name has letters, digits, '-', '_' and '.' only")
    if not isinstance(options, dict) or not isinstance(options.get("kind"), str):
        raise BenchmarkDataError(f"{place}: must have a kind: one of {', '.join(kinds.KINDS)}")
    kind = options["kind"]
    given = {option: value for option, value in options.items() if option != "kind"}
    known = kinds.KINDS.get(kind)
    if known:
        given = {k: v for k, v in defaults.items() if v and k in (*known.needs, *known.may)} | given
    found = kinds.checked(kind, given, place)
    for option in PATHS:
        if option in found:
            found[option] = cached_copy(base / found[option])
    if "shards" in found:
        found["shards"] = tuple(
            p if "://" in p else address(base / Path(p).expanduser()) for p in found["shards"]
        )
    return Entry(name, kind, found)


def _included(
    path: StoragePath, of: object, root: str | Path, defaults: Mapping[str, Any] | None
) -> list[Entry]:
    if not isinstance(of, list) or not all(isinstance(name, str) for name in of):
        raise BenchmarkDataError(f"{path}: {_INCLUDE} must be a list of suites: {', '.join(names())}")
    for name in of:
        if name not in names():
            raise BenchmarkDataError(f"{path}: {_INCLUDE}: {name!r}: {kinds.nearest(name, set(names()))}")
        if path == _FOLDER / f"{name}.yaml":
            raise BenchmarkDataError(f"{path}: includes itself")
    return [entry for name in of for entry in read(name, root, defaults)]


def _each_once(entries: Sequence[Entry], place: str) -> list[Entry]:
    for entry in entries:
        if sum(other.name == entry.name for other in entries) > 1:
            raise BenchmarkDataError(f"{place}: {entry.name} is there twice")
    return list(entries)
