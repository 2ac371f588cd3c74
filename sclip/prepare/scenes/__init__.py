"""Generate scenes, the default input: ordinary shards and cases in ARO's format, from a spec and a seed.

A folder holds training shards, held-out shards with pairings that training never shows, two evaluation files with
their images, and the suite that names these files. A sample depends only on seed, split and index.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sclip.config import ScenesConfig
from sclip.prepare.pack import RawSample, write_shards
from sclip.prepare.scenes.cases import SceneCase, attribute_cases, relation_cases
from sclip.prepare.scenes.grammar import captions
from sclip.prepare.scenes.picture import jpeg
from sclip.prepare.scenes.scene import FAMILIES, Family, draw_scene
from sclip.seeding import digest64, generator
from sclip.storage.paths import StoragePath, address, send, storage_path, write

__all__ = ["VERSION", "ScenesPaths", "generate"]

VERSION = 5
"""Generator version. Raise it with every change of pictures or captions, so that no older folder is reused."""

_STAMP = "scenes.json"
_SAMPLES_PER_SHARD = 500

_SUITE = """\
relation: {kind: vg-relation, file: relation.json, images: images}
attribute: {kind: vg-attribution, file: attribute.json, images: images}
retrieval: {kind: shards, shards: heldout/*.tar}
"""


@dataclass(frozen=True, slots=True)
class ScenesPaths:
    """Paths of the parts of a generated folder."""

    train: str
    """Glob of the training shards."""
    heldout: str
    """Glob of the held-out shards."""
    suite: StoragePath
    """Suite file (`sclip.evaluate.suite`) that names relation.json and attribute.json (ARO's formats) and `heldout`."""


def generate(out_dir: str | StoragePath, spec: ScenesConfig, seed: int) -> ScenesPaths:
    """Generate the scenes of `spec` and `seed` in a folder below `out_dir`, unless it exists; return its paths.

    The folder is named after spec, seed and generator version. Several processes may call this at once: each builds the
    folder under a temporary name. Raises PackError or OSError if writing fails.
    """
    stamp = {"version": VERSION, "seed": seed, **asdict(spec)}
    name = f"scenes-{digest64(json.dumps(stamp, sort_keys=True)):016x}"
    final = storage_path(str(out_dir) if isinstance(out_dir, Path) else out_dir) / name
    if not (final / _STAMP).is_file():
        final.parent.mkdir(parents=True, exist_ok=True)
        parent = final.parent if isinstance(final, Path) else None
        building = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=parent))
        try:
            _build(building, spec, seed)
            (building / _STAMP).write_text(json.dumps(stamp, indent=1))
            building.chmod(0o755)  # mkdtemp closes its folders to other users
            _publish(building, final)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return ScenesPaths(
        train=address(final / "train" / "*.tar"),
        heldout=address(final / "heldout" / "*.tar"),
        suite=final / "suite.yaml",
    )


def _publish(building: Path, final: StoragePath) -> None:
    """Rename or upload the finished folder, unless another process has published the same content."""
    if not isinstance(final, Path):  # upload scenes.json last: it marks a complete folder
        stamp = building / _STAMP
        text = stamp.read_text()
        stamp.unlink()
        send(building, final)
        write(final / _STAMP, text)
        return
    if final.exists() and not (final / _STAMP).is_file():
        shutil.rmtree(final)
    try:
        os.rename(building, final)
    except OSError:
        if not (final / _STAMP).is_file():
            raise


def _build(folder: Path, spec: ScenesConfig, seed: int) -> None:
    family = FAMILIES[spec.family]
    for split, count in (("train", spec.train_samples), ("heldout", spec.heldout_samples)):
        samples = _samples(family, seed, split, count, spec.image_size)
        write_shards(samples, folder / split, samples_per_shard=_SAMPLES_PER_SHARD)
    (folder / "images").mkdir()
    for kind, cases in (
        ("relation", relation_cases(family, seed, spec.heldout_samples)),
        ("attribute", attribute_cases(family, seed, spec.heldout_samples)),
    ):
        entries = _written(cases, folder / "images", spec.image_size)
        (folder / f"{kind}.json").write_text(json.dumps(entries, indent=1))
    (folder / "suite.yaml").write_text(_SUITE)


def _samples(family: Family, seed: int, split: str, count: int, size: int) -> Iterator[RawSample]:
    for index in range(count):
        rng = generator(f"scenes {split}", seed, 0, str(index))
        scene = draw_scene(rng, family, held_out=split == "heldout")
        yield RawSample(f"{split}-{index:08d}", jpeg(scene, size), captions(scene, rng))


def _written(cases: Iterable[SceneCase], images: Path, size: int) -> list[dict[str, Any]]:
    box = {"bbox_x": 0, "bbox_y": 0, "bbox_w": size, "bbox_h": size}
    entries = []
    for case in cases:
        path = images / f"{case.name}.jpg"
        path.write_bytes(jpeg(case.scene, size))
        entries.append({"image_id": case.name, "image_path": path.name, **box, **case.fields})
    return entries
