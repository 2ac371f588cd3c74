"""The plan of a run: placement, rate and cost, without guesses about unknown values."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sclip.config import Config, ConfigError
from sclip.config.loader import load, to_tree
from sclip.launch.capacity import Capacity, sized
from sclip.launch.node_types import NodeType
from sclip.launch.plan import Plan, make, price_table, rates, show
from sclip.launch.plan.planning import Stage
from sclip.launch.plan.price_table import Price, Prices

HEAD = NodeType("head", 0, 0, 1, 1)
CPU = NodeType("cpu", 16, 0, 1, 4)
GPU = NodeType("gpu", 32, 4, 0, 2, "A100")


# Contents of the plan


def config(storage: Path, *overrides: str, name: str = "paper") -> Config:
    return load([f"run.storage={storage}", *overrides], name)


def planned(
    base: Config, *nodes: NodeType, samples: int = 10_000_000, known: str = "", table: Prices | None = None
) -> Plan:
    capacity = Capacity.of(*nodes)
    return make(sized(base, capacity), capacity, 1000, samples, rates.given(known), table)


def by_name(plan: Plan) -> dict[str, Stage]:
    return {stage.name: stage for stage in plan.stages}


def shown(plan: Plan) -> str:
    show(plan, Console(file=(out := io.StringIO()), width=80))
    return out.getvalue()


SHARDS = "data.shards=/data/*.tar"
KNOWN = "worker=1000,encoder=100,reader=5000"


def test_a_longer_context_is_planned_with_captions_that_fill_it(tmp_path: Path) -> None:
    capacity = Capacity.of(HEAD, CPU, GPU)
    usual, long = (
        rates.find(sized(config(tmp_path, SHARDS, *more), capacity), capacity, {}, annotated=False)
        for more in ((), ("model.context_length=248",))
    )
    assert long["worker"].per_s < usual["worker"].per_s / 3
    assert long["encoder"].per_s < usual["encoder"].per_s / 6


def test_each_stage_gets_its_place_and_the_slowest_is_the_rate(tmp_path: Path) -> None:
    plan = planned(config(tmp_path, SHARDS), HEAD, CPU, GPU, known=KNOWN)
    stages = by_name(plan)
    assert (stages["workers"].gpus, stages["workers"].cpus, stages["workers"].on) == (8, 32, ("gpu",))
    assert stages["encoders"].on == ("cpu", "gpu")
    encoders = 88  # 128 CPUs minus 32 of workers and 2 of readers, in equal shares for 8 streams
    assert [(stage.name, stage.per_s) for stage in plan.stages] == [
        ("readers", 8 * 5000), ("encoders", encoders * 100), ("executors", 8 * 100 * 32), ("workers", 8 * 1000),
    ]  # fmt: skip
    assert plan.limit is stages["workers"]
    assert plan.hours == pytest.approx(10_000_000 / 8000 / 3600)
    assert [(nodes.kind.name, nodes.start, nodes.most) for nodes in plan.nodes] == [
        ("head", 1, 1), ("cpu", 1, 4), ("gpu", 2, 2),
    ]  # fmt: skip
    text = shown(plan)
    assert "cpu: 1 there + 3 more for encoders, gpu: 2 asked for" in text
    assert "10,000,000 samples in 10 epochs: about 8,000 a second, 21 min; workers are the limit" in text


@pytest.mark.parametrize(
    ("limit", "overrides", "known", "remedy"),
    [
        ("workers", [], KNOWN, ""),
        ("encoders", ["data.readers=1"], "worker=900,encoder=1,reader=900", ""),
        ("executors", ["data.block_samples=1"], "worker=900,encoder=900,reader=900",
         "raise data.block_samples, data.readers or train.batch_size"),
        ("readers", ["data.readers=1"], "worker=900,encoder=900,reader=9", "raise data.readers, or bring the shards"),
        ("readers", ["data.open_shards=4"], "worker=900,encoder=900,reader=9",
         "raise data.readers, and data.open_shards above 4, or bring the shards nearer"),
    ],
)  # fmt: skip
def test_any_stage_can_be_the_limit_and_keys_that_raise_it_are_named(
    limit: str, overrides: list[str], known: str, remedy: str, tmp_path: Path
) -> None:
    plan = planned(config(tmp_path, SHARDS, *overrides), NodeType("head", 64, 4, 1, 1), known=known)
    assert plan.limit
    assert plan.limit.name == limit
    text = shown(plan)
    assert f"; {limit} are the limit (" in text
    assert f"for a higher rate, {remedy}" in text if remedy else "for a higher rate" not in text


def test_evaluation_elastic_workers_and_idle_gpus_are_shown(tmp_path: Path) -> None:
    evaluated = config(tmp_path, SHARDS, "evaluate.every=2000", "evaluate.gpus=1")
    plan = planned(evaluated, HEAD, CPU, GPU, known=KNOWN)
    assert plan.config.train.num_workers == 7
    stage = by_name(plan)["evaluation"]
    assert (stage.what, stage.gpus, stage.on, stage.per_s) == ("every 2,000 steps", 1, ("gpu",), None)
    assert "are idle" not in shown(plan)

    # Planned with the workers that fit.
    elastic = config(tmp_path, SHARDS, "train.num_workers=9", "train.min_workers=2")
    stages = by_name(planned(elastic, HEAD, CPU, GPU, known="worker=1000,encoder=100,reader=500"))
    assert (stages["workers"].what, stages["workers"].gpus, stages["workers"].per_s) == (
        "2..8 on GPUs, hsdp groups of 1, bf16",
        8,
        8000,
    )
    assert stages["readers"].what == "16, 2 a worker"

    plan = planned(config(tmp_path, SHARDS, "train.num_workers=3"), HEAD, CPU, GPU, known=KNOWN)
    assert "5 GPUs are idle; train.num_workers=0 with train.use_gpu=null uses all GPUs" in shown(plan)


def test_a_text_tower_without_packed_captions_is_shown_with_the_reason(tmp_path: Path) -> None:
    reason = (
        "captions are padded and not packed: attention is not causal, so that every token sees the padding"
    )
    tower = (SHARDS, "model.name=MobileCLIP2-S0")
    assert reason in shown(planned(config(tmp_path, *tower), HEAD, CPU, GPU, known=KNOWN))
    padded = config(tmp_path, *tower, "train.pack_text=false")
    assert "packed" not in shown(planned(padded, HEAD, CPU, GPU, known=KNOWN))
    assert "packed" not in shown(planned(config(tmp_path, SHARDS), HEAD, CPU, GPU, known=KNOWN))


# Executors


def test_executors_count_blocks_and_cost_no_cpus(tmp_path: Path) -> None:
    nodes = NodeType("head", 64, 4, 1, 1, "A100")
    for override, samples in (
        ("train.batch_size=512", 128), ("data.block_samples=16", 16),
        ("train.batch_size=100000", 891),  # 128 MB of 224 x 224 images
    ):  # fmt: skip
        stage = by_name(planned(config(tmp_path, SHARDS, override), nodes, known="worker=5000"))["executors"]
        assert (stage.what, stage.per_s) == (f"4, 400 blocks/s of {samples} samples", 400 * samples)
        assert (stage.cpus, stage.gpus, stage.on, stage.source) == (0, 0, ("head",), "rule of thumb")


# Rates


def test_without_earlier_runs_the_slowest_gpu_reaches_a_stated_share_of_its_peak(tmp_path: Path) -> None:
    mixed = (NodeType("a", 32, 1, 1, 1, "H100"), NodeType("b", 32, 1, 1, 1, "A100"))
    workers = by_name(planned(config(tmp_path, SHARDS), *mixed))["workers"]
    assert workers.source == "20% of A100's peak"
    # ViT-B/32: 8.8 GFLOP per image (open_clip's count) plus two short captions; times 3 with backward.
    assert 0.2 * 312e12 / (3 * 13e9) < (workers.per_s or 0) / 2 < 0.2 * 312e12 / (3 * 8.8e9)


def test_the_rate_of_unknown_gpus_is_not_guessed_so_the_plan_is_a_bound(tmp_path: Path) -> None:
    run_config, table = config(tmp_path, SHARDS, "train.use_gpu=null"), Prices({"head": Price(1.0)})
    nodes = NodeType("head", 16, 2, 1, 1, "K80")
    text = shown(planned(run_config, nodes, known="encoder=100,reader=9000", table=table))
    assert "at most" in text
    unknown = "at least; encoders are the limit (as given); the rate of workers on these devices is unknown"
    assert unknown in text
    assert "cost: 1.00 an hour with all of these nodes\n" in text


def earlier(storage: Path, name: str, ran: Config, samples_per_s: float, wait: float = 0.0) -> None:
    """Write to the storage what a run leaves; this run was slow at first."""
    folder = storage / "runs" / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(to_tree(ran)))
    stages = {f"stream/{stage}_samples_per_s": 400.0 for stage in ("decode", "parse", "draw", "tokenise")}
    events: list[dict[str, Any]] = [{"run": {"name": name}}]
    for step in range(10):
        rates = {"train/samples_per_s": samples_per_s if step > 3 else 1.0, "train/data_wait": wait}
        metrics = rates | {"stream/read_samples_per_s": 3000.0} | stages
        events.append({"metrics": metrics, "step": step + 1})
    (folder / "tracking.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))


NODE = NodeType("head", 64, 4, 1, 1, "A100")


def test_rates_come_from_an_earlier_run_of_the_same_work(tmp_path: Path) -> None:
    ran = sized(config(tmp_path, SHARDS, "train.num_workers=2"), Capacity.of(NODE))
    earlier(tmp_path, "before", ran, samples_per_s=900, wait=0.25)
    plan = planned(config(tmp_path, SHARDS, "train.epochs=3", "train.learning_rate=1e-5"), NODE)
    stages = by_name(plan)
    # Measured with two workers that waited a quarter of the time.
    assert stages["workers"].per_s == pytest.approx(4 * 900 / 0.75 / 2)
    assert stages["workers"].source == stages["encoders"].source == "as before measured"
    assert stages["encoders"].per_s == pytest.approx(plan.encoders[1] // 4 * 4 * 100)
    assert stages["readers"].per_s == pytest.approx(4 * 3000)


def test_runs_of_other_work_or_versions_are_ignored_and_rates_of_the_user_come_first(
    tmp_path: Path,
) -> None:
    earlier(tmp_path, "before", sized(config(tmp_path, SHARDS), Capacity.of(NODE)), samples_per_s=900)
    for override in (
        "model.name=ViT-L-14", "train.precision=fp32", "train.batch_size=512", "data.shards=/other/*.tar",
        "data.annotations=false",
    ):  # fmt: skip
        plan = planned(config(tmp_path, SHARDS, override), NODE, known="worker=7")
        assert not any("measured" in stage.source for stage in plan.stages), override
    for text in ("{", "[]", "{}", '{"data": {"shards": 3}}'):
        (tmp_path / "runs" / "other").mkdir(exist_ok=True)
        (tmp_path / "runs" / "other" / "config.json").write_text(text)
        assert by_name(planned(config(tmp_path, SHARDS), NODE))["workers"].source == "as before measured"
    plan = planned(config(tmp_path, SHARDS), NODE, known="worker=7")
    assert [by_name(plan)[n].source for n in ("readers", "workers")] == ["as before measured", "as given"]
    assert plan.per_s == 28


@pytest.mark.parametrize("text", ["worker", "worker=-1", "worker=nan", "workers=3", "worker=1;encoder=2"])
def test_a_malformed_rate_is_an_error_that_says_how_to_write_it(text: str) -> None:
    with pytest.raises(ConfigError, match="write worker=N, encoder=N, reader=N, each in samples"):
        rates.given(text)


# Costs


def test_the_price_is_that_of_all_nodes_for_the_hours(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text("currency: EUR\ngpu: 10\ncpu: {price: 0.5, spot: true}\nother: 99\n")
    table = price_table.read(path)
    plan = planned(config(tmp_path, SHARDS), HEAD, CPU, GPU, known=KNOWN, table=table, samples=8000 * 3600)
    assert plan.hourly == 2 * 10 + 4 * 0.5
    text = shown(plan)
    cost = "22.00 EUR an hour with all of these nodes, 22.00 EUR in all, spot prices as in the table"
    assert f"cost: {cost}" in text
    assert "no price for head" in text


@pytest.mark.parametrize(
    "entry", ["gpu: free", "gpu: -1", "gpu: true", "gpu: {cost: 1}", "gpu: {price: 1, spot: 2}", "gpu: .inf"]
)
def test_a_malformed_price_is_an_error_with_file_and_entry(tmp_path: Path, entry: str) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(entry)
    with pytest.raises(ConfigError, match=r"prices\.yaml: gpu=.*: write a price per hour"):
        price_table.read(path)
