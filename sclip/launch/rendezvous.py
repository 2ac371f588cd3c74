"""Let rank 0 listen for the other ranks at its own address alone, instead of on every interface.

torch's TCPStore, by which the ranks of a process group find each other, listens on all interfaces and asks nobody who
they are. Given a socket that listens already it takes that one. `ray.train` has no setting for it: its torch backend
is used as it is, and before it starts each worker hands its store such a socket.
"""

from __future__ import annotations

import importlib
import socket
from dataclasses import dataclass
from typing import Any

from ray.train.torch import TorchConfig
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from sclip.launch import ray_internals
from sclip.train.determinism import use_deterministic_algorithms

_TorchBackend: Any = ray_internals.torch_backend_class()


@dataclass
class BoundTorchConfig(TorchConfig):  # type: ignore[misc]
    """TorchConfig of process groups whose store listens at the address of rank 0's node alone."""

    deterministic: bool = False
    """`train.deterministic`: NCCL reads its settings once, when the process group begins."""

    @property
    def backend_cls(self) -> type:
        """The backend that Ray Train starts in the workers."""
        return _Bound


class _Bound(_TorchBackend):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: BoundTorchConfig) -> None:
        worker_group.execute(_set_up, backend_config.deterministic)
        super().on_start(worker_group, backend_config)


def _set_up(deterministic: bool) -> None:
    if deterministic:
        use_deterministic_algorithms()
    # By its name: as an attribute of torch.distributed it is the function that is called so.
    importlib.import_module("torch.distributed.rendezvous").TCPStore = _store  # type: ignore[attr-defined]


def _store(host_name: str, port: int, is_master: bool = False, **settings: Any) -> TCPStore:
    if is_master:
        family = socket.getaddrinfo(host_name, port, type=socket.SOCK_STREAM)[0][0]
        # The store closes it.
        settings["master_listen_fd"] = socket.create_server((host_name, port), family=family).detach()
    return TCPStore(host_name, port, is_master=is_master, **settings)
