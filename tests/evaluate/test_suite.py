"""Suites: names and files in, benchmarks with their paths out; a mistake is one line with the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest

from sclip.evaluate import sources, suite
from sclip.evaluate.benchmarks import BenchmarkDataError
from support.paths import ROOT

RELATION = "{kind: vg-relation, file: relation.json, images: images}"


def written(folder: Path, text: str) -> str:
    file = folder / "mine.yaml"
    file.write_text(text)
    return str(file)


def test_the_paths_of_a_users_file_are_relative_to_it(tmp_path: Path) -> None:
    text = (
        f"relation: {RELATION}\nheld: {{kind: shards, shards: [heldout/*.tar, 's3://b/*.tar'], limit: 10}}\n"
    )
    relation, held = suite.read(written(tmp_path, text), "/nowhere")
    assert (relation.name, relation.kind) == ("relation", "vg-relation")
    assert relation.options == {"file": tmp_path / "relation.json", "images": tmp_path / "images"}
    assert held.options == {"shards": (str(tmp_path / "heldout/*.tar"), "s3://b/*.tar"), "limit": 10}


def test_the_paths_of_a_named_suite_are_relative_to_the_root(tmp_path: Path) -> None:
    entries = {entry.name: entry for entry in suite.read("aro", tmp_path)}
    assert list(entries) == ["vg-relation", "vg-attribution", "coco-order", "flickr-order"]
    assert entries["vg-relation"].options["file"] == tmp_path / "aro" / "visual_genome_relation.json"


def test_the_suite_all_has_every_benchmark_once_and_each_is_told_where_it_is_from(tmp_path: Path) -> None:
    every = [entry.name for entry in suite.read("all", tmp_path)]
    of_others = {e.name for name in suite.names() for e in suite.read(name, tmp_path)}
    assert sorted(every) == sorted(of_others) == sorted(sources.SOURCES)


@pytest.mark.parametrize("name", suite.names())
def test_where_a_benchmarks_files_belong_is_where_its_suite_looks(name: str, tmp_path: Path) -> None:
    for entry in suite.read(name, tmp_path):
        places = [tmp_path / place for place, _ in sources.SOURCES[entry.name].files]
        for option in ("file", "images"):
            if option in entry.options:
                path = entry.options[option]
                assert any(path == place or path in place.parents for place in places), (entry.name, option)


def test_a_users_file_may_include_named_suites(tmp_path: Path) -> None:
    text = f"include: [winoground]\nrelation: {RELATION}\n"
    assert [e.name for e in suite.read(written(tmp_path, text), tmp_path)] == ["winoground", "relation"]


def test_defaults_reach_the_benchmarks_that_take_them_and_do_not_say_otherwise(tmp_path: Path) -> None:
    text = (
        f"a: {{kind: shards, shards: a.tar}}\nb: {{kind: shards, shards: b.tar, limit: 3}}\nc: {RELATION}\n"
    )
    a, b, c = suite.read(written(tmp_path, text), tmp_path, {"limit": 7})
    assert (a.options["limit"], b.options["limit"], "limit" in c.options) == (7, 3, False)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "a: {kind: vg-relations, file: a.json}",
            "a: kind 'vg-relations' is unknown; nearest is vg-relation",
        ),
        ("a: {kind: vg-relation, fil: a.json}", "a: vg-relation has no 'fil'; nearest is file"),
        ("a: {kind: vg-relation}", "a: vg-relation needs file"),
        ("a: {kind: shards, shards: []}", "a: shards needs shards"),
        ("a: {kind: shards, shards: [1]}", "a path or a list of them"),
        ("a: {kind: retrieval, file: a.json, captions: -1}", "captions=-1: a whole number"),
        ("a: {kind: zero-shot, images: 3}", "a: images=3: text"),
        ("a: relation.json", "a: must have a kind: one of vg-relation"),
        ("a b: {kind: vg-relation, file: a.json}", "a benchmark's name has letters"),
        ("include: aro", "include must be a list"),
        ("include: [arro]", "include: 'arro': nearest is aro"),
        (f"include: [aro]\nvg-relation: {RELATION}", "vg-relation is there twice"),
        ("", "no benchmark in it"),
        ("a: [", "not YAML"),
    ],
)
def test_a_mistake_in_a_file_is_one_line_that_names_it(tmp_path: Path, text: str, found: str) -> None:
    with pytest.raises(BenchmarkDataError) as raised:
        suite.read(written(tmp_path, text), tmp_path)
    assert found in str(raised.value)
    assert str(raised.value).startswith(f"{tmp_path / 'mine.yaml'}:")
    assert "\n" not in str(raised.value)


def test_an_unknown_suite_is_told_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(
        BenchmarkDataError, match="suite 'sugarcrape': no such file, and nearest is sugarcrepe"
    ):
        suite.read("sugarcrape", tmp_path)


def test_benchmarks_named_one_by_one_are_relative_to_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = [("sugarcrepe", "swap_obj.json"), ("sugarcrepe", "swap_att.json"), ("shards", "held/*.tar")]
    first, second, third = suite.from_options(named, ["val2017"])
    names = [e.name for e in (first, second, third)]
    assert names == ["sugarcrepe-swap_obj", "sugarcrepe-swap_att", "shards"]
    assert first.options == {"file": tmp_path / "swap_obj.json", "images": tmp_path / "val2017"}
    assert third.options == {"shards": (str(tmp_path / "held/*.tar"),)}
    (classes,) = suite.from_options([("zero-shot", "pets")], [])
    assert classes.options == {"images": tmp_path / "pets"}
    with pytest.raises(BenchmarkDataError, match="--images: 2 folders for 3 benchmarks"):
        suite.from_options(named, ["a", "b"])
    with pytest.raises(BenchmarkDataError, match="--benchmark sugarcrep=a: kind 'sugarcrep' is unknown"):
        suite.from_options([("sugarcrep", "a")], [])


def test_the_package_ships_its_suites() -> None:
    assert '"evaluate/suites/*.yaml"' in (ROOT / "pyproject.toml").read_text()
