"""The ledger: one file per attempt and rank that lists the rows trained on and left out in each step."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from sclip.data.schedule import Schedule
from sclip.train.ledger import Ledger

SCHEDULE = Schedule.weighted(5, 3, [[10, 10, 10], [4, 4]], (1.0, 2.0))

Steps = list[tuple[int, tuple[list[int], list[int]], tuple[list[int], list[int]]]]
"""Step number, (entries, indices) of the trained rows, and (entries, indices) of the filtered rows."""


def write(folder: Path, rank: int, world_size: int, from_step: int, steps: Steps) -> None:
    with contextlib.closing(Ledger(folder, SCHEDULE, rank, world_size, from_step)) as ledger:
        for number, *rows in steps:
            ledger.add(number, *rows)
            written = [line for file in (folder / "ledger").glob("*") for line in lines(file)]
            # A killed worker leaves all its steps except the one in progress.
            assert any(line.get("step") == number for line in written) == any(map(any, rows))
        ledger.sync()


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_file_begins_with_its_attempt_and_has_a_line_for_each_step_with_rows(
    tmp_path: Path,
) -> None:
    """A row is named by the visit of its entry in the schedule, and by its index in the tar."""
    steps: Steps = [
        (41, ([7, 2, 7, 2], [3, 0, 1, 9]), ([], [])),
        (42, ([7], [0]), ([2, 4, 2], [5, 1, 6])),
        (43, ([], []), ([4], [2])),
        (44, ([], []), ([], [])),
    ]
    write(tmp_path, rank=0, world_size=1, from_step=40, steps=steps)
    visit = {entry: list(SCHEDULE.visit(entry)) for entry in (2, 4, 7)}
    assert len({tuple(fields) for fields in visit.values()}) == 3
    assert lines(tmp_path / "ledger" / "0000-00000.jsonl") == [
        {"attempt": 0, "rank": 0, "world_size": 1, "from_step": 40},
        {"step": 41, "trained": [[*visit[7], [3, 1]], [*visit[2], [0, 9]]]},
        {"step": 42, "trained": [[*visit[7], [0]]], "filtered": [[*visit[2], [5, 6]], [*visit[4], [1]]]},
        {"step": 43, "filtered": [[*visit[4], [2]]]},
    ]


def test_attempts_count_up_and_change_no_earlier_file(tmp_path: Path) -> None:
    write(tmp_path, 0, 1, 0, [(1, ([0], [0]), ([], []))])
    first = (tmp_path / "ledger" / "0000-00000.jsonl").read_bytes()
    (tmp_path / "ledger" / "0011-00003.jsonl").touch()  # an attempt whose rank 0 left no file
    write(tmp_path, 0, 1, 20, [])
    assert len(list((tmp_path / "ledger").iterdir())) == 3
    assert lines(tmp_path / "ledger" / "0012-00000.jsonl")[0]["attempt"] == 12
    assert (tmp_path / "ledger" / "0000-00000.jsonl").read_bytes() == first
