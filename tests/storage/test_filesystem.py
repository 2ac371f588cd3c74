"""All storages are read in one way: shards are found by path or URI, and read in blocks."""

import json
import os
import re
import subprocess
import sys

import pytest

from sclip.data.counts import count_samples
from sclip.data.patterns import expand
from sclip.data.shards import ShardError, read_shard
from support.object_store import ObjectStore
from support.paths import ROOT
from support.storage_server import BLOCK, CONTENT, WHOLE, Storage, keys, serving, url_of


@pytest.fixture(scope="module")
def moto(object_server: ObjectStore) -> str:
    """The address of an S3 server whose bucket holds three shards and their index."""
    index = {"shards": [{"name": "000.tar", "samples": 11}]}
    files = {f"shards/{number:03d}.tar": CONTENT for number in range(3)} | {"[2014]/a.tar": CONTENT}
    files |= {"shards/index.json": json.dumps(index).encode(), "shards/001_stats.json": b'{"successes": 7}'}
    for name, content in files.items():
        fs, path = object_server.path(name).arrow()
        with fs.open_output_stream(path) as file:
            file.write(content)
    return f"http://127.0.0.1:{object_server.port}"


@pytest.mark.parametrize("kind", ["http", "s3", "gs"])
def test_a_shard_is_found_and_read_in_the_same_way_in_every_storage(server: Storage, kind: str) -> None:
    url = url_of(kind, server)
    assert expand([url]) == [url]
    if kind != "s3":  # this server does not list S3 objects
        assert expand([url_of(kind, server, "00*.tar")]) == [url]
    assert keys(url) == WHOLE
    assert count_samples([url]).samples == {url: 40}


def test_s3_takes_credentials_and_endpoint_from_the_environment(
    moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    shards = [f"s3://bucket/shards/{number:03d}.tar" for number in range(3)]
    for pattern in ("*.tar", "00?.tar", "{000..002}.tar", "00[0-2].tar"):
        assert expand([f"s3://bucket/shards/{pattern}"]) == shards
    assert expand(["s3://bucket/sh*/001.tar"]) == shards[1:2]
    for pattern in ("shards", "shards/", "shards/*", "shards//*.tar"):  # index and statistics are left out
        assert expand([f"s3://bucket/{pattern}"]) == shards
    assert expand(["s3://bucket/[2014]/*.tar"]) == ["s3://bucket/[2014]/a.tar"]
    with pytest.raises(ShardError, match=re.escape("name tars in its subfolders as s3://bucket/**/*.tar")):
        expand(["s3://bucket/"])
    assert expand(["s3://bucket/shards/**/0*.tar"]) == shards
    assert keys(shards[0]) == WHOLE
    counts = count_samples(shards)  # index and stats are wrong, so every shard is counted
    assert [record.samples for record in counts.records.values()] == [11, 7]
    assert list(counts.samples.values()) == [40, 40, 40]


def test_s3_takes_credentials_and_endpoint_from_the_uri_too(
    moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    query = f"?endpoint_override={moto}&region=eu-north-1"
    urls = expand([f"s3://key:se%2Fcret@bucket/shards/{{000..001}}.tar{query}"])
    assert urls == [f"s3://key:se%2Fcret@bucket/shards/{number:03d}.tar{query}" for number in range(2)]
    assert keys(urls[0]) == WHOLE
    assert [record.samples for record in count_samples(urls).records.values()] == [11, 7]


def test_a_missing_bucket_or_key_and_an_unknown_option_are_reported_in_one_line(
    moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    with pytest.raises(ShardError, match=r"s3://nowhere/\*\.tar: .*'nowhere'.*bucket does not exist"):
        expand(["s3://nowhere/*.tar"])
    with pytest.raises(
        ShardError, match="unknown option regoin; the options are anonymous, endpoint_override"
    ):
        expand(["s3://bucket/a.tar?regoin=eu-north-1"])
    for url in ("s3://nowhere/a.tar", "s3://bucket/shards/a.tar"):
        with pytest.raises(ShardError) as caught:
            expand([url])
        assert str(caught.value) == f"{url}: no such shard; name existing tars, for example DIR/*.tar"
        with pytest.raises(ShardError) as caught:
            list(read_shard(url))
        assert str(caught.value) == f"{url}: no such file; check the address and the credentials"


@pytest.mark.parametrize("kind", ["http", "s3"])
def test_a_shard_is_requested_block_by_block(server: Storage, kind: str) -> None:
    assert keys(url_of(kind, server)) == WHOLE
    ranges = [request.split("bytes=")[1].split("-") for request in server.requests if "bytes=" in request]
    sizes = [int(last) - int(first) + 1 for first, last in ranges]
    assert len(sizes) > 2
    assert max(sizes) <= BLOCK + 10 * 1024  # plus read-ahead, and the size of tarfile's reads
    assert sum(sizes) == len(CONTENT)


def test_with_credentials_the_metadata_service_of_the_machine_is_not_queried(server: Storage) -> None:
    """Otherwise the S3 client would ask EC2's metadata service, which takes seconds outside EC2."""
    url = url_of("s3", server)
    program = f"from sclip.storage.filesystem import open_stream; open_stream({url!r}).read(1)"
    with serving(Storage({})) as metadata:
        variables = os.environ | {"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://{metadata.host}"}
        del variables["AWS_EC2_METADATA_DISABLED"]
        subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=variables, check=True)
    assert server.requests[-1].startswith("GET /bucket/train/000.tar")
    assert metadata.requests == []
