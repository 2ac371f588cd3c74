"""Suites: names and files become benchmarks with paths, and a mistake is one line with the nearest name."""

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


def test_a_suite_file_includes_named_suites_has_paths_relative_to_itself_and_takes_defaults(
    tmp_path: Path,
) -> None:
    text = (
        f"include: [winoground]\nrelation: {RELATION}\nlimited: {{kind: shards, shards: b.tar, limit: 3}}\n"
        "held: {kind: shards, shards: [heldout/*.tar, 's3://b/*.tar']}\n"
    )
    entries = suite.read(written(tmp_path, text), "/nowhere", {"limit": 7})
    winoground, relation, limited, held = entries
    assert [e.name for e in entries] == ["winoground", "relation", "limited", "held"]
    assert str(winoground.options["file"]).startswith("/nowhere/")
    assert relation.kind == "vg-relation"
    assert relation.options == {"file": tmp_path / "relation.json", "images": tmp_path / "images"}
    assert limited.options["limit"] == 3
    assert held.options == {"shards": (str(tmp_path / "heldout/*.tar"), "s3://b/*.tar"), "limit": 7}


def test_the_suite_all_has_every_benchmark_once_and_each_has_a_source(tmp_path: Path) -> None:
    names = [entry.name for entry in suite.read("all", tmp_path)]
    names_of_suites = {e.name for name in suite.names() for e in suite.read(name, tmp_path)}
    assert sorted(names) == sorted(names_of_suites) == sorted(sources.SOURCES)


@pytest.mark.parametrize("name", suite.names())
def test_a_suite_looks_for_files_where_their_source_says_they_belong(name: str, tmp_path: Path) -> None:
    for entry in suite.read(name, tmp_path):
        places = [tmp_path / file for file, _ in sources.SOURCES[entry.name].files]
        for path in (entry.options[key] for key in ("file", "images") if key in entry.options):
            assert any(path == file or path in file.parents for file in places), entry


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {kind: vg-relations, file: a}", "a: kind 'vg-relations' is unknown; nearest is vg-relation"),
        ("a: {kind: vg-relation, fil: a.json}", "a: vg-relation takes no option 'fil'; nearest is file"),
        ("a: {kind: vg-relation}", "a: vg-relation needs file"),
        ("a: {kind: shards, shards: []}", "a: shards needs shards"),
        ("a: {kind: shards, shards: [1]}", "must be a path or a list"),
        ("a: {kind: retrieval, file: a.json, captions: -1}", "captions=-1: must be a whole number"),
        ("a: {kind: zero-shot, images: 3}", "a: images=3: must be text"),
        ("a: relation.json", "a: must have a kind: one of vg-relation"),
        ("a b: {kind: vg-relation, file: a.json}", "a benchmark's name has letters"),
        ("include: aro", "include must be a list"),
        ("include: [arro]", "include: 'arro': nearest is aro"),
        (f"include: [aro]\nvg-relation: {RELATION}", "two benchmarks have the name vg-relation"),
        ("", "no benchmarks; write one as NAME"),
        ("a: [", "not YAML"),
    ],
)
def test_a_mistake_in_a_suite_file_is_one_line_that_names_the_file(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(BenchmarkDataError) as raised:
        suite.read(written(tmp_path, text), tmp_path)
    assert message in str(raised.value)
    assert str(raised.value).startswith(f"{tmp_path / 'mine.yaml'}:")
    assert "\n" not in str(raised.value)


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


def test_the_package_ships_its_suites() -> None:
    assert '"evaluate/suites/*.yaml"' in (ROOT / "pyproject.toml").read_text()
