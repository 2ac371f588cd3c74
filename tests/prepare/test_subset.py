"""A subset holds what a run with the same filter trains on, whole and in shards like any others."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sclip.config import DataConfig
from sclip.data import annotation
from sclip.data import columns as col
from sclip.data.patterns import expand
from sclip.data.shards import Sample, read_shard
from sclip.data.stream import StreamPlan
from sclip.prepare.annotate import stamp, usable_stamp
from sclip.scenegraph import Parser
from support.annotated_shards import LEAST, annotate_here, jpeg, plan, rows, seen, write_plain
from support.commands import command
from support.tars import tar_bytes


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_plain(tmp_path_factory.mktemp("plain"), samples=24, per_shard=9)


@pytest.fixture(scope="module")
def filtered(plain: list[str], tmp_path_factory: pytest.TempPathFactory, parser: Parser) -> StreamPlan:
    annotated = annotate_here(plain, tmp_path_factory.mktemp("annotated") / "out", parser)
    return plan(annotated, stamp(parser), **LEAST)


@pytest.fixture(scope="module")
def subset_job() -> Callable[..., int]:
    return command("subset")


OPTIONS = ("--min-objects", "2", "--min-attributes", "1", "--min-relations", "1")


def test_a_run_over_the_subset_trains_on_what_a_run_with_the_filter_does(
    filtered: StreamPlan, parser: Parser, subset_job: Callable[..., int], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "subset"
    assert subset_job(*filtered.shards, out, "--samples-per-shard", "4", *OPTIONS) == 0
    shards = expand([f"{out}/*.tar"])
    of = plan(shards, stamp(parser))
    of_subset, of_filter = ({(pass_, key) for pass_, key, _ in seen(one)} for one in (of, filtered))
    assert of_subset == of_filter
    assert seen(plan(shards)) == seen(of)  # without the annotations: the captions alone
    assert not any(row[col.STATUS] == col.FILTERED for row in rows(plan(shards, stamp(parser), **LEAST)))
    items = [item for shard in shards for item in read_shard(shard) if isinstance(item, Sample)]
    captions = sum(len(item.captions) for item in items)
    said = capsys.readouterr()
    assert f"kept {len(items)} of 24 samples, {captions} of 72 captions, in {len(shards)} shards" in said.out
    assert said.err == ""
    assert json.loads((out / "index.json").read_text())["samples"] == len(items)
    for item in items:
        records = annotation.read_stamped(item, stamp(parser))
        graphs = [annotation.read_record(*of)[0] for of in zip(records, item.captions, strict=True)]
        assert graphs == parser.parse(list(item.captions))
        assert json.loads(item.members["json"])["id"] == int(item.key[1:])


def test_other_names_than_webdatasets_are_read_as_a_run_does_and_the_subset_has_plain_ones(
    parser: Parser, subset_job: Callable[..., int], tmp_path: Path
) -> None:
    plain = tmp_path / "plain.tar"
    members = [
        (f"clip{clip}.{frame:05d}.{suffix}", body)
        for clip, frame in ((7, 0), (7, 1), (8, 0))
        for suffix, body in (("jpg", jpeg(frame)), ("cap", f"a dog {'on a mat' * frame}".encode()))
    ]
    plain.write_bytes(tar_bytes(members))
    reading = DataConfig(key_ends_at="last_dot", text_suffixes=("cap",))
    (annotated,) = annotate_here([str(plain)], tmp_path / "annotated", parser, **reading.reading())
    items = list(read_shard(annotated, reading))
    assert [item.key for item in items] == ["clip7.00000", "clip7.00001", "clip8.00000"]
    assert usable_stamp(dataclasses.replace(reading, min_objects=1), [annotated]) == stamp(parser)
    keys = ("--data", "key_ends_at=last_dot", "--data", "data.text_suffixes=cap")
    assert subset_job(annotated, tmp_path / "out", "--min-relations", "1", *keys) == 0
    (kept,) = read_shard(str(tmp_path / "out" / "000000.tar"))
    assert isinstance(kept, Sample)
    assert (kept.key, kept.captions) == ("clip7_00001", ("a dog on a mat",))


def test_a_subset_of_what_is_not_annotated_or_passes_nothing_is_one_line(
    plain: list[str], filtered: StreamPlan, subset_job: Callable[..., int], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "subset"
    cases: list[tuple[list[object], str]] = [
        ([*plain, out, *OPTIONS], "no sample to pack"),
        ([*filtered.shards, out, "--min-objects", "50"], "no sample to pack"),
        ([*filtered.shards, out], "nothing to filter by"),
        ([tmp_path / "none.tar", out, *OPTIONS], "no such shard"),
        (
            [*filtered.shards, Path(filtered.shards[0]).parent, "--overwrite", *OPTIONS],
            "holds the source",
        ),
    ]
    for arguments, message in cases:
        assert subset_job(*arguments) == 2
        error = capsys.readouterr().err
        assert message in error.splitlines()[-1]
        assert ("24 skipped: not annotated" in error) == (arguments[0] == plain[0])
