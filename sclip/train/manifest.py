"""Define the manifest of a checkpoint: it marks a folder as a complete checkpoint and reveals later damage.

A checkpoint is a folder of safetensors files and manifest.json. The manifest holds the caller's JSON state (with the
position in the data), and the size and SHA-256 of each file. It is written last, so a folder without a manifest was
left by a crash.
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
"""Version of this layout and of the tensor names. Checkpoints of other versions cannot be read."""


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written or read. The message names the folder, what is wrong and often what to do."""


class OtherFormat(CheckpointError):
    """A checkpoint that another version of this package wrote. It may be intact."""


class NotWritten(CheckpointError):
    """Storage did not accept a checkpoint. The previous checkpoint is complete, and another attempt may succeed."""


def is_complete(path: str | StoragePath) -> bool:
    """Return whether the folder holds a completely written checkpoint."""
    return (storage_path(path) / MANIFEST).is_file()


def read_state(path: str | StoragePath) -> dict[str, Any]:
    """Return the state that the caller gave to `checkpoint.save`, without reading any tensor."""
    state: dict[str, Any] = _manifest(storage_path(path))["state"]
    return state


def verify(path: str | StoragePath) -> str:
    """Return one line that says what is damaged in a complete checkpoint, or "" if every byte is as it was written.

    Reads all files (about one second per GB), so only one rank should call it. Raises OtherFormat if another version of
    this package wrote the checkpoint.
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
            return f"{path / name}: its bytes have changed since they were written (SHA-256 differs)"
    return ""


def checked_manifest(path: StoragePath) -> dict[str, Any]:
    """Return the manifest. Raises CheckpointError unless the folder's files match it by name and size."""
    manifest = _manifest(path)
    file_sizes = {name: size for name, size in sizes(path).items() if name.endswith(".safetensors")}
    for name in sorted(file_sizes.keys() | manifest["files"].keys()):
        stored, expected = file_sizes.get(name), manifest["files"].get(name, {}).get("bytes")
        if stored != expected:
            texts = ["no such file" if size is None else f"{size} bytes" for size in (stored, expected)]
            raise CheckpointError(f"{path / name}: {texts[0]}, the manifest says {texts[1]}")
    return manifest


def fingerprint(file: StoragePath) -> dict[str, Any]:
    """Return the size and SHA-256 of a file, in the manifest's form."""
    if not isinstance(file, Path):
        size, digest = file.sha256()
        return {"bytes": size, "sha256": digest}
    with file.open("rb") as stream:
        return {"bytes": file.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def write_manifest(path: StoragePath, state: Mapping[str, Any], files: Mapping[str, Any]) -> None:
    """Write the manifest, which completes a checkpoint. `files` holds the `fingerprint` of each file, by name."""
    manifest = {"format": FORMAT, "state": state, "files": dict(sorted(files.items()))}
    manifest["sha256"] = _digest(manifest)
    if not isinstance(path, Path):
        write(path / MANIFEST, json.dumps(manifest, indent=1))
        return
    partial = path / f".{MANIFEST}.partial"
    _sync_folder(path)  # the files' names must be durable before the manifest's name
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
            f"{path}: format {manifest['format']}, but this version reads {FORMAT}; continue with the version that "
            "wrote it, or choose another run.name"
        )
    if manifest.pop("sha256", None) != _digest(manifest):
        raise CheckpointError(f"{path / MANIFEST}: damaged (its SHA-256 differs)")
    for name, entry in manifest["files"].items():
        if Path(name).name != name:
            raise CheckpointError(f"{path / MANIFEST}: names {name!r}, a file outside of its folder")
        if not isinstance(entry, dict) or entry.keys() != {"bytes", "sha256"}:
            raise CheckpointError(f"{path / MANIFEST}: has no size and SHA-256 of {name}")
    return manifest


def _digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _sync_folder(path: Path) -> None:
    """Make the names of a folder's files survive a power loss; `fsync` of a file secures only its content."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
