"""A real MLflow server that is killed, away or lost: the run continues, and the server gets every metric once."""

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from sclip.config import Config, TrackingConfig
from sclip.config.loader import to_tree
from sclip.data.schedule import NamedShard
from sclip.evaluate.result import EVALUATION_FILE
from sclip.storage.masking import mask
from sclip.tracking import RUN_NAME_TAG, Tracker, TrackingError, history, open_recorded, open_run, store
from sclip.train.run_folder import RunFolder
from sclip.train.run_inputs import record_inputs
from support.commands import command
from support.mlflow_server import MLflowServer, mlflow_server
from support.processes import free_port
from support.registered import RELATION, evaluation

sync = command("sync")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLflowServer]:
    """A server that runs when a test begins; a test that kills it also restarts it."""
    with mlflow_server(tmp_path_factory.mktemp("server")) as started:
        started.start()
        yield started


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that runs may answer late on a busy machine; one that is away refuses connections at once."""
    monkeypatch.setattr(store, "_REACH_S", 60)
    monkeypatch.setattr("sclip.tracking.tracker._FINISH_S", 120.0)
    monkeypatch.setattr("sclip.tracking.tracker._OFFLINE_S", 60.0)


def config(uri: str, **changes: object) -> Config:
    return Config(tracking=TrackingConfig(uri=uri, **changes))  # type: ignore[arg-type]


def curve(uri: str, name: str, metric: str = "loss") -> list[tuple[int, float]]:
    """Return the curve that the server has, sorted by step."""
    client = MlflowClient(uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    (run,) = client.search_runs(experiments, f"tags.`{RUN_NAME_TAG}` = '{name}'")
    points = client.get_metric_history(run.info.run_id, metric)
    return sorted((point.step, point.value) for point in points)


def log(tracker: Tracker, steps: range) -> list[tuple[int, float]]:
    for step in steps:
        tracker.log({"loss": 1 / (step + 1), "rate": float(step)}, step)
    return [(step, 1 / (step + 1)) for step in steps]


def test_a_server_killed_while_metrics_arrive_has_each_metric_once_after_its_restart(
    server: MLflowServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = open_run(config(server.uri), "killed", str(tmp_path))
    expected = log(tracker, range(200))
    server.kill()
    expected += log(tracker, range(200, 400))
    assert not tracker._sender.flush(2.0)
    assert "metrics wait on disk" in caplog.text
    assert history(tmp_path / "runs" / "killed")["loss"] == expected
    server.start()
    expected += log(tracker, range(400, 600))
    assert tracker.finish() == ""
    assert curve(server.uri, "killed") == expected
    assert curve(server.uri, "killed", "rate") == [(step, float(step)) for step in range(600)]
    run = MlflowClient(server.uri).get_run(tracker.run_id)
    assert run.info.status == "FINISHED"


def test_a_run_that_ends_without_its_server_says_how_to_send_the_rest(
    server: MLflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = open_run(config(server.uri), "unfinished", str(tmp_path))
    expected = log(tracker, range(50))
    assert tracker.flush()
    server.kill()
    expected += log(tracker, range(50, 100))
    with monkeypatch.context() as patch:
        patch.setattr("sclip.tracking.tracker._FINISH_S", 2.0)
        message = tracker.finish()
    assert f"sclip sync {tmp_path}/runs/unfinished" in message
    assert "Connection refused" in message
    assert "\n" not in message
    assert sync(tmp_path / "runs" / "unfinished") == 2
    assert "Connection refused" in capsys.readouterr().err
    server.start()
    assert sync(tmp_path / "runs" / "unfinished") == 0
    assert f"run {tracker.run_id}" in capsys.readouterr().out
    assert curve(server.uri, "unfinished") == expected
    assert MlflowClient(server.uri).get_run(tracker.run_id).info.status == "FINISHED"


def test_a_batch_sent_twice_is_stored_once(server: MLflowServer, tmp_path: Path) -> None:
    tracker = open_run(config(server.uri), "twice", str(tmp_path))
    expected = log(tracker, range(100))
    tracker.log({"loss": float("nan")}, 100)
    assert tracker.flush()
    tracker._journal.sent = dataclasses.replace(tracker._journal.sent, offset=0)
    assert tracker.finish() == ""
    *finite, (step, nan) = curve(server.uri, "twice")
    assert finite == expected
    assert (step, str(nan)) == (100, "nan")


def test_sync_sends_an_offline_run_as_a_whole_and_may_be_repeated(
    server: MLflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sclip.tracking.tracker._OFFLINE_S", 0.5)
    away = f"http://user:secret@127.0.0.1:{free_port()}"
    with caplog.at_level(logging.WARNING):
        tracker = open_run(config(away, offline=True), "offline", str(tmp_path))
    assert "until then, the run is recorded in" in caplog.text
    (tmp_path / "report.html").write_text("<html>")
    expected = log(tracker, range(300))
    tracker.log_dataset("coco/train", "0" * 32, ["/data/*.tar"], {"samples": 7}, "training")
    tracker.log_artifact(tmp_path / "report.html")
    assert tracker.run_id == ""
    assert "sclip sync" in tracker.finish()
    for _ in range(2):
        assert sync("offline", "--storage", tmp_path, "--tracking-uri", server.uri) == 0
        assert curve(server.uri, "offline") == expected
    run = MlflowClient(server.uri).get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["tracking.uri"] == mask(away)
    assert run.info.start_time < run.info.end_time
    assert [data.dataset.name for data in run.inputs.dataset_inputs] == ["coco/train"]
    assert [file.path for file in MlflowClient(server.uri).list_artifacts(run.info.run_id)] == ["report.html"]
    assert not [file for file in (tmp_path / "runs" / "offline").iterdir() if "secret" in file.read_text()]
    assert "secret" not in caplog.text


def test_a_server_that_appears_during_an_offline_run_receives_everything_without_a_command(
    server: MLflowServer, tmp_path: Path
) -> None:
    server.kill()
    tracker = open_run(config(server.uri, offline=True), "patient", str(tmp_path))
    expected = log(tracker, range(50))
    server.start()
    expected += log(tracker, range(50, 100))
    assert tracker.flush()
    assert tracker.run_id
    assert tracker.finish() == ""
    assert curve(server.uri, "patient") == expected


def test_a_resumed_run_continues_its_mlflow_run_and_sends_what_was_left(
    server: MLflowServer, tmp_path: Path
) -> None:
    first = open_run(config(server.uri), "resumed", str(tmp_path))
    expected = log(first, range(50))
    assert first.flush()
    server.kill()
    expected += log(first, range(50, 100))
    first._sender.close()  # the process ends
    server.start()
    again = open_run(config(server.uri), "resumed", str(tmp_path))
    expected += log(again, range(90, 150))[10:]
    assert again.finish() == ""
    assert again.run_id == first.run_id
    assert curve(server.uri, "resumed") == expected


def test_a_store_that_lost_the_run_receives_it_again_as_a_whole(server: MLflowServer, tmp_path: Path) -> None:
    tracker = open_run(config(server.uri), "forgotten", str(tmp_path))
    expected = log(tracker, range(20))
    assert tracker.flush()
    MlflowClient(server.uri).delete_run(lost := tracker.run_id)
    tracker._journal.sent = dataclasses.replace(tracker._journal.sent, run_id="0" * 32)
    expected += log(tracker, range(20, 40))
    assert tracker.finish() == ""
    assert tracker.run_id not in (lost, "0" * 32)
    assert curve(server.uri, "forgotten") == expected


def test_sync_registers_the_model_of_a_finished_run_once(
    server: MLflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_config = config(server.uri, model_name="mine")
    assert open_run(run_config, "unregistered", str(tmp_path)).finish() == ""
    folder, calls = RunFolder(tmp_path / "runs" / "unregistered"), []

    def register(client: MlflowClient, run_id: str, *rest: object) -> str:
        calls.append((client.get_run(run_id).info.run_name, *rest))
        return "3"

    monkeypatch.setattr("sclip.registry.register_once", register)
    record_inputs(folder, to_tree(run_config), [{NamedShard("0/0.tar", "/data/0.tar"): 5}])
    assert sync(folder.path) == 0
    assert calls == []  # the run is not finished
    folder.record_result({"scores": {RELATION: 0.9}, "version": ""})
    assert sync(folder.path) == 1
    assert "evaluation.json: holds no evaluation" in capsys.readouterr().err
    measured = evaluation({RELATION: 0.9})
    measured.write(folder.path / EVALUATION_FILE)
    for _ in range(2):
        assert sync(folder.path) == 0
    assert calls == [("unregistered", folder.model, "mine", measured, ())]
    assert capsys.readouterr().out.count("registered: models:/mine/3") == 1
    assert folder.result == {"scores": {RELATION: 0.9}, "version": "3", "decision": []}


@pytest.mark.parametrize("line", ["3", '{"run": 3}', '{"run": {"name": "without a store"}}', "[" * 100_000])
def test_a_journal_of_something_else_is_refused(
    tmp_path: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tracking.jsonl").write_text(f"{line}\n")
    assert sync(tmp_path) == 2
    assert f"{tmp_path}: not the folder of a run" in capsys.readouterr().err


@pytest.mark.parametrize("result", ["", "[]", "{}"])
def test_a_result_of_something_else_is_refused(
    server: MLflowServer, tmp_path: Path, result: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert open_run(config(server.uri), "odd", str(tmp_path)).finish() == ""
    (tmp_path / "runs" / "odd" / "result.json").write_text(result)
    assert sync(tmp_path / "runs" / "odd") == 2
    assert "result.json: not the result of a run" in capsys.readouterr().err


def test_a_run_that_cannot_be_sent_is_reported_with_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sync("nothing", "--storage", tmp_path) == 2
    assert "runs/nothing: not the folder of a run" in capsys.readouterr().err
    uri = f"http://user:secret@127.0.0.1:{free_port()}"
    tracker = open_run(config(uri, offline=True), "masked", str(tmp_path))
    tracker._sender.close()
    with pytest.raises(TrackingError, match="--tracking-uri"):
        open_recorded(tmp_path / "runs" / "masked")
