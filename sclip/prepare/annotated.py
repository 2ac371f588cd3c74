"""Keep the state of a folder of annotated shards: finished shards, sources left to annotate, and the index.

After a shard is written, a sidecar in FOLDER/.annotate records its source, stamp and reading options, its index entry,
its quarantined samples and its statistics. A shard without a sidecar counts as not written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sclip.config import DataConfig
from sclip.config.data import FOREIGN_KEYS
from sclip.data.annotation import dumps
from sclip.data.parquet import is_parquet
from sclip.prepare.pack import INDEX, Index, Skips
from sclip.prepare.writing import PackError, Shard, refuse_sources, write_file
from sclip.report import CorpusStatistics, write
from sclip.scenegraph.window import MOST_WORDS
from sclip.storage.filesystem import parts
from sclip.storage.masking import mask

QUARANTINE = "quarantine.jsonl"
_STATE = ".annotate"


def shard_names(sources: Sequence[str]) -> dict[str, str]:
    """Map the file name of each annotated shard to its source. The file name is the source's, with the ending .tar.

    Raises PackError if two sources have the same file name or one is Parquet.
    """
    names: dict[str, str] = {}
    for source in sources:
        if is_parquet(source):
            raise PackError(
                f"{mask(source)}: Parquet cannot be annotated; pack it into tars first: sclip pack"
            )
        name = parts(source)[0].rpartition("/")[2]
        name = name if name.endswith(".tar") else f"{name.partition('.tar')[0]}.tar"  # x.tar.gz becomes x.tar
        if name in names:
            raise PackError(
                f"{mask(names[name])} and {mask(source)}: both would become {name}; annotate them into two folders"
            )
        names[name] = source
    return names


@dataclass(frozen=True, slots=True)
class AnnotatedFolder:
    """Folder of annotated shards, with the stamp and the options for making them."""

    path: Path
    stamp: str
    data: DataConfig
    """Options for reading the sources, and later the annotated shards."""
    most_words: int = MOST_WORDS

    def claim(self, names: Mapping[str, str], overwrite: bool) -> list[str]:
        """Remove leftovers of killed jobs; return the sources left to annotate.

        With `overwrite`, shards made with another source, stamp or reading options are annotated again, and shards that
        `names` lacks are removed. Raises PackError if such shards exist without `overwrite`, if a source lies in this
        folder, or if `sclip annotate` did not write the folder's tars.
        """
        refuse_sources(names.values(), self.path)
        state = self.path / _STATE
        held = {path.name for path in self.path.glob("*.tar")}
        if held and not state.is_dir():
            raise PackError(
                f"{self.path}: holds {min(held)}, which sclip annotate did not write; choose another folder"
            )
        state.mkdir(parents=True, exist_ok=True)
        foreign = (held | {path.name.removesuffix(".json") for path in state.glob("*.json")}) - names.keys()
        if foreign and not overwrite:
            raise PackError(
                f"{self.path}: holds {min(foreign)}, from none of these sources; choose another folder, or pass "
                "--overwrite to remove it"
            )
        todo = {}
        for name, source in names.items():
            sidecar, made = self._sidecar(name), self._made(source)
            if sidecar is not None and sidecar["made"] != made and not overwrite:
                raise PackError(
                    f"{self.path / name}: {_difference(sidecar['made'], made)}; choose another folder, or pass "
                    "--overwrite to annotate it again"
                )
            if sidecar is None or sidecar["made"] != made:
                todo[name] = source
        # Remove the index first and each sidecar before its shard: they must not describe shards that are gone.
        if todo or foreign:
            (self.path / INDEX).unlink(missing_ok=True)
        for name in todo.keys() | foreign:
            self._sidecar_path(name).unlink(missing_ok=True)
        leftovers = [*self.path.glob(".*.tmp"), *state.glob(".*.tmp")]
        for path in [self.path / name for name in foreign] + leftovers:
            path.unlink(missing_ok=True)
        return list(todo.values())

    def finish(
        self,
        name: str,
        source: str,
        shard: Shard | None,
        quarantined: Sequence[Mapping[str, str]],
        statistics: CorpusStatistics,
    ) -> None:
        """Write the sidecar of a finished shard. `shard` is None if the source has no usable sample."""
        sidecar = {
            "made": self._made(source), "shard": asdict(shard) if shard else None,
            "quarantined": quarantined, "statistics": statistics.to_json(),
        }  # fmt: skip
        write_file(self._sidecar_path(name), dumps(sidecar))

    def publish(self, names: Mapping[str, str]) -> Index:
        """Merge all sidecars into quarantine.jsonl, the report and, last, index.json; return the index.

        Raises PackError if a sidecar is missing, or if no shard has a sample.
        """
        shards, quarantine, statistics = [], b"", CorpusStatistics()
        for name in sorted(names):
            sidecar = self._sidecar(name)
            if sidecar is None:
                raise PackError(f"{self.path / name}: a node wrote it, but this machine cannot see it; choose a "
                                "folder that every node reaches")  # fmt: skip
            if sidecar["shard"]:
                shards.append(Shard(**sidecar["shard"]))
            quarantine += b"".join(dumps(entry) + b"\n" for entry in sidecar["quarantined"])
            statistics.merge(CorpusStatistics.from_json(sidecar["statistics"]))
        write_file(self.path / QUARANTINE, quarantine)
        if not shards:
            raise PackError(f"no sample could be annotated; {self.path / QUARANTINE} says why")
        num_quarantined = quarantine.count(b"\n")
        notes = [f"Made by {self.stamp}."]
        if num_quarantined:
            notes.append(f"{num_quarantined} samples left out: {QUARANTINE}.")
        write(statistics, self.path, self.path.name, notes)
        index = Index(tuple(shards), Skips())
        write_file(self.path / INDEX, json.dumps(index.to_json(), indent=1).encode())
        return index

    def _sidecar_path(self, name: str) -> Path:
        return self.path / _STATE / f"{name}.json"

    def _made(self, source: str) -> dict[str, str]:
        """Return the values that decide a shard's content. A URI's signature is masked, because it may change."""
        reading = {
            name: value if isinstance(value, str) else " ".join(value)
            for name, value in self.data.reading().items()
            # Only Parquet, which cannot be annotated, has an image_field. Older sidecars lack the FOREIGN_KEYS.
            if name != "image_field" and (value or name not in FOREIGN_KEYS)
        }
        return {"source": mask(source), "stamp": self.stamp, **reading}

    def _sidecar(self, name: str) -> dict[str, Any] | None:
        """Return the sidecar of a complete shard, or None if the shard has to be written."""
        try:
            sidecar: dict[str, Any] = json.loads(self._sidecar_path(name).read_bytes())
            shard = sidecar["shard"]
            is_complete = not shard or (self.path / name).stat().st_size == shard["bytes"]
        except (FileNotFoundError, ValueError, LookupError, TypeError):
            return None
        return sidecar if is_complete else None


def _difference(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    key = next(key for key in now if before.get(key) != now[key])
    return f"annotated with {key} {before.get(key)!r}, not {now[key]!r}"
