"""Read a suite of named benchmarks: a YAML file, or the name of a suite of this package.

    relation:
      kind: vg-relation
      file: aro/visual_genome_relation.json
      images: aro/images

In a user's own file, paths are relative to the file. In the package's suites (`suites/`), they are relative
to a root folder. `include: [aro, sugarcrepe]` adds the benchmarks of these package suites.
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
    """A benchmark of a suite, before its files are read."""

    name: str
    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options as `kinds.checked` returns them, with paths made absolute."""

    def task(self) -> Task:
        """Read the files of the benchmark. Raises BenchmarkDataError or ShardError naming what cannot be used."""
        return kinds.task(self.name, self.kind, self.options)


def names() -> list[str]:
    """Return the names of the package's suites."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def read(suite: str, root: str | Path, defaults: Mapping[str, Any] | None = None) -> list[Entry]:
    """Return the benchmarks of a suite in order.

    Args:
        suite: a name in `names()`, or the path or URI of a file.
        root: the folder that paths in the package's suites are relative to.
        defaults: options for all benchmarks that accept them; a benchmark's own options win.

    Raises BenchmarkDataError, naming file and benchmark.
    """
    base: StoragePath = Path(root).expanduser().absolute()
    path: StoragePath = _FOLDER / f"{suite}.yaml"
    if suite not in names():
        path, base = storage_path(suite), storage_path(suite).parent
        if not path.is_file():
            raise BenchmarkDataError(
                f"suite {suite!r}: no such file or suite; {kinds.nearest(suite, set(names()))}"
            )
    try:
        tree = read_yaml(cached_copy(path))
    except ConfigError as error:
        raise BenchmarkDataError(str(error)) from error
    entries: list[Entry] = []
    for name, options in tree.items():
        if name == _INCLUDE:
            entries += _included(path, options, root, defaults)
        else:
            entries.append(_entry(f"{path}: {name}", name, options, base, defaults or {}))
    if not entries:
        raise BenchmarkDataError(
            f"{path}: no benchmarks; write one as NAME: {{kind: .., file: .., images: ..}}"
        )
    return _each_once(entries, str(path))


def from_options(
    benchmarks: Sequence[tuple[str, str]], images: Sequence[str], defaults: Mapping[str, Any] | None = None
) -> list[Entry]:
    """Return the entries of (kind, file) pairs; relative paths start at the working folder.

    The file of `shards` is a pattern, that of `zero-shot` a folder. `images` holds no folder, one for all, or one each.
    """
    if len(images) not in (0, 1, len(benchmarks)):
        raise BenchmarkDataError(
            f"--images: {len(images)} folders for {len(benchmarks)} benchmarks; name one for all, or one for each"
        )
    folders = [*images] * len(benchmarks) if len(images) == 1 else [*images] or [""] * len(benchmarks)
    entries = []
    for (kind, file), folder in zip(benchmarks, folders, strict=True):
        # The name is the kind, or KIND-STEM if several benchmarks have the same kind.
        is_repeated = sum(other == kind for other, _ in benchmarks) > 1
        stem = re.sub(r"[^\w.-]", "-", Path(file).stem)
        name = f"{kind}-{stem}" if is_repeated else kind
        spec = kinds.KINDS.get(kind)
        first = spec.needs[0] if spec else "file"
        options = {"kind": kind, first: file}
        if folder and spec and "images" in spec.may:
            options["images"] = folder
        entries.append(_entry(f"--benchmark {kind}={file}", name, options, Path.cwd(), defaults or {}))
    return _each_once(entries, "--benchmark")


def _entry(
    location: str, name: object, options: object, base: StoragePath, defaults: Mapping[str, Any]
) -> Entry:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BenchmarkDataError(f"{location}: a benchmark's name has letters, digits, '-', '_' and '.' only")
    if not isinstance(options, dict) or not isinstance(options.get("kind"), str):
        raise BenchmarkDataError(f"{location}: must have a kind: one of {', '.join(kinds.KINDS)}")
    kind = options["kind"]
    values = {option: value for option, value in options.items() if option != "kind"}
    known = kinds.KINDS.get(kind)
    if known:
        values = {k: v for k, v in defaults.items() if v and k in (*known.needs, *known.may)} | values
    parsed = kinds.checked(kind, values, location)
    for option in PATHS:
        if option in parsed:
            path = base / parsed[option]
            try:
                parsed[option] = cached_copy(path)  # from a URI, a copy on this machine
            except OSError as error:
                raise BenchmarkDataError(f"{location}: {path}: {error.strerror or error}") from error
    if "shards" in parsed:
        parsed["shards"] = tuple(
            p if "://" in p else address(base / Path(p).expanduser()) for p in parsed["shards"]
        )
    return Entry(name, kind, parsed)


def _included(
    path: StoragePath, suites: object, root: str | Path, defaults: Mapping[str, Any] | None
) -> list[Entry]:
    if not isinstance(suites, list) or not all(isinstance(name, str) for name in suites):
        raise BenchmarkDataError(f"{path}: {_INCLUDE} must be a list of suites: {', '.join(names())}")
    for name in suites:
        if name not in names():
            raise BenchmarkDataError(f"{path}: {_INCLUDE}: {name!r}: {kinds.nearest(name, set(names()))}")
        if path == _FOLDER / f"{name}.yaml":
            raise BenchmarkDataError(f"{path}: includes itself")
    return [entry for name in suites for entry in read(name, root, defaults)]


def _each_once(entries: Sequence[Entry], location: str) -> list[Entry]:
    for entry in entries:
        if sum(other.name == entry.name for other in entries) > 1:
            raise BenchmarkDataError(f"{location}: two benchmarks have the name {entry.name}")
    return list(entries)
