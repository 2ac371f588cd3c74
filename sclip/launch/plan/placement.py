"""Which nodes the parts of a run come to lie on: bundles of CPUs and GPUs in, the nodes that are asked for out.

As Ray's autoscaler packs them: what is there first, then as few new nodes as hold the rest, those with GPUs only for
what needs one. Where two types fit, it may choose the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sclip.launch.node_types import NodeType

__all__ = ["Bundle", "Placed", "place"]


@dataclass(frozen=True)
class Bundle:
    """So many of one kind, each of which lies on one node."""

    stage: str
    count: int
    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True)
class Placed:
    """Where bundles lie."""

    nodes: dict[str, int]
    """Nodes of each type that are used or asked for, those that are there included."""
    on: dict[str, dict[str, int]]
    """By stage, how many of its bundles lie on each type."""
    left_over: dict[str, int]
    """By stage, how many have no place."""


@dataclass
class _Node:
    kind: NodeType
    cpus: float
    gpus: float

    def take(self, bundle: Bundle, wanted: int) -> int:
        """Place as many of the bundle as fit, at most `wanted`; return how many."""
        fit = wanted
        for has, needs in ((self.cpus, bundle.cpus), (self.gpus, bundle.gpus)):
            fit = min(fit, int((has + 1e-6) / needs)) if needs else fit
        self.cpus -= fit * bundle.cpus
        self.gpus -= fit * bundle.gpus
        return fit


def place(bundles: Sequence[Bundle], kinds: Sequence[NodeType]) -> Placed:
    """Place the bundles in their order; those that need a GPU should come first."""
    nodes = [_Node(kind, kind.cpus, kind.gpus) for kind in kinds for _ in range(kind.alive)]
    spare = {kind.name: kind.most - kind.alive for kind in kinds}
    on: dict[str, Counter[str]] = {bundle.stage: Counter() for bundle in bundles}
    left_over: dict[str, int] = {}
    for bundle in bundles:
        left = bundle.count
        offered = _offered(nodes, kinds, spare, bundle)
        while left and (node := next(offered, None)):
            if taken := node.take(bundle, left):
                on[bundle.stage][node.kind.name] += taken
                left -= taken
        if left:
            left_over[bundle.stage] = left
    counts = Counter(node.kind.name for node in nodes)
    return Placed(dict(counts), {stage: dict(found) for stage, found in on.items()}, left_over)


def _offered(
    nodes: list[_Node], kinds: Sequence[NodeType], spare: dict[str, int], bundle: Bundle
) -> Iterator[_Node]:
    """Yield the nodes that the bundle may lie on: the open ones, then new ones for as long as it asks."""
    yield from sorted(nodes, key=lambda node: bool(node.gpus) and not bundle.gpus)
    for kind in sorted(kinds, key=lambda kind: bool(kind.gpus) and not bundle.gpus):
        if kind.cpus + 1e-6 < bundle.cpus or kind.gpus + 1e-6 < bundle.gpus:
            continue
        while spare[kind.name]:
            spare[kind.name] -= 1
            nodes.append(_Node(kind, kind.cpus, kind.gpus))
            yield nodes[-1]
