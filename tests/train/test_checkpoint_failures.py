"""Checkpoints where a rank fails: a clear error on every one, and none that waits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sclip.train import checkpoint, manifest
from sclip.train.collectives import in_unison
from sclip.train.manifest import CheckpointError
from support import ranks
from support.train_cases import small


def told(part: Any, *args: Any) -> str:
    """Return the CheckpointError that a call ends with, its type first."""
    with pytest.raises(CheckpointError) as raised:
        part(*args)
    return f"{type(raised.value).__name__}: {raised.value}"


def on_a_rank(rank: int, world_size: int, folder: str) -> dict[str, Any]:
    path = Path(folder) / "step-00000001"
    saver, found = checkpoint.Saver(), {}
    calls: list[bool] = []
    saver.start(path, *small(), {"n": 1}, afterwards=lambda: calls.append(manifest.is_complete(path)))
    saver.wait()
    found["afterwards"] = calls

    def unforeseen() -> dict[str, Any]:
        return {"of rank 0": {}}[f"of rank {rank}"]

    found["unforeseen"] = told(in_unison, unforeseen, CheckpointError)
    # Each sees the folder through its own mount; one of them finds a file cut.
    whole = checkpoint.checked_manifest
    if rank == 1:

        def cut(path: Path) -> dict[str, Any]:
            raise CheckpointError(f"{path / 'a.safetensors'}: 3 bytes, the manifest says 5")

        checkpoint.checked_manifest = cut
    model, optimizer = small(seed=1)
    before = [p.detach().clone() for p in model.parameters()]
    found["cut"] = told(checkpoint.load, path, model, optimizer)
    found["unchanged"] = all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    checkpoint.checked_manifest = whole

    # What cannot be part of a manifest is found by rank 0 alone.
    found["state"] = told(checkpoint.save, f"{folder}/step-00000002", *small(), {"n": {1, 2}})
    found["declared"] = manifest.is_complete(f"{folder}/step-00000002")
    found["loads"] = checkpoint.load(path, *small(seed=1))["n"]
    if rank == 1:  # this rank's disk is full

        def full(*_: Any) -> dict[str, Any]:
            raise OSError(28, "No space left on device")

        checkpoint.fingerprint = full
    saver.start(f"{folder}/step-00000003", *small(), {})
    found["full"] = told(saver.wait)
    found["half"] = manifest.is_complete(f"{folder}/step-00000003")
    saver.close()
    return found


def test_what_one_rank_meets_is_told_on_all_and_none_waits(tmp_path: Path) -> None:
    first, second = ranks.run(on_a_rank, 2, tmp_path, str(tmp_path))
    assert (first.pop("afterwards"), second.pop("afterwards")) == ([True], [])
    assert first == second
    path = tmp_path / "step-00000001"
    assert first == {
        "unforeseen": "CheckpointError: KeyError: 'of rank 1'",
        "cut": f"CheckpointError: {path / 'a.safetensors'}: 3 bytes, the manifest says 5",
        "unchanged": True,
        "state": "NotWritten: TypeError: Object of type set is not JSON serializable",
        "declared": False,
        "loads": 1,
        "full": "NotWritten: [Errno 28] No space left on device",
        "half": False,
    }
