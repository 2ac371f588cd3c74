"""Several gloo ranks, each in its own process, for tests of what happens between ranks."""

from __future__ import annotations

import multiprocessing
import multiprocessing.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

# Imported once, in the process from which all ranks are forked; else each rank takes seconds to import them.
multiprocessing.set_forkserver_preload(
    ["sclip.model", "sclip.train.checkpoint", "sclip.train.sharding", "sclip.train.step", "torch._dynamo"]
)

multiprocessing.util.get_temp_dir()  # made before a test sets a longer path, since sockets in it need short names


def run(body: Callable[..., Any], world_size: int, tmp_path: Path, *args: Any) -> list[Any]:
    """Run `body(rank, world_size, *args)` on every rank of a gloo group; return the results, ordered by rank.

    `body` is a top-level function of a module; its result must pass `torch.load(weights_only=True)`.
    An assertion that fails on a rank fails the calling test with that rank's traceback.
    """
    folder = tmp_path / f"ranks-{world_size}-{body.__name__}"
    folder.mkdir()
    arguments = (body, world_size, str(folder), args)
    mp.start_processes(_rank, arguments, nprocs=world_size, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world_size)]


def _rank(rank: int, body: Callable[..., Any], world_size: int, folder: str, args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    try:
        torch.save(body(rank, world_size, *args), f"{folder}/{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()
