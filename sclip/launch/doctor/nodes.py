"""Call functions on every node at once, each by a small actor of its own, within a time limit.

A node that does not answer becomes an answer with the reason, never a hang. The actors reserve nothing, so that a busy
cluster can be examined too; why a node cannot start one (another Python, no sclip) is said in Ray's words.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sclip.launch import ray_internals


@dataclass(frozen=True)
class ClusterNode:
    """One node."""

    id: str
    name: str
    cpus: float
    gpus: int
    object_store_bytes: int
    address: str


@dataclass(frozen=True)
class Answer:
    """What a node said."""

    value: Any = None
    failure: str = ""
    """Why there is no value."""


def alive() -> tuple[list[ClusterNode], list[str]]:
    """Return the nodes of the connected cluster, and of those that went by accident the names with reasons."""
    nodes, lost = [], []
    for node in ray.nodes():
        name = f"{node['NodeName'] or node['NodeManagerAddress']} ({node['NodeID'][:6]})"
        if not node["Alive"]:
            if node["DeathReason"] in ray_internals.accidents():  # else it was idle, or drained on purpose
                lost.append(f"{name}: {node['DeathReasonMessage']}")
            continue
        resources = node["Resources"]
        nodes.append(
            ClusterNode(
                node["NodeID"], name, resources.get("CPU", 0.0), int(resources.get("GPU", 0)),
                int(resources.get("object_store_memory", 0)), node["NodeManagerAddress"],
            )
        )  # fmt: skip
    return nodes, lost


class _Probe:
    """Lives on one node and calls functions there."""

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        return function(*arguments)


class NodeProbes:
    """One probe actor on each node, killed when the `with` block ends."""

    def __init__(self, nodes: Sequence[ClusterNode], timeout_s: float) -> None:
        self.nodes = list(nodes)
        self._timeout_s = timeout_s
        # Several at once: a call that hangs leaves the others their threads.
        probe = ray.remote(num_cpus=0, max_concurrency=8, max_restarts=0)(_Probe)
        self._probes = {node.id: probe.options(scheduling_strategy=on(node)).remote() for node in self.nodes}

    def each(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        own: Callable[[ClusterNode], Any] | None = None,
        of: Sequence[ClusterNode] | None = None,
    ) -> dict[ClusterNode, Answer]:
        """Return what the function gives on every node, or those of `of`, within the limit.

        `own` gives its last argument, which is another one on each node.
        """
        asked = {}
        for node in self.nodes if of is None else of:
            call_arguments = arguments if own is None else (*arguments, own(node))
            asked[node] = self._probes[node.id].call.remote(function, call_arguments)
        return within(asked, self._timeout_s)

    def rounds(
        self, function: Callable[[], float], count: int
    ) -> dict[ClusterNode, list[tuple[float, float, float]]]:
        """Return for each node what the function gave, between the driver's times before and after; one by one."""
        times: dict[ClusterNode, list[tuple[float, float, float]]] = {}
        for node in self.nodes:
            times[node] = []
            for _ in range(count):
                before = time.time()
                answer = within({node: self._probes[node.id].call.remote(function, ())}, self._timeout_s)[
                    node
                ]
                if answer.failure:
                    break
                times[node].append((before, answer.value, time.time()))
        return times

    def __enter__(self) -> NodeProbes:
        return self

    def __exit__(self, *error: object) -> None:
        for probe in self._probes.values():
            ray.kill(probe)


def on(node: ClusterNode) -> NodeAffinitySchedulingStrategy:
    """Return the strategy that places something on this node and on no other."""
    return NodeAffinitySchedulingStrategy(node.id, soft=False)


def within(asked: Mapping[Any, ray.ObjectRef], timeout_s: float) -> dict[Any, Answer]:
    """Return the answers that come within the limit, and of the others that they did not."""
    ready, _ = (
        ray.wait(list(asked.values()), num_returns=len(asked), timeout=timeout_s) if asked else ([], [])
    )
    late = Answer(failure=f"no answer in {timeout_s:g} s")
    return {key: _answer(ref, timeout_s) if ref in ready else late for key, ref in asked.items()}


def _answer(ref: ray.ObjectRef, timeout_s: float) -> Answer:
    try:
        return Answer(ray.get(ref, timeout=timeout_s))
    except Exception as error:  # Ray's own for a node that is gone, and whatever the function raised
        cause = getattr(error, "cause", None) or error
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
        return Answer(failure=f"{type(cause).__name__}: {lines[-1] if lines else ''}"[:300])
