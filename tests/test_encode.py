"""From an encoded image and a caption to a row of a training batch: crops are seeded, bad images set aside."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pictures import encoded, noise

from sclip.config import Config, DataConfig, KEEConfig, LossConfig, ModelConfig, TrainConfig
from sclip.data import columns as col
from sclip.data.encode import Encoder
from sclip.model.tokenizer import PADDING
from sclip.seeding import digest64

Columns = dict[str, NDArray[Any]]

SIDE, SHARDS = 16, 2
CAPTIONS = [
    "a red square is left of a blue circle",
    "a man riding a brown horse",
    "a dog",
    "the cup is on the wooden table",
    "",
    "a white cat under a black chair next to a window",
]


def config(**sections: Any) -> Config:
    return Config(
        **{
            "model": ModelConfig(name="scenes-convnext", kee=KEEConfig(triples=3, phrase_tokens=2)),
            "data": DataConfig(crop_scale=(0.3, 0.9)),
            "train": TrainConfig(epochs=2),
        }
        | sections
    )


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(config(), SIDE, SHARDS)


def sample_row(index: int, entry: int = 0, **changes: Any) -> dict[str, Any]:
    """Return a row of a sample as the shard readers give it."""
    return {
        col.ENTRY: entry, col.INDEX: index, col.STATUS: col.SAMPLE, col.ORIGIN: 40,
        col.COUNT: None, col.SAMPLE_KEY: f"{index:04d}", col.REASON: None, col.RECORD: None,
        col.JPEG: encoded(noise(40, 30, seed=index), "JPEG"), col.CAPTION: CAPTIONS[index % len(CAPTIONS)],
    } | changes  # fmt: skip


def marker_row(index: int, status: int, reason: str | None = None) -> dict[str, Any]:
    """Return a row without a sample: the end of a shard, or what a reader set aside."""
    return sample_row(index) | {col.STATUS: status, col.REASON: reason, col.JPEG: None, col.CAPTION: None}


def encode(encoder: Encoder, rows: Sequence[dict[str, Any]]) -> Columns:
    return encoder(pa.Table.from_pylist(list(rows)))


def test_a_row_is_the_same_whatever_batch_it_comes_in(encoder: Encoder) -> None:
    rows = [sample_row(index, entry=index % 4) for index in range(6)]
    rows += [marker_row(6, col.REJECTED, "no caption"), marker_row(7, col.END)]
    whole = encode(encoder, rows)
    assert whole[col.IMAGE].shape == (8, 3, SIDE, SIDE)
    assert whole[col.TRIPLES].shape == (8, 3, 3, 2)
    order = [3, 7, 0, 5, 6, 1, 4, 2]
    shuffled = encode(encoder, [rows[index] for index in order])
    another = Encoder(config(), SIDE, SHARDS)  # as in another actor, which has seen nothing yet
    alone = [encode(another, [row]) for row in rows]
    assert whole.keys() == shuffled.keys()
    for name, values in whole.items():
        np.testing.assert_array_equal(values[order], shuffled[name], err_msg=name)
        np.testing.assert_array_equal(values, np.concatenate([one[name] for one in alone]), err_msg=name)


def test_another_epoch_is_another_crop_of_the_same_sample(encoder: Encoder) -> None:
    first, second, third = (encode(encoder, [sample_row(0, entry=entry)]) for entry in (0, 1, 2))
    np.testing.assert_array_equal(first[col.IMAGE], second[col.IMAGE])  # entries 0 and 1 are one epoch
    assert (first[col.IMAGE] != third[col.IMAGE]).any()
    np.testing.assert_array_equal(first[col.TEXT], third[col.TEXT])


def test_rows_carry_where_they_come_from_and_the_digest_of_their_key(encoder: Encoder) -> None:
    found = encode(encoder, [sample_row(index, entry=3) for index in range(3)])
    assert found[col.ENTRY].tolist() == [3, 3, 3]
    assert found[col.INDEX].tolist() == [0, 1, 2]
    assert found[col.ORIGIN].tolist() == [40, 40, 40]
    assert found[col.STATUS].tolist() == [col.SAMPLE] * 3
    assert found[col.KEY].tolist() == [digest64(f"{index:04d}") for index in range(3)]


def test_a_caption_has_its_triples_and_a_negative_where_there_is_one(encoder: Encoder) -> None:
    swappable, plain = encode(encoder, [sample_row(0)]), encode(encoder, [sample_row(2)])
    assert swappable[col.HAS_NEGATIVE].tolist() == [[True]]
    assert sorted(swappable[col.NEGATIVE_TEXT][0, 0]) == sorted(swappable[col.TEXT][0])  # its words, moved
    assert (swappable[col.NEGATIVE_TEXT][:, 0] != swappable[col.TEXT]).any()
    assert (swappable[col.NEGATIVE_TRIPLES][:, 0] != swappable[col.TRIPLES]).any()
    assert (swappable[col.TRIPLES] != PADDING).any()
    assert plain[col.HAS_NEGATIVE].tolist() == [[False]]
    assert not plain[col.NEGATIVE_TEXT].any()
    assert (plain[col.NEGATIVE_TRIPLES] == PADDING).all()


def test_there_is_no_negative_where_they_are_off(encoder: Encoder) -> None:
    rows = [sample_row(index) for index in range(6)]
    off, on = (
        encode(Encoder(config(loss=LossConfig(negatives="none")), SIDE, SHARDS), rows),
        encode(encoder, rows),
    )
    assert on[col.HAS_NEGATIVE].any()
    assert not off[col.HAS_NEGATIVE].any()
    assert not off[col.NEGATIVE_TEXT].any()
    assert (off[col.NEGATIVE_TRIPLES] == PADDING).all()
    for name in (col.IMAGE, col.TEXT, col.TRIPLES, col.KEY):
        np.testing.assert_array_equal(off[name], on[name])


def test_a_broken_image_rejects_its_row_and_no_other(encoder: Encoder) -> None:
    rows = [sample_row(index) for index in range(3)]
    whole = encode(encoder, rows)
    found = encode(encoder, [rows[0], rows[1] | {col.JPEG: rows[1][col.JPEG][:200]}, rows[2]])
    assert found[col.STATUS].tolist() == [col.SAMPLE, col.REJECTED, col.SAMPLE]
    assert found[col.REASON][1].startswith("not a readable image: ")
    assert found[col.SAMPLE_KEY][1] == "0001"
    assert not found[col.IMAGE][1].any()
    assert not found[col.HAS_NEGATIVE][1]
    for name in (*col.MODEL_COLUMNS, col.REASON):
        np.testing.assert_array_equal(found[name][[0, 2]], whole[name][[0, 2]])


def test_the_end_of_a_shard_and_a_rejected_sample_pass_through(encoder: Encoder) -> None:
    found = encode(encoder, [marker_row(5, col.REJECTED, "no caption"), marker_row(9, col.END)])
    assert found[col.STATUS].tolist() == [col.REJECTED, col.END]
    assert found[col.INDEX].tolist() == [5, 9]
    assert found[col.REASON].tolist() == ["no caption", ""]
    assert not found[col.IMAGE].any()
    assert not found[col.HAS_NEGATIVE].any()
    assert (found[col.TRIPLES] == PADDING).all()


@pytest.mark.parametrize("way", ["semantic", "shuffle"])
def test_a_caption_has_as_many_different_negatives_as_are_asked_for_and_there_are(way: Any) -> None:
    few, many = (
        Encoder(config(loss=LossConfig(negatives=way, negatives_per_caption=count)), SIDE, SHARDS)
        for count in (1, 3)
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
