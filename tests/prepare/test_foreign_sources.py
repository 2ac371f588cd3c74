"""False captions in users' files stay with their own captions, in every published layout."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sclip.config import DataConfig
from sclip.data.shards import Sample, read_shard
from sclip.prepare.pack import write_shards
from sclip.prepare.sources import read_source
from support import caption_sources
from support.caption_sources import BIRD, CAT, DOG, PAIRS, read, table


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return caption_sources.folder_of_images(tmp_path)


SWAPPED = {"a.jpg": [["a cat", "a god"], ["a dog, brown"]], "b.jpg": [["a dog"]], "sub/a.jpg": [[]]}
"""False captions of each caption of an image."""
COMPONENTS = {"dog": [{"negative": "cat", "change_type": "object_change"}]}
WITH_FALSE = {
    "negclip.tsv": ("neg_caption", {}, table([["filepath", "title", "neg_caption", "neg_image"], *(
        [name, text, repr(false), "[1, 2]"]
        for name, texts in PAIRS.items() for text, false in zip(texts, SWAPPED[name], strict=True))], delimiter="\t")),
    "degla.json": ("enhanced", {"image_field": "{image_id}.jpg", "caption_field": "original"}, json.dumps([
        {"image_id": name.removesuffix(".jpg"), "original": text, "enhanced": false}
        for name, texts in PAIRS.items() for text, false in zip(texts, SWAPPED[name], strict=True)])),
    "lists.json": ("mine", {"kept": ("mine",)}, json.dumps([
        {"image": name, "captions": ["", *texts], "mine": [None, *SWAPPED[name]]} for name, texts in PAIRS.items()])),
    "cs_clip.json": ("negative_components", {}, json.dumps([
        {"image_path": name, "original_caption": text, "negative_components": COMPONENTS}
        for name, texts in PAIRS.items() for text in texts])),
}  # fmt: skip


@pytest.mark.parametrize("name", [*WITH_FALSE, "embedded.parquet"])
def test_false_captions_are_kept_with_their_captions(folder: Path, tmp_path: Path, name: str) -> None:
    if name.endswith(".parquet"):
        field, options = "neg_caption", {}
        pictures = [(folder / image).read_bytes() for image, texts in PAIRS.items() for _ in texts]
        columns = {"image": [{"bytes": p, "path": str(hash(p))} for p in pictures],
                   "caption": [text for texts in PAIRS.values() for text in texts],
                   field: [false for lists in SWAPPED.values() for false in lists]}  # fmt: skip
        pq.write_table(pa.table(columns), folder / name)
    else:
        field, options, text = WITH_FALSE[name]
        (folder / name).write_text(text)
    samples, skips = read_source(folder / name, **options)
    write_shards(samples, tmp_path / "out")
    assert not skips.counts
    packed = {}
    for sample in read_shard(str(tmp_path / "out" / "000000.tar"), DataConfig(negatives_field=field)):
        assert isinstance(sample, Sample)
        assert not sample.fault
        packed[sample.captions] = [[text for text, _ in foreign.negatives] for foreign in sample.foreign]
    swapped = {texts: SWAPPED[image] for image, texts in PAIRS.items()}
    replaced = {DOG: [["a cat"], ['a "brown" cat, running']], CAT: [[]], BIRD: [[]]}
    assert packed == (replaced if name == "cs_clip.json" else swapped)


def test_malformed_false_captions_are_reported_and_the_row_is_packed(folder: Path) -> None:
    (folder / "x.json").write_text(json.dumps([{"image": "a.jpg", "captions": DOG, "negatives": ["a"]}]))
    pairs, skips = read(folder / "x.json")
    assert pairs == {"a.jpg": DOG}
    assert skips.notes[0].startswith(
        "1 values of negatives that are not a list with one entry per caption, not packed"
    )
