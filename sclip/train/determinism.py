"""Settings of torch, cuBLAS and NCCL with which two runs on equal GPUs give equal bits (`train.deterministic`)."""

from __future__ import annotations

import os

import torch

__all__ = ["use_deterministic_algorithms"]

_ENVIRONMENT = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "NCCL_ALGO": "Ring", "NCCL_PROTO": "Simple"}
"""NCCL else chooses by message and topology, and adds in the switches (NVLS) where it can, in no fixed order."""


def use_deterministic_algorithms() -> None:
    """Make this process compute the same from the same input; before the first cuBLAS call and process group.

    An operation that has no deterministic algorithm raises RuntimeError from then on.
    """
    os.environ.update(_ENVIRONMENT)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nothing reads it
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
