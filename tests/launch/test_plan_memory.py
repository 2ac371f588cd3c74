"""Whether a step fits on the cluster's GPUs, and the smallest change that makes it fit."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import pytest
from rich.console import Console

from sclip.config import Config, ConfigError, KEEConfig, ModelConfig, TrainConfig
from sclip.launch.capacity import Capacity, sized
from sclip.launch.node_types import NodeType
from sclip.launch.plan import check_memory, make, memory, rates, show
from sclip.train.dry_run import Collectives, DryRun

GIB = 2**30
NODES = Capacity.of(NodeType("trainer", 64, 8, 0, 2, "H100"))


def config_of(capacity: Capacity = NODES, **train: Any) -> Config:
    model = ModelConfig(name="scenes-attention", kee=KEEConfig(heads=4))
    settings = {"batch_size": 8192, "use_gpu": True, "sharding": "fsdp"} | train
    return sized(Config(model=model, train=TrainConfig(**settings)), capacity)


@pytest.fixture(autouse=True)
def _steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace dry runs: a sample takes 0.25 GiB, a fifth of it with checkpointing; all states together 100 GiB."""

    def step(config: Config, ranks_per_node: int) -> DryRun:
        train = config.train
        ranks = {"ddp": 1, "hsdp": ranks_per_node, "fsdp": train.num_workers}[train.sharding]
        rows = train.micro_batch or train.batch_size // train.num_workers
        row_bytes = {"none": GIB // 4, "selective": GIB // 20, "block": GIB // 20}[
            train.activation_checkpointing
        ]
        traffic = (
            Collectives("all-gather", 12, GIB), Collectives("all-reduce", 1, GIB), Collectives("send", 9, 9)
        )  # fmt: skip
        parameters, moments = 25 * GIB // ranks, 75 * GIB // ranks
        return DryRun(parameters, 0, moments, rows * row_bytes, traffic)

    monkeypatch.setattr(memory, "_step", step)


@pytest.mark.parametrize(
    ("train", "remedy"),
    [
        ({}, "train.micro_batch=256: fits with 70 of 80 GiB"),
        ({"micro_batch": 512}, "train.micro_batch=256: fits with 70 of 80 GiB"),
        # Half of 511 rows is no whole number.
        ({"batch_size": 511 * 16}, "train.activation_checkpointing=selective: fits with 32 of 80 GiB"),
        # 15 workers would not share the batch equally in micro-batches.
        ({"min_workers": 15}, "train.activation_checkpointing=selective: fits with 32 of 80 GiB"),
        ({"sharding": "ddp"}, "train.sharding=fsdp train.micro_batch=256: fits with 70 of 80 GiB"),
        ({"sharding": "ddp", "micro_batch": 64}, "train.sharding=fsdp: fits with 22 of 80 GiB"),
    ],
)  # fmt: skip
def test_a_step_that_does_not_fit_is_refused_with_the_smallest_change_that_fits(
    train: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        check_memory(config_of(**train), NODES)
    message = str(raised.value)
    assert message.endswith(f"; {remedy}")
    assert "\n" not in message
    changes = dict(pair.removeprefix("train.").split("=") for pair in remedy.partition(":")[0].split())
    changed = config_of(
        **train | {key: int(value) if value.isdigit() else value for key, value in changes.items()}
    )
    assert (problem := check_memory(changed, NODES))
    assert f"fits with {problem.step.peak / GIB:.0f} of" in remedy


def test_gpus_that_are_too_small_for_any_change_are_refused_with_that_reason() -> None:
    small = Capacity.of(NodeType("trainer", 64, 1, 0, 1, "T4"))
    with pytest.raises(ConfigError, match=r"no train\.micro_batch, .* fits: add GPUs"):
        check_memory(config_of(small), small)


def test_gpus_of_unknown_memory_are_not_refused_and_cpus_are_not_looked_at() -> None:
    unknown = Capacity.of(NodeType("trainer", 64, 8, 0, 2, "K80"))
    problem = check_memory(config_of(unknown), unknown)
    assert problem
    assert (problem.gpu_bytes, problem.step.peak > 80 * GIB) == (None, True)
    cpus = Capacity.of(NodeType("parser", 64, 0, 0, 2))
    assert check_memory(config_of(cpus, use_gpu=False), cpus) is None


def test_the_plan_shows_the_memory_and_the_bandwidth_that_hides_the_collectives() -> None:
    config = config_of(micro_batch=128)
    plan = make(config, NODES, 1000, 10_000, rates.given("worker=1024,encoder=100,reader=900"), None)
    plan = dataclasses.replace(plan, memory=check_memory(plan.config, NODES))
    show(plan, Console(file=(out := io.StringIO()), width=100))
    assert (
        "memory: 38.2 of 80 GiB of each H100 (parameters 1.6, gradients 0.0, moments 4.7, "
        "activations and loss 32.0)\n"
        # A step takes 0.5 s. An all-reduce sends its bytes twice.
        "collectives of a step: 12 all-gather (1.00 GiB in all), 1 all-reduce (1.00 GiB in all); compute "
        "hides them from 6.4 GB/s on\n"
    ) in out.getvalue()
