"""What the end of a shard tells, from its reader to the counters of the run: once, and held against the threshold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from sclip.config import Config, DataConfig, TrainConfig
from sclip.data import columns as col
from sclip.data import reader
from sclip.data.batches import Batch
from sclip.data.reader import ReadSettings, read_visit
from sclip.data.schedule import NamedShard, Schedule, Visit
from sclip.data.shards import read_shard
from sclip.data.side_channel import Marker, Note, VisitEnd
from sclip.data.tar import Tally
from sclip.train.launcher import Launcher, TrainJob
from sclip.train.sample_accounts import RunCounters, SampleAccounts, TooManyQuarantined
from support.tars import pair, tar_bytes

ROWS = 4
TOLD = VisitEnd(3, 0, 7, {".large.jpg": 2}, {"tags": 1})


def accounts(
    folder: Path, samples: int, state: dict[str, Any] | None = None, limit: float = 0.1
) -> SampleAccounts:
    config = Config(data=DataConfig(max_quarantined=limit), train=TrainConfig(epochs=1))
    names = (tuple(NamedShard(f"0/{number}.tar", f"/s/{number}.tar") for number in range(9)),)
    job = TrainJob(
        config, Schedule(0, config.train.epochs, (9,)), names, 64, folder, samples * config.train.epochs
    )
    return SampleAccounts(job, cast(Launcher, SimpleNamespace(rank=0, world_size=1)), state)


def batch_of(entry: int, ordinals: range, end: VisitEnd | None = None) -> Batch:
    """Return a batch of rows of an entry of four, with its end where there is one."""
    ends = [Marker(entry, ROWS, ROWS, col.END, "/s/0.tar", end.to_json())] if end else []
    places = np.array(ordinals, np.int64)
    return Batch({}, len(places), np.full(len(places), entry), places, places, (Note(ends),))


def step(of: SampleAccounts, batch: Batch) -> None:
    of.count(*of.receive(batch), batch.rows)
    of.trained(batch, batch.rows)


def test_a_reader_tells_at_its_end_what_is_missing_and_what_it_did_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = NamedShard("0/0.tar", str(tmp_path / "0.tar"))
    Path(shard.url).write_bytes(tar_bytes([m for key in "abcd" for m in pair(key)]) + bytes(90_000))

    def tallied(url: str, data: DataConfig, tally: Tally) -> Iterator[Any]:
        yield from read_shard(url, data, tally)
        tally.unread[".large.jpg"] += 2
        tally.cleaned["tags"] += 1

    def told(expected: int) -> VisitEnd:
        (*_, table) = read_visit(
            ReadSettings(Config()), shard, 0, Visit(0, 0, 0), [range(2)], expected=expected
        )
        end = table.to_pylist()[-1]
        assert (end[col.STATUS], end[col.ORDINAL]) == (col.END, 5)  # the rest of the tar is a row
        return VisitEnd.from_json(end[col.REASON])

    assert [told(expected) for expected in (-1, 4)] == [VisitEnd(), VisitEnd()]
    monkeypatch.setattr(reader, "read_shard", tallied)
    assert told(7) == TOLD
    assert told(1) == VisitEnd(0, 3, 0, TOLD.unread, TOLD.cleaned)


def test_the_end_of_a_visit_that_is_resumed_is_counted_once(tmp_path: Path) -> None:
    first = accounts(tmp_path, 90)
    step(first, batch_of(0, range(2), TOLD))
    assert first.missing == 3
    first.settle(1)
    state = json.loads(json.dumps({"progress": vars(first.progress), "position": first.position.to_json()}))
    second = accounts(tmp_path, 90, state)
    step(second, batch_of(0, range(2, ROWS), TOLD))
    step(second, batch_of(1, range(ROWS), TOLD))
    second.settle(3)
    assert vars(second.progress) == vars(
        RunCounters(3, 8, missing=6, unread={".large.jpg": 4}, cleaned={"tags": 2})
    )
    assert second.position.low == 2
    lines = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    assert [(line["step"], line["key"], line["index"], line["missing"]) for line in lines] == [
        (1, "", 4, 3),
        (3, "", 4, 3),
    ]
    assert lines[0]["reason"] == "3 of the 7 samples that are recorded are missing"


@pytest.mark.parametrize(("limit", "stops"), [(0.1, True), (0.3, False)])
def test_missing_samples_stop_a_run_once_they_are_too_many_of_all(
    tmp_path: Path, limit: float, stops: bool
) -> None:
    of = accounts(tmp_path, 36, limit=limit)
    step(of, batch_of(0, range(ROWS), TOLD))  # 3 of 39: a shard is lost at once, and the others may be whole
    if not stops:
        step(of, batch_of(1, range(ROWS), TOLD))
        return
    with pytest.raises(TooManyQuarantined) as raised:
        step(of, batch_of(1, range(ROWS), TOLD))
    assert "6 that are recorded are missing, above data.max_quarantined=0.1" in str(raised.value)
    assert "3 of the 7 samples that are recorded are missing" in str(raised.value)
