"""A sample's annotation is read back as written and bounded in size, and a bad annotation costs no sample."""

import gzip
import json
from pathlib import Path

import pytest

from sclip.config import ConfigError, DataConfig
from sclip.data import annotation
from sclip.data.annotation import AnnotationError, pack, passing, read, read_stamped, unpack
from sclip.data.names import ANNOTATION_SUFFIX
from sclip.data.shards import Sample, read_shard
from sclip.prepare.annotate import stamp, usable_stamp
from sclip.scenegraph import Parser
from support.annotated_shards import annotate_here, rewritten, write_plain


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory, parser: Parser) -> list[str]:
    folder = tmp_path_factory.mktemp("annotation")
    return annotate_here(write_plain(folder / "plain"), folder / "out", parser)


def sample(member: bytes | None, captions: tuple[str, ...] = ("a dog", "a cat")) -> Sample:
    return Sample(0, "k", b"i", captions, {} if member is None else {ANNOTATION_SUFFIX: member})


def record(caption: str, objects: int = 0, attributes: int = 0, relations: int = 0) -> bytes:
    graph = {"objects": [{}] * objects, "attributes": [{}] * attributes, "relations": [{}] * relations}
    return annotation.dumps({"graph": graph | {"caption": caption}, "negatives": []})


RECORDS = [record("a dog", 1), record("a cat", 3, 2, 1)]


def test_a_packed_annotation_is_deterministic_and_reads_back_as_json_lines() -> None:
    member = pack("rules-1", RECORDS)
    assert pack("rules-1", RECORDS) == member
    assert member[4:8] == bytes(4)  # gzip's timestamp
    assert read(sample(member)) == ("rules-1", RECORDS)
    assert read_stamped(sample(member), "rules-1") == RECORDS
    lines = [json.loads(line) for line in gzip.decompress(member).splitlines()]
    assert lines[0] == {"format": 1, "stamp": "rules-1"}
    assert [line["graph"]["caption"] for line in lines[1:]] == ["a dog", "a cat"]


NO_HEADS = (
    "", "{", "[" * 100_000, '["format"]', '{"stamp": "x"}', '{"format": 2, "stamp": "x"}', '{"format": 1, "stamp": 5}',
    "\udcff",
)  # fmt: skip


def test_a_malformed_annotation_raises_an_annotation_error() -> None:
    zipped = [gzip.compress(text.encode(errors="surrogateescape")) for text in NO_HEADS]
    for member in (b"", b"no gzip", pack("x", RECORDS)[:-9], *zipped):
        with pytest.raises(AnnotationError, match=r"^annotation (is|has) "):
            unpack(member)


def test_a_gzip_bomb_is_not_unpacked_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = gzip.compress(b'{"format": 1, "stamp": "x"}\n' + bytes(10_000_000))
    assert len(bomb) < 20_000
    monkeypatch.setattr(annotation, "MAX_BYTES", 1000)
    with pytest.raises(AnnotationError, match="more than 1000"):
        unpack(bomb)
    with pytest.raises(AnnotationError, match="more than 1000"):
        pack("x", [b"y" * 1001])


def test_records_of_another_stamp_or_other_captions_are_refused() -> None:
    for member, captions, reason in (
        (None, ("a dog", "a cat"), "not annotated"),
        (pack("old", RECORDS), ("a dog", "a cat"), "annotated under old, not new"),
        (pack("new", RECORDS), ("a dog",), r"has 2 captions, the sample 1 .*caption_field"),
        (b"", ("a dog", "a cat"), "not readable"),
    ):
        with pytest.raises(AnnotationError, match=reason):
            read_stamped(sample(member, captions), "new")


def test_captions_pass_by_minimum_counts_and_a_malformed_or_foreign_record_raises() -> None:
    for minimums, expected in (
        ((0, 0, 0), [0, 1]), ((1, 0, 0), [0, 1]), ((0, 2, 0), [1]), ((3, 2, 1), [1]), ((3, 3, 1), []),
    ):  # fmt: skip
        assert passing(sample(None), RECORDS, minimums) == expected
    foreign = record("a bird", 3)
    for bad in (b"{", b"[]", b'{"graph": 1}', b"[" * 100_000, foreign, b'{"graph": {"objects": []}}'):
        with pytest.raises(AnnotationError):
            passing(sample(None), [RECORDS[0], bad], (1, 0, 0))


def test_a_shard_carries_packed_annotations_and_an_overlong_one_costs_no_sample(
    annotated: list[str], tmp_path: Path, parser: Parser, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = [item for item in read_shard(annotated[0]) if isinstance(item, Sample)]
    assert [len(read_stamped(item, stamp(parser))) for item in samples] == [3] * 5
    long = rewritten(annotated[0], tmp_path / "long.tar", b"x" * 2000)
    monkeypatch.setattr("sclip.data.tar.MAX_ANNOTATION_BYTES", 1000)
    items = list(read_shard(long))
    assert items == samples
    assert [item.members[ANNOTATION_SUFFIX] for item in items if isinstance(item, Sample)] == [b""] * 5


def test_a_run_uses_annotations_if_any_shard_has_them_and_the_config_allows_it(
    tmp_path: Path, annotated: list[str], parser: Parser
) -> None:
    plain = write_plain(tmp_path / "plain")
    assert usable_stamp(DataConfig(), annotated) == stamp(parser)
    assert usable_stamp(DataConfig(annotations=False), annotated) == ""
    assert usable_stamp(DataConfig(), plain) == ""
    assert usable_stamp(DataConfig(), sorted([*plain, *annotated])) == stamp(parser)


def test_annotations_are_used_only_for_a_model_that_reads_as_many_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain, longer = write_plain(tmp_path / "plain"), Parser(most_words=118)
    long = annotate_here(plain, tmp_path / "long", longer, most_words=118)
    assert usable_stamp(DataConfig(), long, 118) == stamp(longer)
    assert not caplog.messages
    assert usable_stamp(DataConfig(), long) == usable_stamp(DataConfig(), long, 246) == ""
    assert "annotate it again with `sclip annotate SHARDS OUT --context-length 248`" in caplog.messages[-1]


def test_a_run_names_shards_of_another_stamp_and_parses_them_or_fails_if_it_filters(
    tmp_path: Path, annotated: list[str], parser: Parser, caplog: pytest.LogCaptureFixture
) -> None:
    old = rewritten(annotated[0], tmp_path / "old.tar", pack("rules-0+none", [b"{}"] * 3))
    assert usable_stamp(DataConfig(), [old]) == ""
    with pytest.raises(ConfigError) as raised:
        usable_stamp(DataConfig(min_relations=1), [old])
    for message in (str(raised.value), *caplog.messages):
        assert "\n" not in message
        assert all(part in message for part in (old, "rules-0+none", stamp(parser), "sclip annotate"))
    assert len(caplog.messages) == 1


def test_a_filter_requires_annotations_of_the_captions_that_are_read(
    tmp_path: Path, annotated: list[str]
) -> None:
    with pytest.raises(ConfigError, match=r"not annotated; annotate it \(sclip annotate"):
        usable_stamp(DataConfig(min_objects=2), write_plain(tmp_path / "plain"))
    with pytest.raises(ConfigError, match=r"data\.caption_field"):
        usable_stamp(DataConfig(caption_field="captions,captions"), annotated)
