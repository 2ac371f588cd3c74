"""Exchange JSON values and errors between ranks, and make each rank deterministic (`train.deterministic`).

Values travel as JSON, because torch's object collectives unpickle what they receive. Deterministic settings of torch,
cuBLAS and NCCL make two runs on equal GPUs equal bit for bit.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

__all__ = ["gather_json", "in_unison", "use_deterministic_algorithms"]

_DETERMINISTIC = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "NCCL_ALGO": "Ring", "NCCL_PROTO": "Simple"}
"""Fix the order in which cuBLAS and NCCL add up values. By default, NCCL may leave the order to network switches."""


def gather_json(value: dict[str, Any], group: dist.ProcessGroup | None = None) -> list[dict[str, Any]]:
    """Return the JSON values of all ranks, in rank order, on every rank. All ranks call it together."""
    if not dist.is_initialized():
        return [value]
    device = torch.device("cuda" if dist.get_backend(group) == "nccl" else "cpu")
    message = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8).to(device)
    lengths = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(dist.get_world_size())]
    dist.all_gather(lengths, torch.tensor([message.numel()], device=device), group)
    longest = max(int(length) for length in lengths)
    messages = [torch.zeros(longest, dtype=torch.uint8, device=device) for _ in lengths]
    dist.all_gather(messages, nn.functional.pad(message, (0, longest - message.numel())), group)
    return [json.loads(bytes(m[: int(n)].tolist())) for m, n in zip(messages, lengths, strict=True)]


def in_unison(
    part: Callable[[], dict[str, Any]], error: type[Exception], group: dist.ProcessGroup | None = None
) -> list[dict[str, Any]]:
    """Call `part` on every rank and return the JSON results in rank order. All ranks call it together.

    If `part` raises on one rank, all ranks raise `error` with that rank's message.
    """
    failure, value, cause = "", {}, None
    try:
        value = part()
    except Exception as caught:
        message = str(caught) or type(caught).__name__
        failure = message if isinstance(caught, error | OSError) else f"{type(caught).__name__}: {message}"
        cause = caught
    results = gather_json({"failure": failure, "value": value}, group)
    for result in results:
        if result["failure"]:
            raise error(result["failure"]) from cause
    return [result["value"] for result in results]


def use_deterministic_algorithms() -> None:
    """Make this process deterministic. Call it before the first cuBLAS call and before process groups are created.

    From then on, an operation without a deterministic algorithm raises RuntimeError.
    """
    os.environ.update(_DETERMINISTIC)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # no code reads it
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
