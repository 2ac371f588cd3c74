"""Checkpoints written while training continues: their content, resuming from them, and failures of one rank."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from sclip.config import KEEConfig, ModelConfig
from sclip.model import build_model
from sclip.train import checkpoint, manifest
from sclip.train.checkpoint import Saver
from sclip.train.checkpoint_tensors import stored_tensors
from sclip.train.manifest import MANIFEST, CheckpointError
from sclip.train.optimizer import EMA
from sclip.train.ranks import in_unison
from sclip.train.step import TrainStep, unwrapped
from support import ranks
from support.train_cases import ROWS, VIT, Tensors, config_with, losses, small, start, whole_weights

BEFORE, AFTER = (0, 1), (2, 3)
"""Steps before and after the checkpoint. The optimizer's state has an effect from the second step after it."""
RESUMED = {
    "fsdp of 4": "ddp",
    "hsdp of 4": "fsdp",
    "ddp of 4": "fsdp",
    "auto of 4": "ddp",
    "frozen of 4": "frozen",
    "fsdp of 1": "fsdp",
}
"""Maps each written checkpoint (sharding and number of ranks) to the sharding that resumes from it."""
OWN = ModelConfig(name=VIT.name, kee=dataclasses.replace(VIT.kee, own_embeddings=True, form="concatenation"))
STATE = {"samples": 12, "position": {"shard": [3, 1]}, "name": "Ω"}
STALE = "shard-00005-model-00001-of-00001.safetensors"


def started(kind: str, world_size: int, seed: int) -> tuple[TrainStep, EMA]:
    """Return a training step and the average of its weights.

    auto trains in bfloat16. hsdp has groups of two ranks, so that each shard is on two of four ranks. "frozen" is fsdp
    with a frozen image tower and an encoder with its own word embeddings.
    """
    train: dict[str, Any] = {"sharding": kind, "batch_size": 2 * ROWS, "num_workers": world_size}
    if kind == "auto":
        train["precision"] = "bf16"
    if kind == "hsdp":
        train["shard_ranks"] = min(2, world_size)
    if kind == "frozen":
        train |= {"sharding": "fsdp", "lr_scale_image": 0.0}
    step = start(config_with(model=OWN if kind == "frozen" else VIT, **train), seed=seed)
    return step, EMA(unwrapped(step.model), 0.5)


def trained(step: TrainStep, ema: EMA, numbers: tuple[int, ...], rank: int, world_size: int) -> list[float]:
    """Train steps of twelve rows, which four ranks can share; return losses, gradient norms, norms of the averages."""
    values = []
    for number in numbers:
        values += losses(step, [number], rank, world_size, 2 * ROWS)
        ema.update(number + 1)
    whole = [w.full_tensor() if isinstance(w, DTensor) else w for w in ema.weights.values()]
    return [*values, *(weight.double().norm().item() for weight in whole)]


class CountingStager(checkpoint._Stager):
    """Counts the bytes that this rank copies to the host."""

    staged = 0

    def stage(self, state_dict: Tensors, non_blocking: bool = False) -> Any:
        local = [t.to_local() if isinstance(t, DTensor) else t for t in state_dict.values()]
        self.staged += sum(tensor.nbytes for tensor in local)
        return super().stage(state_dict, non_blocking)


def write(rank: int, world_size: int, folder: str) -> dict[str, tuple[list[float], Tensors, int]]:
    """For each sharding: train, begin a checkpoint, continue training at once, then wait for the checkpoint."""
    results: dict[str, Any] = {}
    for name in (name for name in RESUMED if name.endswith(f"of {world_size}")):
        kind = name.split()[0]
        (step, ema), saver = started(kind, world_size, seed=rank), Saver()
        step.before_update = saver.until_copied
        trained(step, ema, BEFORE, rank, world_size)
        saver.start(f"{folder}/{name}", step.model, step.optimizer, {"rank": rank} if rank else STATE, ema)
        weights = whole_weights(step.model) | {
            key: (weight.full_tensor() if isinstance(weight, DTensor) else weight).clone()
            for key, weight in ema.weights.items()
        }
        values = trained(step, ema, AFTER, rank, world_size)
        saver.wait()
        results[name] = values, weights, getattr(saver._stager, "staged", 0)
        assert manifest.is_complete(f"{folder}/{name}")
        saver.close()
    return results


def write_and_count(rank: int, world_size: int, folder: str) -> dict[str, tuple[list[float], Tensors, int]]:
    """Do the same as `write`, count the bytes copied to the host, and refuse DCP's exchange of plans."""
    checkpoint._Stager = CountingStager  # type: ignore[misc]
    dist.gather_object = dist.scatter_object_list = None  # type: ignore[assignment]
    return write(rank, world_size, folder)


def resume(rank: int, world_size: int, folder: str) -> dict[str, list[float]]:
    results = {}
    for written, kind in RESUMED.items():
        step, ema = started(kind, world_size, seed=5)
        assert checkpoint.load(f"{folder}/{written}", step.model, step.optimizer, ema) == STATE
        results[written] = trained(step, ema, AFTER, rank, world_size)
    return results


def error_text(part: Any, *args: Any) -> str:
    """Return type and message of the CheckpointError that a call raises."""
    with pytest.raises(CheckpointError) as raised:
        part(*args)
    return f"{type(raised.value).__name__}: {raised.value}"


def fail(rank: int, folder: str) -> dict[str, Any]:
    """Provoke failures that happen on, or are known to, only one of two ranks; return the errors of this rank."""
    path = Path(folder) / "step-00000001"
    saver, results = checkpoint.Saver(), {}
    calls: list[bool] = []
    saver.start(path, *small(), {"n": 1}, afterwards=lambda: calls.append(manifest.is_complete(path)))
    saver.wait()
    results["afterwards"] = calls

    def unforeseen() -> dict[str, Any]:
        return {"of rank 0": {}}[f"of rank {rank}"]

    results["unforeseen"] = error_text(in_unison, unforeseen, CheckpointError)
    # Each rank sees the folder through its own mount; rank 1 finds a truncated file.
    whole = checkpoint.checked_manifest
    if rank == 1:

        def cut(path: Path) -> dict[str, Any]:
            raise CheckpointError(f"{path / 'a.safetensors'}: 3 bytes, the manifest says 5")

        checkpoint.checked_manifest = cut
    model, optimizer = small(seed=1)
    before = [p.detach().clone() for p in model.parameters()]
    results["cut"] = error_text(checkpoint.load, path, model, optimizer)
    results["unchanged"] = all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    checkpoint.checked_manifest = whole

    # Only rank 0 notices that this state cannot be written to a manifest.
    results["state"] = error_text(checkpoint.save, f"{folder}/step-00000002", *small(), {"n": {1, 2}})
    results["declared"] = manifest.is_complete(f"{folder}/step-00000002")
    results["loads"] = checkpoint.load(path, *small(seed=1))["n"]
    if rank == 1:  # this rank's disk is full

        def full(*_: Any) -> dict[str, Any]:
            raise OSError(28, "No space left on device")

        checkpoint.fingerprint = full
    saver.start(f"{folder}/step-00000003", *small(), {})
    results["full"] = error_text(saver.wait)
    results["half"] = manifest.is_complete(f"{folder}/step-00000003")
    if rank == 0:  # this rank cannot copy its share to the host
        saver._stager.close()  # type: ignore[no-untyped-call]
        saver._stager.stage = None  # type: ignore[assignment]
    saver.start(f"{folder}/step-00000004", *small(), {})
    saver.until_copied()
    results["copied"] = error_text(saver.wait)
    saver.close()
    return results


def on_two(rank: int, world_size: int, folder: str) -> dict[str, Any]:
    return {"resumed": resume(rank, world_size, folder), "failures": fail(rank, folder)}


class Written:
    """Checkpoints of four ranks and of one, each with the values of uninterrupted training and with its weights."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "fsdp of 4").mkdir()
        (folder / "fsdp of 4" / STALE).write_bytes(b"of a larger group that crashed")
        outcomes = ranks.run(write_and_count, 4, folder, str(folder))
        self.known = outcomes[3] | write(0, 1, str(folder))
        self.staged = {name: [outcome[name][2] for outcome in outcomes] for name in outcomes[0]}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return Written(tmp_path_factory.mktemp("written"))


@pytest.fixture(scope="module")
def outcomes(written: Written) -> list[dict[str, Any]]:
    return ranks.run(on_two, 2, written.folder, str(written.folder))


def test_a_checkpoint_of_four_ranks_or_one_resumes_with_another_number_and_sharding(
    written: Written, outcomes: list[Any]
) -> None:
    """Losses, gradient norms and norms of the averaged weights are compared."""
    for outcome in (resume(0, 1, str(written.folder)), *(outcome["resumed"] for outcome in outcomes)):
        for case, values in outcome.items():
            uninterrupted, *_ = written.known[case]
            # What was interrupted in bfloat16 goes on in fp32.
            rel, absolute = (2e-2, 1e-3) if case == "auto of 4" else (1e-4, 1e-12)
            assert values == pytest.approx(uninterrupted, rel=rel, abs=absolute), case
    without = trained(*started("fsdp", 1, seed=0), AFTER, 0, 1)
    assert without != pytest.approx(written.known["fsdp of 1"][0], rel=1e-2)


@pytest.mark.parametrize("name", RESUMED)
def test_a_checkpoint_is_whole_and_holds_the_weights_of_the_moment_it_was_begun(
    written: Written, name: str
) -> None:
    """Consolidation returns the averages of the trained weights."""
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


@pytest.mark.parametrize("name", ["fsdp of 4", "hsdp of 4", "ddp of 4", "auto of 4"])
def test_each_rank_copies_only_what_it_writes_to_the_host_and_copies_are_divided_by_bytes(
    written: Written, name: str
) -> None:
    entries = stored_tensors(written.folder / name).values()
    whole = sum(entry.size.numel() * entry.properties.dtype.itemsize for entry in entries)
    assert sum(written.staged[name]) == whole
    assert max(written.staged[name]) < 0.3 * whole


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


def test_a_failure_on_one_rank_is_raised_on_all_ranks_and_none_waits(
    outcomes: list[Any], written: Written
) -> None:
    first, second = (dict(outcome["failures"]) for outcome in outcomes)
    assert (first.pop("afterwards"), second.pop("afterwards")) == ([True], [])
    assert first == second
    path = written.folder / "step-00000001"
    assert first == {
        "unforeseen": "CheckpointError: KeyError: 'of rank 1'",
        "cut": f"CheckpointError: {path / 'a.safetensors'}: 3 bytes, the manifest says 5",
        "unchanged": True,
        "state": "NotWritten: TypeError: Object of type set is not JSON serializable",
        "declared": False,
        "loads": 1,
        "full": "NotWritten: [Errno 28] No space left on device",
        "half": False,
        "copied": "NotWritten: TypeError: 'NoneType' object is not callable",
    }


def test_training_continues_while_a_checkpoint_is_copied_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = small()
    copy, go_on = threading.Event(), threading.Event()
    stage, whole = checkpoint._Stager.stage, manifest.write_manifest
    monkeypatch.setattr(
        checkpoint._Stager, "stage", lambda *args, **how: (copy.wait(60), stage(*args, **how))[1]
    )
    monkeypatch.setattr(checkpoint, "write_manifest", lambda *args: (go_on.wait(60), whole(*args))[1])
    saver = Saver()
    assert not saver.is_done
    saver.start(tmp_path / "a", model, optimizer, {"n": 1})
    saved = [p.detach().clone() for p in model.parameters()]
    update = threading.Thread(target=lambda: (saver.until_copied(), optimizer.step()))
    update.start()
    update.join(0.3)
    assert update.is_alive()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), saved, strict=True))
    copy.set()
    update.join()  # while the thread is held back
    assert not any(torch.equal(p, q) for p, q in zip(model.parameters(), saved, strict=True))
    assert not saver.is_done
    assert not manifest.is_complete(tmp_path / "a")
    go_on.set()
    saver.start(tmp_path / "b", model, optimizer, {"n": 2})  # waits for the previous checkpoint
    assert manifest.is_complete(tmp_path / "a")
    saver.close()
    assert saver.is_done
    saver.wait()
    assert not saver.is_done
    for name, expected in (("a", saved), ("b", list(model.parameters()))):
        other, memory = small(seed=1)
        checkpoint.load(tmp_path / name, other, memory)
        assert all(torch.equal(p, q) for p, q in zip(other.parameters(), expected, strict=True))
