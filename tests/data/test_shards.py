"""Reading shards: whole samples come as they are, and what is wrong in a tar is rejected, never raised."""

import gzip
import io
import json
import tarfile
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from webdataset.tariterators import base_plus_ext

from sclip.config import DataConfig
from sclip.data import tar
from sclip.data.counts import count_samples, recorded_samples
from sclip.data.names import IMAGE_SUFFIXES, key_and_suffix
from sclip.data.patterns import expand
from sclip.data.shards import Rejected, Sample, read_shard
from sclip.data.tar import Tally
from support.tars import Member, pair, tar_bytes


def read(
    path: Path, members: Iterable[Member], caption_field: str = "", **data: Any
) -> list[Sample | Rejected]:
    path.write_bytes(tar_bytes(members))
    return list(read_shard(str(path), DataConfig(caption_field=caption_field, **data)))


def told(path: Path, members: Iterable[Member], **data: Any) -> tuple[list[str], dict[str, int]]:
    """Return key and captions, or key and reason, of each item, and what the reader counted as unread."""
    path.write_bytes(tar_bytes(members))
    tally = Tally()
    items = list(read_shard(str(path), DataConfig(**data), tally))
    texts = [f"{i.key}: {i.reason if isinstance(i, Rejected) else ' | '.join(i.captions)}" for i in items]
    return texts, dict(tally.unread)


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return tmp_path / "000000.tar"


def test_samples_come_in_the_order_of_the_tar_with_indices_from_zero(shard: Path) -> None:
    found = read(shard, [*pair("b", "a bird"), *pair("a", "an ant"), *pair("dir/c", "a cat")])
    assert found == [
        Sample(0, "b", b"image of b", ("a bird",)),
        Sample(1, "a", b"image of a", ("an ant",)),
        Sample(2, "dir/c", b"image of dir/c", ("a cat",)),
    ]


def test_a_shard_as_img2dataset_writes_it_is_read_as_it_is(shard: Path) -> None:
    record = {"caption": "a cat", "url": "http://x/y.webp", "status": "success", "width": 2, "exif": "{}"}
    members = [
        ("000000000.webp", b"w"),
        ("000000000.json", json.dumps(record).encode()),
        ("000000000.txt", b"a cat"),
    ]
    assert read(shard, members) == [Sample(0, "000000000", b"w", ("a cat",))]


@pytest.mark.parametrize("suffix", [*IMAGE_SUFFIXES, "jfif", "gif", "bmp", "tif", "tiff", "JPG", "PNG"])
def test_every_usual_image_suffix_is_taken_in_either_case(shard: Path, suffix: str) -> None:
    assert read(shard, [(f"a.{suffix}", b"i"), ("a.txt", b"a dog")]) == [Sample(0, "a", b"i", ("a dog",))]


@pytest.mark.parametrize(
    ("record", "text", "field", "captions"),
    [
        ({"captions": ["one", "two"], "caption": "x"}, "y", "", ("one", "two")),
        ({"captions": [], "caption": "one"}, "y", "", ("one",)),
        ({"caption": None}, "from text\n", "", ("from text",)),
        ({"url": "u"}, "from text", "", ("from text",)),
        (None, "from text", "", ("from text",)),
        ({"captions": ["one", " ", None]}, None, "", ("one",)),
        ({"alt": "one", "caption": "x"}, "y", "alt", ("one",)),
        ({"alt": ["one"], "long": "two"}, None, "alt, long", ("one", "two")),
    ],
)
def test_captions_come_from_the_named_field_else_from_captions_then_caption_then_txt(
    shard: Path, record: object, text: str | None, field: str, captions: tuple[str, ...]
) -> None:
    members = [("a.jpg", b"i")]
    if record is not None:
        members.append(("a.json", json.dumps(record).encode()))
    if text is not None:
        members.append(("a.txt", text.encode()))
    assert read(shard, members, field) == [Sample(0, "a", b"i", captions)]


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("x.txt", b"a dog")], "no image"),
        ([("x.jpg", b""), ("x.txt", b"a dog")], "no image"),
        ([("x.heic", b"i"), ("x.txt", b"a dog")], "no image"),
        ([("x.jpg", b"i")], "no caption"),
        ([("x.jpg", b"i"), ("x.txt", b" \n")], "no caption"),
        ([("x.jpg", b"i"), ("x.txt", b"\xffa")], "not UTF-8"),
        ([("x.jpg", b"i"), ("x.txt", b"a" * (64 * 1024 + 1))], "more than 65536"),
        ([("x.jpg", b"i"), ("x.txt", b"a" * (1024 * 1024 + 1))], "more than 1048576"),
        ([("x.jpg", b"i"), ("x.json", b"{")], "not readable"),
        ([("x.jpg", b"i"), ("x.json", b"[" * 100_000)], "not readable"),
        ([("x.jpg", b"i"), ("x.json", b'["a dog"]')], "holds a list"),
        ([("x.jpg", b"i"), ("x.json", b'{"caption": 5}')], "holds int"),
        ([("x.jpg", b"i"), ("x.json", b'{"caption": "\\ud800"}')], "not UTF-8"),
        ([("x.jpg", b"i"), ("x.jpg", b"j"), ("x.txt", b"a dog")], "two members .jpg"),
        (pair("../x"), "leads out"),
        (pair("..\\x"), "leads out"),
        (pair("d/../../x"), "leads out"),
    ],
)
def test_a_sample_that_cannot_be_used_is_rejected_with_its_reason_and_the_next_one_read(
    shard: Path, members: list[Member], reason: str
) -> None:
    first, rejected, last = read(shard, [*pair("first"), *members, *pair("last")])
    assert (first.key, last.key, last.index) == ("first", "last", 2)
    assert isinstance(rejected, Rejected)
    assert rejected.index == 1
    assert reason in rejected.reason


CLIP = [
    (f"clip7.{n:05d}.{suffix}", body)
    for n in range(300)
    for suffix, body in (("jpg", b"i"), ("txt", b"a dog"))
]
INPUT = [("x.input.jpg", b"i"), ("x.outputs.txt", b"a dog"), ("x.id.cls", b"7")]
HOST = [
    ("example.com_a.jpg", b"i"),
    ("example.com_a.json", b'{"caption": "a cat"}'),
    ("example.com_a.txt", b"a dog"),
]


@pytest.mark.parametrize(
    ("members", "data", "items", "unread"),
    [
        ([*pair("photo"), ("photo.large.jpg", b"l"), ("photo.seg.png", b"m")], {},
         ["photo: a dog"], {".large.jpg": 1, ".seg.png": 1}),
        ([("a.jpeg", b"i"), *pair("a")], {}, ["a: a dog"], {}),  # another image of the sample
        (CLIP, {}, ["clip7: no image: it has 300 .N.jpg 300 .N.txt; data.key_ends_at=last_dot would make "
                    "300 samples of it"], {".N.jpg": 300, ".N.txt": 300}),
        (CLIP, {"key_ends_at": "last_dot"}, [f"clip7.{n:05d}: a dog" for n in range(300)], {}),
        (HOST, {}, ["example: no image: it has .com_a.jpg .com_a.json .com_a.txt; data.key_ends_at=last_dot would "
                    "make 1 sample of it"], {".com_a.jpg": 1, ".com_a.txt": 1}),
        (HOST, {"key_ends_at": "last_dot"}, ["example.com_a: a cat"], {}),
        (INPUT, {}, ["x: no image: it has .input.jpg .outputs.txt .id.cls; data.image_suffixes names those that are "
                     "read"], {".input.jpg": 1, ".outputs.txt": 1}),
        (INPUT, {"image_suffixes": ("input.jpg",)}, [
            "x: no caption in .json captions, .json caption or .txt; it has .input.jpg .outputs.txt .id.cls: "
            "data.text_suffixes names the texts that are read"], {".outputs.txt": 1}),
        (INPUT, {"image_suffixes": ("input.jpg",), "text_suffixes": ("outputs.txt",)}, ["x: a dog"], {}),
        ([("a.b/X.IMG", b"i"), ("a.b/X.alt", b"a cat"), ("a.b/X.txt", b"a dog")],
         {"image_suffixes": ("png", "img"), "text_suffixes": ("txt", "alt")}, ["a.b/X: a dog"], {}),
        ([("x.txt", b"a dog"), ("x.npy", b"n")], {},
         ["x: no image: it has .txt .npy; data.image_suffixes names those that are read"], {}),
        ([("x.txt", b"a dog")], {}, ["x: no image: it has .txt"], {}),
        ([("x.graph.json.gz", b"g")], {}, ["x: no image: it has .graph.json.gz"], {}),
        ([("x.\udcff\n.jpg", b"i"), ("x." + "a" * 300, b"n"), ("x." + "b" * 300 + ".txt", b"t")], {},
         ["x: no image: it has .\\udcff?.jpg ." + "a" * 39 + "* .*" + "b" * 36 + ".txt; data.image_suffixes names "
          "those that are read"], {".\\udcff?.jpg": 1, ".*" + "b" * 36 + ".txt": 1}),
        ([*pair("sub/x"), ("sub/._x.jpg", b"mac"), ("__MACOSX/x.jpg", b"mac"), ("__MACOSX/sub/._x.txt", b"mac")], {},
         ["sub/x: a dog"], {}),
        ([*pair("/etc/x"), *pair(".//y"), *pair("d\\z"), ("\\\\h\\w.jpg", b"i"), ("./h/w.txt", b"a cat")], {},
         ["etc/x: a dog", "y: a dog", "d/z: a dog", "h/w: a cat"], {}),
        ([("a.b.jpg", b"i"), ("a.b.txt", b"a dog"), ("a.b.graph.json.gz", b"g"), ("c.jpg", b"i"), ("c.txt", b"c")],
         {"key_ends_at": "last_dot"}, ["a.b: a dog", "c: c"], {}),
    ],
)  # fmt: skip
def test_what_is_read_of_a_tar_follows_from_the_names_of_its_members_and_the_rest_is_told(
    shard: Path, members: list[Member], data: dict[str, Any], items: list[str], unread: dict[str, int]
) -> None:
    assert told(shard, members, **data) == (items, unread)
    assert count_samples([str(shard)], DataConfig(**data)).samples == {str(shard): len(items)}


def test_names_that_all_differ_are_counted_under_a_hundred_suffixes(shard: Path) -> None:
    letters = "abcdefghijklmnopqrst"
    names = [f"x.{a}{b}.jpg" for a in letters for b in letters]
    _, unread = told(shard, [(name, b"i") for name in names])
    assert len(unread) == 101
    assert (unread[".aa.jpg"], unread[".*.jpg"]) == (1, 300)


def test_images_apart_from_their_texts_are_told_with_the_remedy(shard: Path) -> None:
    both = [pair(f"{n}") for n in range(3)]
    items, _ = told(shard, [image for image, _ in both] + [text for _, text in both])
    apart = "its key stands earlier in the shard, without a caption; members of a sample must be neighbours: "
    remedy = "make the tar with `tar --sort=name -cf`, or sclip pack"
    lacking = "no caption in .json captions, .json caption or .txt"
    assert items == [f"{n}: {lacking}" for n in range(3)] + [f"{n}: {apart}{remedy}" for n in range(3)]
    items, _ = told(shard, [text for _, text in both] + [image for image, _ in both])
    assert items[0] == "0: no image: it has .txt"
    assert items[3].startswith("0: its key stands earlier in the shard, without an image; members")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_in_a_tar_sets_its_sample_aside_and_is_told_with_the_remedy(shard: Path, kind: bytes) -> None:
    with tarfile.open(shard, "w") as tar:
        for name, body in [
            *pair("a"),
            *pair("b"),
            ("c.jpg", b""),
            ("c.txt", b""),
            ("d.graph.json.gz", b""),
            *pair("d"),
        ]:
            info = tarfile.TarInfo(name)
            info.size = len(body)
            if not body:
                info.type, info.linkname = kind, "a\udcff.jpg"
            tar.addfile(info, io.BytesIO(body))
    for content in (shard.read_bytes(), gzip.compress(shard.read_bytes())):
        shard.write_bytes(content)
        found = list(read_shard(str(shard)))
        remedy = "make the tar with tar --dereference --hard-dereference"
        assert [item.key for item in found if isinstance(item, Sample)] == ["a", "b", "d"]
        assert found[2] == Rejected(2, "c", f".txt is a link to 'a\\udcff.jpg'; {remedy}")
        assert count_samples([str(shard)]).samples == {str(shard): 4}


def test_a_key_that_comes_again_is_rejected_and_its_first_sample_kept(shard: Path) -> None:
    first, _, again = read(shard, [*pair("a", "one"), *pair("b"), *pair("a", "two")])
    assert first == Sample(0, "a", b"image of a", ("one",))
    assert again == Rejected(
        2, "a", "its key stands earlier in the shard; members of a sample must be neighbours"
    )


def test_a_named_caption_field_that_is_missing_is_a_rejection_and_not_another_caption(shard: Path) -> None:
    members = [("a.jpg", b"i"), ("a.json", b'{"caption": "x"}'), ("a.txt", b"y")]
    assert read(shard, members, "alt") == [Rejected(0, "a", "no caption in alt")]


def test_pickles_and_unknown_members_are_never_opened(shard: Path) -> None:
    bomb = b"cos\nsystem\n(S'exit 1'\ntR."
    members = [("a.cls.pkl", bomb), *pair("a"), ("a.pickle", bomb), ("a.pyd", bomb), ("README", b"hello")]
    assert read(shard, members) == [Sample(0, "a", b"image of a", ("a dog",))]


def test_an_image_larger_than_the_limit_is_skipped_over_unread(
    shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar, "MAX_IMAGE_BYTES", 10_000)
    big, small = read(shard, [("a.jpg", bytes(10_001)), ("a.txt", b"a dog"), *pair("b")])
    assert big == Rejected(0, "a", ".jpg of 10001 bytes, more than 10000")
    assert small.key == "b"


def test_a_key_that_is_not_utf8_is_rejected_under_a_printable_name(shard: Path) -> None:
    content = tar_bytes(pair("a\xe9", "x"), "w").replace("a\xe9".encode(), b"a\xff\xfe")
    shard.write_bytes(_with_checksums(content))
    (found,) = read_shard(str(shard))
    assert isinstance(found, Rejected)
    assert found.key.isascii()
    assert "not UTF-8" in found.reason


def _with_checksums(content: bytes) -> bytes:
    """Write the header checksums of a tar of one-block members anew."""
    blocks = [bytearray(content[at : at + 512]) for at in range(0, len(content), 512)]
    for block in blocks:
        if block[257:262] == b"ustar":
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
    return b"".join(blocks)


@pytest.mark.parametrize(
    "content", [b"", b"no tar at all", bytes(range(256)) * 20, b"<html>404</html>" * 100]
)
def test_a_file_that_is_no_tar_gives_one_rejection_and_no_error(shard: Path, content: bytes) -> None:
    shard.write_bytes(content)
    (found,) = read_shard(str(shard))
    assert isinstance(found, Rejected)
    assert (found.index, found.key) == (0, "")
    assert "no tar" in found.reason


def test_what_follows_the_end_of_a_tar_is_not_lost_in_silence(shard: Path) -> None:
    shard.write_bytes(tar_bytes(pair("a")) + tar_bytes(pair("b")))
    first, rest = read_shard(str(shard))
    assert first.key == "a"
    assert isinstance(rest, Rejected)
    assert rest == Rejected(1, "", rest.reason)
    assert "broken tar, last key 'a': more follows" in rest.reason
    assert rest.reason.endswith(": unpack and pack them as one, or join them with `tar --concatenate`")
    shard.write_bytes(tar_bytes(pair("a")) + bytes(1_000_000))
    first, rest = read_shard(str(shard))
    assert first.key == "a"
    assert isinstance(rest, Rejected)
    assert (rest.index, rest.key) == (1, "")
    assert "bytes are zeros" in rest.reason
    assert rest.reason.endswith("made long and filled in part, or of tar -b above 20")


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
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_cut_shard_gives_its_whole_samples_and_one_rejection_for_the_rest(shard: Path, cut: int) -> None:
    shard.write_bytes(WHOLE)
    whole = list(read_shard(str(shard)))
    shard.write_bytes(WHOLE[:cut])
    found = list(read_shard(str(shard)))
    assert [item.index for item in found] == list(range(len(found)))
    if isinstance(found[-1], Rejected):
        last = found.pop()
        assert last.key == ""
        assert ("broken" if cut >= tarfile.BLOCKSIZE else "no tar") in last.reason
        assert len(found) >= cut // (len(WHOLE) // 6) - 1
    else:
        assert len(found) == 6
    assert found == whole[: len(found)]


@given(at=st.integers(0, len(WHOLE) - 1), value=st.integers(0, 255))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_changed_byte_anywhere_never_raises_and_never_repeats_an_index(
    shard: Path, at: int, value: int
) -> None:
    damaged = bytearray(WHOLE)
    damaged[at] = value
    shard.write_bytes(damaged)
    found = list(read_shard(str(shard)))
    assert [item.index for item in found] == list(range(len(found)))


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_compressed_shards_are_read_and_a_cut_one_is_rejected_at_the_cut(shard: Path, mode: str) -> None:
    content = tar_bytes([*pair("a"), *pair("b")], mode)
    shard.write_bytes(content)
    assert [item.key for item in read_shard(str(shard))] == ["a", "b"]
    shard.write_bytes(content[: len(content) // 2])
    *_, last = read_shard(str(shard))
    assert isinstance(last, Rejected)
    assert last.key == ""


def test_samples_are_recorded_in_the_index_else_the_stats_and_counted_where_a_record_is_wrong(
    tmp_path: Path,
) -> None:
    for name in ("indexed", "00001", "plain"):
        (tmp_path / f"{name}.tar").write_bytes(WHOLE)
    index = {"format": 1, "shards": [{"name": "indexed.tar", "samples": 11}], "samples": 11}
    (tmp_path / "index.json").write_text(json.dumps(index))
    (tmp_path / "00001_stats.json").write_text(json.dumps({"count": 9, "successes": 7}))
    counts = recorded_samples(expand([f"{tmp_path}/*.tar"]))
    assert {Path(url).stem: record for url, record in counts.items()} == {
        "indexed": ("index.json", 11), "00001": ("00001_stats.json", 7)
    }  # fmt: skip
    assert set(count_samples(expand([f"{tmp_path}/*.tar"])).samples.values()) == {6}


@pytest.mark.parametrize("content", ["not JSON", "[]", '{"version": 2, "shards": [{"raw_data": {}}]}', "{}"])
def test_the_index_of_another_program_is_passed_over(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.tar").write_bytes(WHOLE)
    (tmp_path / "index.json").write_text(content)
    assert list(count_samples([str(tmp_path / "a.tar")]).samples.values()) == [6]


@given(st.text(alphabet="ab./é ", max_size=12))
@example("a/b.c/d.cap.txt")
@example("x/.hidden.jpg")
def test_a_name_is_split_into_key_and_suffix_as_webdataset_does_but_for_hidden_files(name: str) -> None:
    key, suffix = key_and_suffix(name, DataConfig()) or (None, None)
    hidden = name.rpartition("/")[2].startswith(".")
    assert (key, suffix) == ((None, None) if hidden else base_plus_ext(name))
