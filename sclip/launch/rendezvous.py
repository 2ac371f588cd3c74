"""Prepare a worker's process before Ray's torch backend starts the process group.

Restrict the store: the ranks of a process group find each other through torch's TCPStore on rank 0. By default it
listens on all interfaces, without authentication. It can take a socket that already listens at one address, but
`ray.train` has no setting for this. So each worker replaces TCPStore in torch by a function, which on rank 0 opens such
a socket and creates the store with it.

Turn on NCCL's flight recorder, which keeps the last collectives of each rank. If a collective times out, the recorder
writes them to files, in which torch's `torchfrtrace` finds the collective that hung.
"""

from __future__ import annotations

import importlib
import os
import socket
from dataclasses import dataclass
from typing import Any

from ray.train.torch import TorchConfig
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from sclip.launch import ray_internals
from sclip.train.ranks import use_deterministic_algorithms

_TorchBackend: Any = ray_internals.torch_backend_class()


@dataclass
class BoundTorchConfig(TorchConfig):  # type: ignore[misc]
    """TorchConfig that makes the store of a process group listen only at the address of rank 0's node."""

    deterministic: bool = False
    """Value of `train.deterministic`. It must be applied before the process group starts: NCCL reads it then."""
    records: str = ""
    """Path prefix of the flight recorder's files; the rank is appended. If "", torch uses ~/.cache/torch."""

    @property
    def backend_cls(self) -> type:
        """Backend class that Ray Train starts in the workers."""
        return _Bound


class _Bound(_TorchBackend):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: BoundTorchConfig) -> None:
        worker_group.execute(_set_up, backend_config.deterministic, backend_config.records)
        super().on_start(worker_group, backend_config)


def _set_up(deterministic: bool, records: str) -> None:
    if deterministic:
        use_deterministic_algorithms()
    recorder = {"TORCH_FR_BUFFER_SIZE": "2000", "TORCH_NCCL_DUMP_ON_TIMEOUT": "1"}
    for name, value in (recorder | ({"TORCH_FR_DUMP_TEMP_FILE": records} if records else {})).items():
        os.environ.setdefault(name, value)
    # Import by name: the attribute `torch.distributed.rendezvous` is a function, not this module.
    importlib.import_module("torch.distributed.rendezvous").TCPStore = _store  # type: ignore[attr-defined]


def _store(host_name: str, port: int, is_master: bool = False, **settings: Any) -> TCPStore:
    if is_master:
        family = socket.getaddrinfo(host_name, port, type=socket.SOCK_STREAM)[0][0]
        # The store closes the socket, and sets its backlog to net.core.somaxconn (4096 on Linux): 1,000 ranks fit.
        settings["master_listen_fd"] = socket.create_server((host_name, port), family=family).detach()
    return TCPStore(host_name, port, is_master=is_master, **settings)
