"""Place the stages of a run on nodes: bundles of CPUs and GPUs in, the nodes that are used or asked for out.

Bundles are placed as Ray's autoscaler places them: nodes that are there first, then as few new nodes as hold the rest,
those with GPUs only for what needs one. Where two types fit, the autoscaler may choose the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sclip.launch.node_types import NodeType


@dataclass(frozen=True)
class Bundle:
    """What each of `count` processes of a stage reserves on one node."""

    stage: str
    count: int
    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True)
class Placement:
    """Where bundles lie."""

    nodes: dict[str, int]
    """Nodes of each type that are used or asked for, including running ones."""
    by_stage: dict[str, dict[str, int]]
    """By stage, how many of its bundles lie on each type."""
    unplaced: dict[str, int]
    """By stage, how many bundles fit on no node."""


@dataclass
class _Free:
    """A node and the CPUs and GPUs that are left on it."""

    type: NodeType
    cpus: float
    gpus: float

    def take(self, bundle: Bundle, count: int) -> int:
        """Place as many of the bundle as fit, at most `count`; return how many."""
        for free, needed in ((self.cpus, bundle.cpus), (self.gpus, bundle.gpus)):
            count = min(count, int((free + 1e-6) / needed)) if needed else count
        self.cpus -= count * bundle.cpus
        self.gpus -= count * bundle.gpus
        return count


def place_bundles(bundles: Sequence[Bundle], types: Sequence[NodeType]) -> Placement:
    """Place the bundles in their order; those that need a GPU should come first."""
    nodes = [_Free(t, t.cpus, t.gpus) for t in types for _ in range(t.alive)]
    spare = {t.name: t.most - t.alive for t in types}
    by_stage: dict[str, Counter[str]] = {bundle.stage: Counter() for bundle in bundles}
    unplaced: dict[str, int] = {}
    for bundle in bundles:
        left = bundle.count
        candidates = _candidates(nodes, types, spare, bundle)
        while left and (node := next(candidates, None)):
            if taken := node.take(bundle, left):
                by_stage[bundle.stage][node.type.name] += taken
                left -= taken
        if left:
            unplaced[bundle.stage] = left
    counts = Counter(node.type.name for node in nodes)
    return Placement(dict(counts), {stage: dict(on) for stage, on in by_stage.items()}, unplaced)


def _candidates(
    nodes: list[_Free], types: Sequence[NodeType], spare: dict[str, int], bundle: Bundle
) -> Iterator[_Free]:
    """Yield the nodes that the bundle may lie on: the open ones, then new ones for as long as it asks."""
    yield from sorted(nodes, key=lambda node: bool(node.gpus) and not bundle.gpus)
    for new in sorted(types, key=lambda t: bool(t.gpus) and not bundle.gpus):
        if new.cpus + 1e-6 < bundle.cpus or new.gpus + 1e-6 < bundle.gpus:
            continue
        while spare[new.name]:
            spare[new.name] -= 1
            nodes.append(_Free(new, new.cpus, new.gpus))
            yield nodes[-1]
