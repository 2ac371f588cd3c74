"""An ablation: rows over seeds in, one table beside published figures out."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from sclip.config import ConfigError
from sclip.config.loader import CONFIGS, changed, load
from sclip.evaluate import suite
from sclip.run import ablation, sweep
from support.commands import command
from support.evaluations import text_of
from support.swept import made_up

job = command("ablation")
SMALL = """\
config: scenes
seeds: [0, 1]
scores: {relation/accuracy: relation, attribute/accuracy: attribute}
published: Somebody et al.
rows:
  low: {label: lambda low, set: {model.kee.weight: 0.1}, published: {relation/accuracy: 0.81}}
  high:
    label: lambda high
    set: {model.kee.weight: 0.5, loss.hinge_margin: 0.4}
    published: {attribute/accuracy: near 0.6}
  broken: {label: too much, set: {model.kee.weight: 0.95}}
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (path := tmp_path / "small.yaml").write_text(SMALL)
    return path


@pytest.mark.cluster
@pytest.mark.usefixtures("attached")
def test_the_table_has_the_scores_of_the_runs_beside_the_published_ones(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweep, "_trial", made_up())
    assert job(small, f"run.storage={tmp_path}", "loss.hinge_margin=0.3", "--seed", "3") == 1
    said, folder = capsys.readouterr().out, tmp_path / "sweeps" / "ablation-small"
    page = (folder / "ablation.md").read_text()
    lines = [line.split("|")[1:-1] for line in page.splitlines() if "|" in line]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["", "relation", "published", "attribute", "published"],
        ["---"] * 5,
        ["lambda low", "0.100", "0.810", "0.300", "–"],
        ["lambda high", "0.500", "–", "0.400", "near 0.6"],
        ["too much", "–", "–", "–", "–"],
    ]
    assert "Published: Somebody et al." in page
    for text in ("lambda high", "0.400", "near 0.6", "published: Somebody et al."):
        assert text in said
    assert "ablation-small-broken-seed-3 failed: " in said
    assert "model.kee.weight: too much" in said
    assert "ablation-small-low-seed-3" in (folder / "comparison.html").read_text()
    shown = text_of((folder / "ablation.html").read_text())
    assert shown.startswith(
        "ablation-small, seeds 3 relation attribute A lambda low 0.100 published 0.810 0.300 "
    )
    assert f"look at it: {folder / 'ablation.html'}" in said
    cells = json.loads((folder / "ablation.json").read_text())["rows"]
    assert cells["high"]["relation/accuracy"] == {"values": [0.5], "published": "–", "p_value": None}


def test_a_cell_of_several_seeds_has_an_interval_and_is_tested_against_the_reference(small: Path) -> None:
    values = {"low": (0.93, 0.95, 0.97), "high": (0.94, 0.95, 0.96), "broken": (0.4, 0.2, 0.3)}
    trials = [
        sweep.Trial(f"x-{row}-seed-{seed}", {}, {"relation/accuracy": value})
        for row, of_row in values.items() for seed, value in enumerate(of_row)
    ]  # fmt: skip
    asked = dataclasses.replace(ablation.read(small), seeds=[0, 1, 2], reference="high")
    cells = ablation.table(asked, trials, "x")
    texts = [of["relation/accuracy"].text for of in cells.values()]
    # By hand: t(0.975, 2) = 4.3027; of "broken" the differences are -0.54, -0.75, -0.66, t = -10.67.
    low, high = "0.950 (0.900 to 1.000), p 1.000", "0.950 (0.925 to 0.975)"
    assert texts == [low, high, "0.300 (0.052 to 0.548), p 0.009"]
    assert cells["low"]["attribute/accuracy"].text == "–"
    lacking = [trial for trial in trials if trial.name not in ("x-low-seed-0", "x-high-seed-2")]
    low = ablation.table(asked, lacking, "x")["low"]["relation/accuracy"]
    assert (low.values, low.p_value) == ([0.95, 0.97], None)  # of seeds 1 and 2, and the others of 0 and 1
    small.write_text(f"{SMALL}reference: other\n")
    with pytest.raises(ConfigError, match="reference: other: no row; they are low, high, broken"):
        ablation.read(small)


@pytest.mark.parametrize("path", sorted((CONFIGS / "ablation").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_ablation_can_be_run(path: Path) -> None:
    asked = ablation.with_configs(ablation.read(path))
    swept = ablation.sweep_of(asked, "x", ablation.shared_config(asked))
    assert len(swept.space[sweep.POINT]["grid_search"]) == len(asked.seeds) * sum(
        not row.blend for row in asked.rows.values()
    )
    assert {score for row in asked.rows.values() for score in row.published} <= set(asked.scores)


def test_a_seed_is_run_through_before_the_next_with_what_file_row_and_command_line_set(small: Path) -> None:
    small.write_text(small.read_text() + "set: {train.num_workers: 1, train.epochs: 7}\n")
    asked = ablation.read(small)
    config = ablation.shared_config(asked, ["train.epochs=2"])
    assert (config.train.num_workers, config.train.epochs) == (1, 2)
    points = ablation.sweep_of(asked, "x", config).space[sweep.POINT]["grid_search"]
    names = [point["name"] for point in points[:4]]
    assert names == ["low-seed-0", "high-seed-0", "broken-seed-0", "low-seed-1"]
    assert points[3]["set"] == {"model.kee.weight": 0.1, "run.seed": 1}


def test_a_row_may_have_a_config_of_its_own_below_what_file_row_and_command_line_set(
    small: Path, tmp_path: Path
) -> None:
    (other := tmp_path / "other.yaml").write_text(
        "{model: {kee: {enabled: false}}, train: {epochs: 9, batch_size: 64}, loss: {hinge_margin: 0.1}}"
    )
    row = f"  other: {{label: another, config: {other}, set: {{loss.hinge_margin: 0.3}}}}\n"
    small.write_text(f"{SMALL}{row}set: {{train.num_workers: 1}}\n")
    overrides = ["train.epochs=2"]
    asked = ablation.with_configs(ablation.read(small), overrides)
    assert asked.rows["low"] == ablation.read(small).rows["low"]
    found = changed(ablation.shared_config(asked, overrides), asked.rows["other"].set)
    assert found == load(["train.num_workers=1", *overrides, "loss.hinge_margin=0.3"], str(other))


def test_published_rows_are_named_and_their_figures_stand_under_the_scores_of_the_file(small: Path) -> None:
    named = "published: [structure-clip-large, clip]"
    small.write_text(
        SMALL.replace("published: {relation/accuracy: 0.81}", named)
        + "published_as: {attribute/accuracy: vg-attribution/macro}\n"
    )
    asked = ablation.read(small)
    assert asked.rows["low"].published == {
        "attribute/accuracy": "0.632 not tuned"
    }  # the last that has a figure
    sources = "Structure-CLIP (AAAI 2024): Structure-CLIP; ytaek-oh/vl_compo: CLIP"
    assert asked.published == f"Somebody et al.; {sources}"
    small.write_text(small.read_text().replace(named, "published: nobody"))
    with pytest.raises(ConfigError, match="low: published: nobody: no such row; they are clip, negclip"):
        ablation.read(small)


def test_the_fields_table_has_a_column_of_each_benchmark_of_its_suite(tmp_path: Path) -> None:
    asked = ablation.read(CONFIGS / "ablation" / "field.yaml")
    names = {entry.name for entry in suite.read(asked.set["evaluate.suite"], tmp_path)}
    assert {score.split("/")[0] for score in asked.scores} == names


@pytest.mark.parametrize(
    ("old", "new", "arguments", "found"),
    [
        ("", "", ["--row", "lwo"], "row 'lwo': there is none; the rows are low, high, broken"),
        ("weight: 0.1", "wait: 0.1", [], "row 'low': config: model.kee.wait: no such key"),
        ("weight: 0.1", "weight: -1", [], "row 'low': "),
        ("label: too much", "label: x, config: scene", [], "row 'broken': --config scene: no such file"),
        ("rows:", "lines:", [], "not an ablation: 'rows'"),
        (
            "seeds: [0, 1]",
            "seeds: [0]\nstart: lwo",
            [],
            "start: lwo: no row that is trained; those are low, high, broken",
        ),
        ("label: too much", "blend: high, label: x", [], "broken: a blend is of runs as they are"),
        (
            "label: too much, set: {model.kee.weight: 0.95}",
            "blend: high, label: x",
            [],
            "start and a row that is tuned from it go together",
        ),
        ("seeds: [0, 1]", "seeds: []", [], "needs a row, a seed and a score at least"),
        ("config: scenes", "config: scene", [], "nearest is scenes"),
        ("[0, 1]", "[0, 1", [], "small.yaml"),
    ],
)
def test_a_mistake_is_told_before_anything_starts(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    old: str, new: str, arguments: list[str], found: str,
) -> None:  # fmt: skip
    small.write_text(SMALL.replace(old, new))
    assert job(small, *arguments, f"run.storage={tmp_path / 'storage'}") == 2
    assert found in capsys.readouterr().err
    assert not (tmp_path / "storage").exists()
