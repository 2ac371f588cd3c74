"""Checkpoints: training goes on as if uninterrupted, over other world sizes too, and damage is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from sclip.config import KEEConfig, ModelConfig
from sclip.model import build_model
from sclip.train import checkpoint, manifest
from sclip.train.manifest import MANIFEST, CheckpointError
from sclip.train.step import TrainStep
from support import ranks
from support.train_cases import MODEL, config_with, part_of, start, training_batch, whole_weights

CONFIG = config_with(sharding="fsdp")
STATE = {"samples": 12, "position": {"shard": [3, 1]}, "name": "Ω"}
BEFORE, AFTER = (0, 1), (2, 3, 4)
"""Steps before and after the checkpoint; what the optimizer remembers shows from the second after it on."""


def train(step: TrainStep, numbers: tuple[int, ...], rank: int = 0, world_size: int = 1) -> list[float]:
    """Train the steps of these numbers; return loss and gradient norm of each."""
    values: list[float] = []
    for number in numbers:
        metrics = step(part_of(training_batch(number), rank, world_size), 0.3 + 0.1 * number)
        values += [metrics["loss"].item(), metrics["grad_norm"].item()]
    return values


def on_a_rank(rank: int, world_size: int, folder: str) -> dict[str, Any]:
    step = start(CONFIG, seed=rank)
    train(step, BEFORE, rank, world_size)
    # Rank 1's state and a stale file of a larger group must not be part of what is saved.
    checkpoint.save(f"{folder}/sharded", step.model, step.optimizer, STATE if rank == 0 else {"rank": rank})
    weights = whole_weights(step.model)
    uninterrupted = train(step, AFTER, rank, world_size)

    other = start(CONFIG, seed=7)
    state = checkpoint.load(f"{folder}/sharded", other.model, other.optimizer)
    resumed = train(other, AFTER, rank, world_size)

    other = start(CONFIG, seed=7)
    checkpoint.load(f"{folder}/plain", other.model, other.optimizer)
    from_plain = train(other, AFTER, rank, world_size)
    return {
        "weights": weights,
        "uninterrupted": uninterrupted,
        "resumed": resumed,
        "from plain": from_plain,
        "state": json.dumps(state),
    }


class Saved:
    """Checkpoints "plain" and "sharded" of the same training, and how that went on without a break."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        step = start(CONFIG)
        train(step, BEFORE)
        checkpoint.save(folder / "plain", step.model, step.optimizer, STATE)
        self.weights = whole_weights(step.model)
        self.uninterrupted = train(step, AFTER)
        (folder / "sharded").mkdir()
        (folder / "sharded" / "shard-00003-model-00001-of-00001.safetensors").write_bytes(b"of a crash")
        self.of_ranks = ranks.run(on_a_rank, 2, folder, str(folder))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Saved]:
    folder = tmp_path_factory.mktemp("checkpoints")
    yield Saved(folder)
    shutil.rmtree(folder)  # some hundred megabytes, which pytest would keep for three sessions


# Going on


def close(values: list[float]) -> Any:
    return pytest.approx(values, rel=2e-4)


@pytest.mark.parametrize("name", ["plain", "sharded"])
def test_one_plain_process_goes_on_where_the_checkpoint_was_written(saved: Saved, name: str) -> None:
    step = start(CONFIG, seed=7)
    assert checkpoint.load(saved.folder / name, step.model, step.optimizer) == STATE
    found = train(step, AFTER)
    assert found == close(saved.uninterrupted)
    if name == "plain":
        assert found == saved.uninterrupted
    fresh = start(CONFIG)  # without the checkpoint this is no match
    assert train(fresh, AFTER) != close(saved.uninterrupted)


@pytest.mark.parametrize("name", ["resumed", "from plain"])
def test_two_sharded_ranks_go_on_where_the_checkpoint_was_written(saved: Saved, name: str) -> None:
    for of_rank in saved.of_ranks:
        assert of_rank[name] == close(of_rank["uninterrupted"])
        assert of_rank["uninterrupted"] == close(saved.uninterrupted)


def test_the_optimizers_memory_is_part_of_it(saved: Saved) -> None:
    step, forgetful = start(CONFIG, seed=7), start(CONFIG, seed=8)
    checkpoint.load(saved.folder / "sharded", step.model, step.optimizer)
    checkpoint.load(saved.folder / "sharded", forgetful.model, forgetful.optimizer)
    forgetful.optimizer.state.clear()
    assert train(step, AFTER) == close(saved.uninterrupted)
    assert train(forgetful, AFTER) != close(saved.uninterrupted)


def test_hyperparameters_come_from_the_config_that_loads(saved: Saved) -> None:
    step = start(config_with(weight_decay=0.7, beta2=0.5))
    checkpoint.load(saved.folder / "sharded", step.model, step.optimizer)
    assert [group["weight_decay"] for group in step.optimizer.param_groups] == [0.7, 0.0]
    assert {group["betas"] for group in step.optimizer.param_groups} == {(0.9, 0.5)}


def test_the_state_is_rank_0s_on_every_rank_and_read_without_a_tensor(saved: Saved) -> None:
    assert [json.loads(of_rank["state"]) for of_rank in saved.of_ranks] == [STATE, STATE]
    assert manifest.read_state(saved.folder / "sharded") == STATE


@pytest.mark.parametrize("name", ["plain", "sharded"])
def test_the_consolidated_model_has_the_weights_of_the_moment_of_saving(saved: Saved, name: str) -> None:
    torch.manual_seed(9)
    model = checkpoint.consolidate(saved.folder / name, MODEL)
    expected = saved.weights if name == "plain" else saved.of_ranks[1]["weights"]
    assert not model.training
    state = model.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], tensor) for key, tensor in expected.items())


# The folder


def test_a_checkpoint_is_whole_and_holds_only_safetensors_and_json(saved: Saved) -> None:
    for name, writers in (("plain", 1), ("sharded", 2)):
        folder = saved.folder / name
        assert manifest.is_complete(folder)
        assert manifest.verify(folder) == ""
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        assert {file.suffix for file in files} == {".safetensors", ".json"}
        shards = [file for file in files if file.suffix == ".safetensors"]
        assert len(shards) >= writers
        for shard in shards:
            with safe_open(shard, "pt") as opened:
                assert opened.keys()
        for file in files:
            if file.suffix == ".json":
                json.loads(file.read_text())
        assert sorted(json.loads((folder / MANIFEST).read_text())["files"]) == [file.name for file in shards]


def test_a_checkpoint_of_another_knowledge_encoder_is_refused_with_its_tensors(saved: Saved) -> None:
    deeper = ModelConfig(name=MODEL.name, kee=KEEConfig(layers=2, heads=4))
    with pytest.raises(CheckpointError, match=r"missing in it \(model\.kee\.layers\.1\.[\w.]+, ") as raised:
        checkpoint.consolidate(saved.folder / "sharded", deeper)
    assert str(saved.folder / "sharded") in str(raised.value)
    plain = ModelConfig(name=MODEL.name, kee=KEEConfig(enabled=False))
    with pytest.raises(CheckpointError, match=r"unknown to the model \(model\.kee\."):
        checkpoint.consolidate(saved.folder / "sharded", plain)
    torch.manual_seed(3)
    model = build_model(plain)
    with pytest.raises(CheckpointError, match=r"unknown to the model \("):
        checkpoint.load(saved.folder / "sharded", model, torch.optim.AdamW(model.parameters()))


# Damage, on a model of a few bytes


def small(width: int = 4, seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, width), nn.LayerNorm(width))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 3)).square().sum().backward()
    optimizer.step()
    return model, optimizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    checkpoint.save(tmp_path / "step-1", *small(), STATE)
    return tmp_path / "step-1"


def shard_of(folder: Path) -> Path:
    (shard,) = folder.glob("*.safetensors")
    return shard


def refused(folder: Path, width: int = 4) -> str:
    """Return what loading says, after a check that it changed neither the model nor the optimizer."""
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


def test_an_undamaged_checkpoint_is_loaded(folder: Path) -> None:
    model, optimizer = small(seed=1)
    assert checkpoint.load(folder, model, optimizer) == STATE
    expected = tensors_of(*small())
    assert all(
        torch.equal(one, other) for one, other in zip(tensors_of(model, optimizer), expected, strict=True)
    )
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


def test_what_a_crash_left_is_written_over(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    (folder / "shard-00009-model-00001-of-00001.safetensors").write_bytes(b"half")
    checkpoint.save(folder, *small(seed=2), {"samples": 24})
    assert manifest.verify(folder) == ""
    assert manifest.read_state(folder) == {"samples": 24}


def test_a_complete_checkpoint_is_never_written_over(folder: Path) -> None:
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(CheckpointError, match="already holds a complete checkpoint"):
        checkpoint.save(folder, *small(seed=2), {})
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize("kept", [slice(0), slice(5), slice(500), slice(-1)])
def test_a_truncated_file_is_found_and_refused(folder: Path, kept: slice) -> None:
    shard = shard_of(folder)
    whole = shard.read_bytes()
    shard.write_bytes(whole[kept])
    expected = f"{shard}: {len(whole[kept])} bytes, the manifest says {len(whole)}"
    assert manifest.verify(folder) == expected
    assert refused(folder) == expected


@pytest.mark.parametrize("place", [0, 20, -1])
def test_a_flipped_bit_is_found_by_verifying(folder: Path, place: int) -> None:
    shard = shard_of(folder)
    content = bytearray(shard.read_bytes())
    content[place] ^= 1
    shard.write_bytes(content)
    found = manifest.verify(folder)
    assert found == f"{shard}: its bytes are not those that were written (SHA-256 differs)"


def test_a_file_that_is_missing_or_too_much_is_named(folder: Path) -> None:
    stray = folder / "shard-00002-model-00001-of-00001.safetensors"
    shutil.copy(shard_of(folder), stray)
    assert refused(folder).startswith(f"{stray}: ")
    stray.rename(folder.parent / "elsewhere")
    assert manifest.verify(folder) == ""
    shard = shard_of(folder)
    shard.unlink()
    assert refused(folder).startswith(f"{shard}: None bytes")
    assert manifest.verify(folder) == refused(folder)


def test_a_header_that_cannot_be_read_is_told(folder: Path) -> None:
    shard = shard_of(folder)
    shard.write_bytes(b"\xff" * shard.stat().st_size)
    assert refused(folder).startswith(f"{folder}: a file is no readable safetensors file")


@pytest.mark.parametrize("content", ["", '{"format": 2, "sta', '{"format": 2}'])
def test_a_damaged_manifest_is_refused(folder: Path, content: str) -> None:
    (folder / MANIFEST).write_text(content)
    assert "damaged" in refused(folder)
    assert manifest.verify(folder) == refused(folder)


def test_another_format_is_refused_and_not_taken_for_damage(folder: Path) -> None:
    (folder / MANIFEST).write_text('{"format": 1, "state": {}, "files": {}}')
    told = refused(folder)
    assert told.startswith(f"{folder}: format 1, this version reads 2; go on with the version that wrote it")
    with pytest.raises(manifest.OtherFormat):
        manifest.verify(folder)


def test_another_architecture_is_refused_with_its_tensors(folder: Path) -> None:
    message = refused(folder, width=5)
    assert message.startswith(
        f"{folder}: not a checkpoint of this model: tensors 12 of another shape (model.0.bias"
    )
    assert "another run.name" in message


def test_no_bit_of_a_header_that_is_flipped_makes_more_than_a_clear_error(folder: Path) -> None:
    shard = shard_of(folder)
    whole = shard.read_bytes()
    length = 8 + int.from_bytes(whole[:8], "little")
    refusals = []
    for place in range(0, length, 5):
        changed = bytearray(whole)
        changed[place] ^= 1 << (place % 8)
        shard.write_bytes(changed)
        model, optimizer = small(seed=1)
        try:
            checkpoint.load(folder, model, optimizer)
        except CheckpointError as error:
            refusals.append(str(error))
    assert len(refusals) > 0.8 * length / 5
    assert all(refusal.startswith(str(folder)) for refusal in refusals)


def test_a_pickle_in_place_of_safetensors_is_refused(folder: Path) -> None:
    shard = shard_of(folder)
    size = shard.stat().st_size
    torch.save({"weight": torch.ones(3)}, shard)
    shard.write_bytes(shard.read_bytes()[:size].ljust(size, b"\0"))
    assert "no readable safetensors file" in refused(folder)


@pytest.mark.parametrize(
    ("name", "entry", "told"),
    [
        ("a.safetensors", 5, "gives a.safetensors no size and SHA-256"),
        ("a.safetensors", {}, "gives a.safetensors no size and SHA-256"),
        (
            "../a.safetensors",
            {"bytes": 3, "sha256": ""},
            "names '../a.safetensors', a file outside of its folder",
        ),
        ("/etc/hosts", {"bytes": 3, "sha256": ""}, "names '/etc/hosts', a file outside of its folder"),
    ],
)
def test_a_manifest_that_names_other_files_is_refused(folder: Path, name: str, entry: Any, told: str) -> None:
    files = json.loads((folder / MANIFEST).read_text())["files"]
    manifest.write_manifest(folder, STATE, files | {name: entry})
    assert refused(folder) == f"{folder / MANIFEST}: {told}"
    assert manifest.verify(folder) == refused(folder)


def test_a_state_that_was_changed_in_the_manifest_is_refused(folder: Path) -> None:
    """It says where the data stands: one digit more, and samples would be left out unseen."""
    text = (folder / MANIFEST).read_text()
    assert text.count('"samples": 12') == 1
    (folder / MANIFEST).write_text(text.replace('"samples": 12', '"samples": 13'))
    assert refused(folder) == f"{folder / MANIFEST}: damaged (its SHA-256 differs)"
    with pytest.raises(CheckpointError, match="SHA-256 differs"):
        manifest.read_state(folder)
