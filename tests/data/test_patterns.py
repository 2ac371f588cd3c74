"""Patterns expand to shards: what wildcards match, what a folder stands for, and the error if nothing matches."""

import os
import re
import zipfile
from pathlib import Path

import fsspec
import pytest

from sclip.config import ConfigError, DataConfig, EvaluateConfig
from sclip.data.patterns import expand, find_shards, path_below
from sclip.data.shards import ShardError, read_shard
from sclip.evaluate.benchmarks import BenchmarkDataError
from sclip.evaluate.kinds import checked
from support.tars import pair, tar_bytes

CONTENT = tar_bytes(pair("a"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of shards among other files, as users have them."""
    for name in (
        "x/0.tar", "x/1.tar.gz", "x/2.TGZ", "x/plain", "x/part.00017", "x/0.parquet", "x/0_stats.json", "x/index.json",
        "x/0.tar.idx", "x/d.dat", "x/._0.tar", "x/.0.tar.tmp", "deep/er/3.tar", "[2014]/4.tar", "[2014]/5.tar",
        "2/6.tar", "none/7.parquet", "x/.cache/hf/9.tar",
        "x/0.tar.1", "x/1.tar.gz.10",
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CONTENT)
    (tmp_path / "empty").mkdir()
    (tmp_path / "links").mkdir()
    for link, target in (
        ("links/8.tar", "x/0.tar"), ("links/deep", "deep"), ("links/loop", "links"), ("deep/also", "deep/er"),
    ):  # fmt: skip
        os.symlink(tmp_path / target, tmp_path / link)
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "shards"),
    [
        ("x/*", "x/0.tar x/1.tar.gz x/2.TGZ x/part.00017 x/plain"),
        ("x/*.tar*", "x/0.tar x/1.tar.gz"),
        ("x/0.tar.[0-9]*", "x/0.tar.1"),
        ("x/*.dat", "x/d.dat"),
        ("x/0.parquet", "x/0.parquet"),
        ("x", "x/0.tar x/1.tar.gz x/2.TGZ"),
        ("{x,2}/", "2/6.tar x/0.tar x/1.tar.gz x/2.TGZ"),
        ("[2014]/*.tar", "[2014]/4.tar [2014]/5.tar"),
        ("[2014]/{4..5}.tar", "[2014]/4.tar [2014]/5.tar"),
        ("deep/**/*.tar", "deep/er/3.tar"),
        ("*/*/*.tar", "deep/er/3.tar links/loop/8.tar"),
        ("links/*/er/*.tar", "links/deep/er/3.tar"),
        ("links/**/*.tar", "links/8.tar links/deep/er/3.tar"),
        ("x/.cache/**/*.tar", "x/.cache/hf/9.tar"),
        ("x/**/.c*/*/*", "x/.cache/hf/9.tar"),
    ],
)
def test_a_pattern_matches_tars_and_not_the_files_that_describe_them(
    folder: Path, pattern: str, shards: str
) -> None:
    assert expand([f"{folder}/{pattern}"]) == [f"{folder}/{shard}" for shard in shards.split()]


ABSENT = [
    ("x/9.tar", "x has 3 tars (0.tar, 1.tar.gz, 2.TGZ)"),
    ("none/*", "none has no tar, but 1 file (7.parquet)"),
    ("empty", "empty is empty; name tars in its subfolders as FOLDER/empty/**/*.tar"),
    ("deep/", "deep has no tar, but 2 folders (also, er); name tars in its subfolders as FOLDER/deep/**/*.tar"),
    ("no/where/*.tar", "there is no FOLDER/no; FOLDER has no tar, but 7 folders (2, [2014], deep, empty, ..); "
                       "name tars in its subfolders as FOLDER/**/*.tar"),
    ("x/{0..1}.tar", "FOLDER/x/1.tar (of FOLDER/x/{0..1}.tar): no such shard; FOLDER/x has 3 tars"),
]  # fmt: skip


def test_the_error_for_a_pattern_without_matches_says_what_exists(folder: Path) -> None:
    for pattern, hint in ABSENT:
        with pytest.raises(ShardError) as caught:
            expand([f"{folder}/{pattern}"])
        assert "no such shard; " in str(caught.value)
        assert hint.replace("FOLDER", str(folder)) in str(caught.value)


def test_sources_joined_by_colons_are_refused_with_a_list_of_them_everywhere() -> None:
    for pattern, sources in (
        ("/a/{0..9}.tar::/b/{0..9}.tar", ["/a/{0..9}.tar", "/b/{0..9}.tar"]),
        ("s3://a/0.tar.gz::s3://b/*", ["s3://a/0.tar.gz", "s3://b/*"]),
        ("zip://in.tar::/f.zip::/x/0.tar", ["zip://in.tar::/f.zip", "/x/0.tar"]),
    ):
        listed = "[" + ", ".join(f'"{source}"' for source in sources) + "]"
        with pytest.raises(ConfigError, match=re.escape(f"data.shards='{listed}'")):
            DataConfig(shards=("/0.tar", pattern))
        with pytest.raises(ConfigError, match=re.escape(f"evaluate.retrieval='{listed}'")):
            EvaluateConfig(retrieval=(pattern,))
        with pytest.raises(ConfigError, match=re.escape(f"name them in a list: {listed}")):
            expand([pattern])
        with pytest.raises(BenchmarkDataError, match=re.escape(f"data.shards='{listed}'")):
            checked("shards", {"shards": pattern}, "suite.yaml: held-out")


def test_chains_of_file_systems_are_expanded_and_read(folder: Path) -> None:
    with zipfile.ZipFile(folder / "f.zip", "w") as archive:
        archive.writestr("in.tar", CONTENT)
        archive.writestr("in.json", "{}")
    for name in ("a.tar", ".cache/b.tar"):
        fsspec.filesystem("memory").pipe(f"/patterns/{name}", CONTENT)
    for pattern, shard in (
        ("zip://in.tar::FOLDER/f.zip", "zip://in.tar::FOLDER/f.zip"),
        ("simplecache::memory://patterns/*", "simplecache::memory:///patterns/a.tar"),
        ("simplecache::zip://*.tar::file://FOLDER/f.zip", "simplecache::zip://in.tar::file://FOLDER/f.zip"),
        ("memory://patterns/**/*.tar", "memory:///patterns/a.tar"),
        ("memory://patterns/.*/*.tar", "memory:///patterns/.cache/b.tar"),
    ):
        pattern, shard = (text.replace("FOLDER", str(folder)) for text in (pattern, shard))
        assert DataConfig(shards=(pattern,)).shards == (pattern,)
        assert expand([pattern]) == [shard]
        assert [item.key for item in read_shard(shard)] == ["a"]


def test_expand_takes_globs_and_braces_and_returns_each_shard_once_and_sorted(tmp_path: Path) -> None:
    for number in (2, 0, 1):
        (tmp_path / f"{number:03d}.tar").write_bytes(CONTENT)
    patterns = "{000..002}.tar *.tar 00[12].tar ./000.tar none/../*.tar */../000.tar . x/../".split()
    urls = expand(
        [f"{prefix}{tmp_path}/{pattern}" for pattern in patterns for prefix in ("", "file://", "/")]
    )
    assert urls == [f"{tmp_path}/{number:03d}.tar" for number in range(3)]


def test_an_unknown_protocol_or_an_open_brace_is_an_error_and_a_pipe_is_not_run() -> None:
    for pattern in ("foo://bucket/a.tar", "pipe:echo hello", "/nowhere/{a,b.tar"):
        with pytest.raises(ShardError, match=re.escape(pattern.partition(":")[0])):
            expand([pattern])


@pytest.mark.parametrize(
    ("pattern", "url", "path"),
    [
        ("/data/*.tar", "/data/0.tar", "0.tar"),
        ("/data/{a/x,b}/0.tar", "/data/a/x/0.tar", "a/x/0.tar"),
        ("/data/*/0.tar", "/data/*/0.tar", "*/0.tar"),
        ("/data/y/../x/./*.tar", "/data/y/../x/0.tar", "0.tar"),
        ("file:///data/*.tar", "/data/0.tar", "0.tar"),
        # If the pattern names a folder, the path starts below that folder. Brackets may be part of a name.
        ("/data/train", "/data/train/a/0.tar", "a/0.tar"),
        ("/data/a[1]/*.tar", "/data/a[1]/0.tar", "0.tar"),
        ("/data/a[12]/*.tar", "/data/a1/0.tar", "a1/0.tar"),
        ("s3://{b1,b2}/train/0.tar", "s3://b2/train/0.tar", "b2/train/0.tar"),
        ("s3://k:s@b/t/*.tar?region=x", "s3://k:s@b/t/0.tar?region=x", "0.tar"),
        ("https://u:p@h:80/t/{0..1}.tar?sig=a/b", "https://u:p@h:80/t/0.tar?sig=a/b", "0.tar"),
        ("memory://t/*.tar", "memory:///t/0.tar", "0.tar"),
    ],
)  # fmt: skip
def test_the_path_of_a_shard_begins_below_the_fixed_folder(pattern: str, url: str, path: str) -> None:
    assert path_below(pattern, url) == path


def test_a_shard_has_the_number_of_the_first_pattern_that_finds_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    first, second, third = "x/0.tar", "deep/er/3.tar", "2/6.tar"
    for patterns, names in (
        (["./2/6.tar", "deep/**/3.tar"], {"0/6.tar": third, "1/er/3.tar": second}),
        (["x/0.tar", "x/*.tar*"], {"0/0.tar": first, "1/1.tar.gz": "x/1.tar.gz"}),
        (["{x,2}/[06].tar"], {"0/x/0.tar": first, "0/2/6.tar": third}),
    ):
        shards = find_shards(patterns)
        assert {shard.name: shard.url for shard in shards} == {n: f"{folder}/{p}" for n, p in names.items()}
        assert shards == sorted(shards)
        assert [shard.name for shard in find_shards(patterns, 7)] == [
            f"{7 + int(shard.name[0])}{shard.name[1:]}" for shard in shards
        ]


def test_shards_that_differ_only_in_credentials_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    urls = ["https://h/get.tar?file=1", "https://h/get.tar?file=2"]
    monkeypatch.setattr("sclip.data.patterns.expand", lambda _: urls)
    with pytest.raises(
        ShardError, match=r"^https://h/get.tar\?file=.*: several shards have the name 0/get.tar, because"
    ):
        find_shards(["https://h/get.tar?file={1..2}"])
