"""`train.deterministic`: the settings of torch, cuBLAS and NCCL that the loop and the setup of a worker make."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from sclip.data.order import Order
from sclip.data.schedule import NamedShard, Schedule
from sclip.launch import rendezvous
from sclip.model import image_size
from sclip.train.launcher import TrainJob
from sclip.train.loop import train
from support import ranks
from support.launchers import ListLauncher
from support.stream_blocks import placed, samples
from support.train_cases import ROWS, VIT, config_with, training_batch


def settings() -> dict[str, Any]:
    """Return the settings of this process that decide how torch, cuBLAS and NCCL compute."""
    names = ("CUBLAS_WORKSPACE_CONFIG", "NCCL_ALGO", "NCCL_PROTO")
    return {name: os.environ.get(name) for name in names} | {
        "algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn": torch.backends.cudnn.deterministic,
        "cudnn benchmark": torch.backends.cudnn.benchmark,
        "fills memory": torch.utils.deterministic.fill_uninitialized_memory,
    }


def trained_on_a_rank(rank: int, world_size: int, folder: str) -> list[dict[str, Any]]:
    """Train a step with the loop, without and with `train.deterministic`; return the settings after each."""
    columns = {name: column.numpy() for name, column in training_batch(0, VIT, [True] * ROWS).items()}
    results = []
    for deterministic in (False, True):
        config = config_with(model=VIT, deterministic=deterministic, num_workers=world_size)
        job = TrainJob(
            config, Order(Schedule(0, 1, (1,)), ((ROWS,),), 1, ROWS), ((NamedShard("0/0.tar", "/0.tar"),),),
            image_size(VIT.name), Path(folder, str(deterministic)),
        )  # fmt: skip
        job.folder.mkdir()
        train(job, ListLauncher(lambda order, step: [placed(samples(0, ROWS)) | columns]))
        results.append(settings())
    return results


def set_up_on_a_rank(rank: int, world_size: int) -> dict[str, Any]:
    rendezvous._set_up(deterministic=True, records="")
    return settings()


def test_the_loop_and_a_worker_make_torch_cublas_and_nccl_deterministic_on_request(
    tmp_path: Path,
) -> None:
    ((before, trained),) = ranks.run(trained_on_a_rank, 1, tmp_path, str(tmp_path))
    assert (before["algorithms"], before["cudnn"], before["NCCL_ALGO"]) == (False, False, None)
    assert trained == {
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "NCCL_ALGO": "Ring", "NCCL_PROTO": "Simple", "algorithms": True,
        "cudnn": True, "cudnn benchmark": False, "fills memory": False,
    }  # fmt: skip
    assert ranks.run(set_up_on_a_rank, 1, tmp_path) == [trained]
    assert rendezvous.BoundTorchConfig(backend="gloo", deterministic=True).deterministic
