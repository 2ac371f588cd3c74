"""Recorded sample counts are checked against the shards' headers and trusted only if they agree."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from sclip.data import counts
from sclip.data.counts import Counts, count_samples, recorded_samples
from sclip.data.patterns import expand
from support.tars import pair, tar_bytes


def shard_of(samples: int) -> bytes:
    return tar_bytes([member for number in range(samples) for member in pair(f"{number:03d}")])


def write(
    folder: Path, shards: Mapping[str, bytes], index: Mapping[str, int], stats: Mapping[str, int]
) -> list[str]:
    """Write shards named by stem, an index and stats; return the shards' paths."""
    for stem, content in shards.items():
        (folder / f"{stem}.tar").write_bytes(content)
    for stem, samples in stats.items():
        (folder / f"{stem}_stats.json").write_text(json.dumps({"successes": samples}))
    if index:
        entries = [{"name": f"{stem}.tar", "samples": samples} for stem, samples in index.items()]
        (folder / "index.json").write_text(json.dumps({"shards": entries}))
    return [str(folder / f"{stem}.tar") for stem in shards]


SIX, ZEROS = shard_of(6), shard_of(2) + bytes(60_000)


@pytest.mark.parametrize(
    ("content", "index", "stats", "samples", "expected"),
    [
        (SIX, 0, 0, 6, 6),
        (SIX, 0, 16, 6, 6),  # the stats of a complete tar are wrong
        (SIX, 9, 0, 6, 9),  # a reader expects what an index records, as it is written with its tars
        (SIX, 4, 16, 6, 4),
        (gzip.compress(SIX), 0, 16, 6, 6),
        (ZEROS, 0, 6, 2, 6),
        (SIX[: 4 * 2048 + 700], 0, 6, 5, 6),
    ],
)
def test_the_schedule_counts_existing_samples_and_a_reader_expects_recorded_ones(
    tmp_path: Path, content: bytes, index: int, stats: int, samples: int, expected: int
) -> None:
    (url,) = write(tmp_path, {"0": content}, {"0": index} if index else {}, {"0": stats} if stats else {})
    result = count_samples([url])
    assert result.samples == {url: samples}
    assert result.expected(url) == expected
    assert result.wrong() == ([url] if (index or stats or samples) != samples else [])
    assert list(result.broken) == ([url] if content in (ZEROS, SIX[: 4 * 2048 + 700]) else [])


@pytest.mark.parametrize(
    ("pattern", "absent"),
    [
        ("x", "2 4"),
        ("*/*.tar", "2 3 4"),
        ("[x]/{0*,[1-3].tar*}", "2"),
        ("x/[0-3].tar", "2 3"),
        ("x/0.tar", ""),
        ("y.tar/*.tar", ""),
    ],
)
def test_missing_shards_are_those_that_are_recorded_and_match_a_pattern(
    tmp_path: Path, pattern: str, absent: str
) -> None:
    for folder in ("x", "y.tar"):
        (tmp_path / folder).mkdir()
    write(tmp_path / "y.tar", {"0": SIX}, {"0": 6, "5": 0}, {})
    write(tmp_path / "x", {"0": SIX, "1": SIX, "3": SIX}, {"0": 6, "2": 6, "3": 6}, {"1": 6, "4": 7, "5": 0})
    (tmp_path / "x" / "3.tar").rename(tmp_path / "x" / "3.tar.zst")  # compressed after it was recorded
    patterns = [f"{tmp_path}/{pattern}"]
    urls = expand(patterns)
    records = recorded_samples(urls, patterns)
    assert sorted(Path(url).stem for url in records.keys() - set(urls)) == absent.split()
    assert {url: records[url] for url in records if url in urls} == recorded_samples(urls)
    assert count_samples(urls, recorded=records).records == recorded_samples(urls)


def test_an_invalid_count_is_ignored_alone_and_a_foreign_index_is_ignored_whole(
    tmp_path: Path,
) -> None:
    urls = write(tmp_path, {"0": SIX, "1": SIX}, {}, {})
    index = tmp_path / "index.json"
    for samples in ("1e999", "-3", "true", "2.9", '"6"', "null"):
        entries = f'{{"name": "0.tar", "samples": {samples}}}, {{"name": "1.tar", "samples": 6}}'
        index.write_text(f'{{"shards": [{entries}]}}')
        assert recorded_samples(urls) == {urls[1]: ("index.json", 6)}
        assert count_samples(urls).samples == dict.fromkeys(urls, 6)
    for content in ("not JSON", "[]", '{"version": 2, "shards": [{"raw_data": {}}]}', "{}"):
        index.write_text(content)
        assert recorded_samples(urls) == {}


def counted(tmp_path: Path, wrong: int) -> Counts:
    shards = {f"{number:03d}": shard_of(3) for number in range(100)}
    stats = dict.fromkeys(shards, 3) | {f"{wrong:03d}": 4}
    return count_samples(write(tmp_path, shards, {}, stats))


def test_some_of_many_shards_are_counted_and_all_of_them_if_a_checked_record_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "_CHECKED", 10)
    for wrong, num_counted in ((99, 100), (1, 10)):
        result = counted(tmp_path, wrong)
        assert len(result.counted) == num_counted
        assert sum(result.samples.values()) == (300 if num_counted == 100 else 301)
    monkeypatch.setattr(counts, "_CHECKED_SAMPLES", 24)  # fewer shards are checked if they are large
    assert len(counted(tmp_path, 1).counted) == 8


def test_a_plain_tar_is_counted_by_its_headers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = str(tmp_path / "0.tar")
    Path(url).write_bytes(tar_bytes([("a.jpg", bytes(3_000_000)), ("a.txt", b"a dog"), *pair("b")]))
    monkeypatch.setattr(counts, "resumed", None)  # disables the streaming path, which reads everything
    assert count_samples([url]).samples == {url: 2}
