"""Set torch, cuBLAS and NCCL so that two runs on equal GPUs are equal bit for bit (`train.deterministic`)."""

from __future__ import annotations

import os

import torch

__all__ = ["use_deterministic_algorithms"]

_ENVIRONMENT = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "NCCL_ALGO": "Ring", "NCCL_PROTO": "Simple"}
"""Fix the order in which cuBLAS and NCCL add up values. By default, NCCL may leave the order to network switches."""


def use_deterministic_algorithms() -> None:
    """Make this process deterministic. Call it before the first cuBLAS call and before process groups are created.

    From then on, an operation without a deterministic algorithm raises RuntimeError.
    """
    os.environ.update(_ENVIRONMENT)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # no code reads it
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
