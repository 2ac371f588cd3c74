"""sclip evaluate and sclip fetch: what they print, write, refuse, and with which status."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from sclip.config import ConfigError
from sclip.evaluate.compare import compare
from sclip.evaluate.result import Evaluation
from sclip.inference.scorer import Scorer
from sclip.run.evaluate import open_scorers
from support.commands import command
from support.pictures import speckled
from support.small_model import NAME, small_model

evaluate, fetch = command("evaluate"), command("fetch")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Scorer(small_model()).save(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def files(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a SugarCrepe file, captions in COCO's form, their pictures, and a model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    for number in range(8):
        (tmp_path / "images" / f"{number}.png").write_bytes(speckled(number))
    crepe = {
        str(n): {"filename": f"{n % 8}.png", "caption": f"thing {n} on a mat", "negative_caption": f"mat on thing {n}"}
        for n in range(40)
    }  # fmt: skip
    images = [{"id": n, "file_name": f"{n}.png"} for n in range(8)]
    texts = [{"image_id": n % 8, "caption": f"caption {n}"} for n in range(24)]
    coco = {"images": images, "annotations": texts}
    (tmp_path / "swap_obj.json").write_text(json.dumps(crepe))
    (tmp_path / "captions.json").write_text(json.dumps(coco))
    (tmp_path / "suite.yaml").write_text(
        "crepe: {kind: sugarcrepe, file: swap_obj.json}\nfind: {kind: retrieval, file: captions.json}\n"
    )
    (tmp_path / "model").symlink_to(saved)
    return tmp_path


def test_one_model_on_a_suite_ends_in_a_table_and_a_file(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate("model", "--suite", "suite.yaml", "--out", "out") == 0
    output = capsys.readouterr().out
    evaluation = Evaluation.read(files / "out" / "evaluation.json")
    assert [result.name for result in evaluation.results] == ["crepe", "find"]
    accuracy = evaluation.score("crepe/accuracy")
    (line,) = [line for line in output.splitlines() if "crepe/accuracy" in line]
    assert f"{accuracy.value:.3f} ({accuracy.low:.3f}..{accuracy.high:.3f})" in line
    assert "0.500" in line
    assert evaluation.facts["suite"] == "suite.yaml"


def test_two_models_are_compared_case_by_case(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--benchmark", "sugarcrepe=swap_obj.json", "--images", "images", "--out", "out"]
    assert evaluate("model", f"{NAME}:", *arguments) == 0
    output = capsys.readouterr().out
    first, other = (Evaluation.read(files / "out" / name / "evaluation.json") for name in ("model", NAME))
    p_value = compare([first, other]).of("sugarcrepe", 1).p_value
    (line,) = [line for line in output.splitlines() if f" {NAME}: " in line]
    assert [cell.strip() for cell in line.split("│")][4] == f"{p_value:.3f}"
    assert (first.model, other.model) == ("model", f"{NAME}:")
    pages = [
        line.removeprefix("look at it: ") for line in output.splitlines() if line.startswith("look at it")
    ]
    assert [Path(page).parent.name for page in pages] == ["out", "model", NAME]
    assert all((files / page).read_text().startswith("<!") for page in pages)


def test_a_table_shows_earlier_evaluations_beside_new_ones(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate("model", "--suite", "suite.yaml", "--out", "first") == 0
    (files / "suite.yaml").write_text("find: {kind: retrieval, file: captions.json}\n")
    earlier = "first/evaluation.json"
    tables = ["--table", "tables/all.md", "--table", "tables/all.tex", "--table", "tables/all.html"]
    assert evaluate(earlier, f"{NAME}:", "--suite", "suite.yaml", "--out", "out", *tables) == 0
    output = capsys.readouterr().out
    assert (
        f"no comparison.html: model was evaluated on crepe, but {NAME}: was not; evaluate both on it"
        in output
    )
    assert [
        path for path in ("all.md", "all.tex", "all.html") if f"look at it: tables/{path}" not in output
    ] == []
    lines = [
        line.split("|") for line in (files / "tables" / "all.md").read_text().splitlines() if "|" in line
    ]
    assert [[cell.strip() for cell in line[1:-1]] for line in lines[:1]] == [
        ["", "find I2T R@1", "find T2I R@1"]
    ]
    measured = Evaluation.read(files / "out" / NAME / "evaluation.json")
    assert f"{100 * measured.score('find/image_to_text_r1').value:.1f}" in lines[-1][2]
    assert lines[-2][1].strip() == "model"
    # Without a model to measure, neither suite nor files are needed, and the table has the earlier columns.
    assert evaluate(earlier, "--table", "old.md") == 0
    assert "| crepe accuracy |" in (files / "old.md").read_text()
    captions = (files / "captions.json").read_text()
    (files / "captions.json").write_text(captions.replace("caption 7", "caption seven"))
    assert evaluate(earlier, f"{NAME}:", "--suite", "suite.yaml", "--table", "other.md") == 1
    assert (
        f"find: model and {NAME}: were tested on different captions; evaluate both" in capsys.readouterr().err
    )
    assert not (files / "other.md").exists()


def test_missing_pictures_require_partial_and_broken_pictures_fail(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (3, 5):
        (files / "images" / f"{number}.png").unlink()
    command = ["model", "--suite", "suite.yaml", "--out", "out"]
    assert evaluate(*command) == 2
    err = capsys.readouterr().err
    assert err.startswith("evaluate: crepe: 2 of 8 pictures cannot be read, the first is ")
    assert "3.png: no such file" in err
    assert "--partial" in err
    assert not (files / "out").exists()
    assert evaluate(*command, "--partial") == 0
    assert "crepe: partial: 30 of 40 cases" in capsys.readouterr().out
    (files / "images" / "3.png").write_bytes(b"broken")
    (files / "images" / "5.png").write_bytes(speckled(5))
    assert evaluate(*command) == 1
    assert "3.png: not a readable image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-model", "--suite", "suite.yaml"], "evaluate: 'no-model': no such model"),
        (["model", "--suite", "sweet.yaml"], "evaluate: suite 'sweet.yaml': no such file"),
        (["model", "--benchmark", "sugarcrep=swap_obj.json"], "nearest is sugarcrepe"),
        (["model"], "name the benchmarks"),
        (
            ["model", "--suite", "suite.yaml", "--table", "all.pdf"],
            "--table all.pdf: name a file that ends in .tex",
        ),
        (["swap_obj.json", "--table", "all.md"], "swap_obj.json: holds no evaluation"),
        (["model", "--benchmark", "sugarcrepe"], "write KIND=FILE"),
        (["model", "--suite", "suite.yaml", "--images", "a"], "--images goes with --benchmark"),
        (["model", "--suite", "suite.yaml", "--actors", "-1"], "--actors"),
        (["model", "--suite", "suite.yaml", "--device", "gpu"], "--device gpu: cpu, cuda or cuda:1"),
    ],
)
def test_a_mistake_is_refused_before_anything_is_encoded(
    files: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert evaluate(*arguments, "--out", "out") == 2
    output = capsys.readouterr()
    assert message in output.err
    assert not (files / "out").exists()


def test_too_many_actors_are_refused_before_a_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sclip.launch.cluster.connect", lambda: SimpleNamespace(cpus=2.0, gpus=0.0))
    with pytest.raises(ConfigError, match="--actors=3: the cluster has 2 CPUs and 0 GPUs"):
        open_scorers(["no-model"], "cpu", 3, "", "nowhere")


@pytest.mark.cluster
def test_a_pool_of_actors_gives_the_same_scores_as_one_process(
    files: Path, attached: None, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [f"{NAME}:", "--suite", "suite.yaml", "--out"]
    assert evaluate(*command, "here") == 0
    assert evaluate(*command, "pool", "--actors", "2") == 0
    single, pool = (Evaluation.read(files / name / "evaluation.json") for name in ("here", "pool"))
    assert pool.scores() == pytest.approx(single.scores())
    assert [result.won for result in pool.results] == [result.won for result in single.results]
    assert evaluate(*command, "many", "--actors", "1000") == 2
    assert "the cluster has" in capsys.readouterr().err


def test_fetch_says_where_each_benchmark_comes_from_and_counts_its_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch("--root", tmp_path) == 1
    output = capsys.readouterr().out
    for name in "vg-relation vg-attribution coco-order flickr-order sugarcrepe winoground imagenet".split():
        assert f"\n{name} (" in f"\n{output}"
    assert str(tmp_path / "aro" / "visual_genome_relation.json") in output
    assert "licence" in output
    folder = tmp_path / "winoground"
    (folder / "images").mkdir(parents=True)
    lines = []
    for n in range(400):
        pictures = {f"image_{side}": f"ex_{n}_img_{side}" for side in (0, 1)}
        lines.append(json.dumps({"id": n, "caption_0": "a b", "caption_1": "b a"} | pictures))
        for picture in pictures.values():
            (folder / "images" / f"{picture}.png").touch()
    (folder / "examples.jsonl").write_text("\n".join(lines))
    assert fetch("winoground", "--root", tmp_path) == 0
    assert "winoground (winoground): complete: 400 cases" in capsys.readouterr().out
    (folder / "images" / "ex_7_img_1.png").unlink()
    assert fetch("winoground", "--root", tmp_path) == 1
    assert "1 of 800 pictures are missing, the first is" in capsys.readouterr().out
    (folder / "examples.jsonl").write_text("\n".join(lines[:-1]))
    assert fetch("winoground", "--root", tmp_path) == 1
    assert "400 cases are in the published benchmark" in capsys.readouterr().out
    assert fetch("winoground2") == 2
    assert (
        "fetch: suite 'winoground2': no such file or suite; nearest is winoground" in capsys.readouterr().err
    )
