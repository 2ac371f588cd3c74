"""Forgetting: which share of its start's retrieval a tuned run keeps, and which share of plain tuning's gain it has."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from sclip.config import ConfigError
from sclip.config.loader import CONFIGS, changed
from sclip.inference.scorer import Scorer
from sclip.model import build_model
from sclip.run import ablation, forgetting, sweep

KEEPING = ablation.read(CONFIGS / "ablation" / "keeping.yaml")

_FILES = {"first": "shards", "relation": "file"}


def scores(r10: float, accuracy: float) -> dict[str, float]:
    """Return scores of several parts whose means are `r10` and `accuracy`."""
    return {
        "first/image_to_text_r10": r10 + 0.1, "first/text_to_image_r10": r10 - 0.1,
        "relation/accuracy": accuracy - 0.05, "attribute/accuracy": accuracy + 0.05,
    }  # fmt: skip


def trial(row: str, seed: int, *figures: float) -> sweep.Trial:
    return sweep.Trial(f"x-{row}-seed-{seed}", {}, scores(*figures) if figures else {})


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ((0.4, 0.6), {"first/r10": 0.4, "first/kept": 1.0, "second/gain": 0.0}),
        ((0.2, 0.8), {"first/r10": 0.2, "first/kept": 0.5, "second/gain": 1.0, "first/kept_at_90": 0.5}),
        ((0.38, 0.785), {"first/r10": 0.38, "first/kept": 0.95, "second/gain": 0.925, "first/kept_at_90": 0.95}),
        ((0.5, 0.7), {"first/r10": 0.5, "first/kept": 1.25, "second/gain": 0.5}),
    ],
)  # fmt: skip
def test_shares_are_relative_to_the_retrieval_of_the_start_and_the_gain_of_the_plain_row(
    run: tuple[float, float], expected: dict[str, float]
) -> None:
    assert forgetting.shares(scores(0.4, 0.6), scores(0.2, 0.8), scores(*run)) == pytest.approx(expected)


def test_there_is_no_share_of_the_gain_if_plain_tuning_gains_nothing() -> None:
    assert forgetting.shares(scores(0.4, 0.6), scores(0.2, 0.6), scores(0.3, 0.8)).keys() == {
        "first/r10", "first/kept",
    }  # fmt: skip


def test_a_row_has_no_share_at_a_gain_that_one_seed_misses_and_failed_seeds_are_left_out() -> None:
    study = ablation.narrowed(KEEPING, ["distil", "lora"], [0, 1])
    trials = [trial("start", seed, 0.4, 0.6) for seed in (0, 1)] + [
        trial("plain", seed, 0.2, 0.8) for seed in (0, 1)
    ]
    trials += [
        trial("distil", 0, 0.3, 0.8),
        trial("distil", 1, 0.38, 0.7),
        trial("lora", 0, 0.3, 0.8),
        trial("lora", 1),
    ]
    cells = ablation.table(study, forgetting.add_shares(study, "x", trials), "x")
    assert list(cells) == ["start", "plain", "distil", "lora"]
    assert cells["distil"]["first/kept"].values == pytest.approx([0.75, 0.95])
    assert cells["distil"]["first/kept_at_90"].text == "–"
    assert cells["lora"]["first/kept_at_90"].values == pytest.approx([0.75])
    assert cells["plain"]["first/kept"].text == "0.500 (0.500 to 0.500)"


def test_rows_are_tuned_from_the_start_of_their_seed_and_measured_on_both_families(tmp_path: Path) -> None:
    config = changed(
        ablation.shared_config(KEEPING), {"run.storage": str(tmp_path), "scenes.heldout_samples": 2}
    )
    points = ablation.sweep_of(KEEPING, "x", config).space[sweep.POINT]["grid_search"]
    assert [p["name"] for p in points[:5]] == [
        f"{row}-seed-0" for row in ("start", "plain", "distil", "lora", "both")
    ]
    assert "run.init_from" not in points[0]["set"]
    assert points[6]["set"]["run.init_from"] == "x-start-seed-1"
    first = KEEPING.rows["start"]
    few = dataclasses.replace(first, set=first.set | {"scenes.train_samples": 2})
    study = dataclasses.replace(KEEPING, rows=KEEPING.rows | {"start": few}, seeds=[0])
    forgetting.write_suites(study, "x", changed(config, {"scenes.train_samples": 2}))
    report, development = (
        yaml.safe_load(forgetting.suite(config, "x", 0, split).read_text())
        for split in ("report", "development")
    )
    assert str(forgetting.suite(config, "x", 0, "report")) == points[1]["set"]["evaluate.suite"]
    files = [Path(suite[name][key]) for suite in (report, development) for name, key in _FILES.items()]
    assert len(set(files)) == 4
    stamps = [
        json.loads((file.parents[up] / "scenes.json").read_text())
        for file, up in zip(files, [1, 0] * 2, strict=True)
    ]
    assert [(stamp["family"], stamp["seed"]) for stamp in stamps] == [
        ("a", 0),
        ("b", 0),
        ("a", -1),
        ("b", -1),
    ]
    with pytest.raises(ConfigError, match=r"data\.shards: .* generated scenes"):
        forgetting.write_suites(KEEPING, "x", changed(config, {"data.shards": ["a.tar"]}))


def test_a_blend_is_chosen_on_one_split_and_measured_on_the_other_once_for_the_same_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "_ALPHAS", [0.0, 0.5, 1.0])
    storage = tmp_path / "an owner's"
    small = {"run.storage": str(storage), "scenes.heldout_samples": 3, "evaluate.retrieval_images": 2}
    study = ablation.narrowed(KEEPING, ["blend"], [0])
    config = changed(ablation.shared_config(study), small | {"scenes.train_samples": 1})
    start = ablation.AblationRow("", {"scenes.family": "a"})
    study = dataclasses.replace(study, rows=study.rows | {"start": start})
    trials = [trial("start", 0, 0.4, 0.6), trial("plain", 0, 0.2, 0.8)]
    forgetting.write_suites(study, "x", config)
    for run in trials:
        Scorer(build_model(config.model)).save(storage / "runs" / run.name / "model")
    *_, blend = forgetting.add_blends(study, "x", config, trials, Console(quiet=True))
    record = json.loads(forgetting.suite(config, "x", 0, "blend").with_suffix(".json").read_text())
    assert [point["a"] for point in record["points"]] == [0.0, 0.5, 1.0]
    assert (blend.point, blend.scores, blend.error) == ({"a": record["a"]}, record["scores"], "")
    assert blend.scores["first/cases"] == 2 * 3  # on two images, as the runs are evaluated
    assert record["plain"] == record["points"][-1]["gained"]  # the line of blends ends at plain tuning
    shutil.rmtree(storage / "runs")
    *_, again = forgetting.add_blends(study, "x", config, trials, Console(quiet=True))
    assert again == blend
    trials[1].scores["relation/accuracy"] = 0.9  # now another run, whose model is gone
    *_, other = forgetting.add_blends(study, "x", config, trials, Console(quiet=True))
    assert "no such model" in other.error


def test_runs_are_drawn_as_points_and_the_blends_of_a_row_as_a_line_over_the_seeds_that_have_them(
    tmp_path: Path,
) -> None:
    study = ablation.narrowed(KEEPING, ["all"], [0, 1, 2, 3])
    config = changed(ablation.shared_config(study), {"run.storage": str(tmp_path)})
    (tmp_path / "sweeps" / "x").mkdir(parents=True)
    # With seed 2 plain tuning gains nothing; the file of seed 3 is left from runs that have failed since.
    for seed, plain in enumerate((0.8, 1.0, 0.6, 0.7)):
        blend_points = [{"a": a, "gained": 0.6 + a * 0.2, "kept": 0.5 - a * 0.25} for a in (0.0, 0.5, 1.0)]
        file = forgetting.suite(config, "x", seed, "all").with_suffix(".json")
        file.write_text(json.dumps({"plain": plain, "points": blend_points}))
    trials = [trial(row, seed, *xy) for row, xy in (("start", (0.4, 0.6)), ("plain", (0.2, 0.8)), ("both", (0.3, 0.7)),
              ("all", (0.36, 0.75))) for seed in (0, 1, 2)]  # fmt: skip
    drawn = forgetting.forgetting(study, "x", config, forgetting.add_shares(study, "x", trials))
    assert {row: len(points) for row, points in drawn.points.items()} == dict.fromkeys(study.rows, 3)
    assert drawn.points["all"][0] == pytest.approx((0.75, 0.9))
    assert list(drawn.lines) == ["all"]
    assert [a for a, _ in drawn.lines["all"]] == [0.0, 0.5, 1.0]
    assert drawn.lines["all"][1][1] == pytest.approx(((0.5 + 0.25) / 2, 0.75))


@pytest.mark.parametrize(
    ("failing", "begun"), [("start-seed-1", ["start-seed-0", "plain-seed-0"]), ("start", [])]
)
def test_no_row_is_run_for_a_seed_whose_start_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, begun: list[str]
) -> None:
    swept = []

    def run(row_sweep: sweep.Sweep, console: Console) -> list[sweep.Trial]:
        swept.append([point["name"] for point in row_sweep.space[sweep.POINT]["grid_search"]])
        error = {name: "no room" if failing in name else "" for name in swept[-1]}
        return [sweep.Trial(f"x-{n}", {}, {} if error[n] else scores(0.4, 0.6), error[n]) for n in swept[-1]]

    monkeypatch.setattr(sweep, "run", run)
    monkeypatch.setattr(sweep, "pages", lambda *_: [])
    monkeypatch.setattr(forgetting, "write_suites", lambda *_: None)
    (tmp_path / "sweeps" / "x").mkdir(parents=True)
    done = ablation.run("keeping", [f"run.storage={tmp_path}"], Console(quiet=True), "x", ["plain"], [0, 1])
    assert swept == [["start-seed-0", "start-seed-1"], *([begun] if begun else [])]
    names = ("start-seed-0", "start-seed-1")
    assert [t.name for t in done.trials if t.error] == [f"x-{name}" for name in names if failing in name]
