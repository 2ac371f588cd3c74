"""Training on annotated shards: the same batches as by parsing, and with a filter the same samples as of a subset."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import ray
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rich.console import Console

from sclip.config import ConfigError, LossConfig
from sclip.config.loader import load
from sclip.data import annotation
from sclip.data import columns as col
from sclip.data.batches import Batches, Record
from sclip.data.encode import Encoder
from sclip.data.shards import Sample, read_shard
from sclip.data.side_channel import read_notes
from sclip.data.stream import StreamPlan
from sclip.prepare.annotate import stamp
from sclip.run import pretrain
from sclip.run.summary import Summary
from sclip.scenegraph import Parser
from sclip.train import manifest
from support.annotated_shards import (
    EPOCHS,
    LEAST,
    SIDE,
    annotate_here,
    plan,
    rewritten,
    rows,
    seen,
    tables,
    write_plain,
)
from support.ray_head import Head
from support.stream_blocks import BLANK, Row, block

Columns = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_plain(tmp_path_factory.mktemp("plain"), samples=24, per_shard=9)


@pytest.fixture(scope="module")
def annotated(plain: list[str], tmp_path_factory: pytest.TempPathFactory, parser: Parser) -> list[str]:
    return annotate_here(plain, tmp_path_factory.mktemp("annotated") / "out", parser)


def blocks(of: StreamPlan, encoder: Encoder | None = None) -> Iterator[Columns]:
    encoder = encoder or Encoder(of.config, SIDE)
    for table in tables(of):
        yield encoder(table)


# The same batches


@pytest.mark.parametrize("negatives", ["semantic", "shuffle", "none"])
def test_annotated_and_plain_shards_give_the_same_batches(
    plain: list[str],
    annotated: list[str],
    parser: Parser,
    negatives: Literal["semantic", "shuffle", "none"],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loss = LossConfig(negatives=negatives)
    expected = list(blocks(plan(plain, loss=loss)))
    monkeypatch.setattr(Parser, "parse", None)  # whoever parses now, fails
    found = list(blocks(plan(annotated, stamp(parser), loss)))
    assert len(found) == len(expected) > EPOCHS * 3
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() - {col.NOTE}:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)
        ends = [
            [marker[:4] for note in read_notes(of_one[col.NOTE]) for marker in note.markers]
            for of_one in (one, other)
        ]
        assert ends[0] == ends[1]  # but for the key, which of an END row is the shard: it lies elsewhere
    assert any(block[col.HAS_NEGATIVE].any() for block in found) == (negatives != "none")


def broken(record: bytes, caption: str) -> list[bytes]:
    """Return what a record must not be."""
    value = json.loads(record)
    negative, *others = value["negatives"]
    graph = value["graph"]
    relation = {"subject": 99, "predicate": "on", "object": 0, "span": [0, 1]}
    changed: list[Any] = [
        [], {}, {"graph": graph}, value | {"graph": None}, value | {"negatives": [[]]},
        value | {"graph": graph | {"caption": f"{caption} too"}},
        value | {"graph": graph | {"relations": [relation]}},
        value | {"graph": graph | {"objects": [obj | {"name": 5} for obj in graph["objects"]]}},
        value | {"graph": graph | {"objects": [obj | {"name": "\ud800"} for obj in graph["objects"]]}},
        value | {"negatives": [negative | {"caption": None}, *others]},
        value | {"negatives": [negative | {"kind": ["relation"]}, *others]},
        *(value | {"negatives": [negative | {"strangeness": x}, *others]} for x in (None, "1")),
        value | {"negatives": [negative | {"graph": graph | {"attributes": [{}]}}, *others]},
    ]  # fmt: skip
    return [b"{", b"\xff", b"[" * 100_000, *(json.dumps(entry).encode() for entry in changed)]


def test_a_caption_with_a_malformed_record_is_parsed_and_nothing_else_changes(
    annotated: list[str], parser: Parser
) -> None:
    of = plan(annotated, stamp(parser))
    table = next(tables(of))
    encoder = Encoder(of.config, SIDE)
    expected = encoder(table)
    first = next(n for n in range(table.num_rows) if expected[col.HAS_NEGATIVE][n])
    for record in broken(table[col.RECORD][first].as_py(), table[col.CAPTION][first].as_py()):
        given = table.to_pylist()
        given[first][col.RECORD] = record
        found = encoder(table.from_pylist(given, schema=table.schema))
        for name in expected.keys() - {col.NOTE}:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=f"{name} of {record[:80]!r}")


@pytest.mark.parametrize("member", [b"", b"no gzip", annotation.pack("rules-0", [b"{}"] * 3)])
def test_an_annotation_that_cannot_be_used_is_parsed_over_unless_a_filter_needs_it(
    annotated: list[str], parser: Parser, tmp_path: Path, member: bytes
) -> None:
    shard = rewritten(annotated[0], tmp_path / "x.tar", member)
    found = [row for row in rows(plan([shard], stamp(parser))) if row[col.STATUS] != col.END]
    assert {row[col.STATUS] for row in found} == {col.SAMPLE}
    assert {row[col.RECORD] for row in found} == {None}
    found = [row for row in rows(plan([shard], stamp(parser), **LEAST)) if row[col.STATUS] != col.END]
    assert {row[col.STATUS] for row in found} == {col.REJECTED}
    assert all("annot" in row[col.REASON] for row in found)


# The filter


@pytest.fixture(scope="module")
def filtered(annotated: list[str], parser: Parser) -> StreamPlan:
    return plan(annotated, stamp(parser), **LEAST)


def test_only_captions_that_pass_are_drawn_and_a_sample_without_one_is_left_out(
    filtered: StreamPlan, parser: Parser
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


@settings(max_examples=25)
@given(st.lists(st.integers(0, 18), max_size=3))
def test_with_a_filter_every_sample_is_trained_on_or_left_out_once_over_any_crash(
    filtered: StreamPlan, crashes: list[int]
) -> None:
    """A worker that goes on from a checkpoint takes the steps from there on."""
    step, trained, left_out = 0, 0, 0
    for stop in (*sorted(crashes), filtered.order.steps):
        given: list[Row] = [(row[col.ENTRY], row[col.PLACE], row[col.STATUS]) for row in rows(filtered, step)]
        blocks = [block(given[at : at + 5]) for at in range(0, len(given), 5)]
        worker, record = Batches([blocks], filtered.order, step, BLANK), Record()
        for _ in range(step, stop):
            batch = worker.next()
            record.passed(batch)
            trained += batch.rows
        assert not record.rejected
        step, left_out = stop, left_out + record.filtered
    assert trained == len(seen(filtered))
    assert trained + left_out == EPOCHS * 24


def test_every_sample_that_is_left_out_is_told_in_a_note_by_its_place(filtered: StreamPlan) -> None:
    left_out = {
        (row[col.ENTRY], row[col.PLACE], row[col.INDEX])
        for row in rows(filtered)
        if row[col.STATUS] == col.FILTERED
    }
    notes = [note for columns in blocks(filtered) for note in read_notes(columns[col.NOTE])]
    markers = [m for note in notes for m in note.markers if m.status == col.FILTERED]
    assert len(markers) == len(left_out) > 0
    assert {(marker.entry, marker.place, marker.tar_index) for marker in markers} == left_out


# A run

TINY = (
    "model.kee.layers=1", "evaluate.retrieval_images=4", "train.epochs=2", "train.batch_size=4",
    "train.worker_cpus=0.4", "train.log_every=1", "data.actor_cpus=0.4", "data.shuffle_buffer=0",
)  # fmt: skip


@pytest.mark.cluster
def test_a_run_with_a_filter_counts_what_it_left_out_and_does_every_step(
    head: Head, plain: list[str], filtered: StreamPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", head.address)

    def run(shards: Sequence[str], least: dict[str, Any]) -> Summary:
        given = [f"data.{name}={value}" for name, value in least.items()]
        given += [f"run.storage={tmp_path}", f"data.shards={list(shards)}", "run.name=run", *TINY]
        config = load(given)
        return pretrain.pretrain(config, Console(file=said))

    try:
        said = io.StringIO()
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
    assert "  filtered " in said.getvalue().splitlines()[-2]
