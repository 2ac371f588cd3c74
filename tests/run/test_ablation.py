"""An ablation trains rows over several seeds and writes one table beside the published figures."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

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
    output, folder = capsys.readouterr().out, tmp_path / "sweeps" / "ablation-small"
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
        assert text in output
    assert "ablation-small-broken-seed-3 failed: " in output
    assert "model.kee.weight: too much" in output
    assert "ablation-small-low-seed-3" in (folder / "comparison.html").read_text()
    page_text = text_of((folder / "ablation.html").read_text())
    assert page_text.startswith(
        "ablation-small, seeds 3 relation attribute A lambda low 0.100 published 0.810 0.300 "
    )
    assert f"look at it: {folder / 'ablation.html'}" in output
    cells = json.loads((folder / "ablation.json").read_text())["rows"]
    assert cells["high"]["relation/accuracy"] == {"values": [0.5], "published": "–", "p_value": None}


def test_a_cell_of_several_seeds_has_an_interval_and_is_tested_against_the_reference(small: Path) -> None:
    values = {"low": (0.93, 0.95, 0.97), "high": (0.94, 0.95, 0.96), "broken": (0.4, 0.2, 0.3)}
    trials = [
        sweep.Trial(f"x-{row}-seed-{seed}", {}, {"relation/accuracy": value})
        for row, row_values in values.items() for seed, value in enumerate(row_values)
    ]  # fmt: skip
    study = dataclasses.replace(ablation.read(small), seeds=[0, 1, 2], reference="high")
    cells = ablation.table(study, trials, "x")
    texts = [row_cells["relation/accuracy"].text for row_cells in cells.values()]
    # Computed by hand: t(0.975, 2) = 4.3027; the differences of "broken" are -0.54, -0.75, -0.66; t = -10.67.
    low, high = "0.950 (0.900 to 1.000), p 1.000", "0.950 (0.925 to 0.975)"
    assert texts == [low, high, "0.300 (0.052 to 0.548), p 0.009"]
    assert cells["low"]["attribute/accuracy"].text == "–"
    ablation.show(study, cells, Console(file=(log := io.StringIO()), width=50))
    assert re.search(
        r"^ +lambda low +0\.950 \(0\.900 to 1\.000\), p 1\.000 .* –", log.getvalue(), re.MULTILINE
    )
    lacking = [trial for trial in trials if trial.name not in ("x-low-seed-0", "x-high-seed-2")]
    low = ablation.table(study, lacking, "x")["low"]["relation/accuracy"]
    # "low" has seeds 1 and 2 left, "high" has 0 and 1.
    assert (low.values, low.p_value) == ([0.95, 0.97], None)
    small.write_text(f"{SMALL}reference: other\n")
    with pytest.raises(ConfigError, match="reference: other: no such row; the rows are low, high, broken"):
        ablation.read(small)


@pytest.mark.parametrize("path", sorted((CONFIGS / "ablation").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_ablation_can_be_run(path: Path) -> None:
    study = ablation.with_configs(ablation.read(path))
    swept = ablation.sweep_of(study, "x", ablation.shared_config(study))
    assert len(swept.space[sweep.POINT]["grid_search"]) == len(study.seeds) * sum(
        not row.blend for row in study.rows.values()
    )
    assert {score for row in study.rows.values() for score in row.published} <= set(study.scores)


def test_all_rows_of_a_seed_run_before_the_next_seed_with_settings_of_file_row_and_command_line(
    small: Path,
) -> None:
    small.write_text(small.read_text() + "set: {train.num_workers: 1, train.epochs: 7}\n")
    study = ablation.read(small)
    config = ablation.shared_config(study, ["train.epochs=2"])
    assert (config.train.num_workers, config.train.epochs) == (1, 2)
    points = ablation.sweep_of(study, "x", config).space[sweep.POINT]["grid_search"]
    names = [point["name"] for point in points[:4]]
    assert names == ["low-seed-0", "high-seed-0", "broken-seed-0", "low-seed-1"]
    assert points[3]["set"] == {"model.kee.weight": 0.1, "run.seed": 1}


def test_settings_of_file_row_and_command_line_override_the_config_that_a_row_names(
    small: Path, tmp_path: Path
) -> None:
    (other := tmp_path / "other.yaml").write_text(
        "{model: {kee: {enabled: false}}, train: {epochs: 9, batch_size: 64}, loss: {hinge_margin: 0.1}}"
    )
    row = f"  other: {{label: another, config: {other}, set: {{loss.hinge_margin: 0.3}}}}\n"
    small.write_text(f"{SMALL}{row}set: {{train.num_workers: 1}}\n")
    overrides = ["train.epochs=2"]
    study = ablation.with_configs(ablation.read(small), overrides)
    assert study.rows["low"] == ablation.read(small).rows["low"]
    config = changed(ablation.shared_config(study, overrides), study.rows["other"].set)
    assert config == load(["train.num_workers=1", *overrides, "loss.hinge_margin=0.3"], str(other))


def test_figures_of_named_published_rows_appear_under_the_scores_of_the_file(small: Path) -> None:
    named = "published: [structure-clip-large, clip]"
    small.write_text(
        SMALL.replace("published: {relation/accuracy: 0.81}", named)
        + "published_as: {attribute/accuracy: vg-attribution/macro}\n"
    )
    study = ablation.read(small)
    # The figure is from the last named row that has one.
    assert study.rows["low"].published == {"attribute/accuracy": "0.632 not tuned"}
    sources = "Structure-CLIP (AAAI 2024): Structure-CLIP; ytaek-oh/vl_compo: CLIP"
    assert study.published == f"Somebody et al.; {sources}"
    small.write_text(small.read_text().replace(named, "published: nobody"))
    with pytest.raises(ConfigError, match="low: published: nobody: no such row; the rows are clip, negclip"):
        ablation.read(small)


def test_the_field_ablation_has_a_column_for_each_benchmark_of_its_suite(tmp_path: Path) -> None:
    study = ablation.read(CONFIGS / "ablation" / "field.yaml")
    names = {entry.name for entry in suite.read(study.set["evaluate.suite"], tmp_path)}
    assert {score.split("/")[0] for score in study.scores} == names


@pytest.mark.parametrize(
    ("old", "new", "arguments", "message"),
    [
        ("", "", ["--row", "lwo"], "row 'lwo': no such row; the rows are low, high, broken"),
        ("weight: 0.1", "wait: 0.1", [], "row 'low': config: model.kee.wait: no such key"),
        ("weight: 0.1", "weight: -1", [], "row 'low': "),
        ("label: too much", "label: x, config: scene", [], "row 'broken': --config scene: no such file"),
        ("rows:", "lines:", [], "not an ablation: 'rows'"),
        (
            "seeds: [0, 1]",
            "seeds: [0]\nstart: lwo",
            [],
            "start: lwo: not a trained row; trained rows are low, high, broken",
        ),
        ("label: too much", "blend: high, label: x", [], "broken: a blend takes runs as they are"),
        (
            "label: too much, set: {model.kee.weight: 0.95}",
            "blend: high, label: x",
            [],
            "start needs a row that is tuned from it",
        ),
        ("seeds: [0, 1]", "seeds: []", [], "needs at least one row, one seed and one score"),
        ("config: scenes", "config: scene", [], "nearest is scenes"),
        ("[0, 1]", "[0, 1", [], "small.yaml"),
    ],
)
def test_a_mistake_in_an_ablation_is_reported_before_anything_starts(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    old: str, new: str, arguments: list[str], message: str,
) -> None:  # fmt: skip
    small.write_text(SMALL.replace(old, new))
    assert job(small, *arguments, f"run.storage={tmp_path / 'storage'}") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "storage").exists()
