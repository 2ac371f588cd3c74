"""Checkpoints where a rank fails: a clear error on every one, or the checkpoint before, and none that waits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sclip.train import checkpoint, manifest
from sclip.train.collectives import in_unison
from sclip.train.manifest import CheckpointError
from sclip.train.run_folder import RunFolder
from support import ranks
from support.processes import environment
from support.train_cases import small


def told(part: Any, *args: Any) -> str:
    """Return the CheckpointError that a call ends with, its type first."""
    with pytest.raises(CheckpointError) as raised:
        part(*args)
    return f"{type(raised.value).__name__}: {raised.value}"


# One of two ranks


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


# Killed


KILLED = """
import sys, time
import torch, torch.distributed as dist
from sclip.train import checkpoint
from support.train_cases import small
folder, rank, world_size, held = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(1)
if world_size > 1:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
model, optimizer = small()
saver = checkpoint.Saver()
saver.start(folder + "/step-00000001", model, optimizer, {"step": 1})
saver.wait()
model(torch.ones(2, 3)).square().sum().backward()
optimizer.step()
if rank == held:
    fingerprint = checkpoint.fingerprint
    checkpoint.fingerprint = lambda file: (print("files are there", flush=True), time.sleep(300), fingerprint(file))[2]
saver.start(folder + "/step-00000002", model, optimizer, {"step": 2})
try:
    saver.wait()
except RuntimeError as error:
    print(type(error).__name__, flush=True)
"""


def start(folder: Path, rank: int, world_size: int, held: int) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", KILLED, str(folder), *map(str, (rank, world_size, held))]
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(words, env=environment(PYTHONPATH=path), stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_rank_killed_while_it_writes_leaves_the_checkpoint_before_and_no_other_waiting(
    tmp_path: Path, world_size: int
) -> None:
    held = world_size - 1
    processes = [start(tmp_path, rank, world_size, held) for rank in range(world_size)]
    killed = processes[held]
    assert killed.stdout is not None
    assert killed.stdout.readline().strip() == "files are there"
    killed.kill()
    assert killed.wait(60) == -signal.SIGKILL
    for survivor in processes[:held]:
        assert survivor.communicate(timeout=120)[0].split() == ["RuntimeError"]
    half = tmp_path / "step-00000002"
    assert list(half.glob("*.safetensors"))

    run = RunFolder(tmp_path)
    assert run.latest() == (tmp_path / "step-00000001", 1)
    assert run.roll_back() == []
    assert not half.exists()
    model, optimizer = small(seed=1)
    assert checkpoint.load(tmp_path / "step-00000001", model, optimizer) == {"step": 1}
    expected, _ = small()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), expected.parameters(), strict=True))
