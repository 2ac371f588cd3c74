"""jobs/audit.py: one line, then everything that is not trained once; the exit code says whether that is all right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sclip.config import Config, RunConfig, TrainConfig
from sclip.config.loader import to_tree
from sclip.data.schedule import NamedShard, Schedule
from sclip.run.audit.account import audit
from sclip.train.ledger import Ledger
from sclip.train.run_folder import RunFolder
from sclip.train.run_inputs import record_inputs
from support.audited_runs import Run, dealt, keys, passes, tar_bytes
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
    run.attempt(0, dealt([row for row in ROWS if row not in bad], 2))
    run.quarantine(*bad[:2])
    run.quarantine(bad[2], key="0005", reason="no image")
    found = job(run.folder)
    assert (found.returncode, found.stderr) == (0, "")
    first, second = run.sources[0]
    assert found.stdout.splitlines() == [
        "epochs=2 expected=128 trained_once=125 missed=0 repeated=0 quarantined=3",
        f"quarantined {first} row 5: 0005: no image",
        f"quarantined {second} row 1: 0001: no caption (2 passes)",
    ]


def test_missed_and_repeated_rows_are_listed_in_parts_unless_all_are_asked_for(
    run: Run, tmp_path: Path
) -> None:
    kept = [row for row in ROWS if row[1:3] != (0, 0) or row[3] % 2]
    run.attempt(0, dealt([*kept, (0, 1, 1, 0)], 2))
    (run.folder / "complete.json").unlink()
    out = tmp_path / "audit.json"
    some, every = job("r", "--storage", tmp_path), job(run.folder, "--all", "--json", out)
    assert some.returncode == every.returncode == 1
    first, second = run.sources[0]
    lines = some.stdout.splitlines()
    assert lines[0] == "epochs=2 expected=128 trained_once=97 missed=30 repeated=1 quarantined=0"
    assert lines[1].startswith("the run is not complete")
    assert lines[2] == (
        f"missed      {first} pass 0: rows {', '.join(map(str, range(0, 40, 2)))}, ... and 10 more ranges"
    )
    assert lines[3:] == [f"repeated    {second} pass 1: rows 0"]
    assert every.stdout.splitlines()[2].endswith("52, 54, 56, 58")
    written = json.loads(out.read_text())
    assert (written["complete"], written["missed"], written["repeated"], written["unknown"]) == (
        False,
        30,
        1,
        0,
    )
    (missed,) = written["missed_rows"]
    assert (missed["shard"], missed["pass"], missed["ranges"]) == (
        str(first), 0, [[row, row] for row in range(0, 60, 2)],
    )  # fmt: skip


def test_more_lines_of_a_kind_than_are_looked_at_are_counted(tmp_path: Path) -> None:
    run = Run.of(tmp_path, [1, 1], epochs=15)
    run.attempt(0, dealt(passes([1, 1], 15)[:1], 1))
    lines = job(run.folder).stdout.splitlines()
    assert lines[0] == "epochs=15 expected=30 trained_once=1 missed=29 repeated=0 quarantined=0"
    assert len(lines) == 22
    assert lines[-1] == "missed      ... and 9 more (--all lists them)"
    assert len(job(run.folder, "--all").stdout.splitlines()) == 30


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        ("runs/r/shards.json", "shards.json: no such file"),
        ("runs/r/ledger/0000-00000.jsonl", "ledger: no ledger"),
        ("source-0-1.tar", "source-0-1.tar: cannot be read: No such file"),
    ],
)
def test_what_is_missing_for_an_audit_is_named(run: Run, tmp_path: Path, gone: str, told: str) -> None:
    run.attempt(0, dealt(ROWS, 1))
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
    shards = [tmp_path / f"{number}.tar" for number in range(3)]
    for shard in shards:
        shard.write_bytes(tar_bytes(keys(6)))
    folder, schedule = RunFolder(tmp_path / "runs" / "r"), Schedule(3, 2, (3,))
    config = Config(run=RunConfig(seed=3), train=TrainConfig(epochs=2))
    record_inputs(
        folder, to_tree(config), [{NamedShard(f"0/{shard.name}", str(shard)): 6 for shard in shards}]
    )
    first = Ledger(folder.path, schedule, rank=0, world_size=1, from_step=0)
    for entry in range(4):
        first.add(entry + 1, ([entry] * 5, [1, 2, 3, 4, 5]), ([entry], [0]))
    second = Ledger(folder.path, schedule, rank=0, world_size=1, from_step=3)
    for entry in (3, 4):
        second.add(entry + 1, ([entry] * 6, [5, 4, 3, 2, 1, 0]), ([], []))
    second.add(6, ([5] * 5, [0, 1, 3, 4, 5]), ([], []))
    first.close()
    second.close()
    visit = schedule.visit(5)
    place = {
        "source": 0,
        "pass": visit.pass_,
        "name": f"0/{visit.shard}.tar",
        "shard": str(shards[visit.shard]),
    }
    folder.set_aside([place | {"step": 6, "index": 2, "key": "0002", "reason": "no image"}])
    folder.finish({})
    found = job(folder.path)
    assert (found.returncode, found.stderr) == (0, "")
    line = "epochs=2 expected=36 trained_once=32 missed=0 repeated=0 quarantined=1 filtered=3"
    assert found.stdout.splitlines()[0] == line

    ledger = folder.path / "ledger" / "0001-00000.jsonl"
    written = ledger.read_text()
    ledger.write_text(written.replace("[5,4,3,2,1,0]", "[5,4,2,1,0]", 1))
    assert ledger.read_text() != written
    (missed,) = audit(folder.path).missed_rows
    visit = schedule.visit(3)
    assert (missed.shard, missed.pass_, missed.ranges) == (str(shards[visit.shard]), visit.pass_, ((3, 3),))


def test_a_reader_that_has_seen_enough_ends_it_quietly_and_leaves_the_status(run: Run) -> None:
    run.attempt(0, dealt(ROWS[1:], 2))
    command = [sys.executable, str(JOB), str(run.folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(120) == 1
