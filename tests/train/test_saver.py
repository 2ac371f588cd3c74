"""Checkpoints written while training goes on: what they hold, and that training goes on from them on any ranks."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.tensor import DTensor

from sclip.config import KEEConfig, ModelConfig
from sclip.model import build_model
from sclip.train import checkpoint, manifest
from sclip.train.checkpoint import Saver
from sclip.train.manifest import MANIFEST, CheckpointError
from sclip.train.optimizer import EMA
from sclip.train.step import TrainStep, unwrapped
from support import ranks
from support.train_cases import ROWS, VIT, Tensors, config_with, losses, small, start, whole_weights

BEFORE, AFTER = (0, 1), (2, 3)
"""Steps before and after the checkpoint; what the optimizer remembers shows from the second after it on."""
KINDS = ("fsdp", "hsdp", "ddp", "frozen")
WRITTEN = ("fsdp of 4", "hsdp of 4", "ddp of 4", "frozen of 4", "fsdp of 1")
OWN = ModelConfig(name=VIT.name, kee=dataclasses.replace(VIT.kee, own_embeddings=True, form="concatenation"))
STATE = {"samples": 12, "position": {"shard": [3, 1]}, "name": "Ω"}
STALE = "shard-00005-model-00001-of-00001.safetensors"


def started(kind: str, world_size: int, seed: int) -> tuple[TrainStep, EMA]:
    """Return a step and the average of its weights.

    hsdp in groups of two ranks: each shard is on two of four. "frozen" is fsdp with a frozen image tower and words of
    the encoder's own.
    """
    train: dict[str, Any] = {"sharding": kind, "batch_size": 2 * ROWS, "num_workers": world_size}
    if kind == "hsdp":
        train["shard_ranks"] = min(2, world_size)
    if kind == "frozen":
        train |= {"sharding": "fsdp", "lr_scale_image": 0.0}
    step = start(config_with(model=OWN if kind == "frozen" else VIT, **train), seed=seed)
    return step, EMA(unwrapped(step.model), 0.5)


def trained(step: TrainStep, ema: EMA, numbers: tuple[int, ...], rank: int, world_size: int) -> list[float]:
    """Train steps on twelve rows in all, so that they divide among four ranks; return also the average's norm."""
    values = []
    for number in numbers:
        values += losses(step, [number], rank, world_size, 2 * ROWS)
        ema.update(number + 1)
    whole = [w.full_tensor() if isinstance(w, DTensor) else w for w in ema.weights.values()]
    return [*values, *(weight.double().norm().item() for weight in whole)]


def write(rank: int, world_size: int, folder: str) -> dict[str, tuple[list[float], Tensors]]:
    """Train, begin a checkpoint, train on at once, and wait for it then; one of each sharding."""
    found: dict[str, Any] = {}
    for kind in KINDS:
        name = f"{kind} of {world_size}"
        (step, ema), saver = started(kind, world_size, seed=rank), Saver()
        trained(step, ema, BEFORE, rank, world_size)
        saver.start(f"{folder}/{name}", step.model, step.optimizer, {"rank": rank} if rank else STATE, ema)
        weights = whole_weights(step.model) | {
            key: (weight.full_tensor() if isinstance(weight, DTensor) else weight).clone()
            for key, weight in ema.weights.items()
        }
        found[name] = trained(step, ema, AFTER, rank, world_size), weights
        saver.wait()
        assert manifest.is_complete(f"{folder}/{name}")
        saver.close()
    return found


def resume(rank: int, world_size: int, folder: str) -> dict[str, list[float]]:
    found = {}
    for written in WRITTEN:
        for kind in ["frozen"] if written.startswith("frozen") else ["fsdp", "ddp"]:
            step, ema = started(kind, world_size, seed=5)
            assert checkpoint.load(f"{folder}/{written}", step.model, step.optimizer, ema) == STATE
            found[f"{written} as {kind}"] = trained(step, ema, AFTER, rank, world_size)
    return found


class Written:
    """Checkpoints of four ranks and of one, each with what came after it without a break, and its weights."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "fsdp of 4").mkdir()
        (folder / "fsdp of 4" / STALE).write_bytes(b"of a larger group that crashed")
        self.known = ranks.run(write, 4, folder, str(folder))[3] | write(0, 1, str(folder))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return Written(tmp_path_factory.mktemp("written"))


@pytest.mark.parametrize("world_size", [1, 2])
def test_what_four_ranks_or_one_wrote_goes_on_on_other_numbers_and_as_another_sharding(
    written: Written, world_size: int
) -> None:
    """Losses, norms of the gradients and the averages of the weights."""
    if world_size == 1:
        of_ranks = [resume(0, 1, str(written.folder))]
    else:
        of_ranks = ranks.run(resume, world_size, written.folder, str(written.folder))
    for of_rank in of_ranks:
        for case, values in of_rank.items():
            uninterrupted, _ = written.known[case.partition(" as ")[0]]
            assert values == pytest.approx(uninterrupted, rel=1e-4), case
    without = trained(*started("fsdp", 1, seed=0), AFTER, 0, 1)
    assert without != pytest.approx(written.known["fsdp of 1"][0], rel=1e-2)


@pytest.mark.parametrize("name", WRITTEN)
def test_a_checkpoint_is_whole_and_holds_the_weights_of_the_moment_it_was_begun(
    written: Written, name: str
) -> None:
    """Consolidated, it is the averages of what was trained."""
    folder = written.folder / name
    assert manifest.verify(folder) == ""
    files = {file for file in folder.rglob("*") if file.is_file()}
    assert {file.suffix for file in files} == {".safetensors", ".json"}
    listed = json.loads((folder / MANIFEST).read_text())["files"]
    assert listed.keys() == {file.name for file in files if file.suffix == ".safetensors"}
    model = checkpoint.consolidate(folder, OWN if name == "frozen of 4" else VIT)
    assert not model.training
    expected = written.known[name][1]
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in model.state_dict().items())


def test_a_checkpoint_of_another_encoder_or_with_other_frozen_parts_is_refused(written: Written) -> None:
    folder = written.folder / "fsdp of 4"
    deeper = ModelConfig(name=VIT.name, kee=KEEConfig(layers=3, heads=2))
    with pytest.raises(CheckpointError, match=r"of 4.*missing in it \(\w+\.kee\.layers\.2\.[\w.]+, "):
        checkpoint.consolidate(folder, deeper)
    plain = ModelConfig(name=VIT.name, kee=KEEConfig(enabled=False))
    with pytest.raises(CheckpointError, match=r"unknown to the model \(model\.kee\."):
        checkpoint.consolidate(folder, plain)
    model = build_model(plain)
    with pytest.raises(CheckpointError, match=r"unknown to the model \("):
        checkpoint.load(folder, model, torch.optim.AdamW(model.parameters()))
    step, ema = started("frozen", 1, seed=0)
    with pytest.raises(CheckpointError, match=r"unknown to the model \(ema\.clip\.visual\."):
        checkpoint.load(folder, step.model, step.optimizer, ema)


# One process


def test_training_goes_on_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = small()
    go_on = threading.Event()
    whole = manifest.write_manifest
    monkeypatch.setattr(checkpoint, "write_manifest", lambda *args: (go_on.wait(60), whole(*args))[1])
    saver = Saver()
    assert not saver.is_done
    saver.start(tmp_path / "a", model, optimizer, {"n": 1})
    saved = [p.detach().clone() for p in model.parameters()]
    optimizer.step()  # while the thread is held back
    assert not saver.is_done
    assert not manifest.is_complete(tmp_path / "a")
    go_on.set()
    saver.start(tmp_path / "b", model, optimizer, {"n": 2})  # waits for the one before
    assert manifest.is_complete(tmp_path / "a")
    saver.close()
    assert saver.is_done
    saver.wait()
    assert not saver.is_done
    for name, expected in (("a", saved), ("b", list(model.parameters()))):
        other, memory = small(seed=1)
        checkpoint.load(tmp_path / name, other, memory)
        assert all(torch.equal(p, q) for p, q in zip(other.parameters(), expected, strict=True))


def test_what_cannot_be_written_is_told_when_it_is_waited_for_and_another_can_follow(tmp_path: Path) -> None:
    saver = Saver()
    (tmp_path / "file").write_text("")
    saver.start(tmp_path / "file" / "step-1", *small(), {})
    with pytest.raises(CheckpointError, match=r"file/step-1"):
        saver.wait()
    saver.start(tmp_path / "step-1", *small(), {})
    saver.wait()
    assert manifest.verify(tmp_path / "step-1") == ""
    saver.close()
