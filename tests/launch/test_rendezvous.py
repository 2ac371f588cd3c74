"""The store through which ranks find each other listens only at the address that the ranks are given."""

from __future__ import annotations

import importlib
import os
import socket
from datetime import timedelta
from types import SimpleNamespace

import psutil
import pytest
from torch.distributed import TCPStore

from sclip.launch import rendezvous
from support.processes import free_port


def addresses(port: int) -> set[str]:
    """Return the addresses at which this process listens on a port."""
    connections = psutil.Process().net_connections("tcp")
    return {
        conn.laddr.ip for conn in connections if conn.status == psutil.CONN_LISTEN and conn.laddr.port == port
    }


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_store_of_rank_0_listens_at_one_address_and_accepts_other_ranks(host: str) -> None:
    if host == "::1" and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    port = free_port()
    store = rendezvous._store(host, port, is_master=True, multi_tenant=True, wait_for_workers=False)
    assert addresses(port) == {host}
    other = rendezvous._store(host, port, is_master=False, timeout=timedelta(seconds=20))
    other.set("said", "by the other")
    assert store.get("said") == b"by the other"


def test_workers_of_a_run_create_such_a_store_but_torch_alone_would_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = free_port()
    store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    assert addresses(port) in ({"::"}, {"0.0.0.0"})
    module = importlib.import_module("torch.distributed.rendezvous")
    monkeypatch.setattr(module, "TCPStore", module.TCPStore)  # so that the change below is undone
    rendezvous._set_up(deterministic=False, records="")
    port = free_port()
    store = module._create_c10d_store("127.0.0.1", port, 0, 1, timedelta(seconds=20))
    assert addresses(port) == {"127.0.0.1"}
    del store


def test_workers_record_their_collectives_in_the_run_s_folder_unless_the_node_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "environ", {"TORCH_FR_BUFFER_SIZE": "9"})
    monkeypatch.setattr(importlib, "import_module", lambda _: SimpleNamespace())
    rendezvous._set_up(deterministic=False, records="/runs/first/collectives-")
    expected = {"TORCH_FR_DUMP_TEMP_FILE": "/runs/first/collectives-", "TORCH_NCCL_DUMP_ON_TIMEOUT": "1"}
    assert os.environ == expected | {"TORCH_FR_BUFFER_SIZE": "9"}
