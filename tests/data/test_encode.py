"""The encoder turns readers' rows into rows of a training batch and notes every row that is no sample."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from sclip.config import Config, DataConfig, KEEConfig, LossConfig, MixtureConfig, ModelConfig, RunConfig
from sclip.data import columns as col
from sclip.data.annotation import write_record
from sclip.data.columns import STAGES, Marker, Note, read_notes
from sclip.data.encode import Encoder
from sclip.data.reader import READ_SCHEMA
from sclip.model import Tokenizer
from sclip.model.tokenizer import PADDING
from sclip.negatives import natural, sound
from sclip.negatives.drawing import EVENLY
from sclip.scenegraph import Parser
from support.pictures import encoded, noise

Columns = dict[str, NDArray[Any]]

PLACES = (col.ENTRY, col.PLACE, col.INDEX)
SIDE = 16
CAPTIONS = [
    "a red square is left of a blue circle",
    "a man riding a brown horse",
    "a photo",
    "the cup is on the wooden table",
    "",
    "a white cat under a black chair next to a window",
]


def config(**sections: Any) -> Config:
    return Config(
        **{
            "model": ModelConfig(name="scenes-conv", kee=KEEConfig(triples=3, phrase_tokens=2)),
            "data": DataConfig(crop_scale=(0.3, 0.9)),
        }
        | sections
    )


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(config(), SIDE)


def sample_row(index: int, pass_: int = 0, **changes: Any) -> dict[str, Any]:
    """Return a sample's row as the shard readers yield it."""
    return {
        col.ENTRY: 3, col.PLACE: 90 + index, col.INDEX: index, col.PASS: pass_,
        col.STATUS: col.SAMPLE, col.SAMPLE_KEY: f"{index:04d}", col.IDENTITY: f"0/7.tar/{index:04d}",
        col.JPEG: encoded(noise(40, 30, seed=index), "JPEG"), col.CAPTION: CAPTIONS[index % len(CAPTIONS)],
        col.READ_AT: 1e9,
    } | changes  # fmt: skip


def marker_row(index: int, status: int, reason: str | None = None) -> dict[str, Any]:
    """Return a row without a sample: a shard's end, or a sample that a reader rejected or filtered."""
    return sample_row(index) | {col.STATUS: status, col.REASON: reason, col.JPEG: None, col.CAPTION: None}


def encode(encoder: Encoder, rows: Sequence[dict[str, Any]]) -> Columns:
    return encoder(pa.Table.from_pylist(list(rows), schema=READ_SCHEMA))


def note_of(columns: Columns) -> Note:
    """Return the note of a call, which travels on the call's last row."""
    assert not any(columns[col.NOTE][:-1])
    (note,) = read_notes(columns[col.NOTE])
    return note


def marker(row: dict[str, Any], **changes: Any) -> Marker:
    """Return the marker that the encoder makes of a row without a sample."""
    return Marker(
        row[col.ENTRY], row[col.PLACE], row[col.INDEX], row[col.STATUS], row[col.SAMPLE_KEY], row[col.REASON] or ""
    )._replace(**changes)  # fmt: skip


def test_a_row_is_encoded_the_same_in_any_batch_and_markers_keep_their_order(
    encoder: Encoder,
) -> None:
    rows = [sample_row(index, pass_=index % 2) for index in range(6)]
    markers = [marker_row(6, col.REJECTED, "no caption"), marker_row(7, col.FILTERED), marker_row(8, col.END)]
    whole = encode(encoder, [*rows[:3], *markers, *rows[3:]])
    note = note_of(whole)
    assert (note.markers, note.samples) == ([marker(row) for row in markers], 6)
    assert whole[col.IMAGE].shape == (6, 3, SIDE, SIDE)
    assert whole[col.TRIPLES].shape == (6, 3, 3, 2)
    assert whole[col.IMAGE_DIGEST].min() >= 0
    assert whole[col.PLACE].tolist() == list(range(90, 96))
    order = [3, 0, 5, 1, 4, 2]
    shuffled = encode(encoder, [rows[index] for index in order])
    another = Encoder(config(), SIDE)  # like another actor, which has encoded nothing yet
    alone = [encode(another, [row]) for row in rows]
    assert whole.keys() == shuffled.keys() == {*col.MODEL_COLUMNS, *PLACES, col.NOTE}
    for name in whole.keys() - {col.NOTE}:
        np.testing.assert_array_equal(whole[name][order], shuffled[name], err_msg=name)
        np.testing.assert_array_equal(whole[name], np.concatenate([one[name] for one in alone]), err_msg=name)


def test_crop_and_negative_change_with_pass_seed_and_sample_identity(
    encoder: Encoder,
) -> None:
    def rows(pass_: int = 0, shard: int = 7, **changes: Any) -> list[dict[str, Any]]:
        changes |= {col.CAPTION: LONG}
        return [sample_row(n, pass_, **changes, **{col.IDENTITY: f"0/{shard}.tar/{n}"}) for n in range(8)]

    first, again, *changed = (encode(encoder, t) for t in (rows(), rows(entry=7), rows(1), rows(shard=8)))
    changed.append(encode(Encoder(config(run=RunConfig(seed=1)), SIDE), rows()))
    for name in (col.IMAGE, col.NEGATIVE_TEXT):
        np.testing.assert_array_equal(first[name], again[name])
        assert all((first[name] != other[name]).any() for other in changed)
    for name in (col.IMAGE_DIGEST, col.TEXT):  # copies of an image have one digest, whatever their names
        assert all((first[name] == other[name]).all() for other in changed)
    assert len(set(first[col.IMAGE_DIGEST].tolist())) == 8


def test_a_caption_gets_triples_and_a_negative_unless_none_exists_or_negatives_are_off(
    encoder: Encoder,
) -> None:
    swappable, plain = encode(encoder, [sample_row(0)]), encode(encoder, [sample_row(2)])
    off = encode(Encoder(config(loss=LossConfig(negatives="none")), SIDE), [sample_row(0)])
    assert swappable[col.HAS_NEGATIVE].tolist() == [[True]]
    visits = encode(encoder, [sample_row(0, pass_) for pass_ in range(12)])
    pairs = zip(visits[col.TEXT], visits[col.NEGATIVE_TEXT][:, 0], strict=True)
    assert {sorted(one) == sorted(other) for one, other in pairs} == {
        True,
        False,
    }  # True: exchanged words; False: replaced words
    for negative, own in ((col.NEGATIVE_TEXT, col.TEXT), (col.NEGATIVE_TRIPLES, col.TRIPLES)):
        assert (swappable[negative][:, 0] != swappable[own]).any()
    assert (swappable[col.TRIPLES] != PADDING).any()
    for without in (plain, off):
        assert without[col.HAS_NEGATIVE].tolist() == [[False]]
        assert not without[col.NEGATIVE_TEXT].any()
        assert (without[col.NEGATIVE_TRIPLES] == PADDING).all()
    for name in (col.IMAGE, col.TEXT, col.TRIPLES, col.IMAGE_DIGEST):
        np.testing.assert_array_equal(off[name], swappable[name])


def test_a_broken_image_becomes_a_marker_in_the_note_and_changes_no_other_row(encoder: Encoder) -> None:
    rows = [sample_row(index) for index in range(3)]
    whole = encode(encoder, rows)
    columns = encode(encoder, [rows[0], rows[1] | {col.JPEG: rows[1][col.JPEG][:200]}, rows[2]])
    for name in (*col.MODEL_COLUMNS, *PLACES):
        np.testing.assert_array_equal(columns[name], whole[name][[0, 2]], err_msg=name)
    (broken_marker,) = note_of(columns).markers
    assert broken_marker.reason.startswith("not a readable image: ")
    broken = rows[1] | {col.STATUS: col.REJECTED, col.REASON: broken_marker.reason}
    assert broken_marker == marker(broken)
    assert note_of(whole).markers == []


def test_a_call_without_a_sample_returns_one_placeholder_row_that_carries_the_note(encoder: Encoder) -> None:
    broken = sample_row(4, **{col.JPEG: b"no picture"})
    end = marker_row(9, col.END)
    columns = encode(encoder, [broken, end])
    assert columns[col.PLACE].tolist() == [col.NO_SAMPLE]
    assert columns.keys() == encode(encoder, [sample_row(0)]).keys()
    assert columns[col.IMAGE].shape == (1, 3, SIDE, SIDE)
    assert not columns[col.IMAGE].any()
    assert not columns[col.HAS_NEGATIVE].any()
    assert (columns[col.TRIPLES] == PADDING).all()
    note = note_of(columns)
    assert ([entry.status for entry in note.markers], note.samples) == ([col.REJECTED, col.END], 0)


def test_a_note_says_how_long_each_stage_worked_and_waited(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sclip.data.encode.time.time", lambda: 110.0)
    rows = [sample_row(index, **{col.READ_AT: time}) for index, time in enumerate((100.0, 104.0, 110.0))]
    rows[0] |= {col.READ_S: 0.5, col.BLOCKED_S: 2.0}
    rows[2] |= {col.READ_S: 0.25, col.BLOCKED_S: None}
    note = note_of(encode(encoder, [*rows, marker_row(3, col.END) | {col.READ_AT: None}]))
    assert (note.read_queued, note.made_at) == (16.0, 110.0)
    assert note.seconds.keys() == set(STAGES)
    assert (note.seconds["read"], note.seconds["blocked"]) == (0.75, 2.0)
    assert all(note.seconds[stage] > 0 for stage in ("idle", "decode", "parse", "draw", "tokenise"))


def test_a_note_counts_a_place_as_arrived_with_its_row_and_not_with_the_end_before_it(
    encoder: Encoder,
) -> None:
    end, row = marker_row(0, col.END), marker_row(0, col.REJECTED, "no caption")
    assert [note_of(encode(encoder, rows)).upto for rows in ([end], [end, row], [row])] == [90, 91, 91]


@pytest.mark.parametrize("way", ["semantic", "shuffle"])
def test_a_caption_gets_distinct_negatives_up_to_the_requested_number(way: Any) -> None:
    few, many = (
        Encoder(config(loss=LossConfig(negatives=way, negatives_per_caption=count)), SIDE) for count in (1, 3)
    )
    rows = [sample_row(index) for index in range(6)]
    one, three = encode(few, rows), encode(many, rows)
    assert three[col.NEGATIVE_TEXT].shape == (6, 3, one[col.TEXT].shape[1])
    for name in (col.NEGATIVE_TEXT, col.NEGATIVE_TRIPLES, col.HAS_NEGATIVE):
        np.testing.assert_array_equal(three[name][:, :1], one[name])
    counts = three[col.HAS_NEGATIVE].sum(1)
    assert {0, 3} <= set(counts.tolist())
    for row, count in enumerate(counts):
        texts = three[col.NEGATIVE_TEXT][row]
        assert len({text.tobytes() for text in texts[:count]}) == count
        assert not texts[count:].any()
        assert (three[col.NEGATIVE_TRIPLES][row, count:] == PADDING).all()


def test_kinds_of_negatives_are_drawn_by_their_shares_among_the_kinds_of_a_caption() -> None:
    def kinds(caption: str, **shares: float) -> Counter[str]:
        encoder = Encoder(config(loss=LossConfig(mixture=MixtureConfig(**shares))), SIDE)
        rows = [sample_row(0, pass_, **{col.CAPTION: caption}) for pass_ in range(80)]
        return Counter(
            row_negatives[0].kind
            for row_negatives in encoder.drawn(rows, encoder.known(rows))
            if row_negatives
        )

    assert MixtureConfig().shares == EVENLY
    counts = kinds(
        "a red lamp stands on a blue table",
        exchange=1,
        replace_object=4,
        replace_attribute=2,
        replace_relation=1,
    )
    assert counts["replaced object"] / 80 == pytest.approx(0.5, abs=0.2)
    assert counts["replaced attribute"] / 80 == pytest.approx(0.25, abs=0.15)
    assert counts.total() == 80
    assert counts["relation"] + counts["attribute"] > 0 < counts["replaced relation"]
    assert kinds("a red wall", exchange=0, replace_relation=9) == {"replaced attribute": 80}
    assert not kinds("a red wall", exchange=0, replace_object=0, replace_attribute=0)


def test_a_positive_has_the_triples_of_its_own_graph_and_some_captions_have_no_positive() -> None:
    loss = LossConfig(positives=1.0)
    encoder = Encoder(config(loss=loss), SIDE)
    captions = ["A lamp above a red vase", "a vase", ""]
    rows = [sample_row(0, pass_, **{col.CAPTION: captions[pass_ % 3]}) for pass_ in range(12)]
    rows[-1][col.PLACE] = col.NO_SAMPLE
    columns = encode(encoder, rows)
    assert columns.keys() >= set(col.POSITIVE_COLUMNS)
    assert columns[col.HAS_POSITIVE].tolist() == [True, False, False] * 4
    rewritten = [
        {col.CAPTION: text} for text in ("A red vase below a lamp", "A lamp above a vase that is red")
    ]
    wordings = encode(encoder, [sample_row(0, 0, **change) for change in rewritten])
    drawn = {row.tobytes() for row in columns[col.POSITIVE_TEXT][::3, 0]}
    assert drawn <= {row.tobytes() for row in wordings[col.TEXT]}
    for row in range(0, 12, 3):
        match = (wordings[col.TEXT] == columns[col.POSITIVE_TEXT][row]).all(1).argmax()
        np.testing.assert_array_equal(columns[col.POSITIVE_TRIPLES][row, 0], wordings[col.TRIPLES][match])
    assert not columns[col.POSITIVE_TEXT][1::3].any()


def test_captions_are_parsed_only_if_training_reads_their_graphs(encoder: Encoder) -> None:
    towers_alone = ModelConfig(name="scenes-conv", kee=KEEConfig(enabled=False))
    # loading a parser of this name fails
    plain = config(
        model=towers_alone, loss=LossConfig(negatives="none"), data=DataConfig(spacy_model="none_such")
    )
    rows = [sample_row(index) for index in range(6)]
    columns, expected = encode(Encoder(plain, SIDE), rows), encode(encoder, rows)
    np.testing.assert_array_equal(columns[col.TEXT], expected[col.TEXT])
    assert not columns[col.HAS_NEGATIVE].any()
    for loss in (
        LossConfig(),
        LossConfig(negatives="none", units=1.0),
        LossConfig(negatives="none", positives=1.0),
    ):
        assert config(model=towers_alone, loss=loss).reads_graphs


def test_a_unit_of_a_caption_is_drawn_with_its_foil_if_loss_units_is_set(encoder: Encoder) -> None:
    with_units = Encoder(config(loss=LossConfig(units=1.0, negatives="none")), SIDE)
    caption = "a red lamp stands on a blue table"
    columns, plain = visits(with_units, caption), visits(encoder, caption)
    assert not set(col.UNIT_COLUMNS) & plain.keys()
    assert columns[col.HAS_UNIT].all()
    texts = {tuple(unit[unit > 0]) for unit in columns[col.UNIT_TEXT][:, 0]}
    tokenizer = Tokenizer(ModelConfig(name="scenes-conv"))
    expected = tokenizer.text(["a red lamp", "a blue table", "a red lamp stands on a blue table"])
    assert 1 < len(texts) <= 3
    assert texts <= {tuple(ids[ids > 0]) for ids in expected}
    for name in (col.UNIT_TEXT, col.UNIT_TRIPLES):  # a foil has the triples of its own graph
        units, foils = np.moveaxis(columns[name].reshape(12, 2, -1), 1, 0)
        assert (units != foils).any(1).all()
    without = encode(with_units, [sample_row(2)])
    assert not without[col.HAS_UNIT].any()
    assert not without[col.UNIT_TEXT].any()
    assert (without[col.UNIT_TRIPLES] == PADDING).all()


# The model reads 22 words of a long caption

THINGS = "lamp vase bowl plate clock candle basket bottle kettle jug pan cup".split()
LONG = " ".join(f"A red {thing} stands on a blue table." for thing in THINGS)
HIDDEN = "very " * 22 + "well a red lamp stands on a blue table"


def visits(encoder: Encoder, caption: str, passes: int = 12, **changes: Any) -> Columns:
    rows = [sample_row(0, pass_, **{col.CAPTION: caption}, **changes) for pass_ in range(passes)]
    return encode(encoder, rows)


@pytest.mark.parametrize("way", ["semantic", "shuffle"])
def test_a_negative_differs_in_the_words_that_the_tower_reads(way: Any) -> None:
    encoder = Encoder(config(loss=LossConfig(negatives=way, negatives_per_caption=3)), SIDE)
    columns, hidden = visits(encoder, LONG), visits(encoder, HIDDEN)
    assert columns[col.HAS_NEGATIVE][:, 0].all()
    differs = (columns[col.NEGATIVE_TEXT] != columns[col.TEXT][:, None]).any(-1)
    assert differs[columns[col.HAS_NEGATIVE]].all()
    assert not hidden[col.HAS_NEGATIVE].any()
    assert (hidden[col.TRIPLES] == PADDING).all()


def test_a_negative_that_changes_a_kept_triple_is_preferred() -> None:
    two_triples = config(model=ModelConfig(name="scenes-conv", kee=KEEConfig(triples=2, phrase_tokens=2)))
    columns = visits(Encoder(two_triples, SIDE), "A dog sits on a mat. A red lamp stands on a blue table.")
    assert (columns[col.NEGATIVE_TRIPLES][:, 0] != columns[col.TRIPLES]).any((1, 2, 3)).all()


@pytest.mark.parametrize("caption", [LONG, HIDDEN, CAPTIONS[0]])
def test_a_stored_record_gives_the_same_columns_as_parsing(caption: str, parser: Parser) -> None:
    (graph,) = parser.parse([caption])
    (negatives,) = sound([(graph, natural(graph))], parser.shapes)
    record = write_record(graph, negatives)
    encoder = Encoder(config(loss=LossConfig(negatives_per_caption=2, units=1.0)), SIDE)
    parsed, read = visits(encoder, caption), visits(encoder, caption, **{col.RECORD: record})
    for name in (*col.MODEL_COLUMNS, *col.UNIT_COLUMNS):
        np.testing.assert_array_equal(parsed[name], read[name], err_msg=name)


def test_captions_are_parsed_and_tokenised_up_to_the_context_length_and_cut_ones_are_counted() -> None:
    ending = "It was very good. " * 18 + "A woman rides a brown horse."
    rows = [sample_row(0), sample_row(1, **{col.CAPTION: ending})]
    for length, triples, cut in ((0, 0, 1), (120, 2, 0)):
        model = dataclasses.replace(config().model, context_length=length)
        columns = encode(Encoder(config(model=model), SIDE), rows)
        assert columns[col.TEXT].shape == columns[col.NEGATIVE_TEXT][:, 0].shape == (2, length or 24)
        assert (columns[col.TRIPLES][1] >= 0).any(axis=(1, 2)).sum() == triples
        assert columns[col.HAS_NEGATIVE].tolist() == [[True], [bool(triples)]]
        assert note_of(columns).cut == cut
