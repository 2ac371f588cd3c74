"""Reading shards: intact samples are read unchanged, and defects of a tar are rejected, never raised."""

import io
import json
import random
import tarfile
import tracemalloc
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from webdataset.tariterators import base_plus_ext

from sclip.config import DataConfig
from sclip.data import tar
from sclip.data.counts import count_samples
from sclip.data.images import ImageError, random_crop
from sclip.data.names import IMAGE_SUFFIXES, key_and_suffix
from sclip.data.shards import Rejected, Sample, read_shard
from sclip.data.tar import Tally
from support.defective_shards import write
from support.tars import Member, pair, tar_bytes


def read(path: Path, members: Iterable[Member], caption_field: str = "") -> list[Sample | Rejected]:
    path.write_bytes(tar_bytes(members))
    return list(read_shard(str(path), DataConfig(caption_field=caption_field)))


def described(path: Path, members: Iterable[Member], **data: Any) -> tuple[list[str], dict[str, int]]:
    """Return "key: captions" or "key: reason" of each item, and the counts of unread members."""
    path.write_bytes(tar_bytes(members))
    tally = Tally()
    items = list(read_shard(str(path), DataConfig(**data), tally))
    texts = [f"{i.key}: {i.reason if isinstance(i, Rejected) else ' | '.join(i.captions)}" for i in items]
    return texts, dict(tally.unread)


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return tmp_path / "000000.tar"


def test_samples_come_in_tar_order_and_every_usual_image_suffix_is_read(
    shard: Path,
) -> None:
    samples = read(shard, [*pair("b", "a bird"), *pair("a", "an ant"), *pair("dir/c", "a cat")])
    captions = {"b": "a bird", "a": "an ant", "dir/c": "a cat"}
    expected = [
        Sample(n, k, f"image of {k}".encode(), (text,)) for n, (k, text) in enumerate(captions.items())
    ]
    assert samples == expected
    for suffix in (*IMAGE_SUFFIXES, "jfif", "gif", "bmp", "tif", "tiff", "JPG"):
        assert read(shard, [(f"a.{suffix}", b"i"), ("a.txt", b"a dog")]) == [Sample(0, "a", b"i", ("a dog",))]


@pytest.mark.parametrize(
    ("record", "text", "field", "captions"),
    [
        ({"captions": ["one", "two"], "caption": "x", "url": "u"}, "y", "", ("one", "two")),
        ({"caption": None}, "from text\n", "", ("from text",)),
        (None, "from text", "", ("from text",)),
        ({"captions": ["one", " ", None]}, None, "", ("one",)),
        ({"alt": ["one"], "long": "two", "caption": "x"}, "y", "alt, long", ("one", "two")),
        ({"caption": "x"}, "y", "alt", ()),
    ],
)
def test_captions_come_from_the_named_field_else_from_captions_then_caption_then_txt(
    shard: Path, record: object, text: str | None, field: str, captions: tuple[str, ...]
) -> None:
    members = [("a.webp", b"i")]
    if record is not None:
        members.append(("a.json", json.dumps(record).encode()))
    if text is not None:
        members.append(("a.txt", text.encode()))
    expected = Sample(0, "a", b"i", captions) if captions else Rejected(0, "a", "no caption in alt")
    assert read(shard, members, field) == [expected]


HOST = [
    ("example.com_a.jpg", b"i"),
    ("example.com_a.json", b'{"caption": "a cat"}'),
    ("example.com_a.txt", b"a dog"),
]


@pytest.mark.parametrize(
    ("members", "data", "items", "unread"),
    [
        (HOST, {}, ["example: no image: it has .com_a.jpg .com_a.json .com_a.txt; data.key_ends_at=last_dot would "
                    "make 1 sample of it"], {".com_a.jpg": 1, ".com_a.txt": 1}),
        ([("a.b/X.IMG", b"i"), ("a.b/X.alt", b"a cat"), ("a.b/X.txt", b"a dog")],
         {"image_suffixes": ("png", "img"), "text_suffixes": ("txt", "alt")}, ["a.b/X: a dog"], {}),
        ([("x.txt", b"a dog"), ("x.npy", b"n")], {},
         ["x: no image: it has .txt .npy; data.image_suffixes names the suffixes that are read"], {}),
        ([("x.graph.json.gz", b"g")], {}, ["x: no image: it has .graph.json.gz"], {}),
        ([("x.\udcff\n.jpg", b"i"), ("x." + "a" * 300, b"n"), ("x." + "b" * 300 + ".txt", b"t")], {},
         ["x: no image: it has .\\udcff?.jpg ." + "a" * 39 + "* .*" + "b" * 36 + ".txt; data.image_suffixes names "
          "the suffixes that are read"], {".\\udcff?.jpg": 1, ".*" + "b" * 36 + ".txt": 1}),
        ([*pair("/etc/x"), *pair(".//y"), *pair("d\\z"), ("\\\\h\\w.jpg", b"i"), ("./h/w.txt", b"a cat")], {},
         ["etc/x: a dog", "y: a dog", "d/z: a dog", "h/w: a cat"], {}),
        ([("a.b.jpg", b"i"), ("a.b.txt", b"a dog"), ("a.b.graph.json.gz", b"g"), ("c.jpg", b"i"), ("c.txt", b"c")],
         {"key_ends_at": "last_dot"}, ["a.b: a dog", "c: c"], {}),
    ],
)  # fmt: skip
def test_member_names_decide_what_is_read_of_a_tar_and_unread_members_are_counted(
    shard: Path, members: list[Member], data: dict[str, Any], items: list[str], unread: dict[str, int]
) -> None:
    assert described(shard, members, **data) == (items, unread)
    assert count_samples([str(shard)], DataConfig(**data)).samples == {str(shard): len(items)}


def test_an_image_larger_than_the_limit_is_skipped_unread(
    shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar, "MAX_IMAGE_BYTES", 10_000)
    big, small = read(shard, [("a.jpg", bytes(10_001)), ("a.txt", b"a dog"), *pair("b")])
    assert big == Rejected(0, "a", ".jpg of 10001 bytes, more than 10000")
    assert small.key == "b"


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_larger_than_any_name_is_not_read(shard: Path, kind: bytes) -> None:
    with tarfile.open(shard, "w:gz", compresslevel=1) as tar:
        info = tarfile.TarInfo("a.jpg")
        tar.addfile(info)
        info.type, info.size = kind, 64 * 2**20
        tar.addfile(info, io.BytesIO(bytes(info.size)))
    tracemalloc.start()
    try:
        *_, last = read_shard(str(shard))
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()
    assert isinstance(last, Rejected)
    assert "a header of 67108864 bytes" in last.reason


WHOLE = tar_bytes([member for number in range(6) for member in pair(f"{number:03d}", "a dog " * 200)])


@given(cut=st.integers(min_value=0, max_value=len(WHOLE)))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_cut_shard_gives_its_whole_samples_and_one_rejection_for_the_rest(shard: Path, cut: int) -> None:
    shard.write_bytes(WHOLE)
    whole = list(read_shard(str(shard)))
    shard.write_bytes(WHOLE[:cut])
    items = list(read_shard(str(shard)))
    assert [item.index for item in items] == list(range(len(items)))
    if isinstance(items[-1], Rejected):
        last = items.pop()
        assert last.key == ""
        assert ("broken" if cut >= tarfile.BLOCKSIZE else "not a tar") in last.reason
        assert len(items) >= cut // (len(WHOLE) // 6) - 1
    else:
        assert len(items) == 6
    assert items == whole[: len(items)]


@given(offset=st.integers(0, len(WHOLE) - 1), value=st.integers(0, 255))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_changed_byte_anywhere_never_raises_and_never_repeats_an_index(
    shard: Path, offset: int, value: int
) -> None:
    damaged = bytearray(WHOLE)
    damaged[offset] = value
    shard.write_bytes(damaged)
    items = list(read_shard(str(shard)))
    assert [item.index for item in items] == list(range(len(items)))


@given(st.text(alphabet="ab./é ", max_size=12))
@example("a/b.c/d.cap.txt")
@example("x/.hidden.jpg")
def test_a_name_is_split_into_key_and_suffix_as_webdataset_does_but_for_hidden_files(name: str) -> None:
    key, suffix = key_and_suffix(name, DataConfig()) or (None, None)
    hidden = name.rpartition("/")[2].startswith(".")
    assert (key, suffix) == ((None, None) if hidden else base_plus_ext(name))


def judged(shard: str) -> Iterator[tuple[str, str]]:
    """Yield the key and the rejection reason of each item of a shard. A usable item has an empty reason."""
    for item in read_shard(shard):
        reason = item.reason if isinstance(item, Rejected) else ""
        if not isinstance(item, Rejected):
            try:
                random_crop(item.image, 32, (0.9, 1.0), random.Random(0))
            except ImageError as error:
                reason = str(error)
        yield item.key, reason


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_exactly_the_planted_defects_are_rejected_and_everything_else_is_usable(tmp_path: Path) -> None:
    planted = write(tmp_path / "defects")
    tracemalloc.start()
    try:
        verdicts = [(Path(shard).name, *entry) for shard in planted.shards for entry in judged(shard)]
        assert tracemalloc.get_traced_memory()[1] < 24 * 2**20
    finally:
        tracemalloc.stop()
    for name, key, reason in verdicts:
        expected = [part for file, named, part in planted.defects if (file, named) == (name, key)]
        assert not reason or any(part in reason for part in expected), (name, key, reason, expected)
    for shard, good in planted.good.items():
        assert [key for name, key, reason in verdicts if name == shard and not reason] == good
    bad = Counter((name, key) for name, key, reason in verdicts if reason)
    assert bad == Counter((name, key) for name, key, _ in planted.defects)
    assert not planted.marker.exists()
