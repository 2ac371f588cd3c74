"""The main job on a real cluster: shards in, a registered model out, over kills, bad data and bad input."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
import torch
from conftest import ROOT, SHARED, Head, environment, free_port
from jobs_here import job_here
from mlflow import MlflowClient
from rich.console import Console
from safetensors.torch import load_file

import sclip
from sclip import pretrain
from sclip.config import Config, ConfigError
from sclip.config_loader import load
from sclip.data.shards import Sample, expand, read_shard
from sclip.pretrain import Summary
from sclip.tracking import history
from sclip.train import manifest
from sclip.train.run_folder import RunFolder
from sclip.train.trainer import TrainingFailed

pytestmark = pytest.mark.cluster

TINY = (
    "scenes.train_samples=96", "scenes.heldout_samples=8", "model.kee.layers=1", "evaluate.retrieval_images=8",
    "train.epochs=2", "train.batch_size=16", "train.worker_cpus=0.4", "train.log_every=1",
    "data.actor_cpus=0.4", "data.actors_max=2", "data.shuffle_buffer=32", "data.block_samples=16",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _attached(head: Head) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", head.address)
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="module")
def start(storage: Path) -> Callable[..., Summary]:
    """Return the job as a function of its overrides; it trains in one storage, on 96 scenes for two epochs."""

    def run(*overrides: str) -> Summary:
        return pretrain.pretrain(config(storage, *overrides), Console(file=io.StringIO()))

    return run


def config(storage: Path, *overrides: str) -> Config:
    given = [*TINY, f"run.storage={storage}", *overrides]
    return load(given, folder=ROOT / "jobs" / "configs", default="scenes", description="")


@pytest.fixture(scope="module")
def trained(start: Callable[..., Summary]) -> Summary:
    return start("run.name=first")


def losses(summary: Summary) -> dict[int, float]:
    return recorded_losses(summary.tracking_uri, summary.folder.name)


def recorded_losses(tracking_uri: str, name: str) -> dict[int, float]:
    """Return the loss by step as MLflow has it; a step that was recorded twice fails the test."""
    client = MlflowClient(tracking_uri)
    (run,) = client.search_runs(
        [e.experiment_id for e in client.search_experiments()], f"attributes.run_name = '{name}'"
    )
    history = client.get_metric_history(run.info.run_id, "train/loss")
    steps = [metric.step for metric in history]
    assert steps == sorted(set(steps))
    return {metric.step: metric.value for metric in history}


def entries_done(summary: Summary) -> int:
    """Return the shards of all epochs whose every row was trained on, and that nothing is open."""
    position = manifest.read_state(summary.folder / summary.trained["checkpoint"])["position"]
    assert position["open"] == []
    (first, entries) = position["closed"]
    assert first == 0
    return int(entries)


def test_every_sample_of_every_epoch_is_trained_on_and_the_model_scored(trained: Summary) -> None:
    assert trained.trained["samples"] == 2 * 96
    assert trained.trained["quarantined"] == 0
    assert entries_done(trained) == 2
    assert {"relation/accuracy", "attribute/accuracy", "retrieval/text_to_image_r1"} <= set(trained.scores)
    assert list(losses(trained)) == list(range(1, trained.trained["step"] + 1))


def test_mlflow_has_the_config_the_metrics_and_the_scores_of_the_run(trained: Summary) -> None:
    client = MlflowClient(trained.tracking_uri)
    version = client.get_model_version_by_alias("structure-clip", "candidate")
    run = client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["train.batch_size"] == "16"
    wanted = "loss loss_hinge loss_contrastive logit_scale learning_rate grad_norm samples_per_s data_wait"
    assert {f"train/{name}" for name in wanted.split()} <= set(run.data.metrics)
    assert run.data.metrics["relation/accuracy"] == trained.scores["relation/accuracy"]


def test_the_registered_model_scores_in_a_fresh_process(trained: Summary, tmp_path: Path) -> None:
    (shard, *_) = expand([f"{trained.folder.parent.parent}/scenes/*/heldout/*.tar"])
    samples = [item for item in read_shard(shard) if isinstance(item, Sample)][:3]
    for number, sample in enumerate(samples):
        (tmp_path / f"{number}.jpg").write_bytes(sample.image)
    captions = [sample.captions[0] for sample in samples]
    script = (
        "import json, sys, mlflow, pandas as pd\n"
        "images = [open(f'{n}.jpg', 'rb').read() for n in range(3)]\n"
        "model = mlflow.pyfunc.load_model('models:/structure-clip@candidate')\n"
        "rows = pd.DataFrame({'image': images, 'caption': json.loads(sys.argv[1])})\n"
        "print(json.dumps(model.predict(rows)['score'].tolist()))\n"
    )
    env = environment(MLFLOW_TRACKING_URI=trained.tracking_uri)
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(captions)],
        cwd=tmp_path, env=env, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    scores = sclip.load(trained.folder / "model").score([sample.image for sample in samples], captions)
    assert json.loads(done.stdout.splitlines()[-1]) == pytest.approx(scores.tolist(), abs=1e-5)


def test_a_finished_run_started_again_is_shown_and_not_trained_or_registered_again(
    trained: Summary, start: Callable[..., Summary]
) -> None:
    assert start("run.name=first", "train.log_every=5") == trained
    assert len(MlflowClient(trained.tracking_uri).search_model_versions("name = 'structure-clip'")) == 1


def test_a_name_in_use_with_another_config_stops_and_shows_the_difference(
    trained: Summary, start: Callable[..., Summary]
) -> None:
    with pytest.raises(ConfigError, match=r"run\.name='first'") as raised:
        start("run.name=first", "train.learning_rate=5e-4")
    assert "train.learning_rate: 0.001 -> 0.0005" in str(raised.value)


@pytest.mark.parametrize("source", ["first", "models:/structure-clip@candidate"])
def test_a_new_run_starts_from_the_weights_of_another(
    trained: Summary, start: Callable[..., Summary], source: str
) -> None:
    name = f"from-{source.partition(':')[0]}"
    tiny_rate = "train.learning_rate=1e-12"
    started = start(f"run.name={name}", f"run.init_from={source}", tiny_rate, "train.epochs=1")
    before, after = (load_file(s.folder / "model" / "model.safetensors") for s in (trained, started))
    for tensor, expected in before.items():
        torch.testing.assert_close(after[tensor], expected, atol=1e-6, rtol=1e-5)


def test_weights_of_another_architecture_are_an_error_that_says_what_differs(
    trained: Summary, start: Callable[..., Summary]
) -> None:
    with pytest.raises(ConfigError, match="does not fit") as raised:
        start("run.name=other", "run.init_from=first", "model.kee.layers=2")
    assert "\n" not in str(raised.value)


def port_without_server() -> str:
    return f"http://127.0.0.1:{free_port()}"


@pytest.mark.parametrize(
    ("overrides", "found"),
    [
        (("data.shards=/nowhere/*.tar",), "no such shard"),
        (("train.num_workers=16",), "the cluster has 4"),
        (("train.num_workers=1", "train.use_gpu=true"), "a GPU each"),
        (("model.name=ViT-B-23",), "ViT-B-32"),
        (("model.pretrained=none.safetensors",), "no such file"),
        (("run.init_from=nothing",), "no finished run"),
        (("run.init_from=models:/nothing@candidate",), "models:/nothing@candidate"),
        (("run.compare_with=nothing",), "no finished run of this name"),
        (("run.storage=s3://bucket/runs",), "a folder that every node reaches"),
        (("tracking.uri=" + port_without_server(),), "tracking.offline=true"),
    ],
)
def test_a_run_that_cannot_work_ends_before_it_leaves_anything(
    trained: Summary, start: Callable[..., Summary], storage: Path, overrides: tuple[str, ...], found: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        start("run.name=refused", *overrides)
    assert found in str(raised.value)
    assert not (storage / "runs" / "refused").exists()


def test_without_its_server_a_run_goes_on_offline_when_told_so(start: Callable[..., Summary]) -> None:
    uri = port_without_server()
    summary = start(
        "run.name=offline",
        f"tracking.uri={uri}",
        "tracking.offline=true",
        "train.epochs=1",
        "train.num_workers=1",
    )
    assert summary.version == ""
    steps = [step for step, _ in history(summary.folder)["train/loss"]]
    assert steps == list(range(1, summary.trained["step"] + 1))
    local = f"sqlite:///{summary.folder}/mlflow.db"
    assert job_here("sync")(summary.folder, "--uri", local) == 0
    assert list(recorded_losses(local, "offline")) == steps
    version = MlflowClient(local).get_model_version_by_alias("structure-clip", "candidate")
    assert RunFolder(summary.folder).result == {"scores": summary.scores, "version": version.version}


# Bad data


def defective(folder: Path, storage: Path) -> Path:
    """Write the 96 scenes with four defects among them, and a file that is no tar."""
    folder.mkdir()
    with tarfile.open(folder / "000.tar", "w") as tar:

        def add(name: str, body: bytes) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))

        for shard in expand([f"{storage}/scenes/*/train/*.tar"]):
            for item in read_shard(shard):
                assert isinstance(item, Sample)
                add(f"{item.key}.jpg", item.image)
                add(f"{item.key}.txt", item.captions[0].encode())
        add("no-image.txt", b"a red circle")
        add("no-caption.jpg", item.image)
        add("cut-image.jpg", item.image[: len(item.image) // 2])
        add("cut-image.txt", b"a blue square")
        add("no-picture.jpg", b"not a picture at all")
        add("no-picture.txt", b"a green star")
    (folder / "001.tar").write_bytes(b"this is no tar")
    return folder


def test_bad_samples_and_a_shard_that_is_no_tar_are_set_aside_and_named(
    trained: Summary, start: Callable[..., Summary], storage: Path, tmp_path: Path
) -> None:
    shards = defective(tmp_path / "shards", storage)
    summary = start("run.name=defects", f"data.shards={shards}/*.tar", "data.max_quarantined=0.2")
    assert summary.trained["samples"] == 2 * 96
    lines = [json.loads(line) for line in (summary.folder / "quarantine.jsonl").read_text().splitlines()]
    found = sorted((Path(line["shard"]).name, line["key"]) for line in lines)
    once = [("000.tar", "cut-image"), ("000.tar", "no-caption"), ("000.tar", "no-image")]
    once += [("000.tar", "no-picture"), ("001.tar", "")]
    assert found == sorted(2 * once)
    assert all(line["reason"] for line in lines)
    assert entries_done(summary) == 4


def test_data_that_is_mostly_bad_stops_the_run_with_examples(
    start: Callable[..., Summary], tmp_path: Path
) -> None:
    (tmp_path / "0.tar").write_bytes(b"this is no tar")
    with pytest.raises(TrainingFailed, match=r"data\.max_quarantined") as raised:
        start("run.name=bad", f"data.shards={tmp_path}/*.tar")
    assert "no tar" in str(raised.value)


# Kills


class Killer(threading.Thread):
    """Ends one training worker with SIGKILL once the run has a checkpoint."""

    def __init__(self, folder: RunFolder) -> None:
        super().__init__(daemon=True)
        self._folder = folder
        self._over = threading.Event()
        self.killed: list[int] = []

    def run(self) -> None:
        while not self.killed and not self._over.wait(0.05):
            if self._folder.latest() is not None:
                from ray.util.state import list_actors

                alive = [("class_name", "=", "RayTrainWorker"), ("state", "=", "ALIVE")]
                pids = [actor.pid for actor in list_actors(filters=alive, detail=True) if actor.pid]
                for pid in pids[:1]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                        self.killed.append(pid)

    def __enter__(self) -> Killer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join(30)


LONG = ("train.epochs=16", "checkpoint.every=8")


def test_a_killed_worker_costs_no_sample_and_leaves_one_continuous_curve(
    start: Callable[..., Summary], storage: Path
) -> None:
    with Killer(RunFolder(storage / "runs" / "killed")) as killer:
        summary = start("run.name=killed", *LONG)
    assert killer.killed
    assert summary.trained["samples"] == 16 * 96
    assert entries_done(summary) == 16
    curve = losses(summary)
    assert list(curve) == list(range(1, summary.trained["step"] + 1))
    jumps = [abs(curve[step] - curve[step - 1]) for step in list(curve)[1:]]
    assert max(jumps) < 0.5 * max(curve.values())
    assert curve[summary.trained["step"]] < 0.7 * curve[1]


def test_a_run_that_died_goes_on_under_its_name_with_another_number_of_workers(
    start: Callable[..., Summary], storage: Path
) -> None:
    with Killer(RunFolder(storage / "runs" / "died")) as killer, pytest.raises(TrainingFailed):
        start("run.name=died", *LONG, "run.max_failures=0")
    assert killer.killed
    summary = start("run.name=died", *LONG, "train.num_workers=1", "train.sharding=ddp")
    assert summary.trained["samples"] == 16 * 96
    assert entries_done(summary) == 16
    assert list(losses(summary)) == list(range(1, summary.trained["step"] + 1))


# As a job, and on photographs


def test_the_job_runs_under_ray_job_submit(head: Head, tmp_path: Path) -> None:
    command = ["ray", "job", "submit", "--address", head.jobs, "--working-dir", str(ROOT), "--"]
    command += ["python", "jobs/pretrain.py", f"run.storage={tmp_path}", *TINY]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "models:/structure-clip/1, alias candidate" in done.stdout


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the data folder is not beside the checkout")
def test_photographs_packed_from_coco_train_for_two_epochs_each_seen_in_both(
    start: Callable[..., Summary], tmp_path: Path
) -> None:
    coco = SHARED / "data" / "coco_mini"
    images = 0
    for split in ("train", "val"):
        source, out = coco / f"captions_{split}.json", tmp_path / split
        command = [sys.executable, "jobs/pack.py", source, out, "--images", coco / "images"]
        subprocess.run([*command, "--samples-per-shard", "40"], cwd=ROOT, check=True, capture_output=True)
        images += json.loads((out / "index.json").read_text())["samples"]
    summary = start(
        "run.name=coco", f"data.shards=['{tmp_path}/train/*.tar','{tmp_path}/val/*.tar']",
        f"evaluate.retrieval={tmp_path}/val/*.tar",
    )  # fmt: skip
    assert summary.trained["samples"] == 2 * images
    assert images == 159
    assert summary.trained["quarantined"] == 0
    assert summary.scores["retrieval_on_training_images/cases"] > 0
    assert int(summary.version) >= 1
