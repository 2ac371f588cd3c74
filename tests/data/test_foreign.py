"""Foreign negatives, positives and graphs are read in published layouts, drawn unchanged, and counted if unusable."""

from __future__ import annotations

import json
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sclip.config import Config, DataConfig, KEEConfig, LossConfig, ModelConfig
from sclip.data import columns as col
from sclip.data.encode import Encoder
from sclip.data.reader import READ_SCHEMA, ReadSettings, row_of
from sclip.data.schedule import NamedShard
from sclip.data.shards import Rejected, Sample, read_shard
from sclip.data.tar import MAX_TEXT_BYTES, Tally
from sclip.scenegraph import Parser, SceneGraph
from support.pictures import encoded, noise
from support.tars import tar_bytes

CAPTION, OTHER = "a red cup on a blue tray", "a tray with a cup"
FALSE = ["a blue cup on a red tray", "a red cup under a blue tray"]
PICTURE = encoded(noise(40, 30, seed=1), "JPEG")


def read(
    path: Path, record: dict[str, Any], members: dict[str, bytes] | None = None, **data: Any
) -> tuple[Sample, Tally]:
    """Write a shard of one sample; return the sample and the reader's tally."""
    parts = {"jpg": PICTURE, "json": json.dumps(record).encode()} | (members or {})
    path.write_bytes(tar_bytes([(f"a.{suffix}", body) for suffix, body in parts.items()]))
    tally = Tally()
    (sample,) = read_shard(str(path), DataConfig(**{"negatives_field": "neg"} | data), tally)
    assert isinstance(sample, Sample)
    return sample, tally


def negatives(sample: Sample) -> list[list[str]]:
    return [[text for text, _ in foreign.negatives] for foreign in sample.foreign]


REPLACEMENTS = {
    "red cup": [{"negative": "red fork", "change_type": "object_change"}],
    "cu": ["x"],
    "dog": ["cat"],
}


@pytest.mark.parametrize(
    ("captions", "value", "expected"),
    [
        (CAPTION, FALSE[0], [FALSE[:1]]),
        (CAPTION, FALSE, [FALSE]),
        (CAPTION, [FALSE], [FALSE]),
        ([CAPTION], [{"negative": text} for text in FALSE], [FALSE]),
        ([CAPTION, OTHER], [FALSE, None], [FALSE, []]),
        ([CAPTION, OTHER], [FALSE[0], [" a cup &amp; no tray "]], [FALSE[:1], ["a cup & no tray"]]),
        ([CAPTION, " ", OTHER], [None, FALSE, ["a tray"]], [[], ["a tray"]]),
        ([CAPTION, OTHER], {CAPTION: FALSE, OTHER: "a tray"}, [FALSE, ["a tray"]]),
        (CAPTION, REPLACEMENTS, [["a red fork on a blue tray"]]),
        ([CAPTION, OTHER], [REPLACEMENTS, REPLACEMENTS], [["a red fork on a blue tray"], []]),
        (CAPTION, None, [[]]),
    ],
)  # fmt: skip
def test_a_field_gives_each_caption_its_own_false_captions(
    tmp_path: Path, captions: Any, value: Any, expected: list[list[str]]
) -> None:
    sample, tally = read(tmp_path / "a.tar", {"captions": captions, "neg": value})
    assert negatives(sample) == expected
    assert tally.foreign == ({} if value else {"samples without neg": 1})
    assert not sample.fault


def test_several_fields_members_and_columns_are_read(tmp_path: Path) -> None:
    url = tmp_path / "a.tar"
    sample, _ = read(
        url, {"caption": CAPTION, "one": FALSE[0], "two": FALSE}, negatives_field="one, two, three"
    )
    assert negatives(sample) == [FALSE]
    triplet = {
        "image": PICTURE,
        "caption": CAPTION.encode(),
        "neg_caption": FALSE[0].encode(),
        "neg_image": b"i",
    }
    keys = {"image_suffixes": ("image",), "text_suffixes": ("caption",), "negatives_field": ".neg_caption"}
    assert negatives(read(url, {}, triplet, **keys)[0]) == [FALSE[:1]]
    pq.write_table(pa.table({"image": [PICTURE], "text": [CAPTION], "neg": [FALSE]}), tmp_path / "a.parquet")
    (row,) = read_shard(str(tmp_path / "a.parquet"), DataConfig(negatives_field="neg,none"))
    assert isinstance(row, Sample)
    assert negatives(row) == [FALSE]


@pytest.mark.parametrize(
    ("captions", "value", "counts"),
    [
        (
            CAPTION,
            ["", " ", "###", CAPTION.upper(), FALSE[0]],
            {"empty negatives": 3, "negatives equal to their caption": 1},
        ),
        (
            [CAPTION, OTHER],
            FALSE[0],
            "one text for 2 captions; write a list with one entry per caption, or a mapping",
        ),
        ([CAPTION, OTHER], ["x", "y", "z"], "3 entries for 2 captions; write a list"),
        (CAPTION, [3], "int, not text"),
        (CAPTION, ["x", ["y"]], "a list inside a caption's list"),
        (
            CAPTION,
            [{"negative": "x", "graph": {"objects": 3}}],
            "not a graph as `sclip graph` writes it",
        ),
    ],
)
def test_unusable_false_captions_are_counted_and_the_sample_is_kept(
    tmp_path: Path, captions: Any, value: Any, counts: Any
) -> None:
    sample, tally = read(tmp_path / "a.tar", {"captions": captions, "neg": value})
    if isinstance(counts, dict):
        assert (negatives(sample), sample.fault, tally.foreign) == ([FALSE[:1]], "", counts)
        return
    assert sample.fault.startswith(f"neg: {counts}")
    assert not any(negatives(sample))
    assert tally.foreign == {"samples with a neg that cannot be read": 1}


@pytest.mark.parametrize("is_link", [True, False])
def test_a_member_that_is_a_link_or_too_long_is_skipped_and_its_sample_is_kept(
    tmp_path: Path, is_link: bool
) -> None:
    whole_sample = [("{}.jpg", PICTURE), ("{}.txt", CAPTION.encode())]
    shard = tmp_path / "a.tar"
    with tarfile.open(shard, "w") as tar:
        for key, suffix in (("a", "neg_caption"), ("b", "json"), ("c", "txt")):
            for name, body in whole_sample if suffix != "txt" else whole_sample[:1]:
                (info := tarfile.TarInfo(name.format(key))).size = len(body)
                tar.addfile(info, BytesIO(body))
            info = tarfile.TarInfo(f"{key}.{suffix}")
            info.size = 0 if is_link else MAX_TEXT_BYTES + 1
            info.type, info.linkname = (tarfile.SYMTYPE, "x") if is_link else (tarfile.REGTYPE, "")
            tar.addfile(info, BytesIO(bytes(info.size)))
    tally = Tally()
    one, other, rejected = read_shard(str(shard), DataConfig(negatives_field="neg, .neg_caption"), tally)
    for sample in (one, other):
        assert isinstance(sample, Sample)
        assert (sample.captions, negatives(sample)) == ((CAPTION,), [[]])
    reason = "is a link to 'x'; make the tar with" if is_link else "of 1048577 bytes, more than 1048576"
    assert isinstance(one, Sample)
    assert f".neg_caption: {reason}" in one.fault
    assert tally.foreign["samples with a .neg_caption that cannot be read"] == 1
    assert tally.cleaned == {"taken from the text beside an unusable .json": 1}
    assert isinstance(rejected, Rejected)
    assert f".txt {reason}" in rejected.reason  # unlike an annotation, a caption is required
    *_, alone, _ = read_shard(str(shard), DataConfig(caption_field="caption"))
    assert isinstance(alone, Rejected)
    assert f".json {reason}" in alone.reason


def test_a_graph_is_matched_to_its_caption_and_refused_if_its_spans_do_not_fit(
    tmp_path: Path, parser: Parser
) -> None:
    graph = parser.parse([CAPTION])[0].to_json()
    record = {"captions": [OTHER, CAPTION], "g": graph}
    keys = {"negatives_field": "", "graphs_field": "g"}
    assert [foreign.graph for foreign in read(tmp_path / "a.tar", record, **keys)[0].foreign] == [None, graph]
    for change in ({"span": [0, 99]}, {"span": "ab"}, {"name": None}, {"phrase": [9, 9]}):
        wrong = graph | {"objects": [graph["objects"][0] | change, *graph["objects"][1:]]}
        assert read(tmp_path / "a.tar", {"caption": CAPTION, "g": wrong}, **keys)[0].fault.startswith(
            "g: a graph "
        )


def test_a_graph_with_overlapping_spans_is_refused(tmp_path: Path, parser: Parser) -> None:
    graph = parser.parse([CAPTION])[0].to_json()
    (cup, tray), (red, blue) = graph["objects"], graph["attributes"]
    keys = {"negatives_field": "", "graphs_field": "g"}
    for wrong in (
        {"objects": [cup, tray | {"phrase": [cup["span"][0], tray["phrase"][1]]}]},
        {"attributes": [red, blue | {"span": cup["span"]}]},
        {"attributes": [red | {"span": tray["span"]}, blue]},
        {"attributes": [red, red | {"attribute": "large"}]},
    ):
        (fault,) = {read(tmp_path / "a.tar", {"caption": CAPTION, "g": graph | wrong}, **keys)[0].fault}
        assert "a graph of another caption, with an unknown object, a blank word, or spans that" in fault, (
            wrong
        )
    shared = graph | {"attributes": [red | {"span": [9, 11]}, red | {"span": [9, 11], "object": 1}]}
    assert not read(tmp_path / "a.tar", {"caption": CAPTION, "g": shared}, **keys)[0].fault


# Drawing


def visits(sample: Sample, passes: int = 60, most: int = 1, loss: str = "semantic", **data: Any) -> Any:
    """Return the texts of the negatives drawn in each pass, the batch columns, the rows and the encoder."""
    config = Config(
        model=ModelConfig(name="scenes-conv", kee=KEEConfig(triples=3, phrase_tokens=2)),
        data=DataConfig(**{"negatives_field": "neg"} | data),
        loss=LossConfig(negatives=loss, negatives_per_caption=most),  # type: ignore[arg-type]
    )
    encoder, reading = Encoder(config, 16), ReadSettings(config)
    rows = [
        row_of(sample, NamedShard("0/a.tar", "a.tar"), reading, pass_)
        | {col.PASS: pass_, col.PLACE: pass_, col.ENTRY: 0, col.READ_AT: 0.0}
        for pass_ in range(passes)
    ]
    table = pa.Table.from_pylist(rows, schema=READ_SCHEMA)
    drawn = encoder.drawn(rows, encoder.known(rows))
    return [[negative.caption for negative in draws] for draws in drawn], encoder(table), rows, encoder


def test_foreign_negatives_replace_ours_or_are_mixed_with_ours_by_their_share(tmp_path: Path) -> None:
    sample, _ = read(tmp_path / "a.tar", {"caption": CAPTION, "neg": FALSE})
    without, _ = read(tmp_path / "a.tar", {"caption": CAPTION})
    texts, batch, *_ = visits(sample)
    assert {text for row in texts for text in row} == set(FALSE)
    assert texts == visits(sample)[0]
    assert all(set(row) == set(FALSE) for row in visits(sample, 4, most=3)[0])
    # A negative has its own triples: one false caption exchanges attributes, the other has another predicate.
    assert batch[col.HAS_NEGATIVE].all()
    assert (batch[col.NEGATIVE_TRIPLES][:, 0] != batch[col.TRIPLES]).any((1, 2, 3)).all()
    mixed = visits(sample, foreign_share=0.5)[0]
    assert 0.25 < np.mean([row[0] in FALSE for row in mixed]) < 0.75
    assert all(len(set(row)) == 3 for row in visits(sample, 8, most=3, foreign_share=0.5)[0])
    assert visits(without, 4)[0] == visits(without, 4, negatives_field="")[0]
    assert visits(without, 2, loss="foreign")[0] == [[], []]
    assert visits(sample, 2, loss="none")[0] == [[], []]


def test_the_draw_of_a_row_does_not_depend_on_foreign_negatives_of_another_row(tmp_path: Path) -> None:
    without, _ = read(tmp_path / "a.tar", {"caption": CAPTION})
    drawn, _, rows, encoder = visits(without, 40)
    assert FALSE[0] in {text for row in drawn for text in row}
    sample, _ = read(tmp_path / "a.tar", {"caption": CAPTION, "neg": FALSE[0]})
    mixed_rows = [*rows, *visits(sample, 1)[2]]
    alone, together = (
        encoder.drawn(rows, encoder.known(rows)),
        encoder.drawn(mixed_rows, encoder.known(mixed_rows)),
    )
    assert [[n.graph for n in row] for row in alone] == [[n.graph for n in row] for row in together[:-1]]


def test_foreign_positives_are_drawn_before_ours_and_fill_in_if_we_have_none(tmp_path: Path) -> None:
    def wordings(record: dict[str, Any], **data: Any) -> list[str | None]:
        keys = {"negatives_field": "", "positives_field": "pos"} | data
        sample, _ = read(tmp_path / "a.tar", record, **keys)
        rows, encoder = visits(sample, 12, loss="none", **keys)[2:]
        drawn = encoder.positives(rows, encoder.known(rows))
        assert all(len(p.graph.objects) == 2 and p.graph.caption == p.caption for p in drawn if p)
        return [p and p.caption for p in drawn]

    ours = wordings({"caption": CAPTION})
    theirs = {"on the blue tray is a red cup", "a cup that is red on a tray that is blue"}
    record = {"caption": CAPTION, "pos": [*theirs, CAPTION]}
    assert set(wordings(record)) == theirs
    assert {*wordings(record, foreign_share=0.5)} - theirs <= {*ours}
    assert None not in wordings(record, foreign_share=0.01)


def test_a_foreign_graph_determines_the_triples_and_our_negatives(tmp_path: Path, parser: Parser) -> None:
    graph = parser.parse([CAPTION])[0].to_json()
    graph["attributes"] = graph["attributes"][:1]
    record = {"caption": CAPTION, "g": graph}
    keys = {"negatives_field": "", "graphs_field": "g"}
    sample, _ = read(tmp_path / "a.tar", record, **keys)
    _, batch, rows, encoder = visits(sample, 2, **keys)
    parsed = visits(read(tmp_path / "a.tar", record, negatives_field="")[0], 2, negatives_field="")[1]
    assert (
        (batch[col.TRIPLES] >= 0).any((2, 3)).sum(1) == (parsed[col.TRIPLES] >= 0).any((2, 3)).sum(1) - 1
    ).all()
    known, _ = encoder.known(rows)
    assert known.graph == SceneGraph.from_json(graph)


def test_a_caption_field_is_drawn_by_its_weight_among_the_fields_that_a_sample_has(tmp_path: Path) -> None:
    def shares(record: dict[str, Any], *weights: float) -> list[float]:
        keys = {"negatives_field": "", "caption_field": "a,b,c", "caption_weights": weights}
        sample, _ = read(tmp_path / "a.tar", record, **keys)
        drawn = [row[col.CAPTION][0] for row in visits(sample, 200, loss="none", **keys)[2]]
        return [drawn.count(name) / 200 for name in "abc"]

    record = {"a": ["a 1", "a 2", "a 3"], "b": "b 1", "c": "c 1"}
    assert shares(record, 1, 3, 0) == pytest.approx([0.25, 0.75, 0], abs=0.1)
    assert shares(record | {"b": " "}, 1, 3, 0) == [1, 0, 0]
    assert shares({"c": "c 1"}, 1, 3, 0) == [0, 0, 1]
