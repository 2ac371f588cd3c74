"""Checkpoint options and requests in the training loop on one gloo rank; the test provides blocks of rows."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from rich.console import Console
from safetensors.torch import load_file

import sclip
from sclip.config import CheckpointConfig, ConfigError, KEEConfig, LoRAConfig, LossConfig, ModelConfig
from sclip.config.loader import to_tree
from sclip.data.order import Order
from sclip.data.schedule import NamedShard, Schedule
from sclip.model import ModelError, build_model, image_size, lora, weights
from sclip.model.export import export, export_state
from sclip.model.weights import save
from sclip.run.resolve import bring_initial_weights
from sclip.train import checkpoint, loop, manifest
from sclip.train.checkpoint_tensors import MODEL, of_prefix, stored_tensors
from sclip.train.launcher import Requested, TrainJob
from sclip.train.loop import train
from sclip.train.manifest import CheckpointError
from sclip.train.optimizer import EMA
from sclip.train.run_checkpoints import RunCheckpoints
from sclip.train.run_folder import RunFolder
from sclip.train.step import TrainStep, unwrapped
from support.launchers import ListLauncher
from support.small_model import assert_same_weights
from support.stream_blocks import placed, samples
from support.train_cases import ROWS, VIT, config_with, start, training_batch

STEPS = 3


@pytest.fixture(autouse=True)
def _one_rank(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def block(number: int, model: ModelConfig = VIT) -> dict[str, Any]:
    """Return the rows of a step as the stream yields them."""
    batch = training_batch(number, model)
    columns: dict[str, Any] = {name: tensor.numpy() for name, tensor in batch.items() if name != "valid"}
    return columns | placed(samples(0, ROWS, first=number * ROWS))


def launched(
    folder: Path,
    ema_decay: float = 0.0,
    requests: Sequence[Requested] = (),
    model: ModelConfig = VIT,
    distil: float = 0.0,
    sharding: str = "auto",
    **keep: Any,
) -> ListLauncher:
    """Train the remaining steps of three, with a checkpoint after each step unless `keep` says otherwise.

    Return the launcher.
    """
    loss = LossConfig(distil=distil)
    config = config_with(loss, model, ema_decay=ema_decay, log_every=1, warmup=0.0, sharding=sharding)
    config = dataclasses.replace(config, checkpoint=CheckpointConfig(**({"every": 1} | keep)))
    launcher = ListLauncher(
        lambda _, step: (block(number, model) for number in range(step, STEPS)), requests=list(requests)
    )
    folder.mkdir(exist_ok=True)
    order = Order(Schedule(0, 1, (1,)), ((STEPS * ROWS,),), 1, ROWS)
    shards = ((NamedShard("0/0.tar", "/data/0.tar"),),)
    train(TrainJob(config, order, shards, image_size(VIT.name), folder), launcher)
    return launcher


def steps(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in RunFolder(folder).checkpoints()]


STOP_AFTER_TWO = [Requested(), Requested(True, True)]


@pytest.fixture
def run(_one_rank: None, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a run's folder: the run stopped after two of three steps and has a checkpoint of both."""
    if not STOPPED:
        STOPPED.append(tmp_path_factory.mktemp("stopped") / "run")
        launched(STOPPED[0], requests=STOP_AFTER_TWO)
    return Path(shutil.copytree(STOPPED[0], tmp_path / "run"))


STOPPED: list[Path] = []


def test_a_damaged_checkpoint_is_reported_and_training_resumes_from_the_one_before(run: Path) -> None:
    damaged = next((run / "step-00000002").glob("*.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    note, start, *_ = launched(run).reports
    assert note["kind"] == "note"
    assert note["line"].endswith("set aside, the checkpoint before it is used")
    assert (start["kind"], start["step"]) == ("start", 1)


def test_a_run_that_continues_with_another_sharding_says_so(run: Path) -> None:
    note, start, *_ = launched(run, sharding="fsdp").reports
    line = "step-00000002 was trained with ddp; train.sharding=fsdp now means fsdp"
    assert (note["kind"], note["line"], start["step"]) == ("note", line, 2)
    assert [report["kind"] for report in launched(run, sharding="fsdp").reports] == ["start"]


def test_all_process_groups_of_a_run_wait_as_long_as_its_config_says(tmp_path: Path) -> None:
    step = start(config_with(model=VIT, sharding="hsdp", shard_ranks=1, collective_timeout_s=77))
    checkpoints = RunCheckpoints(RunFolder(tmp_path), CheckpointConfig(), step, None, ListLauncher(list))
    mesh, saver = next(step.model.parameters()).device_mesh, checkpoints._saver
    saver.close()
    groups = [mesh.get_group("replicate"), mesh.get_group("shard"), saver._group]
    assert [g._get_backend(torch.device("cpu")).options._timeout.seconds for g in groups] == 3 * [77]


def test_a_storage_failure_at_the_start_is_no_checkpoint_error_but_another_version_s_checkpoint_is(
    run: Path,
) -> None:
    file = run / "quarantine.jsonl"
    file.unlink(missing_ok=True)
    file.mkdir()  # a folder cannot be read as a file
    with pytest.raises(OSError, match=r"quarantine\.jsonl"):
        launched(run)
    file.rmdir()
    path = run / "step-00000002"
    assert RunFolder(run).latest() == (path, 2)
    files = json.loads((path / manifest.MANIFEST).read_text())["files"]
    manifest.write_manifest(path, manifest.read_state(path) | {"position": {"closed": [0, 1]}}, files)
    with pytest.raises(CheckpointError, match=r"^.*step-00000002: written by another version of sclip.*$"):
        launched(run)


def test_a_distilling_run_resumes_only_with_the_weights_that_it_started_from(
    tmp_path: Path,
) -> None:
    def bring(seed: int) -> None:
        torch.manual_seed(seed)
        tensors = build_model(dataclasses.replace(VIT, kee=KEEConfig(enabled=False))).state_dict()
        save(tensors, RunFolder(folder).init, quick_gelu=False)

    (folder := tmp_path / "run").mkdir()
    bring(0)
    first = launched(folder, requests=STOP_AFTER_TWO, distil=1.0)
    losses = [report["metrics"]["loss_distil"] for report in first.reports if report["kind"] == "metrics"]
    assert losses[0] > 0  # the run has a knowledge encoder, which its start lacks
    stored = stored_tensors(folder / "step-00000002")
    assert of_prefix(stored, MODEL).keys() == build_model(VIT).state_dict().keys()
    bring(1)
    with pytest.raises(CheckpointError, match=r"^.*run: the run's starting weights have changed .*$"):
        launched(folder, distil=1.0)
    RunFolder(folder).init.unlink()  # type: ignore[union-attr]
    with pytest.raises(CheckpointError, match=r"^.*init\.safetensors: no such file; loss\.distil=1\.0 .*$"):
        launched(folder, distil=1.0)
    bring(0)
    launched(folder, distil=1.0)
    assert steps(folder)[0] == STEPS


@pytest.mark.parametrize("asynchronous", [True, False])
def test_each_checkpoint_is_reported_when_whole_has_averages_and_the_run_ends_with_the_last(
    tmp_path: Path, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    updates = []
    wait = checkpoint.Saver.until_copied
    monkeypatch.setattr(checkpoint.Saver, "until_copied", lambda saver: (updates.append(saver), wait(saver)))
    reports = launched(tmp_path / "run", 0.5, asynchronous=asynchronous, keep_last=9).reports
    assert steps(tmp_path / "run") == [3, 2, 1]
    assert len(updates) == STEPS  # each update waits for the copies of the checkpoint before it
    written = [report for report in reports if report["kind"] == "checkpoint"]
    assert [report["step"] for report in written] == [1, 2, 3]
    assert all(manifest.verify(report["path"]) == "" for report in written)
    complete = RunFolder(tmp_path / "run").complete
    assert complete is not None
    assert complete["checkpoint"] == "step-00000003"
    step = start(config_with(model=VIT))
    ema = EMA(unwrapped(step.model), 0.5)
    checkpoint.load(tmp_path / "run" / "step-00000003", step.model, step.optimizer, ema)
    weights = unwrapped(step.model).state_dict()
    assert max(float((average - weights[name]).abs().max()) for name, average in ema.weights.items()) > 1e-5
    if not asynchronous:
        order = [(report["kind"], report["step"]) for report in reports if report["kind"] != "start"]
        assert order == [(kind, n) for n in (1, 2, 3) for kind in ("metrics", "checkpoint")]


@pytest.mark.parametrize(("stop", "expected"), [(False, [3, 2]), (True, [2])])
def test_a_requested_checkpoint_is_written_after_the_step_and_training_goes_on_unless_told_to_stop(
    tmp_path: Path, stop: bool, expected: list[int]
) -> None:
    launcher = launched(tmp_path / "run", requests=[Requested(), Requested(True, stop)], every=100)
    assert steps(tmp_path / "run") == expected
    assert launcher.fulfilled == 1
    written = [report["step"] for report in launcher.reports if report["kind"] == "checkpoint"]
    assert written == expected[::-1]
    assert (RunFolder(tmp_path / "run").complete is None) == stop


def test_the_sums_of_the_ranks_and_the_last_report_are_read_after_the_next_step_is_queued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    add, step, tell = dist.all_reduce, TrainStep.__call__, ListLauncher.report

    def all_reduce(total: torch.Tensor, *args: Any, **options: Any) -> Any:
        work = add(total, *args, **options)
        if total.dtype != torch.int64:
            return work
        events.append("sums started")
        return SimpleNamespace(wait=lambda: (events.append("sums read"), work.wait()))

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    monkeypatch.setattr(TrainStep, "__call__", lambda *args: (events.append("step"), step(*args))[1])
    monkeypatch.setattr(
        ListLauncher, "report", lambda self, report: (events.append(report["kind"]), tell(self, report))
    )
    monkeypatch.setattr(loop, "_queues", lambda device: True)  # as a GPU does
    launched(tmp_path / "run", every=100)
    step_events = ["sums started", "step", "sums read"]
    assert events[1:-2] == [*step_events, *step_events, "metrics", *step_events, "metrics"]
    assert (events[0], events[-2:]) == ("start", ["metrics", "checkpoint"])


def test_a_step_that_does_not_fit_into_the_gpu_s_memory_is_a_config_error_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*_: Any) -> None:
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total of ..."
        )

    monkeypatch.setattr(TrainStep, "__call__", too_large)
    expected = (
        r"^train\.micro_batch=0: a step .* \(CUDA out of memory\. Tried to allocate 2\.00 GiB\); set it to "
        r"a smaller divisor of a worker's 6 rows, or set train\.activation_checkpointing=block \(now none\) or "
        r"train\.sharding=fsdp \(now auto\)$"
    )
    with pytest.raises(ConfigError, match=expected):
        launched(tmp_path / "run")


def test_a_run_with_another_context_length_resumes_and_its_checkpoints_load_with_it(tmp_path: Path) -> None:
    source = export(build_model(VIT), tmp_path / "source")
    model = dataclasses.replace(VIT, context_length=10, pretrained=str(source))
    folder = RunFolder(tmp_path / "run")
    launched(folder.path, model=model)
    trained = checkpoint.consolidate(folder.step_path(STEPS), model)
    shutil.rmtree(folder.step_path(STEPS))
    launched(folder.path, model=model)
    folder.write("config.json", to_tree(config_with(LossConfig(), model)))
    loaded = sclip.load(folder.step_path(STEPS)).model
    assert loaded.config.context_length == len(loaded.text_tower.positional_embedding) == 10
    assert_same_weights(loaded, trained)
    before = load_file(source / "model.safetensors")["clip.positional_embedding"][:10]
    assert 0 < (loaded.text_tower.positional_embedding - before).norm() < before.norm() / 2
    with pytest.raises(CheckpointError, match="positional_embedding"):
        launched(folder.path, model=VIT)


def test_the_newest_and_the_best_by_a_reported_metric_stay(tmp_path: Path) -> None:
    reports = launched(tmp_path / "run", keep_last=1, keep_best=1, best_is="highest").reports
    losses = {r["step"]: r["metrics"]["loss"] for r in reports if r["kind"] == "metrics"}
    highest = max(losses, key=lambda step: losses[step])
    assert highest < 3  # otherwise keeping the newest would be enough
    assert steps(tmp_path / "run") == [3, highest]


def test_a_best_metric_that_nobody_reports_and_a_budget_that_no_checkpoint_fits_are_refused(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match=r"best_metric='accuracy': no such metric; use one of .*loss"):
        launched(tmp_path / "run", keep_best=1, best_metric="accuracy")
    with pytest.raises(CheckpointError, match=r"checkpoint\.disk_budget_gb=1e-06"):
        launched(tmp_path / "budget", disk_budget_gb=1e-6)
    assert steps(tmp_path / "budget") == []


UPDATED = dataclasses.replace(VIT, lora=LoRAConfig(rank=2))


def with_start(folder: Path) -> Path:
    """Create a run's folder with the weights that the run starts from; return the folder."""
    folder.mkdir()
    torch.manual_seed(1)
    weights.save(export_state(build_model(VIT)), folder / "init.safetensors", quick_gelu=False)
    return folder


def stored(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = (folder / "step-00000003").glob("*.safetensors")
    return load_file(file)


@pytest.mark.parametrize("ema_decay", [0.0, 0.5])
def test_only_lora_updates_are_stored_and_a_resumed_lora_run_ends_as_an_uninterrupted_one(
    tmp_path: Path, ema_decay: float
) -> None:
    whole, resumed = with_start(tmp_path / "whole"), with_start(tmp_path / "resumed")
    launched(whole, ema_decay, model=UPDATED)
    launched(resumed, ema_decay, STOP_AFTER_TWO, UPDATED)
    launched(resumed, ema_decay, model=UPDATED)
    tensors, again = stored(whole), stored(resumed)
    assert tensors.keys() == again.keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in tensors.items())
    assert not [name for name in tensors if ".clip." in name and ".lora." not in name]
    stored_bytes = sum(t.nbytes for name, t in tensors.items() if "step" not in name and "image_" not in name)
    step = start(config_with(model=UPDATED))
    assert stored_bytes == checkpoint.size_bytes(step.model, ema_decay > 0)
    with RunFolder(whole).starting(UPDATED) as config:
        merged = checkpoint.consolidate(whole / "step-00000003", config)
    began = load_file(whole / "init.safetensors")
    moved = {name for name, t in export_state(merged).items() if not torch.equal(t, began[name])}
    assert {lora.is_stored(name) for name in moved} == {True, False}
    assert "clip.transformer.resblocks.0.attn.in_proj_weight" in moved
    assert not [name for name in moved if name.startswith("clip.") and name.endswith("bias")]


def test_lora_updates_are_refused_without_the_weights_that_the_run_started_from(tmp_path: Path) -> None:
    folder = with_start(tmp_path / "run")
    launched(folder, requests=STOP_AFTER_TWO, model=UPDATED)
    torch.manual_seed(2)
    weights.save(export_state(build_model(VIT)), folder / "init.safetensors", quick_gelu=False)
    with RunFolder(folder).starting(UPDATED) as config, pytest.raises(CheckpointError, match="have changed"):
        checkpoint.consolidate(folder / "step-00000002", config)
    with pytest.raises(CheckpointError, match="have changed"):
        launched(folder, model=UPDATED)
    (folder / "init.safetensors").unlink()
    with pytest.raises(ModelError, match=r"init\.safetensors: no such file; with model\.lora\.rank"):
        launched(folder, model=UPDATED)
    with pytest.raises(ConfigError, match=r"restore the file, or choose another run\.name"):
        bring_initial_weights(config_with(model=UPDATED), RunFolder(folder), Console())
