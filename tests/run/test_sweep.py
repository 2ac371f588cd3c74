"""Sweeps train each point of a space as a run below one parent; a finished point is not trained again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from ray import tune
from rich.console import Console

from sclip.run import search_space, sweep
from sclip.train.run_folder import RunFolder
from support.commands import command
from support.runs import TINY, config, recorded, recorded_curve

job = command("sweep")
KEE = "model.kee.weight"


# Accepted search spaces


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to search"),
        (["../up", "--grid", f"{KEE}=0.1"], "run.name='../up'"),
        (["--grid", f"{KEE}=0.1", "--samples", "0"], "'--samples'"),
        (["--grid", KEE], "write each key once, as KEY=..."),
        (["--grid", f"{KEE}=0.1", "--random", f"{KEE}=uniform(0,1)"], "write each key once"),
        (["--grid", f"{KEE}=0.1,["], "not a YAML value"),
        (["--grid", f"{KEE}=0.1,-1"], "model.kee.weight=-1"),
        (["--grid", "model.kee.wait=0.1"], "nearest is model.kee.weight"),
        (["--grid", "loss.negatives=none,semantics"], "loss.negatives='semantics'"),
        (["--random", f"{KEE}=0.1"], "write uniform(..), loguniform(..), randint(..) or choice(..)"),
        (["--random", f"{KEE}=uniform(1,0)"], "the lower first"),
        (["--random", f"{KEE}=uniform(0,true)"], "uniform takes two numbers"),
        (["--random", f"{KEE}=loguniform(0,1)"], "loguniform begins above 0"),
        (["--random", f"{KEE}=uniform(-1,1)"], "model.kee.weight=-1"),
        (["--random", "model.kee.layers=randint(0,3)"], "model.kee.layers=0"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_space_is_reported_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    name = arguments.pop(0) if arguments and arguments[0] == "../up" else "mistaken"
    assert job(name, *arguments, f"run.storage={tmp_path}") == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_ends_of_a_domain_are_what_a_config_must_accept() -> None:
    assert search_space.domain("k", "loguniform(1e-6,1e-4)")[1] == [1e-6, 1e-4]
    assert search_space.domain("k", "randint(1,4)")[1] == [1, 3]
    assert search_space.domain("k", "choice(none,semantic)")[1] == ["none", "semantic"]
    assert search_space.values("k", "0.1, 2,true,none") == [0.1, 2, True, "none"]


# Runs of a sweep


@pytest.mark.cluster
@pytest.mark.usefixtures("attached")
def test_a_seed_draws_the_same_points_and_combines_each_with_the_whole_grid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate, layers = "train.learning_rate", "model.kee.layers"
    monkeypatch.setattr(sweep, "_trial", lambda params, **_: {"scores": {"drawn/value": params[rate]}})
    space = {
        rate: search_space.domain(rate, "loguniform(1e-6,1e-4)")[0], layers: tune.grid_search([1, 2])
    }  # fmt: skip

    def points(name: str, seed: int) -> list[dict[str, Any]]:
        study = sweep.Sweep(name, config(tmp_path, f"run.seed={seed}"), space, samples=2, at_once=4)
        trials = sweep.run(study, Console(quiet=True))
        assert [trial.name for trial in trials] == [f"{name}-0000{n}" for n in range(4)]
        assert [trial.scores["drawn/value"] for trial in trials] == [trial.point[rate] for trial in trials]
        return [trial.point for trial in trials]

    first = points("one", 0)
    assert first == points("one", 0)
    assert first != points("other", 1)
    assert [point[layers] for point in first] == [1, 2, 1, 2]
    assert len({point[rate] for point in first}) > 1
    assert all(1e-6 <= point[rate] <= 1e-4 for point in first)


@pytest.mark.cluster
@pytest.mark.usefixtures("attached")
def test_a_point_is_a_run_below_a_parent_and_the_same_command_does_not_train_it_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["kee", "--grid", f"{KEE}=0.1", *TINY, "scenes.train_samples=32", "train.epochs=1"]
    command += ["train.num_workers=1", f"run.storage={tmp_path}"]
    assert job(*command) == 0
    output = capsys.readouterr().out
    assert "relation/accuracy" in output
    uri, folder = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "sweeps" / "kee"
    parent, child = recorded(uri, "kee"), recorded(uri, "kee-00000")
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.params[KEE] == "0.1"
    assert parent.info.status == child.info.status == "FINISHED"
    record = json.loads((folder / "sweep.json").read_text())
    result = RunFolder(tmp_path / "runs" / "kee-00000").result or {}
    (trial,) = record
    assert (trial["name"], trial["point"], trial["scores"]) == ("kee-00000", {KEE: 0.1}, result["scores"])
    assert "step 2/2" in (folder / "kee-00000.log").read_text()
    client = MlflowClient(uri)
    assert [file.path for file in client.list_artifacts(parent.info.run_id)] == ["sweep.json"]

    assert job(*command) == 0
    assert json.loads((folder / "sweep.json").read_text()) == record
    assert list(recorded_curve(uri, "kee-00000")) == [1, 2]
    assert recorded(uri, "kee").info.run_id == parent.info.run_id
    assert len(client.search_model_versions("name = 'structure-clip'")) == 1
