"""Where bytes lie: a path or URI in, its file system or its bytes, read forward, out.

s3:// and gs:// go through pyarrow, which has both in its wheel and tries again by itself; everything else goes
through fsspec. Credentials, region and endpoint are the environment's, as for every other tool; a URI can name them
too, as pyarrow's do: `s3://KEY:SECRET@BUCKET/..?endpoint_override=http://HOST:PORT&region=..`, `gs://anonymous@..`.

Nothing is held whole: S3 and HTTP servers that take ranges are asked for a block at a time, which no consumer is too
slow for; GCS, where the client takes a lost stream up again, and other servers send one stream. What fails, fails with
whatever the library has for it.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import tempfile
from contextlib import closing
from typing import Any, NamedTuple, Protocol, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import fsspec
import pyarrow.fs
from fsspec.implementations.arrow import ArrowFSWrapper

BLOCK_BYTES = 8 * 2**20
"""What one request brings: its wait is short beside its transfer, and many readers still fit into memory."""

_QUERY = re.compile(r"\?[\w.-]+=")
_ENVIRONMENT = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL",
)  # fmt: skip
_S3_OPTIONS = {"anonymous", "endpoint_override", "region", "scheme"}
_GCS_RETRY_S = 30
"""Seconds in which Google's client tries again; by default it does for a quarter of an hour."""
_HTTP_WAIT_S = 60
"""Seconds that a byte may take which is waited for; a whole stream takes as long as its consumer."""


class Readable(Protocol):
    """Bytes that are read forward."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, all where it is negative; none at the end."""

    def close(self) -> None:
        """Close what is below."""


def parts(uri: str) -> tuple[str, str]:
    """Return a path or URI without its query, and the query with its `?`, which alone is a glob's."""
    found = _QUERY.search(uri) if "://" in uri else None
    return (uri[: found.start()], uri[found.start() :]) if found else (uri, "")


def sibling(uri: str, name: str) -> str:
    """Return the path or URI of a file in the same folder; the query stays, which may be what opens the folder."""
    location, query = parts(uri)
    return f"{location[: location.rfind('/') + 1]}{name}{query}"


def filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the fsspec file system of a path or URI, and the path in it.

    Raises ValueError or ImportError where nothing opens such a URI, OSError where AWS does not tell a bucket's region.
    """
    scheme = uri.partition("://")[0]
    if scheme in ("s3", "gs", "gcs"):
        location, query = parts(uri)
        place, _, key = location.partition("://")[2].partition("/")
        made = _s3(s3_place(uri)) if scheme == "s3" else _gcs(f"{scheme}://{place}{query}")
        return made, f"{place.rpartition('@')[2]}/{key}"
    if scheme in ("http", "https"):
        return _http(), uri
    fs, path = fsspec.core.url_to_fs(uri)
    return fs, path


def open_stream(uri: str, block_bytes: int = 0) -> Readable:
    """Open a path or URI for reading forward, `block_bytes` a request; raises what its library raises."""
    fs, path = filesystem(uri)
    if isinstance(fs, ArrowFSWrapper):  # without a buffer every read, of a tar 10 KiB, would be a request
        return cast(
            Readable, fs.fs.open_input_stream(path, compression=None, buffer_size=block_bytes or BLOCK_BYTES)
        )
    if fs is _http():
        return _http_stream(path)
    stream = fs.open(path, "rb")
    if "::" in uri:  # an archive's file system closes the archive with the last reference to it
        stream.filesystem = fs
    return cast(Readable, stream)


def open_seekable(uri: str) -> Any:
    """Open a path or URI for reading at any place; raises what its library raises.

    What an HTTP server without ranges gives is copied to this node's disk, until the file is closed.
    """
    fs, path = filesystem(uri)
    if isinstance(fs, ArrowFSWrapper):
        return fs.fs.open_input_file(path)
    if fs is not _http():
        return open_stream(uri)
    stream, size = _http_answer(path)
    with closing(stream):
        if size:
            return fs.open(path, "rb", block_size=BLOCK_BYTES, cache_type="none", size=size)
        copy = tempfile.TemporaryFile()  # noqa: SIM115  # whoever opens the file closes it
        shutil.copyfileobj(stream, copy, BLOCK_BYTES)
        return copy


class S3Place(NamedTuple):
    """What a client must know of a bucket of S3."""

    bucket: str
    region: str
    endpoint: str
    """URL or HOST:PORT; empty for AWS."""
    scheme: str
    """Of an endpoint that is HOST:PORT."""
    keys: tuple[str, str, str]
    """Key, secret and session token; empty where the client has to look for them itself."""
    anonymous: bool


def s3_place(uri: str) -> S3Place:
    """Return what the URI and the environment say of the bucket of `s3://[KEY:SECRET@]BUCKET/..[?OPTIONS]`.

    Raises ValueError for an unknown option, OSError where AWS does not tell the bucket's region.
    """
    location, query = parts(uri)
    place = location.partition("://")[2].partition("/")[0]
    # the environment as it is now, so that a change of it is another file system
    return _s3_place(f"s3://{place}{query}", tuple((name, os.environ.get(name, "")) for name in _ENVIRONMENT))


@functools.lru_cache(maxsize=64)
def _s3_place(root: str, environment: tuple[tuple[str, str], ...]) -> S3Place:
    known, url = dict(environment), urlsplit(root)
    options = dict(parse_qsl(url.query))
    if unknown := options.keys() - _S3_OPTIONS:
        raise ValueError(f"unknown option {min(unknown)}; there are {', '.join(sorted(_S3_OPTIONS))}")
    bucket = url.netloc.rpartition("@")[2]
    anonymous = options.get("anonymous", "").lower() in ("1", "true")
    if url.username:
        keys = (unquote(url.username), unquote(url.password or ""), "")
    else:
        keys = (known["AWS_ACCESS_KEY_ID"], known["AWS_SECRET_ACCESS_KEY"], known["AWS_SESSION_TOKEN"])
    endpoint = options.get("endpoint_override") or known["AWS_ENDPOINT_URL_S3"] or known["AWS_ENDPOINT_URL"]
    region = options.get("region") or known["AWS_REGION"] or known["AWS_DEFAULT_REGION"]
    if not region:  # an endpoint of one's own has none, or answers to this one
        region = "us-east-1" if endpoint else pyarrow.fs.resolve_s3_region(bucket)
    return S3Place(bucket, region, endpoint, options.get("scheme", "https"), keys, anonymous)


@functools.lru_cache(maxsize=64)
def _s3(place: S3Place) -> ArrowFSWrapper:
    settings: dict[str, Any] = {"anonymous": True} if place.anonymous else {}
    if place.keys[0] and not place.anonymous:
        # Given here and not left to the client: that would ask EC2's metadata service first, seconds elsewhere.
        key, secret, token = place.keys
        settings = {"access_key": key, "secret_key": secret, "session_token": token or None}
    made = pyarrow.fs.S3FileSystem(
        region=place.region, endpoint_override=place.endpoint or None, scheme=place.scheme, **settings
    )
    return ArrowFSWrapper(made, skip_instance_cache=True)


@functools.lru_cache(maxsize=64)
def _gcs(root: str) -> ArrowFSWrapper:
    limit = (
        ""
        if "retry_limit_seconds=" in root
        else f"{'&' if '?' in root else '?'}retry_limit_seconds={_GCS_RETRY_S}"
    )
    made, _ = pyarrow.fs.FileSystem.from_uri(root + limit)
    return ArrowFSWrapper(made, skip_instance_cache=True)


@functools.cache
def _http() -> fsspec.AbstractFileSystem:
    import aiohttp  # here: most shards are read without it

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_HTTP_WAIT_S, sock_read=_HTTP_WAIT_S)
    return fsspec.filesystem(
        "http", client_kwargs={"timeout": timeout, "trust_env": True}, headers={"Accept-Encoding": "identity"}
    )


def _http_stream(url: str) -> Readable:
    """Return blocks of the file where the server says that it takes ranges, else the answer as it comes."""
    stream, size = _http_answer(url)
    if size <= BLOCK_BYTES:
        return cast(Readable, stream)
    stream.close()
    blocks = _http().open(url, "rb", block_size=BLOCK_BYTES, cache_type="readahead", size=size)
    return cast(Readable, blocks)


def _http_answer(url: str) -> tuple[Any, int]:
    """Return the answer to a GET as a stream, and the bytes of the file; 0 where the server takes no ranges.

    Decided by the answer itself, not by fsspec, which asks with HEAD: many signed URLs allow only GET, and it takes
    every refusal for a missing file.
    """
    stream = _http().open(url, "rb", block_size=0, size=1)  # with a size it does not ask
    headers = stream.r.headers
    takes_ranges = headers.get("Accept-Ranges") == "bytes" and "Content-Encoding" not in headers
    return stream, int(headers.get("Content-Length", 0)) if takes_ranges else 0
