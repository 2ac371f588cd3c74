"""The training loop on two gloo ranks: the rows of its steps, also across crashes, and the records of them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sclip.config import Config, RunConfig
from sclip.data.order import Order
from sclip.data.schedule import NamedShard, Visit
from sclip.train import manifest
from sclip.train.launcher import TrainJob
from sclip.train.run_folder import RunFolder
from support import ranks
from support.loop_runs import INDICES, PATHS, PER_SHARD, SAMPLES, SCHEDULE, SHARDS, SHARE, Run, key, order_of


def on_a_rank(rank: int, world_size: int, path: str) -> dict[str, Any]:
    folder = Path(path)

    def run(name: str, recorded: int = PER_SHARD, **more: Any) -> Run:
        (folder / name).mkdir(exist_ok=True)
        return Run(rank, world_size, folder / name, recorded, **more)

    if world_size == 1:
        shares = {
            name: run(name).with_("train", batch_size=2 * SHARE).run() for name in ("two shares", "twin")
        }
        return {name: one_run.told for name, one_run in shares.items()}
    uneven = SHARE * world_size + 1
    finished = {
        "whole": run("whole", profile_steps=(3, 1)).run(),
        "in parts": run("in-parts").with_("data", open_shards=3)
        .with_("train", batch_size=uneven, micro_batch=1).run(),
        "crashed": run("again", crash_at=5).with_("checkpoint", every=3, asynchronous=False).run(),
        "resumed": run("again").with_("checkpoint", every=2, keep_last=9)
        .with_("train", pack_text=False, worker_threads=2).run(),
        "crashed beyond": run("beyond", 4, crash_at=6).with_("checkpoint", every=1, asynchronous=False).run(),
        "resumed beyond": run("beyond", 4).run(),
    }  # fmt: skip
    white = [key(1, 0)]  # one image on one rank
    finished["stopped"] = (
        run("stopped", white=white).with_("checkpoint", every=1).with_("train", log_every=100).run()
    )
    finished["skipped"] = (
        run("skipped", white=white, on_nonfinite="skip").with_("train", sharding="ddp").run()
    )
    return {name: one_run.told for name, one_run in finished.items()}


@dataclasses.dataclass
class Runs:
    world_size: int
    place: Path
    of_ranks: list[dict[str, Any]]

    def state(self, name: str, step: int) -> dict[str, Any]:
        return manifest.read_state(RunFolder(self.place / name).step_path(step))

    def complete(self, name: str) -> dict[str, Any]:
        complete = RunFolder(self.place / name).complete
        assert complete is not None
        return complete

    def steps(self, name: str, upto: int = 99) -> dict[int, list[int]]:
        """Return the sorted keys that all ranks together trained on, for each step with samples."""
        trained: dict[int, list[int]] = {}
        for outcome in self.of_ranks:
            for step, keys in outcome[name]["trained"].items():
                if step <= upto and keys:
                    trained[step] = sorted(trained.get(step, []) + keys)
        return trained

    def losses(self, name: str) -> dict[int, float]:
        return {step: metrics["loss"] for step, metrics in self.of_ranks[0][name]["metrics"].items()}

    def error(self, name: str) -> str:
        """Return the error with which all ranks end; it must be the same on each."""
        (error,) = {outcome[name]["error"] for outcome in self.of_ranks}
        return str(error)


def runs_of(size: int, folder: Path) -> Runs:
    return Runs(size, folder, ranks.run(on_a_rank, size, folder, str(folder)))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return runs_of(2, tmp_path_factory.mktemp("two"))


ALL = [key(entry, index) for entry in range(SHARDS) for index in (0, 1, 5, 6)]


def steps_of(order: Order) -> dict[int, list[int]]:
    """Return the sorted sample keys of each step of the order, for steps with samples."""
    keys = {
        step + 1: sorted(key(entry, INDICES[o]) for entry, start, stop in parts for o in range(start, stop))
        for step, parts in order.rows()
    }
    kept = {step: [k for k in step_keys if k in ALL] for step, step_keys in keys.items()}
    return {step: step_keys for step, step_keys in kept.items() if step_keys}


def test_every_sample_is_trained_on_once_in_the_order_s_steps_and_steps_without_samples_count(
    runs: Runs,
) -> None:
    assert runs.error("whole") == ""
    order = order_of(SHARE * runs.world_size)
    assert runs.steps("whole") == steps_of(order)
    without_sample = {*range(1, order.steps + 1)} - steps_of(order).keys()
    assert without_sample
    assert not without_sample & runs.of_ranks[0]["whole"]["trained"].keys()
    assert sorted(k for keys in runs.steps("whole").values() for k in keys) == ALL
    complete = runs.complete("whole")
    assert (complete["samples"], complete["quarantined"]) == (SAMPLES, SHARDS)
    assert (complete["filtered"], complete["step"]) == (2 * SHARDS, order.steps)


def test_a_batch_size_that_ranks_and_parts_do_not_divide_is_met_exactly(
    runs: Runs,
) -> None:
    assert runs.error("in parts") == ""
    assert runs.steps("in parts") == steps_of(order_of(SHARE * runs.world_size + 1, open_shards=3))


def test_one_rank_has_the_losses_of_two_and_a_repeated_run_has_the_same_weights(
    runs: Runs, tmp_path: Path
) -> None:
    alone = runs_of(1, tmp_path)
    assert alone.steps("two shares") == runs.steps("whole")
    assert alone.losses("two shares") == pytest.approx(runs.losses("whole"), abs=1e-4)
    folders = [RunFolder(alone.place / name).step_path(7) for name in ("two shares", "twin")]
    weights, twin = (load_file(next(folder.glob("*.safetensors"))) for folder in folders)
    assert weights.keys() == twin.keys()
    assert all(torch.equal(tensor, twin[name]) for name, tensor in weights.items())


def test_rows_beyond_the_recorded_ones_are_trained_on_in_extra_steps(runs: Runs) -> None:
    """The extra rows are found while recorded rows are read. The run crashes in the extra steps and resumes."""
    recorded = order_of(SHARE * runs.world_size, recorded=4)
    order = dataclasses.replace(recorded, beyond=dict.fromkeys(range(SHARDS), PER_SHARD - 4))
    crash_at = 12 // runs.world_size
    assert recorded.steps < crash_at - 1
    crashed, resumed = runs.steps("crashed beyond"), runs.steps("resumed beyond")
    assert max(crashed) < crash_at == min(resumed)
    assert crashed | resumed == steps_of(order)
    complete = runs.complete("beyond")
    assert (complete["step"], complete["samples"]) == (order.steps, SAMPLES)


def places(line: dict[str, Any], kind: str) -> list[int]:
    """Return the keys of the rows in a ledger line."""
    entry_of = {SCHEDULE.visit(entry): entry for entry in range(SHARDS)}
    visits = line.get(kind, [])
    return sorted(key(entry_of[Visit(*visit)], index) for *visit, indices in visits for index in indices)


def test_ledgers_say_what_each_rank_trained_on_and_two_attempts_meet_at_the_checkpoint(runs: Runs) -> None:
    counted: list[int] = []
    filtered: list[int] = []
    for attempt, (name, steps) in enumerate((("crashed", range(1, 4)), ("resumed", range(4, 99)))):
        for rank in range(runs.world_size):
            file = runs.place / "again" / "ledger" / f"{attempt:04d}-{rank:05d}.jsonl"
            head, *lines = [json.loads(line) for line in file.read_text().splitlines()]
            assert head == {"attempt": attempt, "rank": rank, "world_size": 2, "from_step": 3 * attempt}
            trained = {line["step"]: places(line, "trained") for line in lines if "trained" in line}
            rank_keys = runs.of_ranks[rank][name]["trained"]
            assert trained == {step: sorted(keys) for step, keys in rank_keys.items() if keys}
            counted += [k for line in lines if line["step"] in steps for k in places(line, "trained")]
            filtered += [k for line in lines if line["step"] in steps for k in places(line, "filtered")]
    assert sorted(counted) == ALL
    assert sorted(filtered) == [key(entry, index) for entry in range(SHARDS) for index in (3, 4)]


def test_quarantined_rows_are_listed_by_place_with_the_step_of_their_checkpoint(runs: Runs) -> None:
    for name in ("whole", "again"):
        folder = RunFolder(runs.place / name)
        lines = [json.loads(line) for line in folder.quarantine.read_text().splitlines()]
        assert sorted((line["shard"], line["index"]) for line in lines) == [(path, 2) for path in PATHS]
        for line in lines:
            assert (line["source"], line["pass"], line["reason"]) == (0, 0, "not a picture")
            assert folder.step_path(line["step"]) in folder.checkpoints()


def test_after_a_crash_the_steps_since_the_checkpoint_are_repeated_with_the_same_rows(runs: Runs) -> None:
    assert "the machine is gone" in runs.error("crashed")
    assert runs.error("resumed") == ""
    for outcome in runs.of_ranks:  # the resumed run has another config
        assert (outcome["whole"]["threads"], outcome["resumed"]["threads"]) == (1, 2)
        assert (outcome["whole"]["packed"], outcome["resumed"]["packed"]) == (True, False)
    progress = runs.state("again", 3)["progress"]  # batches prepared ahead do not count
    assert progress["samples"] == sum(map(len, runs.steps("crashed", upto=3).values()))
    assert min(runs.steps("resumed")) == 4 == max(runs.steps("crashed"))
    assert runs.steps("crashed", upto=3) | runs.steps("resumed") == runs.steps("whole")
    assert runs.complete("again") == runs.complete("whole")


def test_a_report_has_the_health_of_the_run_and_every_rank_writes_a_trace_of_the_chosen_step(
    runs: Runs,
) -> None:
    wanted = "norm_image norm_text norm_kee tokens_per_s samples_per_s data_wait grad_norm negative_gap hinge_active"
    for metrics in runs.of_ranks[0]["whole"]["metrics"].values():
        assert set(wanted.split()) <= metrics.keys()
        assert metrics["norm_text"] > metrics["skipped"] == 0
        assert metrics["tokens_per_s"] > metrics["samples_per_s"]
    assert all(outcome["whole"]["metrics"] == {} for outcome in runs.of_ranks[1:])
    traces = sorted(path.name for path in (runs.place / "whole").glob("trace-*"))
    assert traces == [f"trace-00000003-rank-{rank}.json.gz" for rank in range(runs.world_size)]


def test_a_loss_that_is_not_finite_stops_every_rank_with_step_shard_and_checkpoint(runs: Runs) -> None:
    error = runs.error("stopped")
    (step,) = (step for step, keys in runs.steps("stopped").items() if key(1, 0) in keys)
    assert step > 1
    assert f"TrainingDiverged: step {step}: loss is nan, grad_norm is nan at logit scale 14." in error
    assert "health.on_nonfinite=skip" in error
    shards = sorted({PATHS[SCHEDULE.visit(k // 100).shard] for k in runs.steps("stopped")[step]})
    assert f"its samples are from {', '.join(shards)};" in error
    latest = RunFolder(runs.place / "stopped").latest()
    assert latest is not None
    assert latest[1] == step - 1
    assert f"the last good checkpoint is {latest[0]}." in error


def test_a_skipped_step_is_counted_and_its_samples_are_trained_on(runs: Runs) -> None:
    assert runs.error("skipped") == ""
    assert runs.steps("skipped") == runs.steps("whole")
    complete = runs.complete("skipped")
    assert (complete["skipped"], complete["samples"]) == (1, SAMPLES)
    assert runs.state("skipped", complete["step"])["progress"]["skipped"] == 1
    counted = [m["skipped"] for m in runs.of_ranks[0]["skipped"]["metrics"].values()]
    assert (counted[0], counted[-1]) == (0, 1)
    json.dumps(complete, allow_nan=False)


def test_the_text_of_a_job_shows_no_credentials() -> None:
    config = Config(run=RunConfig(storage="s3://key:planted@bucket/runs"))
    shards = ((NamedShard("0/0.tar", "s3://key:planted@bucket/0.tar"),),)
    job = TrainJob(config, order_of(1), shards, 64, Path("/runs/first"))
    assert "planted" not in repr({"job": job}) + str(job)
