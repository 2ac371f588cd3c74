"""The table `what people bring` in sclip/data/README.md, row by row: input, result, and where people are told.

Each row's files are written and processed as in a run: counted at the start, read shard by shard, and validated.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pytest

from sclip.config import ConfigError, DataConfig
from sclip.config.loader import load
from sclip.data.counts import recorded_samples
from sclip.data.images import image_digest
from sclip.data.shards import Sample, ShardError, read_shard
from sclip.data.tar import Tally
from sclip.prepare.validate import Findings, Validator
from sclip.run.resolve import read_data
from support.brought import ROWS, TOLD, Row
from support.paths import ROOT


def laid_out(row: Row, folder: Path) -> list[str]:
    """Write a row's files; return the overrides of a run that reads them."""
    for name, content in row.make().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [f"data.shards={folder}/{row.shards.format(folder=folder)}", *row.overrides]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.brought)
def test_what_people_bring_becomes_what_the_readme_says(row: Row, tmp_path: Path) -> None:
    overrides = laid_out(row, tmp_path)
    if row.is_refused:
        with pytest.raises((ConfigError, ShardError), match=row.says) as refused:
            read_data(load(overrides))
        assert "\n" not in str(refused.value)
        return
    config = load(overrides)
    data = read_data(config)
    tally, identities, images, reasons = Tally(), list[str](), set[int](), list[str]()
    for source in data.sources:
        for shard in source:
            counted = Tally()
            for item in read_shard(shard.url, config.data, counted):
                if isinstance(item, Sample):
                    identities.append(shard.identity(item.key))
                    images.add(image_digest(item.image))
                else:
                    reasons.append(item.reason)
            tally.unread += counted.unread
            tally.cleaned += counted.cleaned
    assert len(identities) == len(set(identities)) == row.samples
    assert len(images) == (row.samples if row.images is None else row.images)
    assert any(row.set_aside in reason for reason in reasons) if row.set_aside else not reasons
    report = "\n".join([*data.losses.lines(), *tally.lines()])
    assert re.search(row.says, report), report
    assert is_clean([*data.shards, *data.losses.unreadable], config.data) == (row.told != TOLD)


def is_clean(shards: list[str], data: DataConfig) -> bool:
    """Return whether `sclip validate` finds no problem in these shards, as its exit status would say."""
    findings = Findings()
    for content in Validator(data, 8)(pa.table({"shard": shards}))["findings"].to_pylist():
        findings.merge(Findings(**json.loads(content)))
    records = recorded_samples(shards, data.shards)
    findings.compare(records, records.keys() - set(shards))
    return findings.is_clean


def test_the_readme_has_these_rows_and_no_others() -> None:
    text = (ROOT / "sclip/data/README.md").read_text()
    table = text[text.index("| what people bring |") :].partition("\n\n")[0].splitlines()[2:]
    assert table == [f"| {row.brought} | {row.becomes} | {row.told} |" for row in ROWS]
