"""Call functions on all nodes at once, through a small actor on each node, within a time limit.

If a node does not answer, its `Answer` holds the reason, and the call never hangs. The actors reserve nothing, so a
busy cluster can be checked too. If a node cannot start its actor (other Python, no sclip), Ray's message is the reason.
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
    """One node of the cluster."""

    id: str
    name: str
    cpus: float
    gpus: int
    object_store_bytes: int
    address: str


@dataclass(frozen=True)
class Answer:
    """A node's answer to one call."""

    value: Any = None
    failure: str = ""
    """Reason why there is no value; "" if there is a value."""


def alive() -> tuple[list[ClusterNode], list[tuple[str, str]]]:
    """Return the living nodes of the connected cluster, and (name, reason) of each that died or was preempted."""
    nodes, lost = [], []
    for node in ray.nodes():
        name = f"{node['NodeName'] or node['NodeManagerAddress']} ({node['NodeID'][:6]})"
        if not node["Alive"]:
            if node["DeathReason"] in ray_internals.accidents():  # others were idle, or drained on purpose
                lost.append((name, node["DeathReasonMessage"]))
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
    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        return function(*arguments)


class NodeProbes:
    """One probe actor on each node, killed when the `with` block ends."""

    def __init__(self, nodes: Sequence[ClusterNode], timeout_s: float) -> None:
        self.nodes = list(nodes)
        self._timeout_s = timeout_s
        # Allow several calls at once: a call that hangs leaves threads for the others.
        probe = ray.remote(num_cpus=0, max_concurrency=8, max_restarts=0)(_Probe)
        self._probes = {node.id: probe.options(scheduling_strategy=on(node)).remote() for node in self.nodes}

    def each(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        own: Callable[[ClusterNode], Any] | None = None,
        of: Sequence[ClusterNode] | None = None,
    ) -> dict[ClusterNode, Answer]:
        """Call the function on all nodes at once; return each node's answer within the time limit.

        Args:
            function: called on each node.
            *arguments: its arguments, the same on each node.
            own: returns a node's own last argument.
            of: nodes to call the function on; None means all nodes.
        """
        pending = {}
        for node in self.nodes if of is None else of:
            call_arguments = arguments if own is None else (*arguments, own(node))
            pending[node] = self._probes[node.id].call.remote(function, call_arguments)
        return within(pending, self._timeout_s)

    def rounds(
        self, function: Callable[[], float], count: int
    ) -> dict[ClusterNode, list[tuple[float, float, float]]]:
        """Call the function `count` times on each node, one node after the other. A failure ends a node's calls.

        Return for each successful call: the driver's time before the call, the result, the driver's time after it.
        """
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
    """Return the scheduling strategy that allows only this node."""
    return NodeAffinitySchedulingStrategy(node.id, soft=False)


def within(calls: Mapping[Any, ray.ObjectRef], timeout_s: float) -> dict[Any, Answer]:
    """Return an `Answer` for each call. If a call has no result after `timeout_s`, its `Answer` says so."""
    ready, _ = (
        ray.wait(list(calls.values()), num_returns=len(calls), timeout=timeout_s) if calls else ([], [])
    )
    late = Answer(failure=f"no answer in {timeout_s:g} s")
    return {key: _answer(ref, timeout_s) if ref in ready else late for key, ref in calls.items()}


def _answer(ref: ray.ObjectRef, timeout_s: float) -> Answer:
    try:
        return Answer(ray.get(ref, timeout=timeout_s))
    except Exception as error:  # Ray's error for a lost node, or whatever the function raised
        cause = getattr(error, "cause", None) or error
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
        return Answer(failure=f"{type(cause).__name__}: {lines[-1] if lines else ''}"[:300])
