"""Place the stages of a run on nodes: take bundles of CPUs and GPUs, return the living and the new nodes.

Bundles are placed as Ray's autoscaler places them: on living nodes first, then on as few new nodes as needed. A bundle
without GPUs goes to nodes without GPUs first. If several node types fit, the autoscaler may choose another type
than this module.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sclip.launch.node_types import NodeType


@dataclass(frozen=True)
class Bundle:
    """`count` processes of a stage, which may run on different nodes, and the CPUs and GPUs that each reserves."""

    stage: str
    count: int
    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True)
class Placement:
    """Nodes that the processes of each stage are placed on."""

    nodes: dict[str, int]
    """Number of nodes of each type: all living nodes, and the new nodes that the bundles need."""
    by_stage: dict[str, dict[str, int]]
    """For each stage, the number of its processes on each node type."""
    unplaced: dict[str, int]
    """Number of processes that fit on no node, by stage; stages without such processes are absent."""


@dataclass
class _Free:
    type: NodeType
    cpus: float
    gpus: float

    def take(self, bundle: Bundle, count: int) -> int:
        """Reserve room for as many of the bundle's processes as fit, at most `count`; return how many."""
        for free, needed in ((self.cpus, bundle.cpus), (self.gpus, bundle.gpus)):
            count = min(count, int((free + 1e-6) / needed)) if needed else count
        self.cpus -= count * bundle.cpus
        self.gpus -= count * bundle.gpus
        return count


def place_bundles(bundles: Sequence[Bundle], types: Sequence[NodeType]) -> Placement:
    """Place the bundles in the given order; bundles with GPUs should come first."""
    nodes = [_Free(t, t.cpus, t.gpus) for t in types for _ in range(t.alive)]
    spare = {t.name: t.most - t.alive for t in types}
    by_stage: dict[str, Counter[str]] = {bundle.stage: Counter() for bundle in bundles}
    unplaced: dict[str, int] = {}
    for bundle in bundles:
        remaining = bundle.count
        candidates = _candidates(nodes, types, spare, bundle)
        while remaining and (node := next(candidates, None)):
            if num_placed := node.take(bundle, remaining):
                by_stage[bundle.stage][node.type.name] += num_placed
                remaining -= num_placed
        if remaining:
            unplaced[bundle.stage] = remaining
    num_nodes = Counter(node.type.name for node in nodes)
    return Placement(dict(num_nodes), {stage: dict(on) for stage, on in by_stage.items()}, unplaced)


def _candidates(
    nodes: list[_Free], types: Sequence[NodeType], spare: dict[str, int], bundle: Bundle
) -> Iterator[_Free]:
    """Yield nodes for the bundle: those in `nodes`, then new ones. Before yielding a new node, add it to `nodes`."""
    yield from sorted(nodes, key=lambda node: bool(node.gpus) and not bundle.gpus)
    for new in sorted(types, key=lambda t: bool(t.gpus) and not bundle.gpus):
        if new.cpus + 1e-6 < bundle.cpus or new.gpus + 1e-6 < bundle.gpus:
            continue
        while spare[new.name]:
            spare[new.name] -= 1
            nodes.append(_Free(new, new.cpus, new.gpus))
            yield nodes[-1]
