"""Bundles are placed on the nodes that Ray's autoscaler would choose."""

from __future__ import annotations

import pytest

from sclip.launch.node_types import NodeType
from sclip.launch.placement import Bundle, place_bundles

HEAD = NodeType("head", 0, 0, 1, 1)
CPU = NodeType("cpu", 16, 0, 1, 4)
GPU = NodeType("gpu", 32, 4, 0, 2, "A100")


@pytest.mark.parametrize(
    ("bundles", "nodes", "unplaced"),
    [
        ([], {"head": 1, "cpu": 1}, {}),
        ([Bundle("a", 17, 1)], {"head": 1, "cpu": 2}, {}),
        ([Bundle("w", 5, 4, 1)], {"head": 1, "cpu": 1, "gpu": 2}, {}),
        ([Bundle("w", 4, 9, 1)], {"head": 1, "cpu": 1, "gpu": 2}, {}),  # three per node, limited by its CPUs
        # 16 CPUs are left on the workers' node
        ([Bundle("w", 4, 4, 1), Bundle("a", 32, 1)], {"head": 1, "cpu": 1, "gpu": 1}, {}),
        ([Bundle("w", 4, 4, 1), Bundle("a", 33, 1)], {"head": 1, "cpu": 2, "gpu": 1}, {}),
        # GPU nodes are the last choice for bundles without GPUs.
        ([Bundle("a", 65, 1)], {"head": 1, "cpu": 4, "gpu": 1}, {}),
        ([Bundle("w", 9, 4, 1)], {"head": 1, "cpu": 1, "gpu": 2}, {"w": 1}),
        ([Bundle("w", 1, 64, 1)], {"head": 1, "cpu": 1}, {"w": 1}),
        ([Bundle("half", 3, 0.5, 0.5)], {"head": 1, "cpu": 1, "gpu": 1}, {}),
    ],
)
def test_bundles_fill_existing_nodes_first_and_then_as_few_new_nodes_as_possible(
    bundles: list[Bundle], nodes: dict[str, int], unplaced: dict[str, int]
) -> None:
    placement = place_bundles(bundles, [HEAD, CPU, GPU])
    assert (placement.nodes, placement.unplaced) == (nodes, unplaced)
    for bundle in bundles:
        assert sum(placement.by_stage[bundle.stage].values()) == bundle.count - unplaced.get(bundle.stage, 0)
