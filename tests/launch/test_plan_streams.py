"""Number of streams of a worker: as many as its GPU needs, if the cluster has room for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sclip.config import Config
from sclip.config.loader import load
from sclip.launch.capacity import Capacity, encoder_bounds, sized
from sclip.launch.node_types import NodeType
from sclip.launch.plan import rates, with_streams

LOCAL, REMOTE = "data.shards=/data/*.tar", "data.shards=s3://bucket/*.tar"
H100 = "worker=6000"
"""About the rate that the rule of thumb gives for an H100; it saves building a model to count its operations."""
SERVER, DGX = NodeType("head", 72, 2, 1, 1), NodeType("head", 224, 8, 1, 1, "H100")


def settled(node: NodeType, storage: Path, *overrides: str, known: str = "", shards: int = 1000) -> Config:
    """Return the paper's config as settled for a node, in a storage without earlier runs."""
    capacity = Capacity.of(node)
    config = sized(load([f"run.storage={storage}", *overrides], "paper"), capacity)
    stage_rates = rates.find(config, capacity, rates.given(known), annotated=False)
    config = with_streams(config, capacity, stage_rates, shards)
    encoder_bounds(config, capacity)  # raises if the run cannot be placed
    assert with_streams(sized(config, capacity), capacity, {}) == config
    return config


@pytest.mark.parametrize(
    ("node", "known", "overrides", "shards", "streams"),
    [
        (SERVER, "worker=1000,encoder=100,reader=1000", [LOCAL], 1000, 1),
        (SERVER, "worker=1000,encoder=100,reader=999", [LOCAL], 1000, 2),
        (SERVER, "worker=1000,encoder=100,reader=250", [LOCAL], 1000, 4),
        (SERVER, "worker=1000,encoder=100,reader=250", [LOCAL, "data.readers=2"], 1000, 2),  # a configured value stays
        (SERVER, "worker=1000,encoder=100,reader=1", [LOCAL, "data.open_shards=16"], 1000, 8),  # 8 tracks per worker
        (SERVER, "worker=1000,encoder=1000,reader=250", [LOCAL, "data.actors_max=4"], 1000, 2),  # each needs an encoder
        (SERVER, "worker=1000,encoder=1000,reader=250", [LOCAL, "data.actor_cpus=15"], 1000, 2),  # four encoders fit
        # Three encoders fit. Two streams would use only two of them, and three streams no more than one stream does.
        (NodeType("head", 8, 1, 1, 1), "worker=1000,encoder=100,reader=300", [LOCAL], 1000, 1),
        # The rate is unknown, or there is no room for more: 4 workers x 4 CPUs and 4 x (1 + 0.25) CPUs.
        (NodeType("head", 64, 0, 1, 1), "", [REMOTE, "train.use_gpu=null"], 1000, 1),
        (NodeType("head", 64, 2, 1, 1, "K80"), "", [REMOTE], 1000, 1),
        (NodeType("head", 21, 4, 1, 1, "H100"), H100, [REMOTE], 1000, 1),
        # An object store is read in more streams than a disk; every stream needs shards to read.
        (DGX, H100, [REMOTE], 1000, 4),  # eight workers share 32 tracks
        (DGX, H100, [REMOTE], 16, 2),
        (DGX, H100, [REMOTE], 1, 1),
    ],
)  # fmt: skip
def test_a_worker_has_as_many_streams_as_its_gpu_needs_and_there_is_room_and_shards_for(
    node: NodeType, known: str, overrides: list[str], shards: int, streams: int, tmp_path: Path
) -> None:
    assert settled(node, tmp_path, *overrides, known=known, shards=shards).data.readers == streams


def test_a_disk_is_read_in_fewer_streams_than_an_object_store(tmp_path: Path) -> None:
    assert settled(DGX, tmp_path, LOCAL, known=H100).data.readers < 4
