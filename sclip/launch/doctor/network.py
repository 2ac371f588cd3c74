"""Judge the network between nodes: the rate of an all-reduce, and whether NCCL uses RDMA or fell back to TCP.

NCCL falls back to TCP silently if it finds no RDMA device, cannot lock enough memory, or has no plugin for the device
(EFA needs aws-ofi-nccl). Training then works, but waits for gradients.

All rates here are bus bandwidths: 2 (n - 1) / n times the message's bytes, divided by the seconds that an all-reduce
over n ranks takes. For any n, the bus bandwidth equals the rate of the slowest link.
"""

from __future__ import annotations

import re
import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sclip.launch.doctor.finding import CheckFinding
from sclip.launch.doctor.probes import Answer, ClusterNode

MESSAGE_ELEMENTS = 2**24
"""Number of fp32 values in a measured all-reduce: 64 MB, so that latency hardly counts."""
_TCP = "Socket"  # NCCL's name
_EXPECTED_GB_S = {"B200": 6.0, "H200": 6.0, "H100": 6.0, "A100": 0.8, "L40S": 1.5, "A10G": 0.6, "L4": 0.6}
"""Lowest usual bus bandwidth between nodes, in GB/s for each GPU of a node: about half of the network rate of the
common machine types (a3-highgpu-8g, a2-highgpu-8g, g6e.12xlarge, g5.12xlarge, g6.12xlarge)."""


@dataclass(frozen=True)
class Link:
    """Measured time and properties of the network, as one rank sees them."""

    seconds: float
    """Seconds of one all-reduce of MESSAGE_ELEMENTS values."""
    gpu: str = ""
    """Name of the GPU in torch; "" on a CPU."""
    network: str = ""
    """Name of the network in NCCL, such as Socket, IB or AWS Libfabric; "" with gloo, or if NCCL named none."""
    rdma: bool = False
    """Whether this process sees an RDMA device, such as EFA."""
    locked_bytes: int = -1
    """Bytes of memory that this process may lock, -1 if unlimited. RDMA locks its buffers."""


def nccl_network(log: str) -> str:
    """Return the network that NCCL names in its log (NCCL_DEBUG=INFO); "" if it names none."""
    names = re.findall(r"Using network (\S.*?)\s*$", log, re.MULTILINE)
    return names[-1] if names else ""


def look_rdma() -> tuple[bool, int]:
    """Return whether this process sees an RDMA device, and the bytes of memory that it may lock (-1 if unlimited)."""
    return any(Path("/dev/infiniband").glob("uverbs*")), resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]


def judge_network(places: Sequence[ClusterNode], answers: Mapping[int, Answer]) -> CheckFinding:
    """Return the finding about the network between the nodes. It is never "fail": a run trains over a slow network too.

    Args:
        places: the node of each rank.
        answers: for each rank, an answer with its `Link`; empty if there is one node.
    """
    nodes = len(set(places))
    if nodes == 1:
        return CheckFinding("network", "cluster", "ok", "all ranks are on one node: nothing to measure")
    for index, answer in answers.items():
        if answer.failure:
            remedy = "look at this node's load and network, or raise --timeout"
            return CheckFinding(
                "network", places[index].name, "warn", f"not measured: {answer.failure}", remedy
            )
    links: list[Link] = [answers[index].value for index in sorted(answers)]
    ranks, seconds = len(places), max(link.seconds for link in links)
    gb_s = 2 * (ranks - 1) / ranks * 4 * MESSAGE_ELEMENTS / seconds / 1e9
    gpu, network = links[0].gpu, links[0].network
    used = "TCP" if network == _TCP else network or "an unnamed network"
    text = f"{gb_s:,.2f} GB/s between {nodes} nodes, {f'NCCL over {used}' if gpu else 'gloo over TCP'}"
    per_gpu = next((rate for name, rate in _EXPECTED_GB_S.items() if re.search(rf"\b{name}\b", gpu)), 0.0)
    if gb_s >= (expected := per_gpu * ranks / nodes):
        return CheckFinding("network", "cluster", "ok", text)
    text += f"; nodes with {ranks / nodes:g} {gpu} usually reach {expected:.1f} or more"
    return CheckFinding("network", "cluster", "warn", text, _remedy(links))


def _remedy(links: Sequence[Link]) -> str:
    if all(link.network != _TCP for link in links):
        return "give each pod or machine all of its RDMA devices, and place the nodes in one zone and placement group"
    if not all(link.rdma for link in links):
        return (
            "no RDMA device in the container: request one (cluster/README.md, The network of GPU nodes); some machine"
            " types have none"
        )
    if limits := [link.locked_bytes for link in links if link.locked_bytes >= 0]:
        return (
            f"only {min(limits) / 1e6:,.0f} MB of memory may be locked: set LimitMEMLOCK=infinity for the nodes'"
            " containerd, or docker run --ulimit memlock=-1:-1"
        )
    return "NCCL has no plugin for the RDMA device: EFA needs the image's target gpu-efa; NCCL_DEBUG=INFO says more"
