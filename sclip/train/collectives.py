"""What ranks tell each other beside tensors, without torch's object collectives, which unpickle."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn


def gather_json(value: dict[str, Any], group: dist.ProcessGroup | None = None) -> list[dict[str, Any]]:
    """Return every rank's value (JSON), by rank, on every rank; called by all of them together."""
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
    """Return what `part` gives (JSON) on every rank, by rank; called by all of them together.

    Where it raises on one, `error` is raised on all, with that rank's message: none waits for it.
    """
    failure, value, cause = "", {}, None
    try:
        value = part()
    except Exception as caught:
        told = str(caught) or type(caught).__name__
        failure = told if isinstance(caught, error | OSError) else f"{type(caught).__name__}: {told}"
        cause = caught
    of_ranks = gather_json({"failure": failure, "value": value}, group)
    for of_rank in of_ranks:
        if of_rank["failure"]:
            raise error(of_rank["failure"]) from cause
    return [of_rank["value"] for of_rank in of_ranks]
