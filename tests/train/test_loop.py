"""The training loop on one gloo rank and on two, launched without a cluster: the test hands out blocks of rows."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sclip.config import Config, DataConfig, HealthConfig, RunConfig, TrainConfig
from sclip.data import columns as col
from sclip.data.position import Position
from sclip.data.schedule import NamedShard, Schedule, Visit
from sclip.model import Tokenizer, image_size
from sclip.train import loop, manifest
from sclip.train.health import TrainingDiverged
from sclip.train.launcher import TrainJob
from sclip.train.loop import train
from sclip.train.run_folder import RunFolder
from sclip.train.step import TrainStep
from support import ranks
from support.launchers import ListLauncher
from support.stream_blocks import Columns, Row, placed
from support.train_cases import CASES, MODEL, WHITE, with_overflow

SHARDS, PER_SHARD, SHARE = 4, 7, 2
"""In each shard the row 2 cannot be read, and the rows 3 and 4 are filtered: four of seven are trained on."""
SAMPLES = SHARDS * (PER_SHARD - 3)
SCHEDULE = Schedule(3, 1, (SHARDS,))
PATHS = tuple(f"/data/{number}.tar" for number in range(SHARDS))
NAMED = tuple(NamedShard(f"0/{path[6:]}", path) for path in PATHS)


def left(position: Position) -> list[Row]:
    """Return the rows of the stream that a position has not done, each shard's end after them."""
    found: list[Row] = []
    status = {2: col.REJECTED, 3: col.FILTERED, 4: col.FILTERED}
    for entry in (entry for entries in position.remaining(SHARDS) for entry in entries):
        done = {ordinal for part in position.done(entry) for ordinal in part}
        rows = [(entry, ordinal, status.get(tar_index(ordinal), col.SAMPLE)) for ordinal in range(PER_SHARD)]
        found += [row for row in rows if row[1] not in done]
        found.append((entry, PER_SHARD, col.END))
    return found


def tar_index(ordinal: int) -> int:
    """Return the place in its shard of a row that its reader mixed."""
    return (5 * ordinal + 1) % PER_SHARD


def key(entry: int, index: int) -> int:
    return 100 * entry + index


def block(rows: Sequence[Row], origin: int, white: Sequence[int]) -> Columns:
    """Return the columns of rows; the pictures of the keys in `white` are white alone."""
    tokenizer, side = Tokenizer(MODEL.name, MODEL.kee), image_size(MODEL.name)
    found = placed(rows, origin, tar_index)
    keys = [key(entry, index) for entry, index in zip(found[col.ENTRY], found[col.INDEX], strict=True)]
    cases = [CASES[k % len(CASES)] for k in keys]
    images = [np.random.default_rng(k).integers(0, 255, (3, side, side), np.uint8) for k in keys]
    return found | {
        col.IMAGE: np.stack([np.full_like(i, WHITE) if k in white else i for k, i in zip(keys, images, strict=True)]),
        col.TEXT: tokenizer.text([case[0] for case in cases]),
        col.NEGATIVE_TEXT: tokenizer.text([case[1] for case in cases])[:, None],
        col.HAS_NEGATIVE: np.array([[bool(case[1])] for case in cases]),
        col.TRIPLES: tokenizer.triples([[case[2]] if case[2] else [] for case in cases]),
        col.NEGATIVE_TRIPLES: tokenizer.triples([[case[2][::-1]] if case[2] else [] for case in cases])[:, None],
        col.IMAGE_DIGEST: np.array(keys),
    }  # fmt: skip


class Run:
    """A run of the loop on this rank: its launcher, what was reported, and the keys of each step."""

    def __init__(
        self,
        rank: int,
        world_size: int,
        folder: Path,
        white: Sequence[int] = (),
        crash_at: int = 0,
        **health: Any,
    ) -> None:
        config = Config(
            run=RunConfig(seed=3),
            data=DataConfig(max_quarantined=1.0),
            model=MODEL,
            train=TrainConfig(
                epochs=1, num_workers=world_size, batch_size=SHARE * world_size, learning_rate=1e-3, log_every=1
            ),
            health=HealthConfig(**health),
        )  # fmt: skip
        self.folder, self.white, self.crash_at = RunFolder(folder), white, crash_at
        self.rank, self.world_size, self.config = rank, world_size, config
        self.put: list[dict[str, Any]] = []
        self.trained: list[list[int]] = []
        self.error = ""
        self.packed = False
        self.threads = 0

    def with_(self, section: str, **values: Any) -> Run:
        changed = dataclasses.replace(getattr(self.config, section), **values)
        self.config = dataclasses.replace(self.config, **{section: changed})
        return self

    def run(self) -> Run:
        latest = self.folder.latest()
        position = Position.from_json(manifest.read_state(latest[0])["position"]) if latest else Position()
        rows = left(position)[self.rank :: self.world_size]
        blocks = [
            block(rows[at : at + 3], latest[1] if latest else 0, self.white) for at in range(0, len(rows), 3)
        ]
        launcher = ListLauncher(blocks, self.rank, self.world_size, reports=self.put)
        run = self

        class Recorded(TrainStep):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args)
                with_overflow(self)

            def __call__(self, batch: Any, progress: float) -> dict[str, torch.Tensor]:
                if len(run.trained) + 1 == run.crash_at:
                    raise OSError("the machine is gone")
                metrics = super().__call__(batch, progress)
                run.trained.append(batch["image_digest"][batch["valid"]].tolist())
                run.packed = "packed_text" in batch
                return metrics

        job = TrainJob(
            self.config, SCHEDULE, (NAMED,), image_size(MODEL.name), self.folder.path, SHARDS * PER_SHARD
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "TrainStep", Recorded)
            try:
                train(job, launcher)
            except (OSError, TrainingDiverged) as error:
                self.error = f"{type(error).__name__}: {error}"
        self.threads = torch.get_num_threads()
        return self

    @property
    def told(self) -> dict[str, Any]:
        """What a test looks at, of types that a rank can return."""
        metrics = [report["metrics"] for report in self.put if report["kind"] == "metrics"]
        return {
            "trained": self.trained,
            "error": self.error,
            "metrics": metrics,
            "packed": self.packed,
            "threads": self.threads,
        }


def on_a_rank(rank: int, world_size: int, place: str) -> dict[str, Any]:
    folder = Path(place)

    def run(name: str, **more: Any) -> Run:
        (folder / name).mkdir(exist_ok=True)
        return Run(rank, world_size, folder / name, **more)

    found = {
        "whole": run("whole", profile_steps=(2, 1)).run(),
        "uneven": run("uneven").with_("train", batch_size=SHARE * world_size + 1).run(),
        "crashed": run("again", crash_at=4).with_("checkpoint", every=2, asynchronous=False).run(),
        "resumed": run("again")
        .with_("checkpoint", every=2, keep_last=9)
        .with_("train", pack_text=False, worker_threads=2)
        .run(),
    }
    white = [key(1, 0)]  # one picture of one rank
    for sharding in ("ddp", "fsdp"):
        stopping = run(f"stopped-{sharding}", white=white).with_("checkpoint", every=1)
        found[f"stopped {sharding}"] = stopping.with_("train", sharding=sharding, log_every=100).run()
        skipping = run(f"skipped-{sharding}", white=white, on_nonfinite="skip")
        found[f"skipped {sharding}"] = skipping.with_("train", sharding=sharding).run()
    more = [*white, key(2, 0), key(3, 0)]
    found["too many"] = run("too-many", white=more, on_nonfinite="skip", max_skipped=2).run()
    return {name: of_one.told for name, of_one in found.items()}


@dataclasses.dataclass
class Runs:
    world_size: int
    place: Path
    of_ranks: list[dict[str, Any]]

    def state(self, name: str, step: int) -> dict[str, Any]:
        return manifest.read_state(RunFolder(self.place / name).step_path(step))

    def keys(self, name: str, steps: int | None = None) -> list[int]:
        """Return the keys that all ranks trained on in the first steps, sorted."""
        return sorted(
            k for of_rank in self.of_ranks for of_step in of_rank[name]["trained"][:steps] for k in of_step
        )

    def error(self, name: str) -> str:
        """Return the error that all ranks end with, which is the same."""
        (error,) = {of_rank[name]["error"] for of_rank in self.of_ranks}
        return str(error)


@pytest.fixture(scope="module", params=[1, 2])
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    place = tmp_path_factory.mktemp("runs")
    yield Runs(request.param, place, ranks.run(on_a_rank, request.param, place, str(place)))
    shutil.rmtree(place)


ALL = [key(entry, index) for entry in range(SHARDS) for index in (0, 1, 5, 6)]


def done(state: dict[str, Any]) -> set[int]:
    """Return the keys of the samples that a checkpoint says were trained on."""
    position = Position.from_json(state["position"])
    open_ = {entry for entries in position.remaining(SHARDS) for entry in entries}
    ranges = {e: position.done(e) if e in open_ else [range(PER_SHARD)] for e in range(SHARDS)}
    return {
        k for e, parts in ranges.items() for part in parts for o in part if (k := key(e, tar_index(o))) in ALL
    }


def test_every_sample_is_trained_on_once_and_every_shard_closed(runs: Runs) -> None:
    assert runs.error("whole") == ""
    assert runs.keys("whole") == ALL
    state = runs.state("whole", SAMPLES // SHARE // runs.world_size)
    assert state["position"] == {"closed": [0, SHARDS], "open": []}
    assert state["progress"]["samples"] == SAMPLES
    assert (state["progress"]["quarantined"], state["progress"]["filtered"]) == (SHARDS, 2 * SHARDS)


def test_a_batch_that_does_not_divide_among_the_ranks_is_as_large_as_it_is_named(runs: Runs) -> None:
    assert runs.error("uneven") == ""
    assert runs.keys("uneven") == ALL
    first = [len(of_rank["uneven"]["trained"][0]) for of_rank in runs.of_ranks]
    assert first == [SHARE + 1, SHARE][: runs.world_size]


def places(line: dict[str, Any], kind: str) -> list[int]:
    """Return the keys that a line of the ledger names."""
    entry_of = {SCHEDULE.visit(entry): entry for entry in range(SHARDS)}
    found = line.get(kind, [])
    return sorted(key(entry_of[Visit(*visit)], index) for *visit, of_one in found for index in of_one)


def test_the_ledger_of_each_rank_says_what_it_trained_on_in_each_step(runs: Runs) -> None:
    filtered = []
    for rank, of_rank in enumerate(runs.of_ranks):
        file = runs.place / "whole" / "ledger" / f"0000-{rank:05d}.jsonl"
        head, *lines = [json.loads(line) for line in file.read_text().splitlines()]
        assert head == {"attempt": 0, "rank": rank, "world_size": runs.world_size, "from_step": 0}
        trained = {line["step"]: places(line, "trained") for line in lines if "trained" in line}
        steps = {n: sorted(keys) for n, keys in enumerate(of_rank["whole"]["trained"], start=1) if keys}
        assert trained == steps
        filtered += [k for line in lines for k in places(line, "filtered")]
    assert sorted(filtered) == [key(entry, index) for entry in range(SHARDS) for index in (3, 4)]


def test_the_ledger_of_a_resumed_run_has_two_attempts_that_meet_at_the_checkpoint(runs: Runs) -> None:
    counted: list[int] = []
    left_out: list[int] = []
    for attempt, (name, steps) in enumerate((("crashed", range(1, 3)), ("resumed", range(3, 99)))):
        for rank in range(runs.world_size):
            file = runs.place / "again" / "ledger" / f"{attempt:04d}-{rank:05d}.jsonl"
            head, *lines = [json.loads(line) for line in file.read_text().splitlines()]
            assert (head["attempt"], head["from_step"]) == (attempt, 2 * attempt)
            assert bool(runs.of_ranks[rank][name]["trained"])
            counted += [k for line in lines if line["step"] in steps for k in places(line, "trained")]
            left_out += [k for line in lines if line["step"] in steps for k in places(line, "filtered")]
    assert sorted(counted) == ALL
    assert sorted(left_out) == [key(entry, index) for entry in range(SHARDS) for index in (3, 4)]


def test_what_was_set_aside_is_listed_by_where_it_stands_with_the_step_of_its_checkpoint(runs: Runs) -> None:
    for name in ("whole", "again"):
        folder = RunFolder(runs.place / name)
        lines = [json.loads(line) for line in folder.quarantine.read_text().splitlines()]
        latest = folder.latest()
        assert latest is not None
        assert sorted((line["shard"], line["index"]) for line in lines) == [(path, 2) for path in PATHS]
        for line in lines:
            assert (line["source"], line["pass"], line["reason"]) == (0, 0, "not a picture")
            assert folder.step_path(line["step"]) in folder.checkpoints() or line["step"] == latest[1] + 1


def test_a_checkpoint_holds_what_was_trained_on_and_nothing_that_is_made_ahead(runs: Runs) -> None:
    assert "the machine is gone" in runs.error("crashed")
    assert done(runs.state("again", 2)) == set(runs.keys("crashed", steps=2))
    assert len(runs.keys("crashed", steps=3)) > len(runs.keys("crashed", steps=2))


def test_what_was_made_ahead_of_a_crash_is_trained_on_after_it_once(runs: Runs) -> None:
    assert runs.error("resumed") == ""
    assert sorted(runs.keys("crashed", steps=2) + runs.keys("resumed")) == ALL
    complete = RunFolder(runs.place / "again").complete
    assert complete is not None
    assert (complete["samples"], complete["quarantined"], complete["filtered"]) == (
        SAMPLES,
        SHARDS,
        2 * SHARDS,
    )


def test_captions_reach_the_step_packed_where_the_config_says(runs: Runs) -> None:
    for of_rank in runs.of_ranks:
        assert of_rank["whole"]["packed"]
        assert not of_rank["resumed"]["packed"]


def test_a_report_has_the_health_of_the_run(runs: Runs) -> None:
    reports = runs.of_ranks[0]["whole"]["metrics"]
    wanted = "norm_image norm_text norm_kee tokens_per_s samples_per_s data_wait grad_norm negative_gap hinge_active"
    for metrics in reports:
        assert set(wanted.split()) <= metrics.keys()
        assert "peak_memory_bytes" not in metrics  # of a GPU
        assert metrics["norm_text"] > 0
        assert metrics["tokens_per_s"] > metrics["samples_per_s"]
    assert [metrics["skipped"] for metrics in reports] == [0] * len(reports)
    assert all(of_rank["whole"]["metrics"] == [] for of_rank in runs.of_ranks[1:])


def test_every_rank_writes_a_trace_of_the_chosen_step(runs: Runs) -> None:
    traces = sorted(path.name for path in (runs.place / "whole").glob("trace-*"))
    assert traces == [f"trace-00000002-rank-{rank}.json.gz" for rank in range(runs.world_size)]


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_a_loss_that_is_not_finite_stops_every_rank_with_step_shard_and_checkpoint(
    runs: Runs, sharding: str
) -> None:
    error, name = runs.error(f"stopped {sharding}"), f"stopped-{sharding}"
    step = next(
        number
        for of_rank in runs.of_ranks
        for number, keys in enumerate(of_rank[f"stopped {sharding}"]["trained"], start=1)
        if key(1, 0) in keys
    )
    assert step > 1
    assert f"TrainingDiverged: step {step}: loss is nan, grad_norm is nan at logit scale 14." in error
    assert "health.on_nonfinite=skip" in error
    keys = [k for of_rank in runs.of_ranks for k in of_rank[f"stopped {sharding}"]["trained"][step - 1]]
    shards = sorted({PATHS[SCHEDULE.visit(k // 100).shard] for k in keys})
    assert f"its samples are of {', '.join(shards)};" in error
    latest = RunFolder(runs.place / name).latest()
    assert latest is not None
    assert latest[1] == step - 1
    assert f"the last good checkpoint is {latest[0]}." in error


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_a_skipped_step_is_counted_and_its_samples_are_trained_on(runs: Runs, sharding: str) -> None:
    assert runs.error(f"skipped {sharding}") == ""
    assert runs.keys(f"skipped {sharding}") == ALL
    complete = RunFolder(runs.place / f"skipped-{sharding}").complete
    assert complete is not None
    assert (complete["skipped"], complete["samples"]) == (1, SAMPLES)
    assert runs.state(f"skipped-{sharding}", complete["step"])["progress"]["skipped"] == 1
    counted = [metrics["skipped"] for metrics in runs.of_ranks[0][f"skipped {sharding}"]["metrics"]]
    assert counted[0] == 0
    assert counted[-1] == 1
    json.dumps(complete, allow_nan=False)


def test_more_skipped_steps_than_allowed_stop_the_run(runs: Runs) -> None:
    assert "more than health.max_skipped=2 steps" in runs.error("too many")
    assert RunFolder(runs.place / "too-many").complete is None


def test_the_text_of_a_job_shows_no_credentials() -> None:
    config = Config(run=RunConfig(storage="s3://key:planted@bucket/runs"))
    shards = ((NamedShard("0/0.tar", "s3://key:planted@bucket/0.tar"),),)
    job = TrainJob(config, SCHEDULE, shards, 64, Path("/runs/first"), 1)
    assert "planted" not in repr({"job": job}) + str(job)


def test_a_worker_computes_with_the_threads_that_it_is_given(runs: Runs) -> None:
    for of_rank in runs.of_ranks:
        assert (of_rank["whole"]["threads"], of_rank["resumed"]["threads"]) == (1, 2)
