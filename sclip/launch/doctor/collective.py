"""Check that workers can reach each other, by an all-reduce over all GPUs, or over the nodes if there is no GPU.

If the cluster has GPUs, each GPU gets a process, which reserves it as a worker does; the all-reduce uses nccl. Else
each node gets a process, and gloo is used. Each process also multiplies two matrices, which finds GPUs that Ray counts
but torch cannot use. If another job uses a GPU, the check reports the GPU and does not wait for it. If there are
several nodes, the same processes then measure the network with larger all-reduces.
"""

from __future__ import annotations

import os
import socket
import statistics
import tempfile
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import ray
import torch
import torch.distributed as dist

from sclip.launch.doctor.finding import CheckFinding
from sclip.launch.doctor.network import MESSAGE_ELEMENTS, Link, judge_network, look_rdma, nccl_network
from sclip.launch.doctor.probes import Answer, ClusterNode, on, within

_ELEMENTS = 2**22  # fp32 values in the checked all-reduce: 16 MB
_REPEATS = 3


class _Rank:
    """Actor with one rank of the process group, for one GPU or one node."""

    def address(self) -> tuple[str, int]:
        host = ray.util.get_node_ip_address()
        with socket.socket() as probe:
            probe.bind((host, 0))
            return host, int(probe.getsockname()[1])

    def reduce(self, master: tuple[str, int], rank: int, world_size: int, timeout_s: float) -> float:
        """Return the GB/s of an all-reduce. Raises torch's errors, and RuntimeError for a bad GPU or a wrong result."""
        cuda = bool(ray.get_gpu_ids())
        if cuda and not torch.cuda.is_available():
            raise RuntimeError(
                "Ray counts a GPU here, but torch sees none: check driver, CUDA build of torch, runtime class"
            )
        self._device = device = torch.device("cuda" if cuda else "cpu")
        square = torch.ones(256, 256, device=device)
        if (product := float((square @ square)[0, 0])) != 256:
            raise RuntimeError(f"the device multiplies matrices wrongly: {product}, not 256")
        numbers = torch.full((_ELEMENTS,), float(rank + 1), device=device)
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder, "nccl.log")
            # NCCL says only in its log which network it chose; it reads these variables when it starts.
            os.environ.update(NCCL_DEBUG="INFO", NCCL_DEBUG_SUBSYS="INIT,NET", NCCL_DEBUG_FILE=str(log))
            dist.init_process_group(
                "nccl" if cuda else "gloo", init_method=f"tcp://{master[0]}:{master[1]}",
                rank=rank, world_size=world_size, timeout=timedelta(seconds=timeout_s),
            )  # fmt: skip
            dist.all_reduce(numbers.clone())  # the first all-reduce connects the ranks
            self._network = nccl_network(log.read_text(errors="replace")) if log.is_file() else ""
        started = time.perf_counter()
        dist.all_reduce(numbers)
        total = float(numbers[-1])
        seconds = time.perf_counter() - started
        if total != world_size * (world_size + 1) / 2:
            raise RuntimeError(f"the all-reduce over {world_size} ranks returned a wrong sum: {total}")
        return 4 * _ELEMENTS / seconds / 1e9

    def measure(self) -> Link:
        """Measure all-reduces of MESSAGE_ELEMENTS values in the process group that `reduce` started."""
        numbers = torch.ones(MESSAGE_ELEMENTS, device=self._device)
        seconds = []
        for _ in range(1 + _REPEATS):  # the first one allocates buffers for this size
            started = time.perf_counter()
            dist.all_reduce(numbers)
            float(numbers[0])  # waits for the GPU
            seconds.append(time.perf_counter() - started)
        gpu = torch.cuda.get_device_name() if self._device.type == "cuda" else ""
        return Link(statistics.median(seconds[1:]), gpu, self._network, *look_rdma())


def check_collective(nodes: list[ClusterNode], timeout_s: float) -> list[CheckFinding]:
    """Return the findings of the all-reduce and, if it succeeds, of the network."""
    gpus = any(node.gpus for node in nodes)
    places = [node for node in nodes for _ in range(node.gpus if gpus else 1)]
    if not places:
        return []
    actor = ray.remote(num_cpus=0, max_restarts=0)(_Rank)
    ranks = [
        actor.options(num_gpus=1 if gpus else 0, scheduling_strategy=on(node)).remote() for node in places
    ]
    try:
        started = within({i: rank.address.remote() for i, rank in enumerate(ranks)}, timeout_s)
        if any(answer.failure for answer in started.values()):
            return judge_collective(places, started, gpus)
        master = started[0].value
        refs = {i: rank.reduce.remote(master, i, len(ranks), timeout_s) for i, rank in enumerate(ranks)}
        reduced = within(refs, 2 * timeout_s)
        findings = judge_collective(places, reduced, gpus)
        if any(answer.failure for answer in reduced.values()):
            return findings
        several = len(set(places)) > 1
        measured = {i: rank.measure.remote() for i, rank in enumerate(ranks)} if several else {}
        return [*findings, judge_network(places, within(measured, 2 * timeout_s))]
    finally:
        for rank in ranks:
            ray.kill(rank)


def judge_collective(
    places: list[ClusterNode], answers: Mapping[int, Answer], gpus: bool
) -> list[CheckFinding]:
    """Return a finding for each node with a failed rank; if none failed, one finding with the slowest rank's rate."""
    name = "nccl" if gpus else "gloo"
    failed: dict[str, str] = {}
    for index, answer in answers.items():
        if answer.failure:
            failed.setdefault(places[index].name, answer.failure)
    if not failed:
        unit = "GPUs" if gpus else "nodes"
        slowest = min(answer.value for answer in answers.values())
        text = f"all-reduce over {len(places)} {unit}, {slowest:,.2f} GB/s"
        return [CheckFinding(name, "cluster", "ok", text)]
    if gpus:
        remedy = "if another job uses this node's GPUs, check again later; else run nvidia-smi there, set"
        remedy += " NCCL_DEBUG=INFO and NCCL_SOCKET_IFNAME, and open all ports between the nodes"
    else:
        remedy = "open all ports between the nodes, and name the interface with GLOO_SOCKET_IFNAME"
    return [CheckFinding(name, node, "fail", text, remedy) for node, text in failed.items()]
