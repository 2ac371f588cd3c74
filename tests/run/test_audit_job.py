"""`sclip audit` prints one line, then every row not trained exactly once; its status says whether the run is exact."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.audited_runs import Run, passes
from support.commands import command

SIZES = (60, 4)
job = command("audit")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.of(tmp_path, SIZES)


def test_an_exact_run_prints_one_line_and_its_quarantined_rows(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [(0, 0, 1, 1), (0, 1, 1, 1), (0, 1, 0, 5)]
    run.attempt(0, run.steps(2, without=bad))
    run.quarantine(*bad[:2])
    run.quarantine(bad[2], key="0005", reason="no image")
    assert job(run.folder) == 0
    first, second = run.sources[0]
    output = capsys.readouterr()
    assert (output.err, output.out.splitlines()) == ("", [
        "epochs=2 expected=128 trained_once=125 missed=0 repeated=0 quarantined=3 order=exact",
        f"quarantined {first} row 5: 0005: no image",
        f"quarantined {second} row 1: 0001: no caption (2 passes)",
    ])  # fmt: skip


def test_missed_and_repeated_rows_are_listed_in_parts_unless_all_are_asked_for(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = run.steps(2, without=[row for row in passes(SIZES) if row[1:3] == (0, 0) and row[3] % 2 == 0])
    last = max(steps)
    steps[last][0].append((0, 1, 1, 0))
    run.attempt(0, steps)
    (run.folder / "complete.json").unlink()
    out = tmp_path / "audit.json"
    assert job("r", "--storage", tmp_path) == 1
    lines = capsys.readouterr().out.splitlines()
    first, second = run.sources[0]
    some = ", ".join(map(str, range(0, 40, 2)))
    assert lines.pop(1).startswith("the run is not complete")
    assert lines == [
        "epochs=2 expected=128 trained_once=97 missed=30 repeated=1 quarantined=0 order=differs",
        f"missed      {first} pass 0: rows {some}, ... and 10 more ranges",
        f"repeated    {second} pass 1: rows 0",
        f"differs     step {last} is the first whose rows differ from the order",
        f"extra       {second} pass 1: rows 0",
    ]
    ones = Run.of(tmp_path / "ones", [1, 1], epochs=15)
    ones.attempt(0, {1: [ones.steps()[1][0][:1]]})
    assert job(ones.folder) == 1
    assert capsys.readouterr().out.splitlines()[21] == "missed      ... and 9 more (--all lists them)"
    assert job(run.folder, "--all", "--json", out) == 1
    assert capsys.readouterr().out.splitlines()[2].endswith("52, 54, 56, 58")
    written = json.loads(out.read_text())
    numbers = {"complete": False, "missed": 30, "repeated": 1, "unknown": 0, "order": "differs"}
    assert written.items() >= numbers.items()
    assert written["first_difference"]["step"] == last
    (missed,) = written["missed_rows"]
    ranges = [[row, row] for row in range(0, 60, 2)]
    assert missed.items() >= {"shard": str(first), "pass": 0, "ranges": ranges}.items()


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("runs/r/shards.json", "shards.json: no such file"),
        ("runs/r/ledger/0000-00000.jsonl", "ledger: no ledger"),
        ("source-0-1.tar", "source-0-1.tar: cannot be read: No such file"),
        ("runs/r/config.json", "runs/r"),
    ],
)
def test_a_missing_input_of_the_audit_is_named(
    run: Run, tmp_path: Path, gone: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run.attempt(0, run.steps())
    (tmp_path / gone).unlink()
    assert job(run.folder) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("audit: ")
    assert message in line
