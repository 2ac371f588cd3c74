"""The manifest of a checkpoint: what makes a folder a whole one, and finds what was damaged since.

A checkpoint is a folder of safetensors files and manifest.json: the caller's JSON state, size and SHA-256 of each file,
and a SHA-256 of the manifest itself, which says where the data stands. It comes last and in one piece, so a folder
without one is what a crash left.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sclip.storage.paths import StoragePath, sizes, storage_path, write

__all__ = [
    "MANIFEST",
    "CheckpointError",
    "NotWritten",
    "OtherFormat",
    "checked_manifest",
    "fingerprint",
    "is_complete",
    "read_state",
    "verify",
    "write_manifest",
]

MANIFEST = "manifest.json"
FORMAT = 2
"""Version of the layout above and of the names of tensors; a reader refuses another one."""


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or read; the message names the folder, what differs and the remedy."""


class OtherFormat(CheckpointError):
    """A checkpoint of another version of this package: whole, as far as this one can tell, and not to be set aside."""


class NotWritten(CheckpointError):
    """A checkpoint that storage did not take; the one before it is whole, and another attempt may succeed."""


def is_complete(path: str | StoragePath) -> bool:
    """Return whether the folder holds a checkpoint that was written to its end."""
    return (storage_path(path) / MANIFEST).is_file()


def read_state(path: str | StoragePath) -> dict[str, Any]:
    """Return the caller's state of a checkpoint without reading any tensor."""
    state: dict[str, Any] = _manifest(storage_path(path))["state"]
    return state


def verify(path: str | StoragePath) -> str:
    """Return what is damaged in a complete checkpoint, in one line, or "" if every byte is as it was written.

    Reads all files (about a second a gigabyte): meant for one process before a resume, not for every rank. Raises
    OtherFormat where it cannot tell.
    """
    path = storage_path(path)
    try:
        manifest = checked_manifest(path)
    except OtherFormat:
        raise
    except CheckpointError as error:
        return str(error)
    for name, entry in manifest["files"].items():
        if fingerprint(path / name) != entry:
            return f"{path / name}: its bytes are not those that were written (SHA-256 differs)"
    return ""


def checked_manifest(path: StoragePath) -> dict[str, Any]:
    """Return the manifest if the files beside it are those it names, by name and size."""
    manifest = _manifest(path)
    found = {name: size for name, size in sizes(path).items() if name.endswith(".safetensors")}
    for name in sorted(found.keys() | manifest["files"].keys()):
        stored, expected = found.get(name), manifest["files"].get(name, {}).get("bytes")
        if stored != expected:
            raise CheckpointError(f"{path / name}: {stored} bytes, the manifest says {expected}")
    return manifest


def fingerprint(file: StoragePath) -> dict[str, Any]:
    """Return size and SHA-256 of a file, as they stand in the manifest."""
    if not isinstance(file, Path):
        size, digest = file.sha256()
        return {"bytes": size, "sha256": digest}
    with file.open("rb") as stream:
        return {"bytes": file.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def write_manifest(path: StoragePath, state: Mapping[str, Any], files: Mapping[str, Any]) -> None:
    """Make the folder a complete checkpoint of these files (`fingerprint` of each by its name)."""
    manifest = {"format": FORMAT, "state": state, "files": dict(sorted(files.items()))}
    manifest["sha256"] = _digest(manifest)
    if not isinstance(path, Path):
        write(path / MANIFEST, json.dumps(manifest, indent=1))
        return
    partial = path / f".{MANIFEST}.partial"
    _sync_folder(path)  # the names of the files, before that of the manifest
    with partial.open("w") as file:
        json.dump(manifest, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path / MANIFEST)
    _sync_folder(path)


def _manifest(path: StoragePath) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no complete checkpoint ({MANIFEST} is missing)") from None
    except ValueError as error:
        raise CheckpointError(f"{path / MANIFEST}: damaged ({error})") from error
    if not isinstance(manifest, dict) or not {"format", "state", "files"} <= manifest.keys():
        raise CheckpointError(f"{path / MANIFEST}: damaged (no format, state or files in it)")
    if manifest["format"] != FORMAT:
        raise OtherFormat(
            f"{path}: format {manifest['format']}, this version reads {FORMAT}; go on with the version that wrote it, "
            "or with another run.name"
        )
    if manifest.pop("sha256", None) != _digest(manifest):
        raise CheckpointError(f"{path / MANIFEST}: damaged (its SHA-256 differs)")
    for name, entry in manifest["files"].items():
        if Path(name).name != name:
            raise CheckpointError(f"{path / MANIFEST}: names {name!r}, a file outside of its folder")
        if not isinstance(entry, dict) or entry.keys() != {"bytes", "sha256"}:
            raise CheckpointError(f"{path / MANIFEST}: gives {name} no size and SHA-256")
    return manifest


def _digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _sync_folder(path: Path) -> None:
    """Have the names of a folder's files survive a loss of power, as `fsync` does for what is in them."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
