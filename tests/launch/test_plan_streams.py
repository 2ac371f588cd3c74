"""How many streams a worker has: as many as its GPU needs, where the cluster has room for them."""

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
"""About what the rule says of one, without the building of a model to count its operations."""


@pytest.fixture
def storage(tmp_path: Path) -> str:
    """Return the override for a storage in which nothing has run."""
    return f"run.storage={tmp_path}"


def settled(node: NodeType, *overrides: str, known: str = "", shards: int = 1000) -> Config:
    """Return the paper's config as it is on a node."""
    capacity = Capacity.of(node)
    config = sized(load(overrides, "paper"), capacity)
    found = rates.find(config, capacity, rates.given(known), annotated=False)
    config = with_streams(config, capacity, found, shards)
    encoder_bounds(config, capacity)  # all of it can be placed
    return config


@pytest.mark.parametrize(
    ("known", "overrides", "streams"),
    [
        ("worker=1000,encoder=100,reader=1000", (), 1),
        ("worker=1000,encoder=100,reader=999", (), 2),
        ("worker=1000,encoder=100,reader=250", (), 4),
        ("worker=1000,encoder=100,reader=250", ("data.readers=2",), 2),  # what is said stays
        ("worker=1000,encoder=100,reader=1", ("data.open_shards=16",), 8),  # 16 tracks for two workers
        ("worker=1000,encoder=1000,reader=250", ("data.actors_max=4",), 2),  # an encoder each
        ("worker=1000,encoder=1000,reader=250", ("data.actor_cpus=15",), 2),  # four encoders fit
    ],
)
def test_a_worker_has_as_many_streams_as_its_gpu_needs_and_there_is_room_for(
    storage: str, known: str, overrides: tuple[str, ...], streams: int
) -> None:
    node = NodeType("head", 72, 2, 1, 1)
    assert settled(node, storage, LOCAL, *overrides, known=known).data.readers == streams


def test_streams_that_would_leave_encoders_idle_are_not_opened(storage: str) -> None:
    known, node = "worker=1000,encoder=100,reader=300", NodeType("head", 8, 1, 1, 1)
    # Three encoders beside the worker's 4 CPUs: two streams would have one each, three no more than one has.
    assert settled(node, storage, LOCAL, known=known).data.readers == 1


def test_an_object_store_is_read_in_more_streams_than_a_disk(storage: str) -> None:
    node = NodeType("head", 224, 8, 1, 1, "H100")
    local, remote = (settled(node, storage, of, known=H100).data.readers for of in (LOCAL, REMOTE))
    assert local < remote == 4  # eight workers share 32 tracks


@pytest.mark.parametrize(
    "node",
    [
        NodeType("head", 64, 0, 1, 1),
        NodeType("head", 64, 2, 1, 1, "K80"),  # of unknown rate
        NodeType("head", 21, 4, 1, 1, "H100"),  # without room for more: 4 workers x 4 and 4 x (1 + 0.25)
    ],
)
def test_else_a_worker_has_one_stream(storage: str, node: NodeType) -> None:
    assert settled(node, storage, REMOTE, "train.use_gpu=null").data.readers == 1


@pytest.mark.parametrize(("shards", "streams"), [(1, 1), (7, 1), (8, 1), (16, 2), (1000, 4)])
def test_a_stream_without_shards_to_read_is_not_opened(storage: str, shards: int, streams: int) -> None:
    node = NodeType("head", 224, 8, 1, 1, "H100")
    assert settled(node, storage, REMOTE, known=H100, shards=shards).data.readers == streams


def test_what_is_settled_stays_as_it_is(storage: str) -> None:
    capacity = Capacity.of(NodeType("head", 224, 8, 1, 1, "H100"))
    config = settled(capacity.nodes[0], storage, REMOTE, known=H100)
    assert with_streams(sized(config, capacity), capacity, {}) == config
