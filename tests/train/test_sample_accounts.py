"""What a run records of its samples: counters of what the ends of shards report, and each rank's ledger of rows."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from sclip.config import Config, DataConfig
from sclip.data import columns as col
from sclip.data.batches import Batch
from sclip.data.columns import Marker, VisitEnd
from sclip.data.order import Order
from sclip.data.schedule import NamedShard, Schedule
from sclip.train.launcher import Launcher, TrainJob
from sclip.train.sample_accounts import Ledger, RunCounters, SampleAccounts, TooManyQuarantined

ROWS = 4
END = VisitEnd(missing=3, recorded=7, unread={".large.jpg": 2}, cleaned={"tags": 1}, foreign={"empty": 3})

SCHEDULE = Schedule.weighted(5, 3, [[10, 10, 10], [4, 4]], (1.0, 2.0))
"""Schedule of the ledgers."""

Steps = list[tuple[int, tuple[list[int], list[int]], tuple[list[int], list[int]]]]
"""Step number, (entries, indices) of the trained rows, and (entries, indices) of the filtered rows."""


def accounts(
    folder: Path, state: dict[str, Any] | None = None, limit: float = 0.1, shards: int = 9
) -> SampleAccounts:
    config = Config(data=DataConfig(max_quarantined=limit))
    names = (tuple(NamedShard(f"0/{number}.tar", f"/s/{number}.tar") for number in range(shards)),)
    order = Order(Schedule(0, 1, (shards,)), (shards * (ROWS,),), 1, ROWS)
    job = TrainJob(config, order, names, 64, folder)
    return SampleAccounts(job, cast(Launcher, SimpleNamespace(rank=0, world_size=1)), state)


def batch_of(entry: int, end: VisitEnd | None = None, rejected: Sequence[int] = ()) -> Batch:
    """Return the batch of an entry's rows, which fill one step, with the end of its shard if given."""
    rows = [index for index in range(ROWS) if index not in rejected]
    markers = [Marker(entry, ROWS * entry + i, i, col.REJECTED, str(i), "not a picture") for i in rejected]
    if end:
        markers.append(Marker(entry, ROWS * entry + ROWS - 1, ROWS, col.END, "/s/0.tar", end.to_json()))
    return Batch({}, len(rows), np.full(len(rows), entry), np.array(rows, np.int64), tuple(markers))


def step(account: SampleAccounts, batch: Batch) -> None:
    account.count(*account.receive(batch), batch.rows)
    account.trained(batch, batch.rows)


def test_reports_at_the_ends_of_shards_are_counted_once_across_a_resume(tmp_path: Path) -> None:
    first = accounts(tmp_path, limit=0.3)
    step(first, batch_of(0, END))
    first.settle(1)
    second = accounts(tmp_path, json.loads(json.dumps({"progress": vars(first.progress)})), 0.3)
    assert second.missing == 3
    step(second, batch_of(1, VisitEnd(more=2)))
    step(second, batch_of(2, END))
    second.settle(3)
    assert vars(second.progress) == vars(
        RunCounters(
            3,
            12,
            missing=6,
            beyond={"1": 2},
            unread={".large.jpg": 4},
            cleaned={"tags": 2},
            foreign={"empty": 6},
        )
    )
    quarantined = lines(tmp_path / "quarantine.jsonl")
    assert [(line["step"], line["key"], line["index"], line["missing"]) for line in quarantined] == [
        (1, "", 4, 3),
        (3, "", 4, 3),
    ]
    assert quarantined[0]["reason"] == "3 of the 7 recorded samples are missing"


def test_a_run_stops_if_too_many_samples_are_missing_or_all_are_unreadable(
    tmp_path: Path,
) -> None:
    account = accounts(tmp_path, limit=0.1)
    step(account, batch_of(0, END))  # 3 of 39 do not stop it: one shard may lack many while others are whole
    with pytest.raises(TooManyQuarantined) as raised:
        step(account, batch_of(1, END))
    assert "6 recorded samples are missing, above data.max_quarantined=0.1" in str(raised.value)
    assert "3 of the 7 recorded samples are missing" in str(raised.value)
    account = accounts(tmp_path, limit=1.0, shards=2)
    step(account, batch_of(0, rejected=range(ROWS)))
    with pytest.raises(TooManyQuarantined, match="8 of 8 samples cannot be trained on"):
        step(account, batch_of(1, rejected=range(ROWS)))


def write_ledger(folder: Path, rank: int, world_size: int, from_step: int, steps: Steps) -> None:
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
    write_ledger(tmp_path, rank=0, world_size=1, from_step=40, steps=steps)
    visit = {entry: list(SCHEDULE.visit(entry)) for entry in (2, 4, 7)}
    assert len({tuple(fields) for fields in visit.values()}) == 3
    assert lines(tmp_path / "ledger" / "0000-00000.jsonl") == [
        {"attempt": 0, "rank": 0, "world_size": 1, "from_step": 40},
        {"step": 41, "trained": [[*visit[7], [3, 1]], [*visit[2], [0, 9]]]},
        {"step": 42, "trained": [[*visit[7], [0]]], "filtered": [[*visit[2], [5, 6]], [*visit[4], [1]]]},
        {"step": 43, "filtered": [[*visit[4], [2]]]},
    ]


def test_attempts_count_up_and_change_no_earlier_file(tmp_path: Path) -> None:
    write_ledger(tmp_path, 0, 1, 0, [(1, ([0], [0]), ([], []))])
    first = (tmp_path / "ledger" / "0000-00000.jsonl").read_bytes()
    (tmp_path / "ledger" / "0011-00003.jsonl").touch()  # an attempt whose rank 0 left no file
    write_ledger(tmp_path, 0, 1, 20, [])
    assert len(list((tmp_path / "ledger").iterdir())) == 3
    assert lines(tmp_path / "ledger" / "0012-00000.jsonl")[0]["attempt"] == 12
    assert (tmp_path / "ledger" / "0000-00000.jsonl").read_bytes() == first
