"""A checkpoint's folder is never overwritten, and any damage is found before anything is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sclip.train import checkpoint, manifest
from sclip.train.manifest import MANIFEST, CheckpointError
from support.train_cases import MODEL, small

STATE = {"samples": 12, "position": {"shard": [3, 1]}, "name": "Ω"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    checkpoint.save(tmp_path / "step-1", *small(4), STATE)
    return tmp_path / "step-1"


def shard_of(folder: Path) -> Path:
    (shard,) = folder.glob("*.safetensors")
    return shard


def refused(folder: Path, width: int = 4) -> str:
    """Return the error of loading, after checking that it changed neither the model nor the optimizer."""
    model, optimizer = small(width, seed=1)
    before = [tensor.clone() for tensor in tensors_of(model, optimizer)]
    with pytest.raises(CheckpointError) as raised:
        checkpoint.load(folder, model, optimizer)
    after = tensors_of(model, optimizer)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    return str(raised.value)


def tensors_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    memory = [value for state in optimizer.state.values() for value in state.values()]
    return [*model.state_dict().values(), *memory]


def test_loading_a_checkpoint_keeps_the_hyperparameters_of_the_run(folder: Path) -> None:
    model, optimizer = small(4, seed=1)
    optimizer.param_groups[0].update(weight_decay=0.7, betas=(0.9, 0.5))
    assert checkpoint.load(folder, model, optimizer) == STATE
    expected = tensors_of(*small(4))
    assert all(
        torch.equal(one, other) for one, other in zip(tensors_of(model, optimizer), expected, strict=True)
    )
    assert optimizer.param_groups[0]["weight_decay"] == 0.7
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.5)
    assert manifest.verify(folder) == ""


def test_a_folder_without_manifest_is_not_complete_and_refused(folder: Path, tmp_path: Path) -> None:
    assert manifest.is_complete(folder)
    (folder / MANIFEST).unlink()
    for incomplete in (folder, tmp_path / "nothing"):
        assert not manifest.is_complete(incomplete)
        assert refused(incomplete) == f"{incomplete}: no complete checkpoint ({MANIFEST} is missing)"
        assert manifest.verify(incomplete) == refused(incomplete)
        with pytest.raises(CheckpointError, match="no complete checkpoint"):
            manifest.read_state(incomplete)
        with pytest.raises(CheckpointError, match="no complete checkpoint"):
            checkpoint.consolidate(incomplete, MODEL)


def test_a_complete_checkpoint_is_never_overwritten_but_the_remains_of_a_crash_are(folder: Path) -> None:
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(CheckpointError, match="already holds a complete checkpoint"):
        checkpoint.save(folder, *small(4, seed=2), {})
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    (folder / MANIFEST).unlink()
    (folder / "shard-00009-model-00001-of-00001.safetensors").write_bytes(b"half")
    checkpoint.save(folder, *small(4, seed=2), {"samples": 24})
    assert manifest.verify(folder) == ""
    assert manifest.read_state(folder) == {"samples": 24}


def test_a_cut_changed_missing_or_added_file_is_found_and_named(folder: Path) -> None:
    shard = shard_of(folder)
    whole = shard.read_bytes()
    for kept in (0, len(whole) - 1):
        shard.write_bytes(whole[:kept])
        expected = f"{shard}: {kept} bytes, the manifest says {len(whole)} bytes"
        assert manifest.verify(folder) == refused(folder) == expected
    for offset in (0, 20, -1):
        content = bytearray(whole)
        content[offset] ^= 1
        shard.write_bytes(content)
        error = f"{shard}: its bytes have changed since they were written (SHA-256 differs)"
        assert manifest.verify(folder) == error
    shard.write_bytes(whole)
    stray = folder / "shard-00002-model-00001-of-00001.safetensors"
    shutil.copy(shard, stray)
    assert refused(folder).startswith(f"{stray}: ")
    stray.unlink()
    assert manifest.verify(folder) == ""
    shard.unlink()
    assert refused(folder).startswith(f"{shard}: no such file, the manifest says ")
    assert manifest.verify(folder) == refused(folder)


def test_another_format_or_architecture_is_refused_and_not_taken_for_damage(folder: Path) -> None:
    message = refused(folder, width=5)
    assert message.startswith(
        f"{folder}: not a checkpoint of this model: tensors 12 of another shape (model.0.bias"
    )
    assert "another run.name" in message
    (folder / MANIFEST).write_text('{"format": 1, "state": {}, "files": {}}')
    error = refused(folder)
    assert error.startswith(f"{folder}: format 1, but this version reads 2; continue with the version that")
    with pytest.raises(manifest.OtherFormat):
        manifest.verify(folder)


def test_a_flipped_bit_in_a_header_causes_nothing_but_a_clear_error(folder: Path) -> None:
    shard = shard_of(folder)
    whole = shard.read_bytes()
    length = 8 + int.from_bytes(whole[:8], "little")
    refusals = []
    for offset in range(0, length, 40):
        changed = bytearray(whole)
        changed[offset] ^= 1 << (offset % 8)
        shard.write_bytes(changed)
        model, optimizer = small(4, seed=1)
        try:
            checkpoint.load(folder, model, optimizer)
        except CheckpointError as error:
            refusals.append(str(error))
    assert len(refusals) > 0.8 * length / 40
    assert all(refusal.startswith(str(folder)) for refusal in refusals)


def test_a_manifest_that_was_changed_or_names_other_files_is_refused(folder: Path) -> None:
    """The manifest stores the data position: one changed digit would silently skip samples."""
    text = (folder / MANIFEST).read_text()
    assert text.count('"samples": 12') == 1
    for changed in ("", '{"format": 2}', text[:50], text.replace('"samples": 12', '"samples": 13')):
        (folder / MANIFEST).write_text(changed)
        error = refused(folder)
        assert error.startswith(f"{folder / MANIFEST}: damaged (")
        assert manifest.verify(folder) == error
        with pytest.raises(CheckpointError, match="damaged"):
            manifest.read_state(folder)
    assert "SHA-256 differs" in error
    files, entry = json.loads(text)["files"], {"bytes": 3, "sha256": ""}
    outside = "a file outside of its folder"
    for name, file_entry, error in (
        ("a.safetensors", {}, "has no size and SHA-256 of a.safetensors"),
        ("../a.safetensors", entry, f"names '../a.safetensors', {outside}"),
        ("/etc/hosts", entry, f"names '/etc/hosts', {outside}"),
    ):
        manifest.write_manifest(folder, STATE, files | {name: file_entry})
        assert manifest.verify(folder) == refused(folder) == f"{folder / MANIFEST}: {error}"
