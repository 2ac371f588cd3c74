"""jobs/audit.py: one line, then everything that is not trained once; the exit code says whether that is all right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sclip.config.loader import to_tree
from sclip.data.schedule import NamedShard, Visit
from sclip.run.audit.account import audit
from sclip.train.ledger import Ledger
from sclip.train.run_folder import RunFolder
from sclip.train.run_inputs import record_inputs
from support.audited_runs import Run, passes
from support.paths import ROOT

JOB = ROOT / "jobs" / "audit.py"
SIZES = (60, 4)
ROWS = passes(SIZES)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.of(tmp_path, SIZES)


def job(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(JOB), *map(str, arguments)],
        capture_output=True, text=True, timeout=120, check=False, env=os.environ,
    )  # fmt: skip


def test_an_exact_run_is_one_line_and_what_was_set_aside(run: Run) -> None:
    bad = [(0, 0, 1, 1), (0, 1, 1, 1), (0, 1, 0, 5)]
    run.attempt(0, run.steps(2, without=bad))
    run.quarantine(*bad[:2])
    run.quarantine(bad[2], key="0005", reason="no image")
    found = job(run.folder)
    assert (found.returncode, found.stderr) == (0, "")
    first, second = run.sources[0]
    assert found.stdout.splitlines() == [
        "epochs=2 expected=128 trained_once=125 missed=0 repeated=0 quarantined=3 order=exact",
        f"quarantined {first} row 5: 0005: no image",
        f"quarantined {second} row 1: 0001: no caption (2 passes)",
    ]


def test_missed_and_repeated_rows_are_listed_in_parts_unless_all_are_asked_for(
    run: Run, tmp_path: Path
) -> None:
    steps = run.steps(2, without=[row for row in ROWS if row[1:3] == (0, 0) and row[3] % 2 == 0])
    steps[max(steps)][0].append((0, 1, 1, 0))
    run.attempt(0, steps)
    (run.folder / "complete.json").unlink()
    out = tmp_path / "audit.json"
    some, every = job("r", "--storage", tmp_path), job(run.folder, "--all", "--json", out)
    assert some.returncode == every.returncode == 1
    first, second = run.sources[0]
    lines = some.stdout.splitlines()
    assert (
        lines[0] == "epochs=2 expected=128 trained_once=97 missed=30 repeated=1 quarantined=0 order=differs"
    )
    assert lines[1].startswith("the run is not complete")
    assert lines[2] == (
        f"missed      {first} pass 0: rows {', '.join(map(str, range(0, 40, 2)))}, ... and 10 more ranges"
    )
    assert lines[3:] == [
        f"repeated    {second} pass 1: rows 0",
        f"differs     step {max(steps)} is the first whose rows are not those of the order",
        f"extra       {second} pass 1: rows 0",
    ]
    assert every.stdout.splitlines()[2].endswith("52, 54, 56, 58")
    written = json.loads(out.read_text())
    names = ("complete", "missed", "repeated", "unknown", "order")
    assert [written[name] for name in names] == [False, 30, 1, 0, "differs"]
    assert written["first_difference"]["step"] == max(steps)
    (missed,) = written["missed_rows"]
    assert (missed["shard"], missed["pass"], missed["ranges"]) == (
        str(first), 0, [[row, row] for row in range(0, 60, 2)],
    )  # fmt: skip


def test_more_lines_of_a_kind_than_are_looked_at_are_counted(tmp_path: Path) -> None:
    run = Run.of(tmp_path, [1, 1], epochs=15)
    run.attempt(0, {1: [run.steps()[1][0][:1]]})
    lines = job(run.folder).stdout.splitlines()
    assert lines[0] == "epochs=15 expected=30 trained_once=1 missed=29 repeated=0 quarantined=0 order=differs"
    assert lines[21] == "missed      ... and 9 more (--all lists them)"
    assert job(run.folder, "--all").stdout.count("\nmissed ") == 29


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        ("runs/r/shards.json", "shards.json: no such file"),
        ("runs/r/ledger/0000-00000.jsonl", "ledger: no ledger"),
        ("source-0-1.tar", "source-0-1.tar: cannot be read: No such file"),
    ],
)
def test_what_is_missing_for_an_audit_is_named(run: Run, tmp_path: Path, gone: str, told: str) -> None:
    run.attempt(0, run.steps())
    (tmp_path / gone).unlink()
    found = job(run.folder)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("audit: ")
    assert told in found.stderr
    assert found.stderr.count("\n") == 1


def test_a_run_that_is_not_there_is_told(tmp_path: Path) -> None:
    found = job("absent", "--storage", tmp_path)
    assert found.returncode == 2
    assert f"{tmp_path}/runs/absent" in found.stderr


def test_a_row_taken_out_of_the_ledger_that_a_run_itself_wrote_is_found(tmp_path: Path) -> None:
    run = Run.of(tmp_path, (6, 6, 6))
    for name in ("config.json", "shards.json", "complete.json"):
        (run.folder / name).unlink()
    folder, schedule = RunFolder(run.folder), run.order.schedule
    shards = [NamedShard(f"0/{path.name}", str(path)) for path in run.sources[0]]
    record_inputs(folder, to_tree(run.config), [dict.fromkeys(shards, 6)])
    entries = {schedule.visit(entry): entry for entry in range(len(schedule))}
    rows = {step: [(entries[Visit(*row[:3])], row[3]) for row in of] for step, (of,) in run.steps().items()}
    (bad, bad_row), filtered = rows[6].pop(), [rows[step].pop() for step in (1, 2, 3)]
    for from_step, steps in ((0, (1, 2, 3, 4)), (3, (4, 5, 6))):
        ledger = Ledger(folder.path, schedule, rank=0, world_size=1, from_step=from_step)
        for step in steps:
            of_step = [filtered[step - 1]] if step < 4 else []
            ledger.add(step, *(tuple(zip(*of, strict=True)) or ((), ()) for of in (rows[step], of_step)))
        ledger.close()
    visit = schedule.visit(bad)
    name, url = shards[visit.shard]
    place = {"step": 6, "source": 0, "pass": visit.pass_, "name": name, "shard": url, "index": bad_row}
    folder.set_aside([place | {"key": f"{bad_row:04d}", "reason": "no image"}])
    folder.finish({})
    found = job(folder.path)
    assert (found.returncode, found.stderr) == (0, "")
    line = "epochs=2 expected=36 trained_once=32 missed=0 repeated=0 quarantined=1 filtered=3 order=exact"
    assert found.stdout.splitlines()[0] == line

    path = folder.path / "ledger" / "0001-00000.jsonl"
    head, first, *rest = path.read_text().splitlines()
    step = json.loads(first)
    _, pass_, shard, rows_of_step = step["trained"][0]
    row = rows_of_step.pop()
    path.write_text("\n".join([head, json.dumps(step), *rest, ""]))
    (missed,) = audit(folder.path).missed_rows
    assert (missed.shard, missed.pass_, missed.ranges) == (str(shards[shard].url), pass_, ((row, row),))


def test_a_reader_that_has_seen_enough_ends_it_quietly_and_leaves_the_status(run: Run) -> None:
    run.attempt(0, run.steps(2, without=ROWS[:1]))
    command = [sys.executable, str(JOB), str(run.folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(120) == 1
