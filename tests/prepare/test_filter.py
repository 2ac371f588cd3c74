"""Annotated shards give the same batches as parsing. A run with a filter trains on the same samples as on a subset."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import ray
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rich.console import Console

from sclip.config import ConfigError, DataConfig, LossConfig
from sclip.config.loader import load
from sclip.data import annotation
from sclip.data import columns as col
from sclip.data.batches import Batches, Record
from sclip.data.columns import read_notes
from sclip.data.encode import Encoder
from sclip.data.patterns import expand
from sclip.data.shards import Sample, read_shard
from sclip.data.stream import StreamPlan
from sclip.prepare.annotate import stamp, usable_stamp
from sclip.run import pretrain
from sclip.run.summary import Summary
from sclip.scenegraph import Parser
from sclip.train import manifest
from support import annotated_shards as shards
from support.annotated_shards import EPOCHS, LEAST, SIDE, annotate_here, plan, rewritten, rows, seen, tables
from support.commands import command
from support.ray_head import Head
from support.stream_blocks import BLANK, Row, block
from support.tars import tar_bytes

Columns = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return shards.write_plain(tmp_path_factory.mktemp("plain"), samples=24, per_shard=9)


@pytest.fixture(scope="module")
def annotated(plain: list[str], tmp_path_factory: pytest.TempPathFactory, parser: Parser) -> list[str]:
    return annotate_here(plain, tmp_path_factory.mktemp("annotated") / "out", parser)


def blocks(stream_plan: StreamPlan) -> list[Columns]:
    return list(map(Encoder(stream_plan.config, SIDE), tables(stream_plan)))


# The same batches


@pytest.mark.parametrize("negatives", ["semantic", "shuffle"])
def test_annotated_and_plain_shards_give_the_same_batches(
    plain: list[str], annotated: list[str], parser: Parser, negatives: Literal["semantic", "shuffle"],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    loss = LossConfig(negatives=negatives)
    expected = blocks(plan(plain, loss=loss))
    monkeypatch.setattr(Parser, "parse", None)  # parsing fails from here on
    actual = blocks(plan(annotated, stamp(parser), loss))
    assert len(actual) == len(expected) > EPOCHS * 3
    for one, other in zip(actual, expected, strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() - {col.NOTE}:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)
        ends = [
            [marker[:4] for note in read_notes(columns[col.NOTE]) for marker in note.markers]
            for columns in (one, other)
        ]
        assert ends[0] == ends[1]  # without the key, which for an END row is the shard's path and differs
    assert any(block[col.HAS_NEGATIVE].any() for block in actual)


def broken(record: bytes, caption: str) -> list[bytes]:
    """Return malformed variants of a record."""
    value = json.loads(record)
    negative, *rest = value["negatives"]
    graph = value["graph"]
    assert negative["graph"]["attributes"]
    relation = {"subject": 99, "predicate": "on", "object": 0, "span": [0, 1]}
    changed: list[Any] = [
        [], {}, {"graph": graph}, value | {"graph": None}, value | {"negatives": [[]]},
        value | {"graph": graph | {"caption": f"{caption} too"}},
        value | {"graph": graph | {"relations": [relation]}},
        value | {"graph": graph | {"objects": [obj | {"name": 5} for obj in graph["objects"]]}},
        value | {"graph": graph | {"objects": [obj | {"name": "\ud800"} for obj in graph["objects"]]}},
        value | {"negatives": [negative | {"caption": None}, *rest]},
        value | {"negatives": [negative | {"kind": ["relation"]}, *rest]},
        *(value | {"negatives": [negative | {"strangeness": x}, *rest]} for x in (None, "1")),
        *(value | {"negatives": [negative | {"graph": graph | {"attributes": x}}, *rest]} for x in ([{}], [])),
    ]  # fmt: skip
    return [b"{", b"\xff", b"[" * 100_000, *(json.dumps(entry).encode() for entry in changed)]


def test_a_caption_with_a_malformed_record_is_parsed_and_nothing_else_changes(
    annotated: list[str], parser: Parser
) -> None:
    stream_plan = plan(annotated, stamp(parser))
    table = next(tables(stream_plan))
    encoder = Encoder(stream_plan.config, SIDE)
    expected = encoder(table)
    first = next(n for n in range(table.num_rows) if expected[col.HAS_NEGATIVE][n])
    for record in broken(table[col.RECORD][first].as_py(), table[col.CAPTION][first].as_py()):
        changed_rows = table.to_pylist()
        changed_rows[first][col.RECORD] = record
        actual = encoder(table.from_pylist(changed_rows, schema=table.schema))
        for name in expected.keys() - {col.NOTE}:
            np.testing.assert_array_equal(actual[name], expected[name], err_msg=f"{name} of {record[:80]!r}")


@pytest.mark.parametrize("member", [b"", b"no gzip", annotation.pack("rules-0", [b"{}"] * 3)])
def test_a_sample_with_an_unusable_annotation_is_parsed_or_rejected_if_a_filter_needs_it(
    annotated: list[str], parser: Parser, tmp_path: Path, member: bytes
) -> None:
    shard = rewritten(annotated[0], tmp_path / "x.tar", member)
    sample_rows = [row for row in rows(plan([shard], stamp(parser))) if row[col.STATUS] != col.END]
    assert {row[col.STATUS] for row in sample_rows} == {col.SAMPLE}
    assert {row[col.RECORD] for row in sample_rows} == {None}
    sample_rows = [row for row in rows(plan([shard], stamp(parser), **LEAST)) if row[col.STATUS] != col.END]
    assert {row[col.STATUS] for row in sample_rows} == {col.REJECTED}
    assert all("annot" in row[col.REASON] for row in sample_rows)


# The filter


@pytest.fixture(scope="module")
def filtered(annotated: list[str], parser: Parser) -> StreamPlan:
    return plan(annotated, stamp(parser), **LEAST)


def test_only_passing_captions_are_drawn_and_a_filtered_sample_moves_no_other(
    filtered: StreamPlan, plain: list[str], parser: Parser
) -> None:
    def passes(caption: str) -> bool:
        (graph,) = parser.parse([caption])
        return len(graph.objects) >= 2 and bool(graph.attributes) and bool(graph.relations)

    passing: dict[str, set[str]] = {}
    for shard in filtered.shards:
        for item in read_shard(shard):
            assert isinstance(item, Sample)
            passing[item.key] = {caption for caption in item.captions if passes(caption)}
    kept = {key for key, captions in passing.items() if captions}
    assert 0 < len(kept) < len(passing)
    assert any(len(captions) > 1 for captions in passing.values())
    drawn = seen(filtered)
    assert {(epoch, key) for epoch, key, _ in drawn} == {(e, key) for e in range(EPOCHS) for key in kept}
    assert all(caption in passing[key] for _, key, caption in drawn)
    places = (col.ENTRY, col.PLACE, col.INDEX)
    assert [[row[name] for name in places] for row in rows(filtered)] == [
        [row[name] for name in places] for row in rows(plan(plain))
    ]


@settings(max_examples=15)
@given(st.lists(st.integers(0, 18), max_size=3))
def test_with_a_filter_every_sample_is_trained_on_or_filtered_once_despite_crashes(
    filtered: StreamPlan, crashes: list[int]
) -> None:
    """A worker that resumes from a checkpoint takes the steps from there on."""
    step, trained, num_filtered = 0, 0, 0
    for stop in (*sorted(crashes), filtered.order.steps):
        stream_rows: list[Row] = [
            (row[col.ENTRY], row[col.PLACE], row[col.STATUS]) for row in rows(filtered, step)
        ]
        blocks = [block(stream_rows[start : start + 5]) for start in range(0, len(stream_rows), 5)]
        worker, record = Batches([blocks], filtered.order, step, BLANK), Record()
        for _ in range(step, stop):
            batch = worker.next()
            record.passed(batch)
            trained += batch.rows
        assert not record.rejected
        step, num_filtered = stop, num_filtered + record.filtered
    assert trained == len(seen(filtered))
    assert trained + num_filtered == EPOCHS * 24


# The subset

subset_job = command("subset")
OPTIONS = ("--min-objects", "2", "--min-attributes", "1", "--min-relations", "1")


def test_a_run_over_the_subset_trains_on_the_same_samples_as_a_run_with_the_filter(
    filtered: StreamPlan, parser: Parser, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "subset"
    assert subset_job(*filtered.shards, out, "--samples-per-shard", "4", *OPTIONS) == 0
    subset_shards = expand([f"{out}/*.tar"])
    stream_plan = plan(subset_shards, stamp(parser))
    actual, expected = ({(pass_, key) for pass_, key, _ in seen(one)} for one in (stream_plan, filtered))
    assert actual == expected
    assert seen(plan(subset_shards)) == seen(stream_plan)  # also without annotations
    items = [item for shard in subset_shards for item in read_shard(shard) if isinstance(item, Sample)]
    captions = sum(len(item.captions) for item in items)
    output = capsys.readouterr()
    assert (
        f"kept {len(items)} of 24 samples, {captions} of 72 captions, in {len(subset_shards)} shards"
        in output.out
    )
    assert output.err == ""
    assert json.loads((out / "index.json").read_text())["samples"] == len(items)
    for item in items:
        records = annotation.read_stamped(item, stamp(parser))
        graphs = [annotation.read_record(*pair)[0] for pair in zip(records, item.captions, strict=True)]
        assert graphs == parser.parse(list(item.captions))
        assert json.loads(item.members["json"])["id"] == int(item.key[1:])


def test_a_subset_reads_custom_names_as_a_run_does_and_writes_webdataset_names(
    parser: Parser, tmp_path: Path
) -> None:
    plain = tmp_path / "plain.tar"
    members = [
        (f"clip{clip}.{frame:05d}.{suffix}", body)
        for clip, frame in ((7, 0), (7, 1), (8, 0))
        for suffix, body in (("jpg", shards.jpeg(frame)), ("cap", f"a dog {'on a mat' * frame}".encode()))
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


def test_a_subset_without_annotated_or_passing_samples_is_refused_in_one_line(
    plain: list[str], filtered: StreamPlan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "subset"
    cases: list[tuple[list[object], str]] = [
        ([*plain, out, *OPTIONS], "no sample to pack"),
        ([*filtered.shards, out, "--min-objects", "50"], "no sample to pack"),
        ([*filtered.shards, out], "nothing to filter by"),
        ([tmp_path / "none.tar", out, *OPTIONS], "no such shard"),
        ([*filtered.shards, Path(filtered.shards[0]).parent, "--overwrite", *OPTIONS], "holds the source"),
    ]
    for arguments, message in cases:
        assert subset_job(*arguments) == 2
        error = capsys.readouterr().err
        assert message in error.splitlines()[-1]
        assert ("24 skipped: not annotated" in error) == (arguments[0] == plain[0])


# A run

TINY = (
    "model.kee.layers=1", "evaluate.retrieval_images=4", "train.epochs=2", "train.batch_size=4",
    "train.worker_cpus=0.4", "train.log_every=1", "data.actor_cpus=0.4", "data.shuffle_buffer=0",
)  # fmt: skip


@pytest.mark.cluster
def test_a_run_with_a_filter_counts_filtered_samples_and_takes_every_step(
    head: Head, plain: list[str], filtered: StreamPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", head.address)

    def run(shards: Sequence[str], least: dict[str, Any]) -> Summary:
        overrides = [f"data.{name}={value}" for name, value in least.items()]
        overrides += [f"run.storage={tmp_path}", f"data.shards={list(shards)}", "run.name=run", *TINY]
        config = load(overrides)
        return pretrain.pretrain(config, Console(file=output))

    try:
        output = io.StringIO()
        with pytest.raises(ConfigError, match="not annotated"):
            run(plain, LEAST)
        assert not (tmp_path / "runs").exists()
        summary = run(filtered.shards, LEAST)
    finally:
        ray.shutdown()
    kept = {key for _, key, _ in seen(filtered)}
    trained = summary.trained
    assert (trained["samples"], trained["filtered"]) == (2 * len(kept), 2 * (24 - len(kept)))
    assert trained["quarantined"] == 0
    state = manifest.read_state(summary.folder / trained["checkpoint"])
    assert state["progress"] | {"step": 2 * 24 // 4, "beyond": {}} == state["progress"]
    assert "  filtered " in output.getvalue().splitlines()[-2]
