"""`train.deterministic`: what it sets in a worker, and that on a CPU it changes no bit of what is trained."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sclip.data.order import Order
from sclip.data.schedule import NamedShard, Schedule
from sclip.launch import rendezvous
from sclip.model import image_size
from sclip.train.launcher import TrainJob
from sclip.train.loop import train
from sclip.train.run_folder import RunFolder
from support import ranks
from support.launchers import ListLauncher
from support.stream_blocks import placed, samples
from support.train_cases import MODEL, ROWS, config_with, training_batch

STEPS = 3


def settings() -> dict[str, Any]:
    """Return what says in this process how torch, cuBLAS and NCCL compute."""
    names = ("CUBLAS_WORKSPACE_CONFIG", "NCCL_ALGO", "NCCL_PROTO")
    return {name: os.environ.get(name) for name in names} | {
        "algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn": torch.backends.cudnn.deterministic,
        "cudnn benchmark": torch.backends.cudnn.benchmark,
        "fills memory": torch.utils.deterministic.fill_uninitialized_memory,
    }


def on_a_rank(rank: int, world_size: int, place: str, deterministic: bool) -> dict[str, Any]:
    """Train some steps with the loop; return the settings, and the digest of each tensor of the checkpoint."""
    columns = {name: column.numpy() for name, column in training_batch(0, valid=[True] * ROWS).items()}
    blocks = [placed(samples(0, ROWS, first=step * ROWS)) | columns for step in range(STEPS)]
    config = config_with(deterministic=deterministic, num_workers=world_size)
    job = TrainJob(
        config, Order(Schedule(0, 1, (1,)), ((STEPS * ROWS,),), 1, ROWS), ((NamedShard("0/0.tar", "/0.tar"),),),
        image_size(MODEL.name), Path(place),
    )  # fmt: skip
    train(job, ListLauncher(lambda order, step: blocks))
    latest = RunFolder(job.folder).latest()
    assert latest is not None
    tensors = {
        f"{file.name} {name}": hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
        for file in sorted(latest[0].glob("**/*.safetensors")) for name, tensor in load_file(file).items()
    }  # fmt: skip
    return {"settings": settings(), "digests": tensors}


def set_up_on_a_rank(rank: int, world_size: int) -> dict[str, Any]:
    rendezvous._set_up(deterministic=True)
    return settings()


DETERMINISTIC = {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "NCCL_ALGO": "Ring", "NCCL_PROTO": "Simple", "algorithms": True,
    "cudnn": True, "cudnn benchmark": False, "fills memory": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, dict[str, Any]]:
    """The run with the key and without it, each in a process of its own."""
    places = {deterministic: tmp_path_factory.mktemp("run") for deterministic in (False, True)}
    return {key: ranks.run(on_a_rank, 1, place, str(place), key)[0] for key, place in places.items()}


def test_the_loop_sets_what_torch_cublas_and_nccl_need_where_it_is_asked_for(
    runs: dict[bool, dict[str, Any]],
) -> None:
    assert runs[True]["settings"] == DETERMINISTIC
    before = runs[False]["settings"]
    assert (before["algorithms"], before["cudnn"], before["NCCL_ALGO"]) == (False, False, None)


def test_on_a_cpu_it_changes_no_bit_of_a_checkpoint(runs: dict[bool, dict[str, Any]]) -> None:
    assert runs[True]["digests"]
    assert runs[True]["digests"] == runs[False]["digests"]


def test_a_worker_is_set_up_before_its_process_group_begins(tmp_path: Path) -> None:
    assert ranks.run(set_up_on_a_rank, 1, tmp_path) == [DETERMINISTIC]
    config = rendezvous.BoundTorchConfig(backend="gloo", deterministic=True)
    assert dataclasses.asdict(config)["deterministic"]
