"""A store that was moved or copied: versions load, runs resume, and nothing is written to the old place."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

import sclip
from sclip.config import Config, TrackingConfig
from sclip.registry import RegistryError, connect, register
from sclip.tracking import TrackingError, open_recorded, open_run
from support.mlflow_stores import empty_store
from support.processes import environment
from support.registered import NAME
from support.small_model import small_scorer


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `kept`: a storage made in `old [1]`, holding a run with an artifact and a registered model."""
    folder = tmp_path_factory.mktemp("moved stores")
    old = folder / "old [1]"
    old.mkdir()
    empty_store(old)
    tracker = open_run(Config(), "first", str(old))
    tracker.log({"loss": 2.0}, step=1)
    page = old / "runs" / "first" / "seen.html"
    page.write_text("a page")
    tracker.log_artifact(page)
    assert tracker.finish() == ""
    register(tracker.client, tracker.run_id, small_scorer().save(old / "runs" / "first" / "model"), NAME)
    old.rename(folder / "kept")
    _artifact_repos_cache.clear()  # MLflow's cache; in practice another process opens the moved store
    return folder


@pytest.fixture
def old(places: Path) -> Iterator[Path]:
    """The storage at the place where it was made; removed after the test."""
    yield Path(shutil.copytree(places / "kept", places / "old [1]"))
    shutil.rmtree(places / "old [1]", ignore_errors=True)


@pytest.fixture
def new(old: Path, tmp_path: Path) -> Path:
    """The storage after a move. Each test has another place, since MLflow keeps its connections to a file."""
    return old.rename(tmp_path / "new store")


def recorded(storage: Path) -> set[str]:
    """Return every artifact location that the store in a storage folder records."""
    with sqlite3.connect(storage / "mlflow.db") as store:
        return {
            uri
            for table, column in (
                ("experiments", "artifact_location"),
                ("runs", "artifact_uri"),
                ("logged_models", "artifact_location"),
                ("model_versions", "source"),
                ("model_versions", "storage_location"),
            )
            for (uri,) in store.execute(f"SELECT {column} FROM {table} WHERE {column} LIKE '%mlartifacts%'")
        }


PLAIN = """
import sys
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/structure-clip/1")
print(type(model).__name__, mlflow.artifacts.load_text(f"runs:/{sys.argv[2]}/seen.html"))
"""


def test_a_version_of_a_moved_store_loads_here_and_by_mlflow_in_another_process(
    new: Path, old: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scorer = sclip.load(f"models:/{NAME}/1", storage=new)
    assert scorer.facts() == small_scorer().facts()
    (line,) = [record.getMessage() for record in caplog.records if record.name == "sclip.tracking"]
    assert f"'{old}/mlartifacts'" in line
    assert f"'{new}/mlartifacts'" in line
    assert "\n" not in line
    assert {location.partition("/mlartifacts")[0] for location in recorded(new)} == {str(new)}
    caplog.clear()
    client = connect(f"sqlite:///{new}/mlflow.db")
    assert not caplog.records  # the move is reported only once
    run_id = client.get_model_version(NAME, "1").run_id
    uri = f"sqlite:///{new}/mlflow.db"
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, uri, run_id], env=environment(), capture_output=True, text=True
    )
    assert done.stdout == "PyFuncModel a page\n", done.stderr
    assert not old.exists()


def test_runs_resume_in_a_moved_store_and_write_only_below_it(
    new: Path, old: Path, places: Path, tmp_path: Path
) -> None:
    before = {*places.rglob("*"), *tmp_path.iterdir()}
    tracker = open_run(Config(), "second", str(new))
    (new / "runs" / "second" / "seen.html").write_text("another page")
    tracker.log_artifact(new / "runs" / "second" / "seen.html")
    assert tracker.finish() == ""
    version = register(tracker.client, tracker.run_id, new / "runs" / "first" / "model", NAME)
    written = [*new.glob("mlartifacts/**/seen.html"), *new.glob("mlartifacts/**/model.safetensors")]
    assert len(written) == 4
    assert tracker.client.get_model_version(NAME, version).source.startswith(f"{new}/mlartifacts/")
    first = open_recorded(new / "runs" / "first")
    assert first.close() == ""
    assert first.uri == f"sqlite:///{new}/mlflow.db"
    client = MlflowClient(first.uri)
    experiment = client.get_experiment_by_name("sclip").experiment_id
    assert {r.info.run_id for r in client.search_runs([experiment])} == {first.run_id, tracker.run_id}
    assert len(client.get_metric_history(first.run_id, "loss")) == 1
    assert {*places.rglob("*"), *tmp_path.iterdir()} == before
    assert not old.exists()


def test_a_store_moved_before_its_first_artifact_keeps_artifacts_at_its_new_place(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    empty_store(old)
    assert open_run(Config(), "first", str(old)).finish() == ""
    old.rename(new)
    tracker = open_run(Config(), "second", str(new))
    assert tracker.finish() == ""
    assert {location.partition("/mlartifacts")[0] for location in recorded(new)} == {str(new)}
    assert not old.exists()


def test_a_copy_that_lacks_a_file_is_refused_with_the_command_that_brings_it(
    old: Path, tmp_path: Path
) -> None:
    whole, records = Path(shutil.copytree(old, tmp_path / "whole")), (old / "mlflow.db").read_bytes()
    connect(f"sqlite:///{whole}/mlflow.db")  # a whole copy gets its own locations
    assert {location.partition("/mlartifacts")[0] for location in recorded(whole)} == {str(whole)}
    assert (old / "mlflow.db").read_bytes() == records
    new = Path(shutil.copytree(old, tmp_path / "new"))
    (weights,) = new.glob("mlartifacts/**/model.safetensors")
    weights.unlink()
    with pytest.raises(TrackingError) as raised:
        open_run(Config(), "second", str(new))
    with pytest.raises(RegistryError) as again:
        sclip.load(f"models:/{NAME}/1", storage=new)
    assert str(raised.value) == str(again.value)
    message, _, remedy = str(raised.value).partition("copy them: ")
    assert "\n" not in message
    assert str(new) in message
    assert f"{old}/mlartifacts" in message
    subprocess.run(remedy, shell=True, check=True)
    connect(f"sqlite:///{new}/mlflow.db")
    assert {location.partition("/mlartifacts")[0] for location in recorded(new)} == {str(new)}


def test_a_moved_store_that_cannot_be_changed_is_reported_with_both_places(new: Path, old: Path) -> None:
    with sqlite3.connect(new / "mlflow.db") as store:
        store.execute(
            "CREATE TRIGGER kept BEFORE UPDATE ON model_versions BEGIN SELECT RAISE(ABORT, 'attempt to write'); END"
        )
    before = recorded(new)
    with pytest.raises(RegistryError, match=r"attempt to write.*writable") as raised:
        sclip.load(f"models:/{NAME}/1", storage=new)
    assert f"'{old}/mlartifacts'" in str(raised.value)
    assert f"'{new}/mlartifacts'" in str(raised.value)
    assert recorded(new) == before  # all records change or none


def test_a_run_whose_artifacts_would_go_into_another_storage_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    uri = empty_store(tmp_path / "store")
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    tracker = open_run(Config(tracking=TrackingConfig(uri=uri)), "a", first)
    tracker.log_artifact(__file__)
    assert tracker.finish() == ""
    files = set(tmp_path.rglob("*"))
    with pytest.raises(TrackingError) as raised:
        open_run(Config(tracking=TrackingConfig(uri=uri)), "b", second)
    assert f"keeps its artifacts in {first}/mlartifacts, outside of run.storage={second}" in str(raised.value)
    assert "tracking.experiment" in str(raised.value)
    assert set(tmp_path.rglob("*")) == files
    other = open_run(Config(tracking=TrackingConfig(uri=uri, experiment="other")), "b", second)
    assert other.finish() == ""
    connect(uri)  # leaves locations alone that were never beside the store
    roots = {e.artifact_location for e in MlflowClient(uri).search_experiments()}
    assert {f"{first}/mlartifacts", f"{second}/mlartifacts"} <= roots


def test_a_store_whose_experiment_has_its_own_artifact_location_is_not_taken_for_a_moved_one(
    tmp_path: Path,
) -> None:
    (tmp_path / "store" / "mlartifacts").mkdir(parents=True)
    uri = empty_store(tmp_path / "store")
    location = f"{tmp_path}/large disk/mlartifacts/"
    MlflowClient(uri).create_experiment("own", artifact_location=location)
    connect(uri)
    assert location in {e.artifact_location for e in MlflowClient(uri).search_experiments()}
