"""The run's counters of what the ends of shards report: counted once, and compared with the threshold."""

from __future__ import annotations

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
from sclip.train.sample_accounts import RunCounters, SampleAccounts, TooManyQuarantined

ROWS = 4
END = VisitEnd(missing=3, recorded=7, unread={".large.jpg": 2}, cleaned={"tags": 1}, foreign={"empty": 3})


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
    lines = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    assert [(line["step"], line["key"], line["index"], line["missing"]) for line in lines] == [
        (1, "", 4, 3),
        (3, "", 4, 3),
    ]
    assert lines[0]["reason"] == "3 of the 7 recorded samples are missing"


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
