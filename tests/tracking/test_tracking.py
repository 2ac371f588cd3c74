"""MLflow's record: one run per name, every param and metric once, no secrets, and no endless waiting."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest

from sclip.config import Config, DataConfig, RunConfig, TrackingConfig, TrainConfig
from sclip.config.loader import flatten, to_tree
from sclip.tracking import (
    RUN_NAME_TAG,
    Tracker,
    TrackingError,
    history,
    open_parent,
    open_run,
    store_uri,
    system,
)
from support.mlflow_stores import empty_store

CONFIG = Config(train=TrainConfig(epochs=3), data=DataConfig(shards=("a.tar", "b.tar")))


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A storage folder with an empty store."""
    folder = tmp_path_factory.mktemp("storage")
    empty_store(folder)
    return str(folder)


Opened = Callable[..., Tracker]


@pytest.fixture
def opened(storage: str) -> Iterator[Opened]:
    """`open_run` for the storage; the trackers that it opens are finished after the test."""
    trackers = []

    def open_(name: str, config: Config = CONFIG) -> Tracker:
        trackers.append(open_run(config, name, storage))
        return trackers[-1]

    yield open_
    for tracker in trackers:
        assert tracker.finish() == ""


@pytest.fixture
def tracker(opened: Opened) -> Tracker:
    return opened("first")


def curve(tracker: Tracker, metric: str) -> list[tuple[int, float]]:
    assert tracker.flush()
    points = tracker.client.get_metric_history(tracker.run_id, metric)
    return sorted((point.step, point.value) for point in points)


def tracking_config(uri: str, **changes: object) -> Config:
    return dataclasses.replace(CONFIG, tracking=TrackingConfig(uri=uri, **changes))  # type: ignore[arg-type]


# The run


def test_a_name_is_one_run_however_often_it_is_opened(tracker: Tracker, opened: Opened) -> None:
    again, other = opened("first"), opened("second")
    assert again.run_id == tracker.run_id != other.run_id
    assert opened("first", tracking_config("", experiment="other")).run_id == tracker.run_id
    experiment = tracker.client.get_experiment_by_name("sclip")
    runs = tracker.client.search_runs([experiment.experiment_id])
    named = [run for run in runs if run.data.tags[RUN_NAME_TAG] in ("first", "second")]
    assert sorted(run.info.run_id for run in named) == sorted([tracker.run_id, other.run_id])
    assert {run.info.run_name for run in named} == {"first", "second"}


def test_a_run_whose_folder_was_lost_is_found_by_its_name_and_its_curve_continues(
    opened: Opened, storage: str
) -> None:
    first = opened("lost")
    first.log({"loss": 2.0}, step=5)
    first.finish()
    (Path(storage) / "runs" / "lost").rename(Path(storage) / "runs" / "away")
    again = opened("lost")
    again.log({"loss": 9.0}, step=5)
    again.log({"loss": 1.0}, step=6)
    assert again.run_id == first.run_id
    assert curve(again, "loss") == [(5, 2.0), (6, 1.0)]


def test_a_run_that_was_deleted_in_mlflow_is_recorded_anew_as_a_whole(opened: Opened) -> None:
    first = opened("deleted")
    first.log({"loss": 2.0}, step=1)
    first.finish()
    first.client.delete_run(deleted := first.run_id)
    again = opened("deleted")
    assert again.run_id != deleted
    assert curve(again, "loss") == [(1, 2.0)]


def test_without_a_server_the_store_lies_in_the_storage_folder(tracker: Tracker, storage: str) -> None:
    assert tracker.uri == store_uri(CONFIG, storage) == f"sqlite:///{storage}/mlflow.db"
    assert mlflow.active_run() is None
    assert mlflow.get_tracking_uri() != tracker.uri  # the global settings of this process do not change
    experiment = tracker.client.get_experiment_by_name("sclip")
    assert experiment.artifact_location == f"{storage}/mlartifacts"


def test_the_params_are_the_flattened_config_of_the_first_start(opened: Opened) -> None:
    tracker = opened("params")
    assert tracker.flush()
    again = opened("params", dataclasses.replace(CONFIG, train=TrainConfig(epochs=3, num_workers=2)))
    assert again.flush()
    params = tracker.client.get_run(tracker.run_id).data.params
    assert params == {key: str(value) for key, value in flatten(to_tree(CONFIG)).items()}
    assert params["data.shards"] == "['a.tar', 'b.tar']"


def test_a_metric_is_recorded_once_a_step_also_after_a_restart(opened: Opened, storage: str) -> None:
    first = opened("restarted")
    first.log({"loss": 3.0}, step=1)
    first.log({"loss": 2.0, "rate": 0.5}, step=2)
    first.log({"loss": 9.0}, step=2)
    again = opened("restarted")
    again.log({"loss": 8.0}, step=1)
    again.log({"loss": 7.0, "rate": 0.4}, step=2)
    again.log({"loss": 1.0, "rate": 0.3}, step=3)
    assert curve(again, "loss") == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert curve(again, "rate") == [(2, 0.5), (3, 0.3)]
    assert history(f"{storage}/runs/restarted")["loss"] == [(1, 3.0), (2, 2.0), (3, 1.0)]


def test_more_values_than_one_call_takes_are_all_recorded(opened: Opened) -> None:
    tracker = opened("many")
    tracker.log({f"metric{number}": number for number in range(1200)}, step=0)
    tracker.set_tags({f"tag{number}": "x" * 9000 for number in range(120)})
    assert tracker.flush()
    data = tracker.client.get_run(tracker.run_id).data
    assert len(data.metrics) == 1200
    assert len([name for name in data.tags if name.startswith("tag")]) == 120


def test_a_value_that_mlflow_refuses_is_reported_and_blocks_no_other_value(
    opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = opened("refused")
    tracker.log({"loss": 1.0, "what?": 2.0}, step=1)
    tracker.log({"loss": 0.5}, step=2)
    assert curve(tracker, "loss") == [(1, 1.0), (2, 0.5)]
    tracker.log({"loss": 0.4, "what?": 3.0}, step=3)
    assert curve(tracker, "loss") == [(1, 1.0), (2, 0.5), (3, 0.4)]
    assert [line for line in caplog.messages if "refuses" in line and '"what?": 2.0' in line]
    assert len([line for line in caplog.messages if "what?" in line]) == 1


def test_a_run_is_running_until_it_is_finished(opened: Opened) -> None:
    def status(tracker: Tracker) -> str:
        return str(tracker.client.get_run(tracker.run_id).info.status)

    first = opened("finishing")
    assert first.flush()
    assert status(first) == "RUNNING"
    first.set_tags({"sclip.version": "3"})
    first.finish("FAILED")
    assert status(first) == "FAILED"
    again = opened("finishing")
    assert again.flush()
    assert status(again) == "RUNNING"
    again.finish()
    assert status(again) == "FINISHED"
    assert again.client.get_run(again.run_id).data.tags["sclip.version"] == "3"


def test_the_runs_of_a_sweep_are_shown_below_it(opened: Opened, storage: str) -> None:
    sweep = open_parent(CONFIG, "sweep", storage)
    child = opened("child", tracking_config("", parent=sweep.run_id))
    assert child.flush()
    assert child.client.get_run(child.run_id).data.tags["mlflow.parentRunId"] == sweep.run_id
    sweep.log({"best": 0.9}, step=1)
    assert sweep.finish() == ""
    assert sweep.client.get_run(sweep.run_id).data.metrics["best"] == 0.9


def test_a_dataset_is_an_input_of_the_run_once(opened: Opened) -> None:
    for _ in range(2):
        tracker = opened("data")
        facts = {"samples": 7, "parser": "rules-1"}
        tracker.log_dataset("coco/train", "0" * 32, ["s3://key:secret@bucket/*.tar"], facts, "training")
    assert tracker.flush()
    (dataset_input,) = tracker.client.get_run(tracker.run_id).inputs.dataset_inputs
    assert (dataset_input.dataset.name, dataset_input.dataset.digest) == ("coco/train", "0" * 32)
    assert dataset_input.dataset.source == '{"uris": ["s3://***@bucket/*.tar"]}'
    assert dataset_input.dataset.profile == '{"parser": "rules-1", "samples": 7}'
    assert [(tag.key, tag.value) for tag in dataset_input.tags] == [("mlflow.data.context", "training")]


def test_files_and_folders_become_artifacts_and_a_missing_file_is_reported(
    opened: Opened, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "report" / "pictures").mkdir(parents=True)
    (tmp_path / "report" / "pictures" / "1.svg").write_text("<svg/>")
    (tmp_path / "notes.txt").write_text("good")
    tracker = opened("artifacts")
    tracker.log_artifact(tmp_path / "missing.txt")
    tracker.log_artifact(tmp_path / "report", "report")
    tracker.log_artifact(tmp_path / "notes.txt")
    assert tracker.flush()
    assert {file.path for file in tracker.client.list_artifacts(tracker.run_id)} == {"report", "notes.txt"}
    assert [f.path for f in tracker.client.list_artifacts(tracker.run_id, "report/pictures")] == [
        "report/pictures/1.svg"
    ]
    assert "missing.txt no longer exists" in caplog.text


def test_system_metrics_are_recorded_and_continue_after_a_restart(
    opened: Opened, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.01")
    name = "system/cpu_utilization_percentage"

    def samples() -> int:
        return len(history(f"{storage}/runs/busy").get(name, ()))

    for least in (2, 4):
        tracker, until = opened("busy"), time.monotonic() + 60
        while samples() < least and time.monotonic() < until:
            tracker.flush()
        tracker.finish()
    points = history(f"{storage}/runs/busy")[name]
    assert [step for step, _ in points] == list(range(len(points)))
    assert len(points) >= 4
    assert {"system/system_memory_usage_percentage", "system/network_receive_megabytes"} <= set(
        system.sample(system.monitors())
    )


def test_a_deleted_experiment_is_an_error_that_says_how_to_restore_it(opened: Opened, storage: str) -> None:
    config = tracking_config("", experiment="gone")
    first = opened("in-gone", config)
    first.finish()
    experiment = first.client.get_experiment_by_name("gone").experiment_id
    first.client.delete_experiment(experiment)
    with pytest.raises(TrackingError, match=rf"'gone' is deleted; .* -x {experiment}"):
        open_run(config, "other", storage)


# Secrets


def test_no_credentials_are_recorded_anywhere(opened: Opened, storage: str, tmp_path: Path) -> None:
    config = Config(
        run=RunConfig(init_from="https://user:secret@host/model.safetensors"),
        data=DataConfig(shards=("s3://key:secret@bucket/*.tar", "https://host/a.tar?sig=secret")),
    )
    tracker = opened("masked", config)
    tracker.log({"loss": 1.0}, 1, {"sclip.limit": "reads https://user:secret@host/"})
    tracker.set_tags({"source": "https://user:secret@host/"})
    tracker.log_dataset("https://user:secret@host/", "0", ["https://host/a.tar?sig=secret"], {}, "training")
    assert tracker.flush()
    run = tracker.client.get_run(tracker.run_id)
    assert run.data.params["data.shards"] == "['s3://***@bucket/*.tar', 'https://host/a.tar?sig=***']"
    assert run.data.params["run.init_from"] == "https://***@host/model.safetensors"
    assert run.data.tags["source"] == "https://***@host/"
    assert not [text for text in (*run.data.params.values(), *run.data.tags.values()) if "secret" in text]
    for file in (Path(storage) / "runs" / "masked").iterdir():
        assert "secret@" not in file.read_text()
        assert "=secret" not in file.read_text()
