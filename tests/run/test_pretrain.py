"""The main job on a real cluster: it trains on shards and registers a model, also with bad data and bad input."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from ray.job_submission import JobSubmissionClient
from safetensors.torch import load_file

from sclip.config import ConfigError, ScenesConfig
from sclip.data.patterns import expand
from sclip.data.shards import Sample, read_shard
from sclip.evaluate.result import Evaluation
from sclip.launch.trainer import TrainingFailed
from sclip.prepare import scenes
from sclip.run.summary import Summary
from sclip.tracking import history
from sclip.train.run_folder import LEASE, RunFolder
from support.commands import command
from support.paths import ROOT
from support.processes import environment
from support.ray_head import Head
from support.runs import TINY, port_without_server, recorded, recorded_curve
from support.tars import tar_bytes

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("attached")]

GATED = "tracking.gates=relation/accuracy >= champion"
STILL = ("train.learning_rate=1e-12", "train.epochs=1", "train.num_workers=1")
"""Overrides of a run whose learning rate is too low to change its weights."""


@pytest.fixture(scope="module")
def trained(start: Callable[..., Summary]) -> Summary:
    """A run of twelve steps that is evaluated before, during and after training, and whose model has a gate."""
    options = ("checkpoint.every=6", "evaluate.before=true", "evaluate.every=6", "evaluate.cpus=0.5")
    return start("run.name=first", *options, GATED)


def test_every_sample_is_trained_on_and_mlflow_has_config_metrics_data_and_scores(trained: Summary) -> None:
    assert (trained.trained["samples"], trained.trained["quarantined"]) == (2 * 96, 0)
    assert {"relation/accuracy", "attribute/accuracy", "retrieval/text_to_image_r1"} <= set(trained.scores)
    steps = trained.trained["step"]
    assert list(recorded_curve(trained.tracking_uri, "first")) == list(range(1, steps + 1))
    client = MlflowClient(trained.tracking_uri)
    version = client.get_model_version_by_alias("structure-clip", "candidate")
    run = client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["train.batch_size"] == "16"
    wanted = "loss loss_hinge loss_contrastive logit_scale learning_rate grad_norm samples_per_s data_wait"
    assert {f"train/{name}" for name in wanted.split()} <= set(run.data.metrics)
    assert run.data.metrics["relation/accuracy"] == trained.scores["relation/accuracy"]
    (data,) = run.inputs.dataset_inputs
    assert [tag.value for tag in data.tags] == ["training"]
    assert json.loads(data.dataset.profile)["samples"] == 96

    curve = recorded_curve(trained.tracking_uri, "first", "relation/accuracy")
    # Evaluated during training; the end of the run evaluates the last one again.
    assert list(curve) == [6, 12]
    assert curve[12] == trained.scores["relation/accuracy"]
    assert not list(trained.folder.glob("held-*"))


def test_a_run_writes_its_pages_at_the_end_and_mlflow_has_them_too(trained: Summary) -> None:
    assert [page.name for page in trained.pages] == ["report.html", "comparison.html"]
    report, comparison = (page.read_text() for page in trained.pages)
    assert "relation/accuracy &gt;= champion" in report
    assert "before training" in comparison
    run_id = recorded(trained.tracking_uri, "first").info.run_id
    paths = {file.path for file in MlflowClient(trained.tracking_uri).list_artifacts(run_id, "evaluation")}
    assert paths == {f"evaluation/{n}" for n in ("comparison.html", "evaluation.json", "report.html")}


def test_a_finished_run_is_not_trained_again_and_refuses_other_settings_or_another_architecture(
    trained: Summary, start: Callable[..., Summary]
) -> None:
    same = ("checkpoint.every=6", "evaluate.before=true", GATED)
    assert start("run.name=first", "train.log_every=5", *same) == trained
    versions = MlflowClient(trained.tracking_uri).search_model_versions("name = 'structure-clip'")
    assert [str(version.version) for version in versions] == ["1"]
    with pytest.raises(ConfigError, match=r"run\.name='first'") as raised:
        start("run.name=first", "train.learning_rate=5e-4")
    assert "train.learning_rate: 0.001 -> 0.0005" in str(raised.value)
    with pytest.raises(ConfigError, match="does not fit") as raised:  # weights of another architecture
        start("run.name=other", "run.init_from=first", "model.kee.layers=2")
    assert "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def successor(trained: Summary, start: Callable[..., Summary]) -> Summary:
    """A run that starts from the registered weights of the first run and hardly changes them."""
    from_first = "run.init_from=models:/structure-clip@candidate"
    after = (from_first, "run.compare_with=first", "evaluate.before=true")
    return start("run.name=from-first", *after, *STILL, GATED)


def test_a_run_starts_from_the_weights_of_another_and_replaces_it_as_champion_if_it_passes_the_gates(
    trained: Summary, successor: Summary
) -> None:
    before, after = (load_file(s.folder / "model" / "model.safetensors") for s in (trained, successor))
    for tensor, expected in before.items():
        torch.testing.assert_close(after[tensor], expected, atol=1e-6, rtol=1e-5)
    known = Evaluation.read(successor.folder / "evaluation-before.json").scores()
    assert known == pytest.approx(Evaluation.read(trained.folder / "evaluation.json").scores())
    assert successor.scores["retention/mean"] == pytest.approx(1)
    assert trained.decision[-1] == "version 1 is champion, the first"
    gate, outcome = successor.decision
    assert gate.startswith("holds: relation/accuracy >= champion: ")
    assert outcome == "version 2 is champion, after version 1"
    comparison = (successor.folder / "comparison.html").read_text()
    assert all(f">{name}<" in comparison for name in ("before training", "first", "from-first"))


# A submitted job with bad data and without an MLflow server


def defective(folder: Path) -> Path:
    """Write the 96 scenes with four defective samples, a file that is not a tar, and a tar filled only in part."""
    made = scenes.generate(folder / "made", ScenesConfig(train_samples=96, heldout_samples=8), 0)
    samples = [item for url in expand([made.train]) for item in read_shard(url) if isinstance(item, Sample)]
    members = []
    for scene in samples:
        members += [(f"{scene.key}.jpg", scene.image), (f"{scene.key}.txt", scene.captions[0].encode())]
    image = samples[-1].image
    members += [("no-image.txt", b"a red circle"), ("no-caption.jpg", image)]
    members += [("cut-image.jpg", image[: len(image) // 2]), ("cut-image.txt", b"a blue square")]
    members += [("no-picture.jpg", b"not a picture at all"), ("no-picture.txt", b"a green star")]
    (folder / "000.tar").write_bytes(tar_bytes(members))
    (folder / "001.tar").write_bytes(b"this is no tar")
    more = tar_bytes([("more.jpg", image), ("more.txt", b"a red circle above a blue star")])
    (folder / "002.tar").write_bytes(more + bytes(200_000))
    (folder / "002_stats.json").write_text('{"successes": 3}')
    return folder


SUBMITTED_EPOCHS = 16
"""Enough epochs that steps are left when the test sees the first ones, however late that is."""
PATIENCE_S = 900


@dataclass(frozen=True)
class Submitted:
    """Results of a job that was stopped during training, and of the job that resumed it."""

    folder: RunFolder
    status: str
    said: str
    latest: tuple[Path, int] | None
    complete: dict[str, object] | None
    refusal: str
    """Error of a second start under the same name while the first job was alive."""
    said_again: str


@pytest.fixture(scope="module")
def submitted(
    head: Head, storage: Path, start: Callable[..., Summary], tmp_path_factory: pytest.TempPathFactory
) -> Submitted:  # fmt: skip
    """A job that is stopped once it has trained some steps, and then submitted again."""
    shards = defective(tmp_path_factory.mktemp("bad"))
    folder = RunFolder(storage / "runs" / "submitted")
    command = ["ray", "job", "submit", "--address", head.jobs, "--working-dir", str(ROOT)]
    job = ["--", "python", "jobs/pretrain.py", *TINY, f"run.storage={storage}", "run.name=submitted"]
    job += [f"data.shards={shards}/*.tar", "data.max_quarantined=0.2", "data.max_unreadable_shards=1"]
    job += [f"train.epochs={SUBMITTED_EPOCHS}", "tracking.gates=['retrieval/image_to_text_r1 >= 1']"]
    job += [f"tracking.uri={port_without_server()}", "tracking.offline=true"]

    client = JobSubmissionClient(head.jobs)
    subprocess.run([*command, "--no-wait", "--submission-id=first", *job], env=environment(), check=True)
    patience = time.monotonic() + PATIENCE_S

    def wait_until(sign: str) -> None:
        while not re.search(sign, log := client.get_job_logs("first")):
            assert not client.get_job_status("first").is_terminal(), log
            assert time.monotonic() < patience, log
            time.sleep(0.2)

    wait_until("run submitted: ")
    with pytest.raises(ConfigError) as raised:
        start("run.name=submitted", "train.num_workers=1")
    wait_until(r"step \d+/")  # before the first step there is nothing to save
    client.stop_job("first")
    while not client.get_job_status("first").is_terminal():
        time.sleep(0.2)
    first = (client.get_job_status("first"), client.get_job_logs("first"), folder.latest(), folder.complete)
    done = subprocess.run([*command, *job], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return Submitted(folder, *first, str(raised.value), done.stdout)


def test_a_stopped_job_writes_a_checkpoint_first_and_a_second_start_is_refused_while_it_lives(
    submitted: Submitted,
) -> None:
    assert submitted.status == "STOPPED", submitted.said
    assert f" samples in {SUBMITTED_EPOCHS} epochs: at most " in submitted.said
    assert "asked to stop: writing a checkpoint first" in submitted.said
    assert submitted.latest, submitted.said
    assert f"stopped after a checkpoint at step {submitted.latest[1]}" in submitted.said
    assert submitted.complete is None

    known = rf"run submitted: another process runs it: host {socket.gethostname()}, process \d+, since "
    assert re.match(known, submitted.refusal), submitted.refusal
    assert not (submitted.folder.path / LEASE).exists()


def test_a_resubmitted_job_resumes_at_the_checkpoint_and_trains_every_sample_once(
    submitted: Submitted, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submitted.latest
    assert f"training with 2 workers at step {submitted.latest[1]} " in submitted.said_again
    assert command("audit")(submitted.folder.path) == 1  # because of the shard that is not a tar
    output = capsys.readouterr().out
    assert " missed=0 repeated=0 " in output
    assert "/001.tar: not a tar: a text 'this is no tar'" in output
    assert "/002.tar: broken, " in output
    assert "1 of the 3 samples that 002_stats.json records" in output


def test_bad_samples_are_quarantined_and_lost_or_partly_lost_shards_are_reported(
    submitted: Submitted,
) -> None:
    trained = submitted.folder.complete or {}
    numbers = {"samples": 97, "rests": 1, "missing": 2}
    assert trained.items() >= {name: SUBMITTED_EPOCHS * count for name, count in numbers.items()}.items()
    lines = [json.loads(line) for line in submitted.folder.quarantine.read_text().splitlines()]
    assert all(line["reason"] for line in lines)
    quarantined = sorted((Path(line["shard"]).name, line["key"]) for line in lines if line["key"])
    once = [("000.tar", key) for key in ("cut-image", "no-caption", "no-image", "no-picture")]
    assert quarantined == sorted(SUBMITTED_EPOCHS * once)
    for line_start in (
        "left out    1 of 3 shards cannot be read: 1 x a text, for example", "cut short   1 shards (",
        "missing     2 recorded samples are not in 1 shards (", f"set aside   {SUBMITTED_EPOCHS * 4} samples could",
    ):  # fmt: skip
        assert line_start in submitted.said_again


def test_a_run_without_its_mlflow_server_continues_offline_if_configured(submitted: Submitted) -> None:
    run = submitted.folder
    assert f"not registered yet: sclip sync {run.path}" in submitted.said_again
    steps = [step for step, _ in history(run.path)["train/loss"]]
    assert steps == list(range(1, (run.complete or {})["step"] + 1))
    before = run.result or {}
    local = f"sqlite:///{run.path}/mlflow.db"
    assert command("sync")(run.path, "--tracking-uri", local) == 0
    assert list(recorded_curve(local, "submitted")) == steps
    version = MlflowClient(local).get_model_version_by_alias("structure-clip", "candidate")
    gate, outcome = (run.result or {})["decision"]
    assert gate.startswith("fails: retrieval/image_to_text_r1 >= 1: ")
    assert outcome == f"version {version.version} was not promoted: there is no champion"
    assert run.result == before | {"version": str(version.version), "decision": [gate, outcome]}


def test_data_that_is_mostly_bad_stops_the_run_with_examples(
    start: Callable[..., Summary], tmp_path: Path
) -> None:
    (tmp_path / "0.tar").write_bytes(tar_bytes([("a.txt", b"a dog"), ("b.txt", b"a cat")]))
    with pytest.raises(TrainingFailed, match=r"data\.max_quarantined") as raised:
        start("run.name=bad", f"data.shards={tmp_path}/*.tar", "train.num_workers=1")
    assert "a: no image" in str(raised.value)
