"""MLflow's record: one run for one name, every param and metric once, no secret in it, no endless waiting."""

import dataclasses
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from sclip import tracking
from sclip.config import Config, DataConfig, RunConfig, TrackingConfig, TrainConfig
from sclip.config_loader import flatten, to_tree
from sclip.tracking import RUN_NAME_TAG, Tracker, TrackingError, open_run, store_uri

CONFIG = Config(train=TrainConfig(epochs=3), data=DataConfig(shards=("a.tar", "b.tar")))


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A storage folder; its SQLite store is made by the first test and takes seconds."""
    return str(tmp_path_factory.mktemp("storage"))


@pytest.fixture(scope="module")
def tracker(storage: str) -> Tracker:
    return open_run(CONFIG, "first", storage)


@pytest.fixture
def closed_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port of this machine that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def curve(tracker: Tracker, metric: str) -> list[tuple[int, float]]:
    history = tracker.client.get_metric_history(tracker.run_id, metric)
    return sorted((point.step, point.value) for point in history)


def at(uri: str, **changes: object) -> Config:
    return dataclasses.replace(CONFIG, tracking=TrackingConfig(uri=uri, **changes))  # type: ignore[arg-type]


# The run


def test_a_name_is_one_run_however_often_it_is_opened(tracker: Tracker, storage: str) -> None:
    again, other = open_run(CONFIG, "first", storage), open_run(CONFIG, "second", storage)
    assert again.run_id == tracker.run_id != other.run_id
    experiment = tracker.client.get_experiment_by_name("sclip")
    runs = tracker.client.search_runs([experiment.experiment_id])
    named = [run for run in runs if run.data.tags[RUN_NAME_TAG] in ("first", "second")]
    assert sorted(run.info.run_id for run in named) == sorted([tracker.run_id, other.run_id])
    assert {run.info.run_name for run in named} == {"first", "second"}


def test_without_a_server_the_store_lies_in_the_storage_folder(tracker: Tracker, storage: str) -> None:
    assert tracker.uri == store_uri(CONFIG, storage) == f"sqlite:///{storage}/mlflow.db"
    experiment = tracker.client.get_experiment_by_name("sclip")
    assert experiment.artifact_location == f"{storage}/mlartifacts"


def test_the_params_are_the_flattened_config(tracker: Tracker) -> None:
    params = tracker.client.get_run(tracker.run_id).data.params
    assert params == {key: str(value) for key, value in flatten(to_tree(CONFIG)).items()}
    assert params["train.epochs"] == "3"
    assert params["data.shards"] == "['a.tar', 'b.tar']"


def test_a_resumed_run_keeps_its_first_params(tracker: Tracker, storage: str) -> None:
    resumed = dataclasses.replace(CONFIG, train=TrainConfig(epochs=3, num_workers=2))
    again = open_run(resumed, "first", storage)
    assert again.client.get_run(again.run_id).data.params["train.num_workers"] == "1"


def test_a_metric_is_recorded_once_a_step_also_after_a_restart(tracker: Tracker, storage: str) -> None:
    tracker.log({"loss": 3.0}, step=1)
    tracker.log({"loss": 2.0, "rate": 0.5}, step=2)
    tracker.log({"loss": 9.0}, step=2)
    again = open_run(CONFIG, "first", storage)
    again.log({"loss": 8.0}, step=1)
    again.log({"loss": 7.0, "rate": 0.4}, step=2)
    again.log({"loss": 1.0, "rate": 0.3}, step=3)
    assert curve(tracker, "loss") == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert curve(tracker, "rate") == [(2, 0.5), (3, 0.3)]


def test_more_metrics_than_one_call_takes_are_all_recorded(storage: str) -> None:
    tracker = open_run(CONFIG, "many", storage)
    tracker.log({f"metric{number}": number for number in range(1200)}, step=0)
    assert len(tracker.client.get_run(tracker.run_id).data.metrics) == 1200


def test_a_run_is_running_until_it_is_finished(storage: str) -> None:
    def status(tracker: Tracker) -> str:
        return str(tracker.client.get_run(tracker.run_id).info.status)

    tracker = open_run(CONFIG, "finishing", storage)
    assert status(tracker) == "RUNNING"
    tracker.set_tags({"sclip.version": "3"})
    tracker.finish("FAILED")
    assert status(tracker) == "FAILED"
    assert status(open_run(CONFIG, "finishing", storage)) == "RUNNING"
    tracker.finish()
    assert status(tracker) == "FINISHED"
    assert tracker.client.get_run(tracker.run_id).data.tags["sclip.version"] == "3"


def test_the_active_run_and_store_of_the_process_are_left_alone(storage: str) -> None:
    before = mlflow.get_tracking_uri()
    open_run(CONFIG, "first", storage)
    assert mlflow.active_run() is None
    assert mlflow.get_tracking_uri() == before


def test_a_deleted_experiment_is_an_error_that_says_how_to_restore_it(storage: str) -> None:
    config = at("", experiment="gone")
    tracker = open_run(config, "first", storage)
    experiment = tracker.client.get_experiment_by_name("gone").experiment_id
    tracker.client.delete_experiment(experiment)
    with pytest.raises(TrackingError, match=rf"'gone' is deleted there; .* -x {experiment}"):
        open_run(config, "first", storage)


# Secrets


def test_no_credentials_are_recorded(storage: str) -> None:
    config = Config(
        run=RunConfig(init_from="https://user:secret@host/model.safetensors"),
        data=DataConfig(shards=("s3://key:secret@bucket/*.tar", "https://host/a.tar?sig=secret")),
    )
    tracker = open_run(config, "secrets", storage)
    params = tracker.client.get_run(tracker.run_id).data.params
    assert params["data.shards"] == "['s3://***@bucket/*.tar', 'https://host/a.tar?sig=***']"
    assert params["run.init_from"] == "https://***@host/model.safetensors"
    assert not [value for value in params.values() if "secret" in value]


# A store that is not there


def test_a_server_that_is_not_there_is_told_in_one_line_and_soon(closed_port: int, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(TrackingError) as raised:
        open_run(at(f"http://user:secret@127.0.0.1:{closed_port}"), "first", str(tmp_path))
    assert time.monotonic() - started < 15
    message = str(raised.value)
    assert "\n" not in message
    assert "secret" not in message
    assert f"http://***@127.0.0.1:{closed_port} cannot be used" in message
    assert "Connection refused" in message
    assert "tracking.offline=true" in message


def test_a_server_that_never_answers_is_given_up(
    silent_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_REACH_S", 1)
    started = time.monotonic()
    with pytest.raises(TrackingError, match=r"timed? ?out"):
        open_run(at(f"http://127.0.0.1:{silent_port}"), "first", str(tmp_path))
    assert time.monotonic() - started < 15


def test_offline_records_into_a_store_of_the_run(
    closed_port: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = at(f"http://user:secret@127.0.0.1:{closed_port}", offline=True)
    with caplog.at_level(logging.WARNING, logger="sclip.tracking"):
        tracker = open_run(config, "first", str(tmp_path))
    assert "recording offline into" in caplog.text
    assert "secret" not in caplog.text
    assert tracker.uri == f"sqlite:///{tmp_path}/first/mlflow.db"
    assert (tmp_path / "first" / "mlflow.db").is_file()
    tracker.log({"loss": 2.0}, step=1)
    assert curve(tracker, "loss") == [(1, 2.0)]
    params = tracker.client.get_run(tracker.run_id).data.params
    assert params["tracking.uri"] == f"http://***@127.0.0.1:{closed_port}"


def test_metrics_wait_for_a_store_that_is_away_and_come_with_the_next_ones(
    storage: str, closed_port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = open_run(CONFIG, "patient", storage)
    there, away = tracker.client, MlflowClient(f"http://127.0.0.1:{closed_port}")
    monkeypatch.setattr(tracking, "_RETRY_AFTER_S", 0.0)
    tracker.client = away
    tracker.log({"loss": 3.0}, step=1)
    tracker.log({"loss": 2.0}, step=2)
    assert "2 metrics wait for" in caplog.text
    tracker.client = there
    assert curve(tracker, "loss") == []
    tracker.log({"loss": 1.0}, step=3)
    assert curve(tracker, "loss") == [(1, 3.0), (2, 2.0), (3, 1.0)]


def test_finishing_without_a_store_is_an_error(
    storage: str, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracker = open_run(CONFIG, "unfinished", storage)
    tracker.client = MlflowClient(f"http://127.0.0.1:{closed_port}")
    with pytest.raises(TrackingError, match="Connection refused"):
        tracker.finish()
    with pytest.raises(TrackingError, match="Connection refused"):
        tracker.set_tags({"a": "b"})


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("sqlite:///{folder}/text.db", "file is not a database"),
        ("sqlite:///{folder}/text.db/below/mlflow.db", "cannot be used"),
        ("sqlite:///{folder}", "unable to open database file"),
        ("nonsense", "cannot be used"),
        ("nonsense://user:secret@host/x", "nonsense"),
        ("postgresql://user:secret@host:port/x", "cannot be used"),
    ],
)
def test_a_store_that_is_none_is_told_with_the_key(tmp_path: Path, uri: str, found: str) -> None:
    (tmp_path / "text.db").write_text("no database, but a text of more than a hundred bytes. " * 5)
    with pytest.raises(TrackingError, match=r"tracking\.uri") as raised:
        open_run(at(uri.format(folder=tmp_path)), "first", str(tmp_path))
    assert found in str(raised.value)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_storage_that_is_no_folder_needs_a_server() -> None:
    with pytest.raises(TrackingError, match=r"run\.storage=s3://\*\*\*@bucket/x .*tracking\.uri"):
        open_run(CONFIG, "first", "s3://key:secret@bucket/x")


def test_the_environment_is_as_it_was_after_a_store_was_tried(
    closed_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    with pytest.raises(TrackingError):
        open_run(at(f"http://127.0.0.1:{closed_port}"), "first", str(tmp_path))
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ
