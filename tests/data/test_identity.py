"""A sample is its shard and its key, an image is its bytes: neither is taken for the other, however keys repeat."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sclip.config import Config, DataConfig, LossConfig, TrainConfig
from sclip.data import columns as col
from sclip.data.encode import Encoder
from sclip.data.patterns import find_shards
from sclip.model import image_size
from sclip.scenegraph import Parser
from support.annotated_shards import RICH, jpeg, plan_of, tables
from support.tars import tar_bytes
from support.train_cases import MODEL, config_with, start

Columns = dict[str, NDArray[Any]]

DRAWN = DataConfig(crop_scale=(0.3, 0.9), block_samples=1000)
PLAIN = dataclasses.replace(DRAWN, crop_scale=(1.0, 1.0))
"""Nothing is drawn: a row is its image and its only caption."""


def tar(*samples: tuple[str, int], captions: int = 1) -> bytes:
    """Return a tar of samples, each a key and the number of its picture and captions."""
    members = []
    for key, number in samples:
        texts = [RICH[(number + k) % len(RICH)] for k in range(captions)]
        members.append((f"{key}.jpg", jpeg(number)))
        members.append((f"{key}.json", f'{{"captions": {texts}}}'.replace("'", '"').encode()))
    return tar_bytes(members)


def write(folder: Path, tars: dict[str, bytes]) -> str:
    """Write tars by their names, which may hold folders; return the folder."""
    for name, content in tars.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return str(folder)


def encoded(parser: Parser, patterns: Sequence[str], data: DataConfig = DRAWN) -> Columns:
    """Return the columns of all samples that patterns name, in the order of shards and of samples in them."""
    config = Config(
        model=MODEL, data=data, loss=LossConfig(negatives_per_caption=2), train=TrainConfig(epochs=1)
    )
    encoder = Encoder(config, image_size(MODEL.name))
    encoder.__dict__["_parser"] = parser  # loaded once for all tests
    of = plan_of(config, find_shards(patterns))
    blocks = [encoder(table) for table in tables(of)]
    columns = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    shards = [of.order.schedule.visit(entry).shard for entry in columns[col.ENTRY].tolist()]
    order = np.lexsort((columns[col.INDEX], np.array(shards)))
    return {name: columns[name][order] for name in (*col.MODEL_COLUMNS, col.PLACE)}


def trained(columns: Columns) -> float:
    """Return the contrastive loss of a step of a new model on the rows."""
    rows = len(columns[col.IMAGE])
    batch = {name: torch.from_numpy(columns[name]) for name in col.MODEL_COLUMNS}
    step = start(config_with(LossConfig(negatives="none"), batch_size=rows))
    return float(step(batch | {col.VALID: torch.ones(rows, dtype=torch.bool)}, 0.5)["loss_contrastive"])


def test_tars_of_one_key_train_as_their_renamed_copies_do(tmp_path: Path, parser: Parser) -> None:
    alike = write(tmp_path / "alike", {f"{n:05d}.tar": tar(("image", n)) for n in range(48)})
    renamed = write(tmp_path / "renamed", {"0.tar": tar(*((f"{n:05d}", n) for n in range(48)))})
    found, expected = (encoded(parser, [f"{folder}/*.tar"], PLAIN) for folder in (alike, renamed))
    assert len(set(found[col.IMAGE_DIGEST].tolist())) == 48
    for name in (col.IMAGE, col.IMAGE_DIGEST, col.TEXT, col.TRIPLES):
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert trained(found) == pytest.approx(trained(expected), rel=1e-6)
    assert trained(found) > 1.0


def test_copies_of_an_image_under_other_names_are_no_negatives_of_each_other(
    tmp_path: Path, parser: Parser
) -> None:
    copies = write(tmp_path / "copies", {"0.tar": tar(("a", 7)), "1.tar": tar(("b", 7), ("c", 7))})
    others = write(tmp_path / "others", {"0.tar": tar(("a", 7)), "1.tar": tar(("b", 8), ("c", 7))})
    assert trained(encoded(parser, [f"{copies}/*.tar"])) == 0.0
    assert trained(encoded(parser, [f"{others}/*.tar"])) > 0.1


@pytest.mark.parametrize("of", ["shards whose numbering restarts", "sources of equal shards"])
def test_samples_of_one_key_and_one_image_draw_each_for_itself(
    tmp_path: Path, parser: Parser, of: str
) -> None:
    content = tar(*((f"{n:04d}", n) for n in range(5)), captions=4)
    names = ("x/0.tar", "x/1.tar") if of.startswith("shards") else ("x/0.tar", "y/0.tar")
    folder = write(tmp_path, dict.fromkeys(names, content))
    patterns = (
        [f"{folder}/x/*.tar"] if of.startswith("shards") else [f"{folder}/x/*.tar", f"{folder}/y/*.tar"]
    )
    found = encoded(parser, patterns)
    first, other = (
        {name: column[part] for name, column in found.items()} for part in (slice(5), slice(5, 10))
    )
    np.testing.assert_array_equal(first[col.IMAGE_DIGEST], other[col.IMAGE_DIGEST])
    for columns in (first, other):
        columns[col.PLACE] = np.argsort(columns[col.PLACE])
    for name in (col.IMAGE, col.TEXT, col.NEGATIVE_TEXT, col.PLACE):
        assert (first[name] != other[name]).any(), name


def test_data_that_was_moved_gives_the_same_rows_and_draws(tmp_path: Path, parser: Parser) -> None:
    tars = {f"{folder}{n}.tar": tar(("image", n), ("other", n + 5), captions=4)
            for folder in ("", "sub/") for n in range(2)}  # fmt: skip
    here, elsewhere = write(tmp_path / "a" / "train", tars), write(tmp_path / "z", tars)
    store = fsspec.filesystem("memory")
    store.pipe({f"/moved/b/train/{name}": content for name, content in tars.items()})
    expected = encoded(parser, [f"{here}/**/*.tar"])
    try:
        for moved in (elsewhere, "memory://moved/b/train"):
            found = encoded(parser, [f"{moved}/**/*.tar"])
            for name in expected:
                np.testing.assert_array_equal(found[name], expected[name], err_msg=f"{name} of {moved}")
    finally:
        store.rm("/moved", recursive=True)
    assert len(expected[col.IMAGE]) == 8
