"""The name of a shard: the number of its pattern, and its path below the folder of that pattern that may move."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from sclip.data.patterns import find_shards, path_below
from sclip.data.shards import ShardError


@pytest.mark.parametrize(
    ("pattern", "url", "path"),
    [
        ("/data/*.tar", "/data/0.tar", "0.tar"),
        ("/data/0.tar", "/data/0.tar", "0.tar"),
        ("/data/{a,b}/0.tar", "/data/a/0.tar", "a/0.tar"),
        ("/data/t{0..1}/x/0.tar", "/data/t0/x/0.tar", "t0/x/0.tar"),
        ("/data/{a/x,b}/0.tar", "/data/a/x/0.tar", "a/x/0.tar"),
        ("/data/**/*.tar", "/data/0.tar", "0.tar"),
        ("/data/**/*.tar", "/data/a/b/0.tar", "a/b/0.tar"),
        ("/data/*/0.tar", "/data/*/0.tar", "*/0.tar"),
        ("/data//x///*.tar", "/data/x/0.tar", "0.tar"),
        ("/data/y/../x/./*.tar", "/data/y/../x/0.tar", "0.tar"),
        ("file:///data/*.tar", "/data/0.tar", "0.tar"),
        # Of a pattern that names a folder it is that folder; brackets may be part of its name.
        ("/data/train", "/data/train/a/0.tar", "a/0.tar"),
        ("/data/a[1]/*.tar", "/data/a[1]/0.tar", "0.tar"),
        ("/data/a[12]/*.tar", "/data/a1/0.tar", "a1/0.tar"),
        ("s3://bucket/train/*.tar", "s3://bucket/train/0.tar", "0.tar"),
        ("s3://{b1,b2}/train/0.tar", "s3://b2/train/0.tar", "b2/train/0.tar"),
        ("s3://k:s@b/t/*.tar?region=x", "s3://k:s@b/t/0.tar?region=x", "0.tar"),
        ("https://u:p@h:80/t/{0..1}.tar?sig=a/b", "https://u:p@h:80/t/0.tar?sig=a/b", "0.tar"),
        ("https://h/t@2/*.tar", "https://h/t@2/0.tar", "0.tar"),
        ("memory://t/*.tar", "memory:///t/0.tar", "0.tar"),
    ],
)  # fmt: skip
def test_the_path_of_a_shard_begins_below_the_fixed_folder(pattern: str, url: str, path: str) -> None:
    assert path_below(pattern, url) == path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of empty tars, which is the working directory."""
    for name in ("a/0.tar", "a/1.tar", "a/sub/0.tar", "b/0.tar"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["a/*.tar"], {"0/0.tar": "a/0.tar", "0/1.tar": "a/1.tar"}),
        (
            ["./b/0.tar", "a/**/0.tar"],
            {"0/0.tar": "b/0.tar", "1/0.tar": "a/0.tar", "1/sub/0.tar": "a/sub/0.tar"},
        ),
        (["a/1.tar", "a/*.tar"], {"0/1.tar": "a/1.tar", "1/0.tar": "a/0.tar"}),
        (["{a,b}/0.tar"], {"0/a/0.tar": "a/0.tar", "0/b/0.tar": "b/0.tar"}),
    ],
)
def test_a_shard_has_the_number_of_the_first_pattern_that_finds_it(
    folder: Path, patterns: Sequence[str], names: dict[str, str]
) -> None:
    found = find_shards(patterns)
    assert {shard.name: shard.url for shard in found} == {
        name: str(folder / at) for name, at in names.items()
    }
    assert found == sorted(found)
    assert [shard.name for shard in find_shards(patterns, 7)] == [
        f"{7 + int(shard.name[0])}{shard.name[1:]}" for shard in found
    ]


def test_shards_that_only_credentials_tell_apart_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    urls = ["https://h/get.tar?file=1", "https://h/get.tar?file=2"]
    monkeypatch.setattr("sclip.data.patterns.expand", lambda _: urls)
    with pytest.raises(
        ShardError, match=r"^https://h/get.tar\?file=.*: several shards are 0/get.tar without"
    ):
        find_shards(["https://h/get.tar?file={1..2}"])
