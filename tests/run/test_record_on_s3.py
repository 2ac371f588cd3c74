"""What a run in an object store needs besides its folder: its record for MLflow, scenes, suite and model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sclip.config import Config, ConfigError, RunConfig, TrackingConfig
from sclip.inference.open_model import open_model
from sclip.model import ModelError
from sclip.run.resolve import _check_storage
from sclip.run.sweep import storage_of
from sclip.storage.paths import StoragePath, shown, storage_path
from sclip.tracking import Tracker, history, open_run, store_uri
from sclip.tracking.journal import JOURNAL
from support.commands import command
from support.mlflow_stores import empty_store
from support.object_store import ObjectStore, object_store
from support.runs import recorded_curve
from support.storage_server import isolate

AWAY = Config(tracking=TrackingConfig(uri="http://127.0.0.1:9", offline=True))
"""Config whose MLflow server is away for the whole run."""


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    with object_store() as running:
        yield running


@pytest.fixture
def storage(
    server: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> str:
    isolate(monkeypatch)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    return server.uri(request.node.name)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Return a function that moves to a named machine, which has its own home folder."""

    def go_to(name: str) -> None:
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.setenv("HOME", str(tmp_path / name))

    return go_to


def tell(storage: str, kept: range, lost: range = range(0)) -> Tracker:
    """Log the steps `kept`, save the record as with a checkpoint, then log the steps `lost`."""
    tracker = open_run(AWAY, "far", storage)
    for step in kept:
        tracker.log({"loss": 1 / step}, step)
    tracker.keep()
    for step in lost:
        tracker.log({"loss": 1 / step}, step)
    return tracker


def steps(run: StoragePath) -> list[int]:
    return [step for step, _ in history(run)["loss"]]


# The record


@pytest.mark.parametrize("to", ["second", "first"])
def test_a_run_continues_its_record_on_any_machine(
    storage: str, machine: Callable[[str], None], to: str
) -> None:
    """Steps after the checkpoint are logged again; a machine that still has them does not keep them twice."""
    machine("first")
    assert store_uri(Config(), storage).endswith("/first/sclip/mlflow.db")
    tell(storage, kept=range(1, 4), lost=range(4, 5))
    run = storage_path(storage) / "runs" / "far"
    assert steps(run) == [1, 2, 3]
    machine(to)
    tracker = tell(storage, kept=range(4, 6))
    assert steps(tracker.folder) == steps(run) == [1, 2, 3, 4, 5]
    machine("first")  # its local record is from an older start
    assert steps(tell(storage, kept=range(6, 7)).folder) == [1, 2, 3, 4, 5, 6]
    (run / JOURNAL).unlink()  # and now from another run of the same name
    assert steps(tell(storage, kept=range(1, 2)).folder) == [1]


def test_a_failed_write_of_the_record_is_logged_and_loses_no_step(
    server: ObjectStore, storage: str, machine: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    machine("first")
    tracker = tell(storage, kept=range(1, 3))
    server.fault = lambda method, path, number: 503
    tracker.log({"loss": 0.1}, 3)
    tracker.keep()
    server.fault = None
    assert "the record of the run stays in" in caplog.text
    tracker.keep()
    assert steps(storage_path(storage) / "runs" / "far") == [1, 2, 3]


def test_records_of_an_mlflow_outage_are_sent_from_another_machine(
    storage: str, machine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Artifacts are sent too, although the driver named files of its own machine."""
    monkeypatch.setattr("sclip.tracking.tracker._OFFLINE_S", 0.5)
    machine("first")
    tracker = tell(storage, kept=range(1, 4))
    run = storage_path(storage) / "runs" / "far"
    for written in (tracker.folder / "report.html", run / "report.html"):
        written.write_text("page")
    tracker.log_artifact(tracker.folder / "report.html", "evaluation")
    assert f"kept in {run / JOURNAL}: sclip sync {shown(run)}" in tracker.finish()
    (tracker.folder / "report.html").unlink()
    machine("second")
    database = empty_store(tmp_path)
    assert command("sync")("far", "--storage", storage, "--tracking-uri", database) == 0, (
        capsys.readouterr().err
    )
    assert recorded_curve(database, "far", "loss") == {1: 1.0, 2: 0.5, 3: pytest.approx(1 / 3)}
    (page,) = tmp_path.glob("second/sclip/mlartifacts/**/report.html")
    assert page.read_text() == "page"


def test_a_wrong_option_a_sweep_and_a_missing_model_in_an_object_store_are_refused(storage: str) -> None:
    with pytest.raises(
        ConfigError, match=r"run.storage='s3://\*\*\*@bucket/.*: unknown option regoin"
    ) as raised:
        _check_storage("s3://key:secret@bucket/runs?regoin=x")
    assert "secret" not in str(raised.value)
    with pytest.raises(ConfigError, match="a sweep needs a folder that every node reaches"):
        storage_of(Config(run=RunConfig(storage=storage)))
    message = r"^'s3://\*\*\*@bucket/\S+: no such model; name a run \(name, folder or URI"
    with pytest.raises(ModelError, match=message):
        open_model(f"{storage}/none")
