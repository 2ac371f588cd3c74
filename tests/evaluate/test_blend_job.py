"""sclip blend: what it writes, records and registers, and what it refuses before anything is encoded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

import sclip
from sclip.evaluate.result import Evaluation
from sclip.inference.scorer import Scorer
from support.commands import command
from support.evaluations import text_of
from support.mlflow_stores import empty_store
from support.pictures import speckled
from support.small_model import small_model

blend = command("blend")
SCORES = ("--gained", "crepe/accuracy", "--kept", "find/text_to_image_r5")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two models and the benchmarks of two splits, each with pictures of its own."""
    folder = tmp_path_factory.mktemp("blend")
    (folder / "images").mkdir()
    for first, split in ((0, "chooses"), (4, "reports")):
        names = [f"{number}.png" for number in range(first, first + 4)]
        for number, name in enumerate(names, first):
            (folder / "images" / name).write_bytes(speckled(number))
        crepe = {}
        for n in range(12):
            texts = {"caption": f"{split} {n} on a mat", "negative_caption": f"a mat on {split} {n}"}
            crepe[str(n)] = {"filename": names[n % 4]} | texts
        coco = {
            "images": [{"id": n, "file_name": name} for n, name in enumerate(names)],
            "annotations": [{"image_id": n % 4, "caption": f"{split} {n}"} for n in range(8)],
        }
        (folder / f"{split}-crepe.json").write_text(json.dumps(crepe))
        (folder / f"{split}-coco.json").write_text(json.dumps(coco))
        suite = [f"crepe: {{kind: sugarcrepe, file: {split}-crepe.json}}"]
        suite += [f"find: {{kind: retrieval, file: {split}-coco.json}}"]
        (folder / f"{split}.yaml").write_text("\n".join(suite))
    (folder / "again.yaml").write_text("search: {kind: retrieval, file: chooses-coco.json}\n")
    for seed, name in enumerate(("start", "trained")):
        Scorer(small_model(seed)).save(folder / name)
    return folder


@pytest.fixture
def files(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of `made`, as the working directory."""
    monkeypatch.chdir(made)
    return made


def test_a_blend_is_chosen_on_one_split_reported_on_the_other_recorded_and_registered(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = MlflowClient(uri := empty_store(tmp_path))
    arguments = ("start", "trained", "--suite", "chooses.yaml", "--report", "reports.yaml", *SCORES)
    gate = ("--register", "small", "--gate", "crepe/accuracy >= 0")
    assert (
        blend(*arguments, "--alpha", "0.5", "--keep", 0, "--storage", tmp_path, "--name", "first", *gate) == 0
    )
    output = capsys.readouterr().out
    assert "registered: models:/small/1" in output
    assert "version 1 is champion" in output
    folder = tmp_path / "sweeps" / "first"
    result = json.loads((folder / "blend.json").read_text())["found"]
    assert [p["a"] for p in result["points"]] == [0, 0.5, 1]
    assert result["chosen"]["gained"]["value"] == max(p["gained"]["value"] for p in result["points"])
    page, measured = (folder / "blend.html").read_text(), Evaluation.read(folder / "evaluation.json")
    assert f"a = {result['chosen']['a']:g}, taken" in text_of(page)
    assert page.count("<circle") == 3
    assert measured.facts["weights"] == sclip.load(folder).facts()["weights"]
    assert set(measured.results[0].won) == {str(n) for n in range(12)}
    (run,) = client.search_runs([client.get_experiment_by_name("sclip").experiment_id])
    curve = client.get_metric_history(run.info.run_id, "development/crepe/accuracy")
    assert {p.step: p.value for p in curve} == {
        round(1000 * p["a"]): p["gained"]["value"] for p in result["points"]
    }
    assert run.data.metrics["crepe/accuracy"] == measured.score("crepe/accuracy").value
    assert run.data.params["keep"] == "0.0"
    version = sclip.load("models:/small@champion", tracking_uri=uri)
    assert version.facts()["weights"] == measured.facts["weights"]
    assert blend(*arguments, "--storage", tmp_path, "--name", "first") == 2
    assert "already exists; choose another --name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--report", "chooses.yaml"], "crepe of --suite chooses.yaml and crepe of --report chooses.yaml are the same"),
        (["--report", "again.yaml"], "find of --suite chooses.yaml and search of --report again.yaml are the same"),
        (["--kept", "fnd/r1"], "fnd/r1: --suite chooses.yaml has no such benchmark; it has crepe, find"),
        (["--alpha", "0.5,1.2"], "--alpha 1.2: a number from 0 to 1"),
        (["--keep", "98"], "--keep 98: a share from 0 to 1"),
        (["--gate", "crepe/accuracy >= 0"], "--gate needs --register"),
        (["--device", "gpu"], "--device gpu: cpu, cuda or cuda:1"),
        (["--storage", "s3://user:secret@bucket"], "--storage s3://***@bucket: a blend is written to a folder"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_in_one_line_before_anything_is_written(
    files: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    before = set(files.iterdir())
    arguments = ["--suite", "chooses.yaml", "--report", "reports.yaml", *SCORES, "--storage", str(files)]
    assert blend("start", "trained", *arguments, *options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("blend: ")
    assert message in line
    assert set(files.iterdir()) == before
