"""Checkpoints written while training goes on: what they hold, on other world sizes, on a full disk."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sclip.train import checkpoint, manifest
from sclip.train.checkpoint import Saver
from sclip.train.manifest import CheckpointError
from sclip.train.step import TrainStep
from support import ranks
from support.train_cases import ROWS, config_with, part_of, start, training_batch, whole_weights

BEFORE, AFTER = (0, 1), (2, 3)
SHARDINGS = ("fsdp", "hsdp", "ddp")


def config_for(sharding: str, world_size: int) -> Any:
    """Return the config of a run; hsdp in groups of two ranks, so that each shard is on two of four."""
    groups = {"shard_ranks": min(2, world_size)} if sharding == "hsdp" else {}
    return config_with(sharding=sharding, batch_size=2 * ROWS, num_workers=world_size, **groups)


def losses(step: TrainStep, numbers: tuple[int, ...], rank: int, world_size: int) -> list[float]:
    """Train steps on twelve rows in all, so that they divide among four ranks."""
    values: list[float] = []
    for number in numbers:
        one, other = training_batch(number), training_batch(number + 10)
        batch = {name: torch.cat([one[name], other[name]]) for name in one}
        share = 2 * ROWS // world_size
        part = {name: column[rank * share : (rank + 1) * share] for name, column in batch.items()}
        metrics = step(part, 0.3)
        values += [metrics["loss"].item(), metrics["grad_norm"].item()]
    return values


def write(rank: int, world_size: int, folder: str) -> dict[str, Any]:
    """Train, begin a checkpoint, train on at once, and wait for it then; one of each sharding."""
    found: dict[str, Any] = {}
    for sharding in SHARDINGS:
        step, saver = start(config_for(sharding, world_size)), Saver()
        losses(step, BEFORE, rank, world_size)
        saver.start(f"{folder}/{sharding}", step.model, step.optimizer, {"step": 2})
        weights = whole_weights(step.model)
        found[sharding] = losses(step, AFTER, rank, world_size)
        saver.wait()
        assert manifest.is_complete(f"{folder}/{sharding}")
        found[f"{sharding} weights"] = weights
        saver.close()
    return found


def resume(rank: int, world_size: int, folder: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for written in SHARDINGS:
        for sharding in SHARDINGS:
            step = start(config_for(sharding, world_size), seed=5)
            assert checkpoint.load(f"{folder}/{written}", step.model, step.optimizer) == {"step": 2}
            found[f"{written} as {sharding}"] = losses(step, AFTER, rank, world_size)
    return found


class Written:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.of_ranks = ranks.run(write, 4, folder, str(folder))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Written]:
    folder = tmp_path_factory.mktemp("written")
    yield Written(folder)
    shutil.rmtree(folder)


@pytest.mark.parametrize("world_size", [1, 2])
def test_what_four_ranks_wrote_goes_on_on_fewer_and_as_another_sharding(
    written: Written, world_size: int
) -> None:
    if world_size == 1:
        of_ranks = [resume(0, 1, str(written.folder))]
    else:
        of_ranks = ranks.run(resume, world_size, written.folder, str(written.folder))
    for of_rank in of_ranks:
        for case, values in of_rank.items():
            uninterrupted = written.of_ranks[0][case.split()[0]]
            assert values == pytest.approx(uninterrupted, rel=1e-5), case  # measured: 3e-7 at most


def test_it_holds_the_weights_of_the_moment_it_was_begun(written: Written) -> None:
    for sharding in SHARDINGS:
        assert manifest.verify(written.folder / sharding) == ""
        model = checkpoint.consolidate(written.folder / sharding, config_for(sharding, 4).model)
        expected = written.of_ranks[3][f"{sharding} weights"]
        assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


# One process


def small() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Linear(3, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


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
        other, memory = small()
        checkpoint.load(tmp_path / name, other, memory)
        assert all(torch.equal(p, q) for p, q in zip(other.parameters(), expected, strict=True))


def test_a_checkpoint_is_declared_complete_before_older_ones_may_go(tmp_path: Path) -> None:
    (model, optimizer), saver, complete = small(), Saver(), list[bool]()
    path = tmp_path / "step-00000001"
    saver.start(path, model, optimizer, {}, afterwards=lambda: complete.append(manifest.is_complete(path)))
    saver.wait()
    saver.close()
    assert complete == [True]


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


def on_a_full_disk(rank: int, world_size: int, folder: str) -> dict[str, Any]:
    step, saver = start(config_with(sharding="fsdp")), Saver()
    if rank == 1:  # this rank's disk is full

        def full(*_: Any) -> dict[str, Any]:
            raise OSError(28, "No space left on device")

        checkpoint.fingerprint = full  # type: ignore[assignment]
    saver.start(f"{folder}/step-1", step.model, step.optimizer, {})
    step(part_of(training_batch(0), rank, world_size), 0.3)
    told = ""
    try:
        saver.wait()
    except CheckpointError as error:
        told = str(error)
    return {"told": told, "complete": manifest.is_complete(f"{folder}/step-1")}


def test_a_rank_that_cannot_write_is_told_on_every_rank_and_nothing_is_declared_whole(tmp_path: Path) -> None:
    for of_rank in ranks.run(on_a_full_disk, 2, tmp_path, str(tmp_path)):
        assert "No space left on device" in of_rank["told"]
        assert not of_rank["complete"]
