"""sclip evaluate and sclip fetch: what they print, write, refuse, and with which status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sclip.evaluate.compare import compare
from sclip.evaluate.result import Evaluation
from sclip.inference.scorer import Scorer
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
    told = capsys.readouterr().out
    found = Evaluation.read(files / "out" / "evaluation.json")
    assert [result.name for result in found.results] == ["crepe", "find"]
    accuracy = found.score("crepe/accuracy")
    (line,) = [line for line in told.splitlines() if "crepe/accuracy" in line]
    assert f"{accuracy.value:.3f} ({accuracy.low:.3f}..{accuracy.high:.3f})" in line
    assert "0.500" in line
    assert found.facts["suite"] == "suite.yaml"


def test_two_models_are_compared_case_by_case(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = ["--benchmark", "sugarcrepe=swap_obj.json", "--images", "images", "--out", "out"]
    assert evaluate("model", f"{NAME}:", *named) == 0
    told = capsys.readouterr().out
    first, other = (Evaluation.read(files / "out" / of / "evaluation.json") for of in ("model", NAME))
    p_value = compare([first, other]).of("sugarcrepe", 1).p_value
    (line,) = [line for line in told.splitlines() if f" {NAME}: " in line]
    assert [cell.strip() for cell in line.split("│")][4] == f"{p_value:.3f}"
    assert (first.model, other.model) == ("model", f"{NAME}:")
    pages = [line.removeprefix("look at it: ") for line in told.splitlines() if line.startswith("look at it")]
    assert [Path(page).parent.name for page in pages] == ["out", "model", NAME]
    assert all((files / page).read_text().startswith("<!") for page in pages)


def test_what_was_measured_before_stands_in_the_table_beside_what_is_measured_now(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate("model", "--suite", "suite.yaml", "--out", "first") == 0
    (files / "suite.yaml").write_text("find: {kind: retrieval, file: captions.json}\n")
    before = "first/evaluation.json"
    tables = ["--table", "tables/all.md", "--table", "tables/all.tex", "--table", "tables/all.html"]
    assert evaluate(before, f"{NAME}:", "--suite", "suite.yaml", "--out", "out", *tables) == 0
    told = capsys.readouterr().out
    assert f"no comparison.html: {NAME}: was not evaluated on crepe, model was" in told
    assert [
        path for path in ("all.md", "all.tex", "all.html") if f"look at it: tables/{path}" not in told
    ] == []
    lines = [
        line.split("|") for line in (files / "tables" / "all.md").read_text().splitlines() if "|" in line
    ]
    assert [[cell.strip() for cell in line[1:-1]] for line in lines[:1]] == [
        ["", "find I2T R@1", "find T2I R@1"]
    ]
    now = Evaluation.read(files / "out" / NAME / "evaluation.json")
    assert f"{100 * now.score('find/image_to_text_r1').value:.1f}" in lines[-1][2]
    assert lines[-2][1].strip() == "model"
    # Without a model to measure neither suite nor its files are needed, and the columns are those that were measured.
    assert evaluate(before, "--table", "old.md") == 0
    assert "| crepe accuracy |" in (files / "old.md").read_text()
    captions = (files / "captions.json").read_text()
    (files / "captions.json").write_text(captions.replace("caption 7", "caption seven"))
    assert evaluate(before, f"{NAME}:", "--suite", "suite.yaml", "--table", "other.md") == 1
    assert f"find: model and {NAME}: were asked other captions; evaluate both" in capsys.readouterr().err
    assert not (files / "other.md").exists()


def test_missing_pictures_need_partial_and_broken_ones_end_it(
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
    ("arguments", "found"),
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
def test_a_mistake_is_told_before_anything_is_encoded(
    files: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], found: str
) -> None:
    assert evaluate(*arguments, "--out", "out") == 2
    told = capsys.readouterr()
    assert found in told.err
    assert not (files / "out").exists()


@pytest.mark.cluster
def test_a_pool_of_actors_finds_what_one_process_finds(
    files: Path, attached: None, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [f"{NAME}:", "--suite", "suite.yaml", "--out"]
    assert evaluate(*command, "here") == 0
    assert evaluate(*command, "pool", "--actors", "2") == 0
    here, pool = (Evaluation.read(files / name / "evaluation.json") for name in ("here", "pool"))
    assert pool.scores() == pytest.approx(here.scores())
    assert [result.won for result in pool.results] == [result.won for result in here.results]
    assert evaluate(*command, "many", "--actors", "1000") == 2
    assert "the cluster has" in capsys.readouterr().err


def test_fetch_says_of_each_benchmark_where_it_is_had_and_counts_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch("--root", tmp_path) == 1
    told = capsys.readouterr().out
    for name in "vg-relation vg-attribution coco-order flickr-order sugarcrepe winoground imagenet".split():
        assert f"\n{name} (" in f"\n{told}"
    assert str(tmp_path / "aro" / "visual_genome_relation.json") in told
    assert "licence" in told
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
    assert "1 of 800 pictures are not there, the first is" in capsys.readouterr().out
    (folder / "examples.jsonl").write_text("\n".join(lines[:-1]))
    assert fetch("winoground", "--root", tmp_path) == 1
    assert "400 cases were published" in capsys.readouterr().out
    assert fetch("winoground2") == 2
    assert "fetch: suite 'winoground2': no such file, and nearest is winoground" in capsys.readouterr().err
