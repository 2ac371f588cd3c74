"""Number of workers of a run, their devices and CPUs, where the config leaves these to the cluster."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from sclip.config import Config, ConfigError, DataConfig, EvaluateConfig, TrainConfig
from sclip.launch.capacity import Capacity, encoder_bounds, most_encoders, runs_at_once, sized
from sclip.launch.node_types import NodeType

LAPTOP = Capacity.of(NodeType("head", 2, 0, 1, 1))
CPUS = Capacity.of(NodeType("head", 0, 0, 1, 1), NodeType("cpu", 16, 0, 0, 20))
CPUS_16 = Capacity.of(NodeType("head", 16, 0, 1, 1))
ONE_GPU = Capacity.of(NodeType("head", 16, 1, 1, 1))
DGX = Capacity.of(NodeType("head", 224, 8, 1, 1, "H100"))
GROWING = Capacity.of(
    NodeType("head", 0, 0, 1, 1), NodeType("cpu", 16, 0, 1, 20), NodeType("gpu", 96, 8, 0, 4)
)


CROWDED = Capacity.of(NodeType("head", 32, 8, 1, 1))
APART = Capacity.of(NodeType("cpu", 16, 0, 0, 9), NodeType("gpu", 8, 8, 0, 1))


@pytest.mark.parametrize(
    ("capacity", "train", "evaluate", "sizes"),
    [
        (CPUS, {}, {}, (1, False, 1)),
        (DGX, {}, {}, (8, True, 1)),
        (GROWING, {}, {}, (32, True, 1)),  # GPUs that the autoscaler can add count
        (GROWING, {"batch_size": 24}, {}, (24, True, 1)),
        (GROWING, {}, {"every": 500, "gpus": 0.5}, (31, True, 1)),
        (GROWING, {}, {"gpus": 1.0}, (32, True, 1)),  # no evaluation during training
        (Capacity(8, 2), {}, {}, (2, True, 1)),
        # Values that the config sets stay.
        (DGX, {"num_workers": 4, "worker_cpus": 8}, {}, (4, True, 8)),
        (DGX, {"use_gpu": False}, {}, (1, False, 1)),
        (LAPTOP, {"use_gpu": True, "worker_cpus": 0.1}, {}, (1, True, 0.1)),
        (ONE_GPU, {"num_workers": 2}, {}, (2, False, 1)),
        (ONE_GPU, {"num_workers": 4, "min_workers": 1}, {}, (4, True, 1)),
        (CROWDED, {"worker_cpus": 4, "num_workers": 8}, {}, (8, True, 4)),
        # With 4 CPUs per worker nothing is left for an encoder, or 8 workers fit on no node.
        (CROWDED, {"worker_cpus": 4}, {}, (8, True, 2)),
        (APART, {"worker_cpus": 4}, {}, (8, True, 0.5)),
    ],
)
def test_every_gpu_gets_a_worker_that_leaves_cpus_for_encoders_and_a_cluster_without_gpus_has_one(
    capacity: Capacity, train: dict[str, Any], evaluate: dict[str, Any], sizes: tuple[int, bool, float]
) -> None:
    config = Config(train=TrainConfig(**train), evaluate=EvaluateConfig(**evaluate))
    result = sized(config, capacity).train
    assert (result.num_workers, result.use_gpu, result.worker_cpus) == sizes


@pytest.mark.parametrize("capacity", [LAPTOP, GROWING, CROWDED])
def test_a_sized_config_fits_on_its_cluster_and_stays_as_it_is(capacity: Capacity) -> None:
    config = sized(Config(train=TrainConfig(worker_cpus=0.5)), capacity)
    fewest, most = encoder_bounds(config, capacity)
    assert 1 <= fewest <= most
    assert sized(config, capacity) == config


EVALUATED = EvaluateConfig(every=500, cpus=2, gpus=1)


@pytest.mark.parametrize(
    ("evaluate", "train", "runs"),
    [
        (EvaluateConfig(), {}, 8),  # 224 / (4 workers x (5 + an encoder and a reader) + a driver)
        (EvaluateConfig(), {"use_gpu": True}, 2),
        (EVALUATED, {"use_gpu": True}, 1),  # 2 x (4 + 1) GPUs are too many
        (EVALUATED, {}, 8),  # each run needs a GPU for its evaluation
        (EvaluateConfig(), {"worker_cpus": 99.0}, 1),
    ],
)
def test_runs_at_once_are_as_many_as_the_cluster_holds(
    evaluate: EvaluateConfig, train: dict[str, Any], runs: int
) -> None:
    settings = {"num_workers": 4, "worker_cpus": 5.0, "use_gpu": False} | train
    assert (
        runs_at_once(Config(train=TrainConfig(**settings), evaluate=evaluate), DGX, driver_cpus=0.01) == runs
    )


def test_encoders_get_what_workers_readers_and_the_evaluation_leave() -> None:
    config = Config(train=TrainConfig(num_workers=2, worker_cpus=3.0))
    assert most_encoders(config, 16) == 9  # 10 CPUs minus half a CPU for readers
    assert most_encoders(dataclasses.replace(config, evaluate=EVALUATED), 16) == 7
    assert most_encoders(config, 2) == config.data.actors_min


@pytest.mark.parametrize(
    ("train", "data", "bounds"),
    [
        ({}, {}, (2, 13)),  # 16 CPUs minus 2 for workers and half a CPU for readers
        ({}, {"readers": 3}, (6, 12)),
        ({}, {"readers": 3, "actors_min": 8}, (8, 12)),
        ({}, {"readers": 3, "actors_max": 4}, (6, 6)),
        ({}, {"actors_max": 4}, (2, 4)),
        (
            {"num_workers": 4, "min_workers": 1},
            {"actors_max": 2},
            (1, 4),
        ),  # elastic: bounds for the fewest workers
        (
            {"num_workers": 33, "worker_cpus": 0.1},
            {"open_shards": 33, "read_cpus": 0.1, "actor_cpus": 0.1},
            (33, 94),
        ),
    ],
)
def test_every_stream_of_every_worker_has_an_encoder(
    train: dict[str, Any], data: dict[str, Any], bounds: tuple[int, int]
) -> None:
    settings = {"num_workers": 2, "use_gpu": False} | train
    config = Config(train=TrainConfig(**settings), data=DataConfig(**data))
    assert encoder_bounds(config, CPUS_16) == bounds


@pytest.mark.parametrize(
    ("capacity", "train", "data", "message"),
    [
        (LAPTOP, {"use_gpu": True, "num_workers": 1, "worker_cpus": 0.1}, {},
         "with train.use_gpu=true each worker needs a GPU, but the cluster has 0 GPUs"),
        (DGX, {"num_workers": 0, "use_gpu": None, "micro_batch": 64}, {},
         "train.micro_batch=64: must be 0 or divide a worker's share"),
        (CPUS_16, {"num_workers": 2}, {"readers": 6},
         "train.num_workers=2: the run needs 17 CPUs (2 workers x 1 + 12 readers x 0.25 + 12 encoders x 1), but the "
         "cluster has 16; lower train.num_workers, train.worker_cpus, data.readers or data.actor_cpus, or add nodes"),
        (DGX, {"num_workers": 33, "worker_cpus": 0.1}, {},
         "train.num_workers=33: each worker needs an open shard of its own, but only data.open_shards=32 shards are "
         "open at a time; raise data.open_shards to 33 or more"),
        (Capacity.of(NodeType("a", 16, 0, 1, 1), NodeType("b", 8, 0, 4, 4)), {"num_workers": 2, "worker_cpus": 9.0},
         {}, "1 of 2 workers fit on no node: each needs 9 CPUs on a single node"),
    ],
)  # fmt: skip
def test_a_run_that_does_not_fit_is_refused_with_the_arithmetic_and_the_keys(
    capacity: Capacity, train: dict[str, Any], data: dict[str, Any], message: str
) -> None:
    config = Config(train=TrainConfig(**{"use_gpu": False} | train), data=DataConfig(**data))
    with pytest.raises(ConfigError) as raised:
        encoder_bounds(sized(config, capacity), capacity)
    assert message in str(raised.value)
